//! uvsd's start and end, and what is left of it. Needs root: fails without.
#![allow(clippy::unwrap_used, reason = "helpers panic as their tests do")]

use cli::lab::{Family, Method};
use e2e::client;
use e2e::{Configuration, HTTP_PORT, Scene, Uvsd};
use nix::sys::signal::Signal;
use std::fs;

fn scene() -> Scene {
    Scene::new(Configuration::new(Method::Nat, Family::V4, 2), 2)
}

fn serves(scene: &Scene) -> bool {
    let answer = client::try_ask(scene.client(), scene.virtual_address(HTTP_PORT), "name", 4);
    answer.status.success()
}

/// Interfaces, addresses and packet sockets of the namespace that uvsd runs in.
fn network(scene: &Scene) -> [String; 3] {
    scene.topology.director.run(|| {
        let read =
            |table: &str| fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap();
        let names = read("dev");
        let names = names
            .lines()
            .skip(2)
            .map(|line| line.split(':').next().unwrap().trim());
        let mut names: Vec<_> = names.collect();
        names.sort_unstable();
        let sockets = read("packet").lines().skip(1).count();
        [
            names.join(" "),
            read("if_inet6"),
            format!("{sockets} packet sockets"),
        ]
    })
}

#[test]
fn sigterm_leaves_nothing_behind() {
    ends_without_a_trace(Signal::SIGTERM);
}

#[test]
fn an_interrupt_leaves_nothing_behind() {
    ends_without_a_trace(Signal::SIGINT);
}

/// After the end the same can be started again.
fn ends_without_a_trace(signal: Signal) {
    let mut scene = scene();
    assert!(serves(&scene));
    let running = network(&scene);
    let sockets = scene.configuration.packet_sockets();
    assert_eq!(running[2], format!("{sockets} packet sockets"));
    let status = scene.uvsd.stop(signal);
    assert_eq!(status.code(), Some(0), "{status}\n{}", scene.uvsd.log());
    let stopped = network(&scene);
    assert_eq!((&stopped[0], &stopped[1]), (&running[0], &running[1]));
    assert_eq!(stopped[0], "eth0 eth1 lo");
    assert_eq!(stopped[2], "0 packet sockets");
    assert!(!scene.uvsd.socket().exists());
    assert!(!serves(&scene), "somebody else forwards");
    scene.restart();
    assert!(serves(&scene));
}

#[test]
fn after_a_kill_another_takes_over() {
    let mut scene = scene();
    assert!(serves(&scene));
    scene.uvsd.stop(Signal::SIGKILL);
    assert!(scene.uvsd.socket().exists(), "nobody could remove it");
    assert_eq!(network(&scene)[2], "0 packet sockets");
    scene.restart();
    assert!(serves(&scene));
    assert_eq!(scene.uvsd.stop(Signal::SIGTERM).code(), Some(0));
    assert!(!scene.uvsd.socket().exists());
}

#[test]
fn a_second_one_on_the_same_socket_is_refused_and_disturbs_nobody() {
    let scene = scene();
    let folder = tempfile::tempdir().unwrap();
    let text = scene.configuration.text(&scene.uvsd.socket());
    let mut second = Uvsd::launch(&scene.topology.director, folder.path(), &text);
    assert_eq!(second.wait().code(), Some(1));
    let line = second.wait_for_line("another uvsd listens there");
    assert!(line.contains("ERROR"), "{line}");
    assert!(scene.uvsd.socket().exists());
    assert!(
        scene
            .uvsd
            .status()
            .0
            .workers
            .iter()
            .all(|worker| worker.running)
    );
    assert!(serves(&scene));
}

#[test]
fn a_missing_interface_is_named() {
    let mut scene = scene();
    // By AF_XDP nobody else could have the other one meanwhile.
    scene.uvsd.stop(Signal::SIGTERM);
    let folder = tempfile::tempdir().unwrap();
    let text = scene
        .configuration
        .text(&folder.path().join("uvs.sock"))
        .replace("\"eth1\"", "\"eth7\"");
    let mut uvsd = Uvsd::launch(&scene.topology.director, folder.path(), &text);
    assert_eq!(uvsd.wait().code(), Some(1));
    let line = uvsd.wait_for_line("\"eth7\" does not exist");
    assert!(line.contains("ERROR"), "{line}");
    assert!(!folder.path().join("uvs.sock").exists());
}
