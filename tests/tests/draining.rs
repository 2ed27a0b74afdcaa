//! An operator at work on a director that serves: connections listed and ended, servers drained, rates told. Needs root:
//! fails without.
#![allow(clippy::unwrap_used, reason = "helpers panic as their tests do")]

use cli::lab::{Family, Method};
use e2e::client::{Connections, Download, Wrk};
use e2e::{Configuration, HTTP_PORT, Output, Process, Scene, client_executable, eventually};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);

/// Starts `uvs` with these arguments.
fn uvs(scene: &Scene, arguments: &[&str]) -> Process {
    let uvs = client_executable();
    let mut command = scene.topology.director.command(uvs.to_str().unwrap());
    command
        .args(arguments)
        .arg("--socket")
        .arg(scene.uvsd.socket());
    Process::spawn(command)
}

/// What `uvs` prints.
fn told(scene: &Scene, arguments: &[&str]) -> String {
    uvs(scene, arguments).finish(PATIENCE).success()
}

fn json(scene: &Scene, arguments: &[&str]) -> Value {
    let text = told(scene, &[arguments, &["--json"]].concat());
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// curl with a port of its own, downloading slowly; what comes is thrown away.
fn curl(scene: &Scene, port: u16) -> Process {
    let port = port.to_string();
    let url = scene.url("slow/large");
    let options = [
        "--silent",
        "--show-error",
        "--max-time",
        "40",
        "--output",
        "/dev/null",
    ];
    let arguments = [&options[..], &["--local-port", &port, &url]].concat();
    Process::start(scene.client(), "curl", &arguments)
}

/// Waits until `uvs connections count` says so many.
fn wait_for_count(scene: &Scene, filter: &[&str], count: u32) {
    let arguments = [&["connections", "count"], filter].concat();
    let counted = eventually(PATIENCE, || {
        (told(scene, &arguments).trim() == count.to_string()).then_some(())
    });
    assert!(counted.is_some(), "{}", told(scene, &["connections"]));
}

fn active(scene: &Scene) -> Vec<u32> {
    let servers = scene.uvsd.servers(HTTP_PORT);
    servers.iter().map(|server| server.active).collect()
}

#[test]
fn connections_are_listed_and_ended_rates_told_and_servers_drained() {
    let scene = Scene::new(Configuration::new(Method::Nat, Family::V4, 2), 2);
    a_listed_connection_is_killed(&scene);
    rates_are_told_under_load(&scene);
    a_drain_ends_when_downloads_do(&scene);
    a_drain_resets_at_its_deadline(&scene);
}

fn a_listed_connection_is_killed(scene: &Scene) {
    let vip = scene.virtual_address(HTTP_PORT).to_string();
    let mut curl = curl(scene, 41_000);
    let filter = ["--tcp", "--client", ":41000", "--virtual", &vip];
    wait_for_count(
        scene,
        &[&filter[..], &["--state", "established"]].concat(),
        1,
    );
    let table = told(scene, &[&["connections"], &filter[..]].concat());
    let lines: Vec<_> = table.lines().collect();
    assert_eq!(lines.len(), 2, "{table}");
    assert!(
        lines[1].starts_with("TCP") && lines[1].contains("ESTABLISHED"),
        "{table}"
    );
    assert!(
        lines[1].contains(":41000") && lines[1].contains(&vip),
        "{table}"
    );
    let listed = json(scene, &[&["connections"], &filter[..]].concat());
    let server = listed[0]["server"].as_str().unwrap();
    assert_eq!(
        (&listed[0]["method"], listed.as_array().unwrap().len()),
        (&"nat".into(), 1)
    );
    wait_for_count(scene, &["--server", server, "--client", ":41000"], 1);
    assert_eq!(active(scene).iter().sum::<u32>(), 1);

    let refused = uvs(scene, &["connections", "kill"]).finish(PATIENCE);
    assert!(
        !refused.status.success() && refused.stderr.contains("--all"),
        "{refused:?}"
    );
    let before = scene.uvsd.status().dropped("no-connection");
    assert_eq!(
        told(scene, &[&["connections", "kill"], &filter[..]].concat()).trim(),
        "1"
    );
    wait_for_count(scene, &filter, 0);
    assert_eq!(active(scene).iter().sum::<u32>(), 0, "counted off once");
    assert!(curl.ended().is_none(), "nobody was told");
    // What it says next, as that it goes, finds no connection.
    curl.signal(Signal::SIGTERM);
    let found_none = eventually(PATIENCE, || {
        (scene.uvsd.status().dropped("no-connection") > before).then_some(())
    });
    assert!(found_none.is_some(), "{:?}", scene.uvsd.status().drops());
}

fn rates_are_told_under_load(scene: &Scene) {
    let wrk = Wrk::start(
        scene.client(),
        &scene.url("name"),
        Connections::Close,
        1_000_000,
    );
    let seen = eventually(PATIENCE, || {
        let listed = json(scene, &["list"]);
        let services = listed.as_array().unwrap().iter();
        let service = services
            .into_iter()
            .find(|one| one["port"] == HTTP_PORT)
            .cloned()?;
        let rates = &service["rates"];
        let all = [
            "connections",
            "in_packets",
            "out_packets",
            "in_bytes",
            "out_bytes",
        ];
        let is_busy = all.iter().all(|name| rates[name].as_u64() > Some(0));
        let servers = service["servers"].as_array().unwrap();
        let are_busy = servers
            .iter()
            .all(|one| one["rates"]["connections"].as_u64() > Some(0));
        (is_busy && are_busy).then_some(rates["connections"].as_u64().unwrap())
    });
    assert!(seen.is_some(), "{:#}", json(scene, &["list"]));
    let table = told(scene, &["list", "--rate"]);
    assert!(table.contains("Conns/s"), "{table}");
    println!("{} connections a second, as told under load", seen.unwrap());
    let load = wrk.stop();
    load.assert_flawless(100);
    assert!(json(scene, &["status"])["workers"][1]["running"] == true);
    told(scene, &["connections", "kill", "--all"]);
    wait_for_count(scene, &[], 0);
}

fn a_drain_ends_when_downloads_do(scene: &Scene) {
    let vip = scene.virtual_address(HTTP_PORT).to_string();
    let server = scene.configuration.real_address(0, HTTP_PORT).to_string();
    let url = scene.url("slow/large");
    let downloads = [(); 2].map(|()| Download::start(scene.client(), &url));
    wait_for_count(scene, &["--state", "ESTABLISHED"], 2);
    assert_eq!(active(scene), [1, 1]);
    let mut drain = uvs(scene, &["drain", &vip, &server]);
    let weighs_nothing = eventually(PATIENCE, || {
        (scene.uvsd.servers(HTTP_PORT)[0].weight == 0).then_some(())
    });
    assert!(weighs_nothing.is_some());
    assert_eq!(active(scene), [1, 1], "it goes on");
    assert!(drain.ended().is_none());
    for download in downloads {
        println!("{:.0} MB/s while its server was drained", download.finish());
    }
    wait_for_count(scene, &["--server", &server, "--state", "ESTABLISHED"], 0);
    assert!(
        drain.ended().is_none(),
        "closed connections are remembered for a while"
    );
    told(scene, &["connections", "kill", "--server", &server]);
    let drained = drain.finish(PATIENCE).success();
    assert!(
        drained.contains("drained") && drained.contains("0 active, 0 inactive left"),
        "{drained}"
    );
}

fn a_drain_resets_at_its_deadline(scene: &Scene) {
    let vip = scene.virtual_address(HTTP_PORT).to_string();
    let server = scene.configuration.real_address(1, HTTP_PORT).to_string();
    let curl = curl(scene, 42_000);
    wait_for_count(
        scene,
        &[
            "--server",
            &server,
            "--client",
            ":42000",
            "--state",
            "ESTABLISHED",
        ],
        1,
    );
    let arguments = [
        "drain",
        &vip,
        &server,
        "--deadline",
        "1s",
        "--then",
        "reset",
        "--json",
    ];
    let drained = told(scene, &arguments);
    let lines = drained.lines().map(serde_json::from_str);
    let lines: Vec<Value> = lines.collect::<Result<_, _>>().unwrap();
    let (first, last) = (lines.first().unwrap(), lines.last().unwrap());
    assert_eq!(
        (&first["active"], &first["done"]),
        (&1.into(), &false.into())
    );
    // With it end connections that are over and still remembered.
    let left = first["inactive"].as_u64().unwrap() + 1;
    assert!(
        last["done"] == true && (1..=left).contains(&last["ended"].as_u64().unwrap()),
        "{drained}"
    );
    let Output { status, stderr, .. } = curl.finish(Duration::from_secs(10));
    assert_eq!(status.code(), Some(56), "{stderr}");
    assert!(stderr.contains("reset"), "{stderr}");
    // The server was told as well.
    let is_closed = eventually(PATIENCE, || {
        let namespace = &scene.topology.servers[1].namespace;
        let arguments = ["-Htn", "state", "established"];
        let listed = Process::start(namespace, "ss", &arguments)
            .finish(PATIENCE)
            .success();
        (!listed.contains(":42000")).then_some(())
    });
    assert!(is_closed.is_some(), "the server still waits for its client");
}
