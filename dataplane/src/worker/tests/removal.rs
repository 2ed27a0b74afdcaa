//! Servers that are removed, and what becomes of their connections by themselves.
//!
//! Recorded: `tests/scenario/recorded/server-removal.json`, `removal-sweep.json`.

use super::bed::{Bed, Limits};
use super::config::{CLIENTS, Config, SERVERS, ip};
use super::packets::{ACK, DATA, SYN, SYN_ACK, Talk, icmp_error};
use crate::packet::wire::TCP;
use crate::worker::Worker;
use crate::worker::sweep::SWEEP_BUDGET;
use conntrack::Method;
use scheduler::RealServerId;
use std::sync::atomic::Ordering::Relaxed;

const VIP: &str = "10.0.0.100:80";
const BOTH: [&str; 2] = ["10.2.0.11:8080", "10.2.0.12:8080"];

fn request(port: u16) -> Talk {
    Talk::tcp("10.64.0.7:1", VIP).at_port(port)
}

/// Many connections, of two workers, to two servers.
fn crowd(method: Method, count: u16) -> (Config, Bed) {
    let mut config = Config::new().with(TCP, VIP, method, &BOTH);
    config.ipvs.expire_nodest_conn = true;
    let limits = Limits {
        workers: 2,
        connections: 8192,
        half_open_percent: 100,
        ..Limits::default()
    };
    let mut bed = Bed::with(&config, &limits);
    for number in 0..count {
        let worker = usize::from(number >= count / 2);
        bed.send_one(worker, CLIENTS, &request(1000 + number).packet(SYN, b""));
    }
    assert_eq!(bed.connections(), u32::from(count));
    (config, bed)
}

/// Lets the workers run so many rounds, in which nothing comes in.
fn rounds(bed: &mut Bed, count: u32) {
    for _ in 0..count {
        bed.settle();
    }
}

#[test]
fn with_expire_nodest_conn_a_removal_ends_idle_connections_some_in_each_round() {
    for method in [Method::Nat, Method::Dr, Method::FullNat] {
        let (mut config, mut bed) = crowd(method, 2000);
        config.server(0).present = false;
        bed.publish(&config);
        bed.settle();
        assert!(bed.workers.iter().all(Worker::is_sweeping));
        let left = bed.connections();
        let most = 2000 - 2 * SWEEP_BUDGET;
        assert!((most..2000).contains(&left), "{left} after a round");
        rounds(&mut bed, 8192 / SWEEP_BUDGET);
        assert_eq!(bed.connections(), 1000, "{method:?}");
        assert!(!bed.workers.iter().any(Worker::is_sweeping));
        assert_eq!((config.load(0), config.load(1)), ((0, 0), (1000, 0)));
        bed.pass(1);
        let ports = bed
            .stats
            .iter()
            .map(|stats| stats.lip_ports_in_use.load(Relaxed));
        let expected = if method == Method::FullNat { 1000 } else { 0 };
        assert_eq!(ports.sum::<u64>(), expected);
    }
}

#[test]
fn without_expire_nodest_conn_a_removal_ends_nothing() {
    let (mut config, mut bed) = crowd(Method::Nat, 20);
    config.ipvs.expire_nodest_conn = false;
    config.server(0).present = false;
    bed.publish(&config);
    rounds(&mut bed, 8192 / SWEEP_BUDGET);
    assert_eq!(bed.connections(), 20);
    // Another one takes those along that are gone already.
    config.ipvs.expire_nodest_conn = true;
    config.server(1).present = false;
    bed.publish(&config);
    rounds(&mut bed, 8192 / SWEEP_BUDGET);
    assert_eq!(bed.connections(), 0);
}

#[test]
fn a_server_added_again_during_the_walk_keeps_what_is_left_and_what_is_new() {
    let (mut config, mut bed) = crowd(Method::Nat, 2000);
    config.server(0).present = false;
    bed.publish(&config);
    bed.settle();
    config.server(0).present = true;
    bed.publish(&config);
    bed.settle();
    let left = bed.connections();
    for port in 3001..=3010 {
        bed.send_one(0, CLIENTS, &request(port).packet(SYN, b""));
    }
    rounds(&mut bed, 8192 / SWEEP_BUDGET);
    assert_eq!(bed.connections(), left + 10);
    assert!(left < 2000 && config.load(0).0 > 0);
}

#[test]
fn replies_of_a_removed_server_pass_and_do_not_count() {
    let mut config = Config::new().with(TCP, VIP, Method::Nat, &BOTH[..1]);
    let mut bed = Bed::new(&config);
    let there = bed.send_one(0, CLIENTS, &request(1).packet(SYN, b""));
    let reply = there.packet().talk.back().packet(ACK, b"");
    let counted = |bed: &Bed| {
        let stats = bed.stats[0].server(RealServerId(0)).unwrap();
        stats.out_packets.load(Relaxed)
    };
    let mut expected = 0;
    for present in [true, false, true] {
        config.server(0).present = present;
        bed.publish(&config);
        bed.settle();
        bed.send_one(0, SERVERS, &reply);
        expected += u64::from(present);
        assert_eq!(counted(&bed), expected);
    }
    bed.send_one(0, CLIENTS, &request(1).packet(DATA, b""));
}

#[test]
fn without_a_service_of_its_family_a_packet_of_a_connection_is_left_to_the_kernel() {
    let talk = Talk::tcp("10.64.0.7:40001", "10.0.0.100:80");
    let whole = Config::of(TCP, "10.0.0.100:80", Method::Nat, "10.2.0.11:80");
    let mut bed = Bed::new(&whole);
    let seen = bed.send_one(0, CLIENTS, &talk.packet(SYN, b""));
    let answer = seen.packet().talk.back().packet(SYN_ACK, b"");
    let error = icmp_error(
        "10.64.0.7",
        ip("10.0.0.100"),
        (3, 3, 0),
        &talk.back().packet(ACK, b""),
    );
    let mut other = whole.clone();
    other.services.clear();
    let other = other.with(TCP, "[fd00:a::100]:80", Method::Nat, &["[fd00:2::11]:80"]);
    bed.publish(&other);
    for (side, frame) in [
        (SERVERS, &answer),
        (CLIENTS, &error),
        (CLIENTS, &talk.packet(ACK, b"")),
    ] {
        let before = bed.books()["exceptions"];
        assert!(bed.send(0, side, frame).is_empty());
        assert_eq!(bed.books()["exceptions"], before + 1);
    }
    bed.publish(&whole);
    assert_eq!(bed.send_one(0, SERVERS, &answer).side, CLIENTS);
}
