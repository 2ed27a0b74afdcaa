//! Interfaces that go down, change and vanish while people use the service. Needs root: fails without.
#![allow(clippy::unwrap_used, reason = "helpers panic as their tests do")]

use cli::lab::{Family, Method};
use e2e::client::{self, Connections, Download, Wrk};
use e2e::{Configuration, HTTP_PORT, Scene, eventually};
use proto::v1::{Link, Port};
use std::thread;
use std::time::{Duration, Instant};

/// How long it may take until what happened is seen and over.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a link is away.
const AWAY: Duration = Duration::from_secs(1);

fn scene(method: Method, family: Family) -> Scene {
    Scene::new(Configuration::new(method, family, 2), 2)
}

/// A port as `uvs status` tells it.
fn port(scene: &Scene, name: &str) -> Port {
    let ports = scene.uvsd.status().0.ports;
    ports.into_iter().find(|port| port.name == name).unwrap()
}

fn statistic(port: &Port, name: &str) -> u64 {
    let mut statistics = port.statistics.iter();
    let found = statistics.find(|statistic| statistic.name == name);
    found.unwrap_or_else(|| panic!("{name}: {port:?}")).value
}

/// Waits until the port towards the servers is as it should be.
fn wait_for(scene: &Scene, what: &str, is_so: impl Fn(&Port) -> bool) -> Duration {
    let since = Instant::now();
    let seen = eventually(PATIENCE, || is_so(&port(scene, "lan")).then_some(()));
    assert!(seen.is_some(), "{what}: {:?}", port(scene, "lan"));
    since.elapsed()
}

fn has_link(link: Link) -> impl Fn(&Port) -> bool {
    move |port| port.link() == link
}

/// How long it takes until a new connection is served.
fn wait_for_service(scene: &Scene) -> Duration {
    let since = Instant::now();
    let served = eventually(PATIENCE, || {
        let answer = client::try_ask(scene.client(), scene.virtual_address(HTTP_PORT), "name", 1);
        answer.status.success().then_some(())
    });
    assert!(served.is_some(), "no service: {:?}", port(scene, "lan"));
    since.elapsed()
}

fn all_run(scene: &Scene) -> bool {
    let workers = scene.uvsd.status().0.workers;
    workers.iter().all(|worker| worker.running)
}

/// How often the log says something.
fn said(scene: &Scene, text: &str) -> usize {
    scene.uvsd.log().matches(text).count()
}

/// Downloads of some ten seconds and requests on kept connections, begun before and whole afterwards.
struct Use {
    downloads: Vec<Download>,
    wrk: Wrk,
}

impl Use {
    fn begin(scene: &Scene) -> Use {
        let url = scene.url("slow/large");
        let begun = Use {
            downloads: (0..4)
                .map(|_| Download::start(scene.client(), &url))
                .collect(),
            wrk: Wrk::start(
                scene.client(),
                &scene.url("name"),
                Connections::KeepAlive,
                u64::from(u32::MAX),
            ),
        };
        let flows = eventually(PATIENCE, || {
            (scene.uvsd.status().connections() >= 36).then_some(())
        });
        assert!(flows.is_some(), "36 connections were to be made");
        thread::sleep(Duration::from_millis(500));
        begun
    }

    fn end(mut self) {
        for download in &mut self.downloads {
            assert!(!download.ended(), "a download ended before the link did");
        }
        for download in self.downloads {
            let _ = download.finish();
        }
        let load = self.wrk.stop();
        println!("meanwhile {} requests: {:?}", load.good, load.errors);
        load.assert_flawless(1000);
    }
}

#[test]
fn connections_go_on_after_a_link_was_down() {
    let scene = scene(Method::Nat, Family::V4);
    let begun = Use::begin(&scene);
    assert_eq!(port(&scene, "lan").link(), Link::Up);
    for round in 1..=2 {
        scene.topology.director.set_up("eth1", false).unwrap();
        let down = wait_for(&scene, "down", has_link(Link::Down));
        thread::sleep(AWAY);
        scene.topology.director.set_up("eth1", true).unwrap();
        let up = wait_for(&scene, "up", has_link(Link::Up));
        println!(
            "down seen after {down:?}, up after {up:?}, served {:?} later",
            wait_for_service(&scene)
        );
        assert_eq!(said(&scene, "port lan: the link is down"), round);
        assert_eq!(said(&scene, "port lan: the link is up again"), round);
        assert!(down < Duration::from_secs(1) && up < Duration::from_secs(1));
    }
    assert_eq!(port(&scene, "wan").link(), Link::Up);
    assert!(statistic(&port(&scene, "lan"), "rx_packets") > 1000);
    begun.end();
    assert!(all_run(&scene));
}

/// The peer's end goes down: no carrier.
#[test]
fn a_link_without_a_carrier_is_told() {
    let scene = scene(Method::FullNat, Family::V6);
    scene
        .topology
        .switch
        .set_up("director-eth1", false)
        .unwrap();
    wait_for(&scene, "down", has_link(Link::Down));
    scene.topology.switch.set_up("director-eth1", true).unwrap();
    wait_for(&scene, "up", has_link(Link::Up));
    wait_for_service(&scene);
}

#[test]
fn an_interface_that_is_made_anew_serves_again() {
    for (method, family) in [(Method::Nat, Family::V4), (Method::FullNat, Family::V6)] {
        let scene = scene(method, family);
        let begun = Use::begin(&scene);
        let before = port(&scene, "lan").mac;
        scene.topology.director.delete_link("eth1").unwrap();
        wait_for(&scene, "gone", has_link(Link::Gone));
        // The other port answers, and does what it can.
        assert_eq!(port(&scene, "wan").link(), Link::Up);
        thread::sleep(AWAY);
        scene.topology.plug_director_lan().unwrap();
        let up = wait_for(&scene, "up", has_link(Link::Up));
        let served = wait_for_service(&scene);
        println!("{method}: up after {up:?}, served {served:?} later");
        assert_ne!(port(&scene, "lan").mac, before);
        assert_eq!(statistic(&port(&scene, "lan"), "sockets_reopened"), 2);
        assert_eq!(said(&scene, "port lan: its interface is gone"), 1);
        assert_eq!(said(&scene, "port lan: the hardware address is"), 1);
        begun.end();
        assert!(all_run(&scene));
        assert_eq!(port(&scene, "wan").transmit_errors, 0);
    }
}

/// All at once, faster than anybody looks: in the end it works.
#[test]
fn an_interface_that_comes_and_goes_often_is_found_in_the_end() {
    let scene = scene(Method::Nat, Family::V4);
    let begun = Use::begin(&scene);
    for round in 0..8u64 {
        scene.topology.director.delete_link("eth1").unwrap();
        thread::sleep(Duration::from_millis(round * 40));
        scene.topology.plug_director_lan().unwrap();
        thread::sleep(Duration::from_millis((8 - round) * 40));
    }
    wait_for(&scene, "up", has_link(Link::Up));
    wait_for_service(&scene);
    begun.end();
    assert!(all_run(&scene));
}

#[test]
fn another_mtu_and_another_hardware_address_are_heeded() {
    let scene = scene(Method::Nat, Family::V4);
    let begun = Use::begin(&scene);
    let mac = [0x02, 0, 0, 0, 0x77, 0x01];
    scene.topology.director.set_mac("eth1", mac).unwrap();
    wait_for(&scene, "MAC", |port| port.mac == "02:00:00:00:77:01");
    wait_for_service(&scene);
    scene.topology.director.set_mtu("eth1", 1400).unwrap();
    wait_for(&scene, "MTU", |port| port.mtu == 1400);
    wait_for_service(&scene);
    // What a server sends in full comes through a larger one as well.
    scene.topology.director.set_mtu("eth1", 9000).unwrap();
    wait_for(&scene, "MTU", |port| port.mtu == 9000);
    wait_for_service(&scene);
    begun.end();
    assert_eq!(said(&scene, "port lan: the MTU is 1400 now"), 1);
    assert!(all_run(&scene));
}
