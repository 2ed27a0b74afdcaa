//! The scripts that make a host a real server. Needs root: fails without.
#![allow(clippy::unwrap_used, reason = "helpers panic as their tests do")]

use cli::lab::{Family, Host, Method, Namespace, Prefix, link};
use e2e::{
    Configuration, HTTP_PORT, Output, Process, Scene, Server, client, client_executable, eventually,
};
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(10);
const DR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../configs/realserver/uvs-dr");
const TUN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../configs/realserver/uvs-tun");

fn run(namespace: &Namespace, program: &str, arguments: &[&str]) -> Output {
    Process::start(namespace, program, arguments).finish(PATIENCE)
}

/// Neighbours learn the virtual address from nobody while the script holds it, and from the host otherwise.
#[test]
fn uvs_dr_gives_the_virtual_addresses_and_keeps_quiet_about_them() {
    let (host, neighbour) = (
        Namespace::new("host").unwrap(),
        Namespace::new("neighbour").unwrap(),
    );
    link(&host, "uplink", &neighbour, "eth0", 1500).unwrap();
    let vips = Family::ALL.map(|family| Host::Vip.address(family));
    for family in Family::ALL {
        // On the virtual addresses' network, so that the neighbour asks for them on the link.
        host.add_address("uplink", Host::RouterWan.prefix(family))
            .unwrap();
        neighbour
            .add_address("eth0", Host::Client.prefix(family))
            .unwrap();
    }
    let [v4, v6] = vips.map(|vip| vip.to_string());
    let script = |action| run(&host, DR, &[action, "uplink", &v4, &v6]);
    // Refused by the host's stack, if it is found at all.
    let is_found = || {
        neighbour.run(|| {
            vips.map(|vip| {
                let address = SocketAddr::new(vip, 9);
                let error = TcpStream::connect_timeout(&address, PATIENCE).unwrap_err();
                error.kind() == ErrorKind::ConnectionRefused
            })
        })
    };

    assert_eq!(script("status").status.code(), Some(3));
    let _ = script("start").success();
    let said = script("status").success();
    assert!(
        said.contains(&format!("{v4}: on lo")) && said.contains(&format!("{v6}: on lo")),
        "{said}"
    );
    // A second start changes nothing.
    let _ = script("start").success();
    assert_eq!(is_found(), [false, false], "the neighbour was told");
    let _ = script("stop").success();
    assert_eq!(script("status").status.code(), Some(3));
    let addresses = run(&host, "ip", &["-oneline", "address"]).success();
    assert!(
        !addresses.contains(&v4) && !addresses.contains(&v6),
        "{addresses}"
    );
    let _ = script("stop").success();
    host.add_address("lo", Prefix::host(vips[0])).unwrap();
    assert_eq!(is_found(), [true, false], "otherwise nothing was shown");
}

#[test]
fn uvs_dr_makes_a_host_a_real_server() {
    let configuration = Configuration {
        servers: vec![Server {
            index: 0,
            weight: 1,
        }],
        ..Configuration::new(Method::Dr, Family::V4, 1)
    };
    let scene = Scene::new(configuration, 1);
    let server = &scene.topology.servers[0].namespace;
    let vip = scene.virtual_address(HTTP_PORT);
    let script = |action| run(server, DR, &[action, "eth0", &vip.ip().to_string()]);
    let serves = || {
        client::try_ask(scene.client(), vip, "name", 1)
            .status
            .success()
    };
    assert!(serves(), "as the laboratory made it");
    let _ = script("stop").success();
    for setting in ["arp_ignore", "arp_announce"] {
        let setting = format!("net.ipv4.conf.all.{setting}");
        server.sysctl(&setting, "0").unwrap();
    }
    assert!(!serves(), "without the virtual address");
    let _ = script("start").success();
    let again = eventually(PATIENCE, || serves().then_some(()));
    assert!(again.is_some(), "not after uvs-dr start");
}

/// What `uvs doctor` tells in the director's place.
fn doctor(scene: &Scene) -> Output {
    let uvs = client_executable();
    let file = scene.folder().join("uvs.toml");
    let arguments = ["doctor", "--config", file.to_str().unwrap()];
    let uvs = uvs.to_str().unwrap();
    Process::start(&scene.topology.director, uvs, &arguments).finish(PATIENCE)
}

#[test]
fn the_doctor_finds_a_real_server_that_answers_for_the_virtual_address() {
    let scene = Scene::new(Configuration::new(Method::Dr, Family::V4, 1), 2);
    let told = doctor(&scene);
    assert!(
        told.stdout
            .contains("nobody else answers ARP for 1 virtual address"),
        "{told:?}"
    );
    assert!(
        told.stdout.contains("2 servers on the link of port lan"),
        "{told:?}"
    );
    let server = &scene.topology.servers[0].namespace;
    server.sysctl("net.ipv4.conf.all.arp_ignore", "0").unwrap();
    let told = doctor(&scene);
    assert_eq!(told.status.code(), Some(1), "{told:?}");
    let vip = scene.virtual_address(HTTP_PORT).ip();
    let finding = format!("answers ARP for the virtual address {vip}");
    assert!(told.stdout.contains(&finding), "{told:?}");
}

#[test]
fn the_doctor_finds_a_server_by_nat_whose_answers_go_elsewhere() {
    let only = || Configuration {
        servers: vec![Server {
            index: 0,
            weight: 1,
        }],
        ..Configuration::new(Method::Nat, Family::V4, 1)
    };
    let scene = Scene::new(only(), 1);
    let vip = scene.virtual_address(HTTP_PORT);
    let answer = client::try_ask(scene.client(), vip, "name", 1);
    assert!(answer.status.success(), "{answer:?}");
    assert!(!doctor(&scene).stdout.contains("none came back"));

    drop(scene);
    let scene = Scene::new(only(), 1);
    let server = &scene.topology.servers[0].namespace;
    let _ = run(server, "ip", &["route", "delete", "default"]).success();
    scene.client().run(|| {
        for _ in 0..12 {
            let tried = TcpStream::connect_timeout(&vip, Duration::from_millis(20));
            assert!(tried.is_err(), "the server has no way back");
        }
    });
    let told = doctor(&scene);
    let finding = "packets, and none came back by the director";
    assert!(told.stdout.contains(finding), "{told:?}");
}

#[test]
fn uvs_dr_refuses_what_it_does_not_understand() {
    let host = Namespace::new("host").unwrap();
    for arguments in [
        &["start", "eth7", "192.0.2.100"][..],
        &["start", "lo", "192.0.2.100/32x"],
        &["begin", "lo", "192.0.2.100"],
        &["start"],
    ] {
        let output = run(&host, DR, arguments);
        assert!(!output.status.success(), "{output:?}");
        assert!(!output.stderr.is_empty(), "{output:?}");
    }
    let addresses = run(&host, "ip", &["-oneline", "address"]).success();
    assert!(!addresses.contains("192.0.2.100"), "{addresses}");
}

/// Kernels differ in the tunnel drivers they have: each is either used or said to be missing.
#[test]
fn uvs_tun_says_which_modules_are_missing() {
    let host = Namespace::new("host").unwrap();
    let vip = "192.0.2.100";
    let output = run(&host, TUN, &["start", vip]);
    let mut devices = 0;
    for (module, device) in [
        ("ipip", "tunl0"),
        ("sit", "sit0"),
        ("ip6_tunnel", "ip6tnl0"),
    ] {
        let is_there = run(&host, "ip", &["link", "show", "up", "dev", device]);
        let is_up = is_there.status.success() && !is_there.stdout.is_empty();
        let missing = format!("no device {device}: this kernel has no module {module}");
        assert_eq!(
            output.stderr.contains(&missing),
            !is_up,
            "{device}: {output:?}"
        );
        devices += u32::from(is_up);
    }
    let addresses = run(&host, "ip", &["-oneline", "address", "show", "lo"]).success();
    if devices == 0 {
        assert_eq!(output.status.code(), Some(1));
        assert!(
            output.stderr.contains("no tunnel device at all"),
            "{output:?}"
        );
    } else {
        assert!(output.status.success(), "{output:?}");
    }
    assert_eq!(addresses.contains(vip), devices > 0, "{addresses}");
    let _ = run(&host, TUN, &["stop", vip]).success();
    let addresses = run(&host, "ip", &["-oneline", "address"]).success();
    assert!(!addresses.contains(vip), "{addresses}");
}
