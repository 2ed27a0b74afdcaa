//! What a service promises beyond that packets arrive: shares, ports, counts, limits. Needs root: fails without.
#![allow(clippy::unwrap_used, reason = "helpers panic as their tests do")]

use cli::lab::topology::server_address;
use cli::lab::{Family, Method};
use e2e::client;
use e2e::{Configuration, ECHO_PORT, HTTP_PORT, Payload, Process, Scene, Server, eventually, udp};
use socket2::SockRef;
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);
/// Of a datagram.
const LEN: usize = 32;

/// What came of `count` HTTP requests, one after the other: how many each server answered, by its name.
fn answers(scene: &Scene, port: u16, count: u32) -> BTreeMap<String, u32> {
    let mut answers = BTreeMap::new();
    for answer in client::ask(scene.client(), scene.virtual_address(port), "name", count) {
        let name = answer.split(' ').next().unwrap();
        *answers.entry(name.to_owned()).or_default() += 1;
    }
    answers
}

fn three_to_one(workers: u8) -> Scene {
    let servers = [(0, 3), (1, 1)].map(|(index, weight)| Server { index, weight });
    let configuration = Configuration {
        scheduler: "wrr",
        servers: servers.to_vec(),
        ..Configuration::new(Method::Nat, Family::V4, workers)
    };
    Scene::new(configuration, 2)
}

#[test]
fn weights_of_three_to_one_give_three_to_one_exactly_with_one_worker() {
    let scene = three_to_one(1);
    let http = answers(&scene, HTTP_PORT, 400);
    assert_eq!((http["server1"], http["server2"]), (300, 100));
    let vip = scene.virtual_address(ECHO_PORT);
    let echoes = scene.client().run(|| udp::echo(vip, 10_000..10_400, LEN));
    assert_eq!(echoes.answered[..2], [300, 100]);
}

/// Each worker goes round for itself.
#[test]
fn weights_of_three_to_one_give_nearly_that_with_two_workers() {
    let scene = three_to_one(2);
    let http = answers(&scene, HTTP_PORT, 1000);
    assert!(http["server1"].abs_diff(750) <= 20, "{http:?}");
    let vip = scene.virtual_address(ECHO_PORT);
    let echoes = scene.client().run(|| udp::echo(vip, 10_000..12_000, LEN));
    assert!(echoes.lost.is_empty(), "{echoes:?}");
    assert!(echoes.answered[0].abs_diff(1500) <= 40, "{echoes:?}");
    let status = scene.uvsd.status();
    assert!(
        status.0.workers.iter().all(|worker| worker.connections > 0),
        "both are to schedule: {status:?}"
    );
}

#[test]
fn two_virtual_ports_of_nat_lead_to_one_real_port() {
    let mut configuration = Configuration::new(Method::Nat, Family::V4, 1);
    let real = server_address(Method::Nat, Family::V4, 1, HTTP_PORT);
    configuration.more = format!(
        "[[service]]\nlisten = \"tcp {}\"\nmethod = \"nat\"\nserver = [{{ address = \"{real}\" }}]\n",
        configuration.virtual_address(8443)
    );
    let scene = Scene::new(configuration, 2);
    let by_both = answers(&scene, HTTP_PORT, 10);
    assert_eq!((by_both["server1"], by_both["server2"]), (5, 5));
    let answer = client::ask(scene.client(), scene.virtual_address(8443), "name", 10);
    let expected = format!(" {} {}", real.ip(), real.port());
    for answer in answer {
        assert!(
            answer.starts_with("server2 ") && answer.ends_with(&expected),
            "{answer}"
        );
    }
}

#[test]
fn replies_of_nat_may_come_by_another_worker_than_their_requests() {
    replies_by_another_worker(Method::Nat);
}

#[test]
fn replies_of_fullnat_may_come_by_another_worker_than_their_requests() {
    replies_by_another_worker(Method::FullNat);
}

/// The kernel gives either direction of a flow to a worker by its hash. Whoever forwards 50 frames of a flow with 50
/// requests and 50 replies has forwarded one direction.
fn replies_by_another_worker(method: Method) {
    let scene = Scene::new(Configuration::new(method, Family::V4, 2), 2);
    let vip = scene.virtual_address(ECHO_PORT);
    let (mut split, mut whole) = (0, 0);
    for port in 10_000..10_032 {
        let before = scene.uvsd.status().forwarded();
        let answered = scene
            .client()
            .run(|| udp::ping(&udp::socket(vip, port), 50, LEN));
        assert!(answered.is_some(), "port {port} got no answer");
        let after = scene.uvsd.status().forwarded();
        let forwarded = [0, 1].map(|worker| after[worker] - before[worker]);
        match forwarded {
            [50, 50] => split += 1,
            [100, 0] | [0, 100] => whole += 1,
            _ => panic!("port {port}: {forwarded:?} frames"),
        }
    }
    println!("{method}: {split} flows by two workers, {whole} by one");
    assert!(
        split > 0,
        "all {whole} flows had both directions at one worker"
    );
    assert_eq!(scene.uvsd.status().drops(), []);
}

/// Active and inactive connections of a service's servers together.
fn counts(scene: &Scene, port: u16) -> (u32, u32) {
    let servers = scene.uvsd.servers(port);
    let sum = |count: fn(&proto::v1::RealServer) -> u32| servers.iter().map(count).sum();
    (sum(|server| server.active), sum(|server| server.inactive))
}

fn wait_for_counts(scene: &Scene, port: u16, wanted: (u32, u32)) {
    let seen = eventually(PATIENCE, || (counts(scene, port) == wanted).then_some(()));
    assert!(
        seen.is_some(),
        "active and inactive stay {:?} instead of {wanted:?}",
        counts(scene, port)
    );
}

fn connect(scene: &Scene, count: usize) -> Vec<TcpStream> {
    let vip: SocketAddr = scene.virtual_address(HTTP_PORT);
    let connect = || TcpStream::connect_timeout(&vip, Duration::from_secs(3)).unwrap();
    scene
        .client()
        .run(|| (0..count).map(|_| connect()).collect())
}

#[test]
fn connections_of_dr_count_as_active_then_inactive_then_not_at_all() {
    let configuration = Configuration {
        tcp_fin: 3,
        ..Configuration::new(Method::Dr, Family::V4, 2)
    };
    let scene = Scene::new(configuration, 2);
    let streams = connect(&scene, 10);
    wait_for_counts(&scene, HTTP_PORT, (10, 0));
    assert_eq!(scene.uvsd.status().connections(), 10);
    drop(streams);
    wait_for_counts(&scene, HTTP_PORT, (0, 10));
    wait_for_counts(&scene, HTTP_PORT, (0, 0));
    assert_eq!(scene.uvsd.status().connections(), 0);
}

/// A reset connection is remembered for ten seconds.
#[test]
fn connections_of_nat_that_are_reset_become_inactive_and_go() {
    let scene = Scene::new(Configuration::new(Method::Nat, Family::V6, 2), 2);
    let streams = connect(&scene, 10);
    wait_for_counts(&scene, HTTP_PORT, (10, 0));
    for stream in &streams {
        SockRef::from(stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    }
    drop(streams);
    wait_for_counts(&scene, HTTP_PORT, (0, 10));
    wait_for_counts(&scene, HTTP_PORT, (0, 0));
    assert_eq!(scene.uvsd.status().connections(), 0);
}

#[test]
fn udp_flows_count_as_inactive_and_go() {
    let configuration = Configuration {
        udp: 3,
        ..Configuration::new(Method::FullNat, Family::V4, 2)
    };
    let scene = Scene::new(configuration, 2);
    let vip = scene.virtual_address(ECHO_PORT);
    let echoes = scene.client().run(|| udp::echo(vip, 10_000..10_010, LEN));
    assert!(echoes.lost.is_empty(), "{echoes:?}");
    wait_for_counts(&scene, ECHO_PORT, (0, 10));
    wait_for_counts(&scene, ECHO_PORT, (0, 0));
    assert_eq!(scene.uvsd.status().connections(), 0);
}

/// Two local addresses with four ports each, towards two servers in turn.
#[test]
fn local_ports_that_run_out_are_counted_and_come_back() {
    const FLOWS: u16 = 2 * 4 * 2;
    let configuration = Configuration {
        lip_ports: (20_000, 20_003),
        udp: 4,
        ..Configuration::new(Method::FullNat, Family::V4, 1)
    };
    let scene = Scene::new(configuration, 2);
    let vip = scene.virtual_address(ECHO_PORT);
    let echo = |ports| scene.client().run(|| udp::echo(vip, ports, LEN));
    let in_use = || scene.uvsd.status().0.lip_ports.unwrap().in_use;

    let echoes = echo(10_000..10_000 + FLOWS);
    assert!(echoes.lost.is_empty(), "{echoes:?}");
    let full = eventually(Duration::from_secs(2), || {
        (in_use() == u64::from(FLOWS)).then_some(())
    });
    assert!(full.is_some(), "{} of {FLOWS} ports in use", in_use());
    let echoes = echo(11_000..11_004);
    assert_eq!(echoes.lost.len(), 4, "there was no port for them");
    assert_eq!(scene.uvsd.status().dropped("lip-ports-exhausted"), 4);

    let free = eventually(PATIENCE, || (in_use() == 0).then_some(()));
    assert!(free.is_some(), "{} ports stay in use", in_use());
    let echoes = echo(12_000..12_000 + FLOWS);
    assert!(echoes.lost.is_empty(), "{echoes:?}");
    assert_eq!(scene.uvsd.status().dropped("lip-ports-exhausted"), 4);
}

#[test]
fn clients_learn_the_path_mtu_of_ipv4_in_ipv4() {
    client_learns_path_mtu(Family::V4, Family::V4);
}

#[test]
fn clients_learn_the_path_mtu_of_ipv4_in_ipv6() {
    client_learns_path_mtu(Family::V4, Family::V6);
}

#[test]
fn clients_learn_the_path_mtu_of_ipv6_in_ipv4() {
    client_learns_path_mtu(Family::V6, Family::V4);
}

#[test]
fn clients_learn_the_path_mtu_of_ipv6_in_ipv6() {
    client_learns_path_mtu(Family::V6, Family::V6);
}

/// TCP's full segments do not fit the tunnel and must not be fragmented: an upload arrives only because the director
/// says so.
fn client_learns_path_mtu(family: Family, outer: Family) {
    let configuration = Configuration {
        server_family: outer,
        ..Configuration::new(Method::Tun, family, 1)
    };
    let scene = Scene::new(configuration, 2);
    let vip = scene.virtual_address(HTTP_PORT).ip().to_string();
    let known_mtu = || {
        let route = Process::start(scene.client(), "ip", &["-oneline", "route", "get", &vip]);
        let route = route.finish(PATIENCE).success();
        let (_, mtu) = route.split_once(" mtu ")?;
        mtu.split_whitespace().next()?.parse::<u32>().ok()
    };
    assert_eq!(known_mtu(), None);
    let _ = client::upload(scene.client(), &scene.url("put/large"));
    let sums: Vec<_> = scene
        .nginx
        .iter()
        .filter_map(|nginx| nginx.take_upload("large"))
        .collect();
    assert_eq!(sums, [Payload::large().sha256.as_str()]);
    let mtu = if outer == Family::V4 { 1480 } else { 1460 };
    assert_eq!(known_mtu(), Some(mtu));
    assert!(scene.uvsd.status().dropped("too-big") > 0);
}
