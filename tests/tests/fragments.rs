//! Datagrams that are longer than a packet, both ways, by every way of forwarding. Needs root: fails without.
#![allow(clippy::unwrap_used, reason = "helpers panic as their tests do")]

use cli::lab::topology::server_address;
use cli::lab::{Family, Host, Method, Prefix};
use e2e::{Configuration, ECHO_PORT, Scene, eventually, iperf, udp};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::thread;
use std::time::Duration;

/// iperf3's own port. It is the servers' too: a mark's services translate none.
const IPERF: u16 = 5201;
/// Three fragments.
const IPERF_LEN: u16 = 4000;
/// Six fragments.
const ECHO_LEN: usize = 8000;
const PORTS: std::ops::Range<u16> = 10_000..10_200;
/// Until what the director's rings lost is told.
const COUNTED: Duration = Duration::from_millis(1100);
const PATIENCE: Duration = Duration::from_secs(5);

#[test]
fn nat_ipv4_one_worker() {
    long_datagrams_arrive(Method::Nat, Family::V4, 1);
}

#[test]
fn nat_ipv4_two_workers() {
    long_datagrams_arrive(Method::Nat, Family::V4, 2);
}

#[test]
fn nat_ipv6_two_workers() {
    long_datagrams_arrive(Method::Nat, Family::V6, 2);
}

#[test]
fn dr_ipv4_two_workers() {
    long_datagrams_arrive(Method::Dr, Family::V4, 2);
}

#[test]
fn dr_ipv6_two_workers() {
    long_datagrams_arrive(Method::Dr, Family::V6, 2);
}

#[test]
fn tun_ipv4_two_workers() {
    long_datagrams_arrive(Method::Tun, Family::V4, 2);
}

#[test]
fn tun_ipv6_two_workers() {
    long_datagrams_arrive(Method::Tun, Family::V6, 2);
}

#[test]
fn fullnat_ipv4_two_workers() {
    long_datagrams_arrive(Method::FullNat, Family::V4, 2);
}

#[test]
fn fullnat_ipv6_one_worker() {
    long_datagrams_arrive(Method::FullNat, Family::V6, 1);
}

#[test]
fn fullnat_ipv6_two_workers() {
    long_datagrams_arrive(Method::FullNat, Family::V6, 2);
}

fn long_datagrams_arrive(method: Method, family: Family, workers: u8) {
    let mut configuration = Configuration::new(method, family, workers);
    configuration.more = iperf_service(&configuration);
    let scene = Scene::new(configuration, 2);
    learn_path_mtu(&scene);
    let before = scene.uvsd.status().dropped("too-big");
    let vip = scene.virtual_address(ECHO_PORT);
    let echoes = scene.client().run(|| udp::echo(vip, PORTS, ECHO_LEN));
    assert!(echoes.lost.is_empty(), "{echoes:?}");
    assert!(echoes.answered[0] > 0 && echoes.answered[1] > 0);
    both_clients_measure(&scene);
    let status = scene.uvsd.status();
    let drops = status.drops();
    assert!(
        drops.iter().all(|(reason, _)| *reason == "too-big"),
        "{drops:?}"
    );
    assert_eq!(status.dropped("too-big"), before);
}

/// iperf3 says over TCP what it measures over UDP: both must reach one server, so they are one service by a mark, and
/// clients stay where they are.
fn iperf_service(configuration: &Configuration) -> String {
    let vip = Host::Vip.address(configuration.family);
    let listen = match configuration.family {
        Family::V4 => "mark 5",
        Family::V6 => "mark 5 ipv6",
    };
    let servers = [0, 1].map(|index| (Host::Server(index).address(configuration.family), 1));
    let keys = format!("addresses = [\"{vip}\"]\npersistence_timeout = 60");
    let mark = format!(
        "[[mark]]\nmark = 5\ndestination = \"{}\"\ndestination_ports = \"{IPERF}\"\n",
        Prefix::host(vip)
    );
    mark + &configuration.service(listen, &servers, &keys)
}

/// Only IPv6's fragments must not be cut again: where they are wrapped, the first datagram is lost and teaches the client.
fn learn_path_mtu(scene: &Scene) {
    let Configuration { method, family, .. } = scene.configuration;
    let vip = scene.virtual_address(ECHO_PORT);
    let answered = scene
        .client()
        .run(|| udp::ping(&udp::socket(vip, 9_999), 1, ECHO_LEN));
    let is_taught = method == Method::Tun && family == Family::V6;
    assert_eq!(answered.is_some(), !is_taught);
    assert_eq!(scene.uvsd.status().dropped("too-big") > 0, is_taught);
}

/// Two clients at once, each with a server of its own. Where the director sees answers, one of them is sent to.
fn both_clients_measure(scene: &Scene) {
    let Configuration { method, family, .. } = scene.configuration;
    let vip = scene.virtual_address(IPERF);
    let first = Host::Client.address(family);
    let second = second_client(first);
    let prefix = Prefix {
        address: second,
        ..Host::Client.prefix(family)
    };
    scene.client().add_address("eth0", prefix).unwrap();
    let mut servers = [0, 1].map(|index| {
        let port = server_address(method, family, index, IPERF);
        let listen = SocketAddr::new(port.ip(), IPERF);
        iperf::serve(
            &scene.topology.servers[usize::from(index)].namespace,
            listen,
        )
    });
    let reverse = !method.keeps_destination();
    let runs = [(first, false), (second, reverse)]
        .map(|(from, reverse)| iperf::Run::start(scene.client(), from, vip, IPERF_LEN, reverse));
    let mut lost = 0;
    for run in runs {
        let measured = run.finish();
        println!("{method} {family}: {measured:?}");
        // 20 Mbit.
        assert!(measured.sent > 550, "{measured:?}");
        assert!(measured.lost < measured.sent / 20, "{measured:?}");
        lost += measured.lost;
    }
    // At that rate nothing need be lost, unless the machine lets a receiver, or the director, wait too long for its turn.
    if lost > 0 {
        thread::sleep(COUNTED);
    }
    let missed = scene.uvsd.status().missed();
    let servers_of = scene
        .topology
        .servers
        .iter()
        .map(|server| &server.namespace);
    let overflowed: u64 = servers_of
        .chain([scene.client()])
        .map(iperf::overflowed)
        .sum();
    // A client that receives may count one as lost that arrives whole, by the kernel's counters, while it stops.
    let late = u64::from(reverse);
    assert!(
        lost <= overflowed + missed + late,
        "{lost} lost, {overflowed} by their receivers, {missed} frames by the director's ring"
    );
    // Each served one client, and ends after it.
    for server in &mut servers {
        let ended = eventually(PATIENCE, || server.ended());
        assert!(ended.is_some_and(|status| status.success()), "{ended:?}");
    }
}

fn second_client(first: IpAddr) -> IpAddr {
    match first {
        IpAddr::V4(first) => {
            let [a, b, c, d] = first.octets();
            [a, b, c, d + 1].into()
        }
        IpAddr::V6(first) => Ipv6Addr::from(u128::from(first) + 1).into(),
    }
}
