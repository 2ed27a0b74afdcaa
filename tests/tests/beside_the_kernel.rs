//! The director beside the kernel on the same interfaces, by AF_XDP: what is the kernel's stays the kernel's, and nothing is
//! left on the interfaces. Whatever driver the other tests have. Needs root: fails without.
#![allow(clippy::unwrap_used, reason = "helpers panic as their tests do")]

use cli::lab::{Family, Host, HttpServer, Method, Namespace, Prefix, http_get};
use e2e::client::{self, Connections, Download};
use e2e::{Configuration, Driver, HTTP_PORT, Process, Scene, Uvsd, eventually};
use nix::sys::signal::Signal;
use std::net::SocketAddr;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(10);
/// Where the kernel's own server listens.
const KERNELS_PORT: u16 = 2222;

fn configuration(method: Method, family: Family, workers: u8) -> Configuration {
    Configuration {
        drivers: [Driver::AfXdp; 2],
        ..Configuration::new(method, family, workers)
    }
}

fn serves(scene: &Scene) -> bool {
    let answer = client::try_ask(scene.client(), scene.virtual_address(HTTP_PORT), "name", 4);
    answer.status.success()
}

/// What `ip link` says of the director's first interface.
fn interface(scene: &Scene) -> String {
    let arguments = ["-d", "link", "show", "eth0"];
    let ip = Process::start(&scene.topology.director, "ip", &arguments);
    ip.finish(PATIENCE).success()
}

/// Asks the kernel's server from the client's place.
fn kernel_serves(scene: &Scene, address: SocketAddr) {
    let answer = scene.client().run(|| http_get(address, "who", PATIENCE));
    let answer = answer.unwrap_or_else(|error| panic!("{address}: {error}"));
    assert_eq!(answer.server, "director", "{address}");
}

/// A listener on the director's own address and one on the virtual address, which the kernel has, too; with a service of
/// FTP besides, whose data connections may come to the second one's port: the worker finds out that they are none, and
/// gives the packets back.
#[test]
fn the_kernels_own_servers_work_beside() {
    for (family, ftp) in [(Family::V4, false), (Family::V6, false), (Family::V4, true)] {
        let mut configuration = Configuration {
            port_keys: "answered_by = \"kernel\"\n",
            ..configuration(Method::Nat, family, 1)
        };
        if ftp {
            let listen = format!("tcp {}", configuration.virtual_address(21));
            let server = SocketAddr::new(Host::Server(0).address(family), 21);
            configuration.more = configuration.service(&listen, &[(server, 1)], "");
        }
        let scene = Scene::new(configuration, 2);
        let director = &scene.topology.director;
        for (interface, host) in [("eth0", Host::DirectorWan), ("eth1", Host::DirectorLan)] {
            director
                .add_address(interface, host.prefix(family))
                .unwrap();
        }
        let vip = Host::Vip.address(family);
        director.add_address("lo", Prefix::host(vip)).unwrap();
        let servers = [vip, Host::DirectorWan.address(family)].map(|address| {
            let address = SocketAddr::new(address, KERNELS_PORT);
            let server = HttpServer::start(director, address).unwrap();
            (address, server)
        });
        assert!(serves(&scene));
        for (address, _) in &servers {
            for _ in 0..20 {
                kernel_serves(&scene, *address);
            }
        }
        client::wrk(scene.client(), &scene.url("name"), Connections::Close, 500)
            .assert_flawless(500);
        let exceptions: u64 = {
            let status = scene.uvsd.status();
            status
                .0
                .workers
                .iter()
                .map(|worker| worker.exceptions)
                .sum()
        };
        // Of 20 HTTP connections; without FTP only ARP and neighbour discovery are for both.
        assert_eq!(
            exceptions > 100,
            ftp,
            "{exceptions} frames were the kernel's"
        );
    }
}

#[test]
fn nothing_is_left_on_the_interfaces_however_it_ends() {
    for workers in [1, 2] {
        let mut scene = Scene::new(configuration(Method::Nat, Family::V4, workers), 2);
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            assert!(serves(&scene));
            assert!(interface(&scene).contains("xdp"), "{}", interface(&scene));
            scene.uvsd.stop(signal);
            assert!(!interface(&scene).contains("xdp"), "{}", interface(&scene));
            scene.restart();
        }
        assert!(serves(&scene));
    }
}

#[test]
fn a_service_that_a_reload_adds_is_served_and_one_that_it_removes_is_the_kernels() {
    let mut configuration = configuration(Method::Nat, Family::V4, 1);
    let scene = Scene::new(configuration.clone(), 2);
    let mut other = configuration.virtual_address(HTTP_PORT);
    other.set_ip("192.0.2.101".parse().unwrap());
    let is_served = || {
        client::try_ask(scene.client(), other, "name", 1)
            .status
            .success()
    };
    assert!(!is_served());
    let server = configuration.real_address(0, HTTP_PORT);
    configuration.more = configuration.service(&format!("tcp {other}"), &[(server, 1)], "");
    scene.uvsd.reload(&configuration);
    assert!(is_served());
    assert!(serves(&scene));
    configuration.more.clear();
    scene.uvsd.reload(&configuration);
    assert!(!is_served());
    assert!(serves(&scene));
}

#[test]
fn another_program_on_the_interface_is_named_and_stays() {
    let scene = Scene::new(configuration(Method::Nat, Family::V4, 1), 2);
    let folder = tempfile::tempdir().unwrap();
    let text = scene.configuration.text(&folder.path().join("uvs.sock"));
    let mut second = Uvsd::launch(&scene.topology.director, folder.path(), &text);
    assert_eq!(second.wait().code(), Some(1));
    let line = second.wait_for_line("has an XDP program already (id ");
    assert!(
        line.contains("ERROR") && line.contains("\"eth0\""),
        "{line}"
    );
    let id = line
        .split("(id ")
        .nth(1)
        .unwrap()
        .split(')')
        .next()
        .unwrap();
    let ours = interface(&scene);
    assert!(ours.contains(&format!("prog/xdp id {id} ")), "{id}: {ours}");
    assert!(serves(&scene));
}

#[test]
fn too_many_workers_are_told_how_to_get_queues() {
    let mut scene = Scene::new(configuration(Method::Nat, Family::V4, 1), 1);
    scene.uvsd.stop(Signal::SIGTERM);
    let folder = tempfile::tempdir().unwrap();
    let text = configuration(Method::Nat, Family::V4, 2).text(&folder.path().join("uvs.sock"));
    let mut uvsd = Uvsd::launch(&scene.topology.director, folder.path(), &text);
    assert_eq!(uvsd.wait().code(), Some(1));
    let line = uvsd.wait_for_line("receives by 1 queues, and there are 2 workers");
    assert!(line.contains("`workers = 1` in [director]"), "{line}");
}

#[test]
fn an_interface_that_was_down_is_used_again() {
    let scene = Scene::new(configuration(Method::Nat, Family::V4, 1), 2);
    assert!(serves(&scene));
    for interface in ["eth0", "eth1"] {
        let director = &scene.topology.director;
        director.set_up(interface, false).unwrap();
        assert!(
            !client::try_ask(scene.client(), scene.virtual_address(HTTP_PORT), "name", 1)
                .status
                .success()
        );
        director.set_up(interface, true).unwrap();
        let again = eventually(PATIENCE, || serves(&scene).then_some(()));
        assert!(
            again.is_some(),
            "{interface}: {:?}",
            scene.uvsd.status().drops()
        );
    }
}

/// The other port goes on, and uvsd with it.
#[test]
fn an_interface_that_is_removed_disturbs_nobody_else() {
    let mut scene = Scene::new(configuration(Method::Nat, Family::V4, 1), 2);
    assert!(serves(&scene));
    let ip = |of: &Namespace, arguments: &str| {
        let arguments: Vec<_> = arguments.split(' ').collect();
        Process::start(of, "ip", &arguments)
            .finish(PATIENCE)
            .success()
    };
    let _ = ip(&scene.topology.director, "link del eth1");
    let vip = scene.virtual_address(HTTP_PORT).ip();
    for _ in 0..2 {
        let _ = ip(scene.client(), &format!("neighbour del {vip} dev eth0"));
        assert!(!serves(&scene), "nobody gets to the servers");
        let neighbour = ip(scene.client(), &format!("neighbour show {vip}"));
        assert!(
            neighbour.contains("lladdr"),
            "uvsd answers ARP: {neighbour}"
        );
    }
    let status = scene.uvsd.status();
    assert!(status.0.workers[0].running, "{status:?}");
    let before = status.0.workers[0].sleeps;
    std::thread::sleep(Duration::from_secs(1));
    let slept = scene.uvsd.status().0.workers[0].sleeps - before;
    // 100 naps of 10 ms: what is gone does not keep the worker awake.
    assert!(slept < 1000, "{slept} naps in a second");
    assert_eq!(scene.uvsd.stop(Signal::SIGTERM).code(), Some(0));
}

/// A client's GSO frames come in whole by AF_PACKET, and leave by AF_XDP cut and finished; and the other way round.
#[test]
fn a_port_of_the_other_driver_takes_part() {
    for drivers in [
        [Driver::AfPacket, Driver::AfXdp],
        [Driver::AfXdp, Driver::AfPacket],
    ] {
        for (method, family) in [(Method::FullNat, Family::V4), (Method::Nat, Family::V6)] {
            let configuration = Configuration {
                drivers,
                ..configuration(method, family, 1)
            };
            let scene = Scene::new(configuration, 2);
            let rate = Download::start(scene.client(), &scene.url("large")).finish();
            assert!(rate > 1.0, "{rate} MB/s");
            for reverse in [false, true] {
                let stream = scene.iperf(reverse);
                assert!(
                    stream.rate > 10.0,
                    "{drivers:?} {method} {family}: {stream:?}"
                );
            }
        }
    }
}
