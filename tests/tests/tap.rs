//! What only ports of DPDK have. These tests need a uvsd that is built with it, which `./test` makes: it runs them with
//! `--ignored`. Need root.
#![allow(clippy::unwrap_used, reason = "helpers panic as their tests do")]

use cli::lab::{Family, Host, Method, Prefix, Topology};
use e2e::{Driver, Nginx, Uvsd, client, eventually};
use nix::sys::signal::Signal;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(10);

fn text(folder: &Path, server: SocketAddr) -> String {
    let driver = Driver::DpdkAfPacket;
    format!(
        "[director]\nconnections = 65_536\ncontrol = \"unix:{socket}\"\n\
         [port.wan]\n{wan}exception = \"tap\"\naddresses = [\"192.0.2.1/24\"]\n\
         [port.lan]\n{lan}addresses = [\"10.0.0.1/24\"]\n\
         {more}\
         [[service]]\nlisten = \"tcp 192.0.2.100:1080\"\nscheduler = \"rr\"\nmethod = \"nat\"\n\
         [[service.server]]\naddress = \"{server}\"\n",
        socket = folder.join("uvs.sock").display(),
        wan = driver.port("eth0", 1),
        lan = driver.port("eth1", 1),
        more = driver.more(),
    )
}

#[test]
#[ignore = "needs a uvsd with DPDK: see ./test"]
fn the_kernel_goes_on_behind_a_tap_and_nothing_is_left_after_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let topology = Topology::new(Method::Nat, &[Family::V4], 1).unwrap();
    Driver::DpdkAfPacket.prepare(&topology);
    let director = &topology.director;
    // The kernel sees the veth's frames, too, which it would not see of a NIC of DPDK's: they are not to count.
    director
        .sysctls(&[
            ("net.ipv4.conf.eth0.arp_ignore", "1"),
            ("net.ipv4.conf.eth0.rp_filter", "1"),
        ])
        .unwrap();
    let server = SocketAddr::new(Host::Server(0).address(Family::V4), 9080);
    let _server = Nginx::start(
        &topology.servers[0].namespace,
        &folder.path().join("a"),
        server,
    );
    let vip = SocketAddr::new(Host::Vip.address(Family::V4), 1080);
    let own = Prefix {
        address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 5)),
        len: 24,
    };
    for round in 0..2 {
        let mut uvsd = Uvsd::launch(director, folder.path(), &text(folder.path(), server));
        let _ = uvsd.wait_for_line("control socket");
        assert_eq!(
            director.link("uvs-wan").unwrap().mac,
            director.link("eth0").unwrap().mac
        );
        director.add_address("uvs-wan", own).unwrap();
        let kernel = SocketAddr::new(own.address, 8080);
        let own_folder = folder.path().join(format!("own{round}"));
        let nginx = Nginx::start(director, &own_folder, kernel);
        let answers = client::ask(&topology.client, kernel, "name", 20);
        assert!(
            answers
                .iter()
                .all(|answer| answer.contains("192.0.2.2 192.0.2.5 8080")),
            "{answers:?}"
        );
        let answers = client::ask(&topology.client, vip, "name", 20);
        assert!(
            answers
                .iter()
                .all(|answer| answer.contains("10.0.0.11 9080")),
            "{answers:?}"
        );
        drop(nginx);

        let process = uvsd.pid();
        let signal = if round == 0 {
            Signal::SIGKILL
        } else {
            Signal::SIGTERM
        };
        let _ = uvsd.stop(signal);
        let gone = eventually(PATIENCE, || director.link("uvs-wan").is_err().then_some(()));
        assert!(gone.is_some(), "the TAP ends with its process");
        assert!(!Path::new(&format!("/var/run/dpdk/uvs-{process}")).exists());
    }
}

#[test]
#[ignore = "needs a uvsd with DPDK: see ./test"]
fn a_device_that_is_not_there_is_told_and_nothing_starts() {
    let folder = tempfile::tempdir().unwrap();
    let topology = Topology::new(Method::Nat, &[Family::V4], 1).unwrap();
    let server = SocketAddr::new(Host::Server(0).address(Family::V4), 9080);
    let cases = [
        ("iface=eth0", "iface=eth7", "net_af_packet0,iface=eth7"),
        ("net_af_packet0,", "net_nonsense0,", "librte-net-"),
        ("net_af_packet0,", "0000:ff:1f.7,", "does not exist"),
    ];
    for (from, to, expected) in cases {
        let text = text(folder.path(), server).replacen(from, to, 1);
        let mut uvsd = Uvsd::launch(&topology.director, folder.path(), &text);
        assert!(!uvsd.wait().success());
        let log = uvsd.log();
        assert!(log.contains(expected) && log.contains("wan"), "{log}");
    }
}
