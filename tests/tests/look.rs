//! Looking at a director that works: captures, explanations, metrics, with the tools that others read them with. Needs root: fails
//! without.
#![allow(clippy::unwrap_used, reason = "helpers panic as their tests do")]

use cli::lab::{Family, Method, Namespace};
use e2e::client::{self, Connections};
use e2e::{Configuration, HTTP_PORT, Scene, client_executable};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

fn scene(more: &str) -> Scene {
    let mut configuration = Configuration::new(Method::Nat, Family::V4, 2);
    configuration.more = more.to_owned();
    Scene::new(configuration, 2)
}

fn uvs(scene: &Scene, arguments: &[&str]) -> Command {
    let mut command = Command::new(client_executable());
    command.args(arguments).arg("--socket");
    command.arg(scene.uvsd.socket());
    command
}

fn text(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{}: {error}\n{text}",
        output.status
    );
    text
}

/// Ends within some seconds, or the test fails.
fn wait(mut child: Child) -> Output {
    let until = Instant::now() + Duration::from_secs(20);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > until {
            child.kill().unwrap();
            panic!("it does not end");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.wait_with_output().unwrap()
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().try_into().unwrap())
}

/// Waits until a capture's file begins.
fn begun(file: &Path) {
    let until = Instant::now() + Duration::from_secs(10);
    while std::fs::metadata(file).map_or(0, |file| file.len()) == 0 {
        assert!(Instant::now() < until, "no capture begins");
        std::thread::sleep(Duration::from_millis(10));
    }
    // The workers heed it with their next round, 10 ms later at most.
    std::thread::sleep(Duration::from_millis(50));
}

fn tcpdump(arguments: &[&str]) -> String {
    let output = Command::new("tcpdump").args(arguments).output();
    text(&output.expect("tcpdump is installed"))
}

#[test]
fn a_capture_under_load_loses_no_packet_and_tcpdump_reads_it() {
    let scene = scene("");
    let file = scene.folder().join("all.pcapng");
    let name = file.to_str().unwrap();
    let mut capture = uvs(
        &scene,
        &[
            "capture", "--write", name, "--filter", "tcp", "port", "1080",
        ],
    );
    let capture = capture.stderr(Stdio::piped()).spawn().unwrap();
    begun(&file);
    let load = client::wrk(scene.client(), &scene.url("name"), Connections::Close, 3000);
    load.assert_flawless(3000);
    kill(pid(&capture), Signal::SIGINT).unwrap();
    let ended = wait(capture);
    text(&ended);
    let told = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(
        told.contains("packets, ") && told.contains("missed"),
        "{told}"
    );
    assert_eq!(scene.uvsd.status().missed(), 0);
    // A packet as it came and as it left: two lines, one with the virtual address, one with a server's.
    let lines = tcpdump(&["-n", "-r", name]);
    assert!(lines.lines().count() > 1000, "{}", lines.lines().count());
    let to = format!("{}.{HTTP_PORT}", scene.virtual_address(HTTP_PORT).ip());
    assert!(lines.contains(&to), "{to}");
}

#[test]
fn a_capture_into_a_pipe_is_read_as_it_comes() {
    let scene = scene("");
    let names = scene.uvsd.status().0.ports;
    let words = ["--filter", "tcp", "port", "1080", "on", &names[0].name];
    let mut capture = uvs(&scene, &["capture", "-w", "-", "-c", "6", "--for", "20s"]);
    let capture = capture.args(words).stdout(Stdio::piped());
    let mut capture = capture.stderr(Stdio::null()).spawn().unwrap();
    let reader = Command::new("tcpdump")
        .args(["-n", "-r", "-"])
        .stdin(capture.stdout.take().unwrap())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(300));
    drop(client::ask(
        scene.client(),
        scene.virtual_address(HTTP_PORT),
        "name",
        4,
    ));
    let lines = text(&wait(reader));
    assert_eq!(lines.lines().count(), 6, "{lines}");
    assert!(wait(capture).status.success());
}

#[test]
fn lines_say_what_became_of_packets() {
    let scene = scene("");
    let capture = uvs(&scene, &["capture", "--for", "2s", "--filter", "tcp"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(300));
    drop(client::ask(
        scene.client(),
        scene.virtual_address(HTTP_PORT),
        "name",
        2,
    ));
    let lines = text(&wait(capture));
    let virtual_server = scene.virtual_address(HTTP_PORT).to_string();
    for wanted in [
        " in  TCP ",
        " out TCP ",
        "[S]",
        " by nat",
        "to client ",
        &virtual_server,
    ] {
        assert!(lines.contains(wanted), "{wanted}:\n{lines}");
    }
}

#[test]
fn an_explanation_names_the_server_that_a_connection_has() {
    let scene = scene("");
    let to = scene.virtual_address(HTTP_PORT).to_string();
    let asked = ["explain", "tcp", "10.99.99.9:40000", &to];
    let steps = text(&uvs(&scene, &asked).output().unwrap());
    assert!(
        steps.contains("rr takes servers in turn, each worker by itself: one of "),
        "{steps}"
    );
    assert!(
        steps.ends_with("=> forwarded, to one of several servers (see above)\n"),
        "{steps}"
    );
    let json = text(
        &uvs(&scene, &[&asked[..], &["--json"]].concat())
            .output()
            .unwrap(),
    );
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["verdict"], "forwarded");
    assert_eq!(json["service"], format!("tcp {to}"));
    let wrong = uvs(&scene, &[&asked[..], &["--port", "nowhere"]].concat())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(
        !wrong.status.success() && told.contains("\"nowhere\" is not the name of a port"),
        "{told}"
    );
}

fn promtool(arguments: &[&str]) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/prometheus");
    let mut promtool = Command::new("promtool");
    let output = promtool.args(arguments).current_dir(root).output();
    text(&output.expect("prometheus is installed"))
}

fn scrape(namespace: &Namespace, file: &PathBuf) -> String {
    let mut curl = namespace.command("curl");
    curl.args([
        "--silent",
        "--show-error",
        "--fail",
        "--max-time",
        "5",
        "-o",
    ]);
    curl.arg(file).arg("http://127.0.0.1:9107/metrics");
    text(&curl.output().unwrap());
    std::fs::read_to_string(file).unwrap()
}

#[test]
fn prometheus_accepts_the_metrics_and_the_rules() {
    let scene = scene("[metrics]\n");
    drop(client::ask(
        scene.client(),
        scene.virtual_address(HTTP_PORT),
        "name",
        10,
    ));
    let file = scene.folder().join("metrics");
    let page = scrape(&scene.topology.director, &file);
    let service = format!(
        "uvs_service_connections_total{{service=\"tcp {}\"}} 10",
        scene.virtual_address(HTTP_PORT)
    );
    assert!(page.contains(&service), "{service}\n{page}");
    assert!(
        page.contains("uvs_neighbour_up{") && page.contains("uvs_port_statistic{"),
        "{page}"
    );
    let input = std::fs::File::open(&file).unwrap();
    let mut checker = Command::new("promtool");
    let checked = checker.args(["check", "metrics"]).stdin(input).output();
    let checked = checked.expect("prometheus is installed");
    let told = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(text(&checked).is_empty() && told.is_empty(), "{told}");
    assert!(promtool(&["check", "rules", "uvs-alerts.yaml"]).contains("SUCCESS"));
    assert!(promtool(&["test", "rules", "uvs-alerts-test.yaml"]).contains("SUCCESS"));
    assert!(promtool(&["check", "config", "prometheus.yaml"]).contains("SUCCESS"));
}
