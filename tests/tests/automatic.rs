//! `driver = "auto"`: the first driver that can be had, and why not the others. Needs root: fails without.
#![allow(clippy::unwrap_used, reason = "helpers panic as their tests do")]

use cli::lab::{Family, Method};
use e2e::{Configuration, Driver, HTTP_PORT, Scene, Uvsd, client};

fn configuration() -> Configuration {
    Configuration {
        drivers: [Driver::Automatic; 2],
        ..Configuration::new(Method::Nat, Family::V4, 1)
    }
}

fn drivers(uvsd: &Uvsd) -> Vec<(String, String)> {
    let ports = uvsd.status().0.ports.into_iter();
    ports.map(|port| (port.driver, port.mode)).collect()
}

fn serves(scene: &Scene) -> bool {
    let answer = client::try_ask(scene.client(), scene.virtual_address(HTTP_PORT), "name", 4);
    answer.status.success()
}

#[test]
fn where_native_xdp_can_be_had_it_is_taken() {
    let scene = Scene::new(configuration(), 2);
    assert!(serves(&scene));
    let line = scene
        .uvsd
        .wait_for_line("port wan: driver \"af_xdp\" was chosen");
    assert!(
        line.contains("not dpdk: no `device` is configured"),
        "{line}"
    );
    for (driver, mode) in drivers(&scene.uvsd) {
        assert_eq!(driver, "af_xdp");
        assert!(
            mode.starts_with("chosen automatically; not dpdk: "),
            "{mode}"
        );
        assert!(mode.contains("native"), "{mode}");
    }
}

#[test]
fn where_it_cannot_packet_sockets_are_taken_and_it_is_said_why() {
    // Its packets are larger than a page, which AF_XDP needs to hold them.
    let mut scene = Scene::new(configuration(), 2);
    scene.uvsd.stop(nix::sys::signal::Signal::SIGTERM);
    scene.topology.director.set_mtu("eth1", 9000).unwrap();
    scene.restart();
    assert!(serves(&scene));
    let line = scene
        .uvsd
        .wait_for_line("port lan: driver \"af_packet\" was chosen");
    assert!(line.contains("not af_xdp: "), "{line}");
    let drivers = drivers(&scene.uvsd);
    assert_eq!(
        (drivers[0].0.as_str(), drivers[1].0.as_str()),
        ("af_xdp", "af_packet")
    );
    assert!(drivers[1].1.contains("MTU 9000"), "{drivers:?}");
}

#[test]
fn where_none_can_be_had_each_is_told() {
    let scene = Scene::new(configuration(), 1);
    let folder = tempfile::tempdir().unwrap();
    let text = scene.configuration.text(&folder.path().join("uvs.sock"));
    let text = text.replace("\"eth1\"", "\"eth7\"");
    let mut uvsd = Uvsd::launch(&scene.topology.director, folder.path(), &text);
    assert_eq!(uvsd.wait().code(), Some(1));
    let line = uvsd.wait_for_line("no driver can be had");
    for driver in ["not dpdk: ", "not af_xdp: ", "not af_packet: "] {
        assert!(line.contains(driver), "{line}");
    }
    assert!(line.contains("\"eth7\" does not exist"), "{line}");
}
