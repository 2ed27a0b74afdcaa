//! Configurations that change while people use the service. Needs root: fails without.
#![allow(clippy::unwrap_used, reason = "helpers panic as their tests do")]

use cli::lab::{Family, Method};
use e2e::client::{self, Download, Wrk};
use e2e::{Configuration, HTTP_PORT, Scene, Server, eventually};
use std::collections::BTreeSet;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn servers_of_nat_come_drain_and_go_under_load() {
    servers_come_drain_and_go(Method::Nat, Family::V4);
}

#[test]
fn servers_of_dr_come_drain_and_go_under_load() {
    servers_come_drain_and_go(Method::Dr, Family::V6);
}

#[test]
fn servers_of_tun_come_drain_and_go_under_load() {
    servers_come_drain_and_go(Method::Tun, Family::V4);
}

#[test]
fn servers_of_fullnat_come_drain_and_go_under_load() {
    servers_come_drain_and_go(Method::FullNat, Family::V6);
}

/// All the while wrk asks on new connections: none of its requests may fail.
///
/// It asks slowly, and closed connections are soon forgotten: with DR and TUN a client that uses a port again while its
/// last connection is remembered stays with that one's server, as with IPVS, even if the server is drained or gone.
fn servers_come_drain_and_go(method: Method, family: Family) {
    let mut configuration = Configuration {
        tcp_fin: 3,
        ..Configuration::new(method, family, 2)
    };
    let scene = Scene::new(configuration.clone(), 3);
    let downloads = start_downloads(&scene);
    let wrk = Wrk::start_slowly(scene.client(), &scene.url("name"));
    assert_eq!(who_answers(&scene), ["server1", "server2"]);

    configuration.servers.push(Server {
        index: 2,
        weight: 1,
    });
    scene.uvsd.reload(&configuration);
    assert_eq!(who_answers(&scene), ["server1", "server2", "server3"]);

    let active = scene.uvsd.servers(HTTP_PORT)[0].active;
    assert!(active > 0, "a server without connections is drained");
    configuration.servers[0].weight = 0;
    scene.uvsd.reload(&configuration);
    assert_eq!(who_answers(&scene), ["server2", "server3"]);
    finish_downloads(downloads);
    let drained = eventually(PATIENCE, || {
        (scene.uvsd.servers(HTTP_PORT)[0].active == 0).then_some(())
    });
    assert!(drained.is_some(), "{:?}", scene.uvsd.servers(HTTP_PORT));

    let downloads = start_downloads(&scene);
    configuration.servers.remove(0);
    scene.uvsd.reload(&configuration);
    assert_eq!(scene.uvsd.servers(HTTP_PORT).len(), 2);
    assert_eq!(who_answers(&scene), ["server2", "server3"]);
    finish_downloads(downloads);

    let load = wrk.stop();
    println!(
        "{method} {family}: {} requests meanwhile; dropped: {:?}",
        load.good,
        scene.uvsd.status().drops()
    );
    load.assert_flawless(1000);
    assert_eq!(load.bodies.len(), 3, "{load:?}");
    // wrk does not count connections that are never made.
    let status = scene.uvsd.status();
    let mut drops = status.drops();
    drops.retain(|(reason, _)| !configuration.tolerated_drops().contains(reason));
    assert_eq!(drops, []);
}

/// Downloads of some ten seconds each, spread over the servers, all of them under way.
fn start_downloads(scene: &Scene) -> Vec<Download> {
    let sum = || {
        let servers = scene.uvsd.servers(HTTP_PORT);
        servers.iter().map(|server| server.connections).sum::<u64>()
    };
    let before = sum();
    let url = scene.url("slow/large");
    let start = || Download::start(scene.client(), &url);
    let downloads: Vec<_> = (0..4).map(|_| start()).collect();
    let connected = eventually(PATIENCE, || (sum() >= before + 4).then_some(()));
    assert!(connected.is_some());
    downloads
}

/// They must have lasted until now, and be whole.
fn finish_downloads(mut downloads: Vec<Download>) {
    for download in &mut downloads {
        assert!(!download.ended(), "a download ended before the change");
    }
    for download in downloads {
        let _ = download.finish();
    }
}

/// The servers that answer new connections.
fn who_answers(scene: &Scene) -> Vec<String> {
    let answers = client::ask(scene.client(), scene.virtual_address(HTTP_PORT), "name", 40);
    let name = |answer: &String| answer.split(' ').next().unwrap().to_owned();
    let names: BTreeSet<_> = answers.iter().map(name).collect();
    names.into_iter().collect()
}

#[test]
fn a_configuration_that_cannot_be_used_changes_nothing() {
    let mut configuration = Configuration::new(Method::Nat, Family::V4, 2);
    let scene = Scene::new(configuration.clone(), 3);
    let before = scene.uvsd.status().0.configuration_version;
    let text = configuration.text(&scene.uvsd.socket());
    scene.uvsd.hang_up(
        &text
            .replace("scheduler = \"rr\"", "scheduler = \"round\"")
            .replacen("weight = 1", "weight = 70000", 1),
    );
    scene
        .uvsd
        .wait_for_line("not reloaded: the old configuration goes on");
    for said in ["70000 is not a weight", "\"round\" is not a scheduler"] {
        let line = scene.uvsd.wait_for_line(said);
        assert!(line.contains("ERROR"), "{line}");
    }
    assert_eq!(scene.uvsd.status().0.configuration_version, before);
    assert_eq!(who_answers(&scene), ["server1", "server2"]);
    configuration.servers.remove(0);
    scene.uvsd.reload(&configuration);
    assert_eq!(who_answers(&scene), ["server2"]);
}
