//! What happens at every limit, and that those who are inside do not notice.

use super::bed::{Bed, Limits};
use super::config::{CLIENTS, Config, METHODS, SERVERS, ip};
use super::packets::{ACK, DATA, SYN, SYN_ACK, Talk};
use crate::packet::wire::{TCP, UDP};
use crate::reason::Reason;
use conntrack::Method;
use std::sync::atomic::Ordering::Relaxed;

const CLIENT: &str = "10.64.0.7:40001";
const VIP: &str = "10.0.0.100:80";
const SERVER: &str = "10.2.0.11:80";

#[test]
fn a_full_table_refuses_new_flows_and_forwards_the_old() {
    for method in METHODS {
        let config = Config::of(UDP, VIP, method, SERVER);
        let mut bed = Bed::with(
            &config,
            &Limits {
                connections: 64,
                ..Limits::default()
            },
        );
        let talk = Talk::udp(CLIENT, VIP);
        for port in 0..64 {
            bed.send_one(0, CLIENTS, &talk.at_port(port).packet(ACK, b""));
        }
        for port in 64..70 {
            let frame = talk.at_port(port).packet(ACK, b"");
            bed.send_for(0, CLIENTS, &frame, Reason::TableFull);
        }
        for port in 0..64 {
            bed.send_one(0, CLIENTS, &talk.at_port(port).packet(ACK, b""));
        }
        assert_eq!(config.load(0), (0, 64));
    }
}

#[test]
fn half_open_connections_cannot_take_the_room_of_others() {
    let config = Config::of(TCP, VIP, Method::Nat, SERVER).with(UDP, VIP, Method::Nat, &[SERVER]);
    let limits = Limits {
        connections: 100,
        half_open_percent: 10,
        ..Limits::default()
    };
    let mut bed = Bed::with(&config, &limits);
    let talk = Talk::tcp(CLIENT, VIP);
    bed.send_one(0, CLIENTS, &talk.packet(SYN, b""));
    bed.send_one(0, SERVERS, &Talk::tcp(SERVER, CLIENT).packet(SYN_ACK, b""));
    bed.send_one(0, CLIENTS, &talk.packet(ACK, b""));
    for port in 0..10 {
        bed.send_one(0, CLIENTS, &talk.at_port(port).packet(SYN, b""));
    }
    for port in 10..30 {
        let frame = talk.at_port(port).packet(SYN, b"");
        bed.send_for(0, CLIENTS, &frame, Reason::HalfOpenFull);
    }
    bed.send_one(0, CLIENTS, &talk.packet(DATA, b"goes on"));
    bed.send_one(0, CLIENTS, &Talk::udp(CLIENT, VIP).packet(ACK, b"has room"));
    // One that gets established makes room for another.
    bed.send_one(0, CLIENTS, &talk.at_port(3).packet(ACK, b""));
    bed.send_one(0, CLIENTS, &talk.at_port(10).packet(SYN, b""));
    assert_eq!(config.load(0), (12, 0));
}

#[test]
fn workers_share_the_local_ports_and_several_local_addresses_take_turns() {
    let mut config = Config::of(TCP, VIP, Method::FullNat, SERVER);
    config.services[0].lips = ["10.2.0.200", "10.2.0.201"]
        .map(|address| crate::snapshot::LocalAddress {
            address: ip(address),
            first_port: 2000,
            last_port: 2003,
        })
        .to_vec();
    let mut bed = Bed::with_workers(&config, 2);
    // Both workers know the server.
    bed.pass(1);
    let talk = Talk::tcp(CLIENT, VIP);
    let mut sources = std::collections::BTreeSet::new();
    for worker in 0..2 {
        for port in 0..4 {
            let client = talk.at_port(1 + 10 * u16::try_from(worker).unwrap() + port);
            let mut seen = bed.send(worker, CLIENTS, &client.packet(SYN, b""));
            seen.append(&mut bed.pass(1));
            let source = seen[0].packet().talk.source;
            assert_eq!(usize::from(source.port() % 2), worker, "its own share");
            sources.insert(source);
        }
        let another = talk.at_port(100).packet(SYN, b"");
        bed.send_for(worker, CLIENTS, &another, Reason::LipPortsExhausted);
    }
    assert_eq!(sources.len(), 8, "two addresses of four ports");
    bed.pass(1);
    let load =
        |counter: &std::sync::atomic::AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
    for stats in &bed.stats {
        assert_eq!(
            (load(&stats.lip_ports), load(&stats.lip_ports_in_use)),
            (4, 4)
        );
    }
}

#[test]
fn a_connection_that_cannot_be_made_keeps_no_local_port() {
    let mut config = Config::of(TCP, VIP, Method::FullNat, SERVER);
    config.services[0].lips[0].first_port = 2000;
    config.services[0].lips[0].last_port = 2001;
    config.default_route = false;
    let mut bed = Bed::new(&config);
    let talk = Talk::tcp(CLIENT, VIP);
    for port in 0..10 {
        let frame = talk.at_port(port).packet(SYN, b"");
        bed.send_for(0, CLIENTS, &frame, Reason::NoRoute);
    }
    assert_eq!(config.load(0), (0, 0));
    config.default_route = true;
    bed.publish(&config);
    for port in 0..2 {
        bed.send_one(0, CLIENTS, &talk.at_port(port).packet(SYN, b""));
    }
}

#[test]
fn a_persistent_service_of_many_ports_gives_its_local_ports_back() {
    // A server at a port, which the clients of such a service reach at whatever port they ask for.
    for service in ["10.0.0.100:0", "10.0.0.100:21"] {
        let mut config = Config::of(TCP, service, Method::FullNat, "10.2.0.11:21");
        config.services[0].lips[0].first_port = 2000;
        config.services[0].lips[0].last_port = 2001;
        config.services[0].persistence = Some(crate::snapshot::Persistence {
            timeout: conntrack::Ticks::from_seconds(10),
            mask: u128::MAX,
            engine: None,
        });
        let mut bed = Bed::new(&config);
        let talk = Talk::tcp(CLIENT, "10.0.0.100:5000");
        for round in 0..3 {
            for port in 1..3 {
                let client = talk.at_port(10 * round + port);
                let seen = bed.send_one(0, CLIENTS, &client.packet(SYN, b""));
                assert_eq!(seen.packet().talk.destination.port(), 5000);
            }
            bed.pass(62);
            let in_use = &bed.stats[0].lip_ports_in_use;
            assert_eq!(in_use.load(std::sync::atomic::Ordering::Relaxed), 0);
        }
    }
}

#[test]
fn a_full_transmit_ring_loses_what_it_must_and_no_buffer() {
    for method in METHODS {
        let config = Config::of(UDP, VIP, method, SERVER);
        let mut bed = Bed::new(&config);
        let talk = Talk::udp(CLIENT, VIP);
        bed.send_one(0, CLIENTS, &talk.packet(ACK, b""));
        bed.wires[0][SERVERS].limit_transmit(10);
        for number in 0..30 {
            let mut frame = talk.packet(ACK, &[number; 20]);
            super::bed::address(&mut frame, CLIENTS);
            assert!(bed.wires[0][CLIENTS].inject(&frame));
        }
        // Plain packets leave as a run: none behind one that found no room gets by it.
        let seen = bed.settle();
        let numbers: Vec<_> = seen
            .iter()
            .map(|seen| seen.frame[seen.frame.len() - 1])
            .collect();
        assert_eq!(numbers, (0..10).collect::<Vec<_>>());
        assert_eq!(bed.books()[Reason::TransmitFull.name()], 20);
        // A packet of which not all fragments find room is lost as a whole.
        bed.wires[0][SERVERS].limit_transmit(2);
        bed.send(0, CLIENTS, &talk.packet(ACK, &[0; 6000]));
        assert_eq!(bed.books()[Reason::TransmitFull.name()], 21);
        assert_eq!(bed.books()["forwarded"], 11);
    }
}

#[test]
fn answers_that_find_no_room_are_counted() {
    let mut config = Config::of(TCP, VIP, Method::Nat, SERVER);
    config.server(0).weight = 0;
    let mut bed = Bed::new(&config);
    bed.wires[0][CLIENTS].limit_transmit(0);
    assert!(
        bed.send(0, CLIENTS, &Talk::tcp(CLIENT, VIP).packet(SYN, b""))
            .is_empty()
    );
    let books = bed.books();
    assert_eq!(books[Reason::TransmitFull.name()], 1);
    assert_eq!(books[Reason::NoServer.name()], 1);
}

#[test]
fn a_neighbour_without_a_place_costs_its_own_packets_alone() {
    let config = Config::of(TCP, "10.1.0.100:80", Method::Nat, SERVER);
    let mut bed = Bed::with(
        &config,
        &Limits {
            neighbours: 16,
            ..Limits::default()
        },
    );
    let talk = |host: u8| Talk::tcp(&format!("10.1.0.{host}:1"), "10.1.0.100:80");
    for host in 10..25 {
        bed.send_one(0, CLIENTS, &talk(host).packet(SYN, b""));
    }
    bed.send_for(
        0,
        CLIENTS,
        &talk(99).packet(SYN, b""),
        Reason::NeighbourTableFull,
    );
    bed.send_one(0, CLIENTS, &talk(12).packet(ACK, b""));
    assert_eq!(config.load(0), (15, 0));
}

#[test]
fn frames_that_a_port_lost_are_told_once_a_second() {
    let mut bed = Bed::new(&Config::of(TCP, VIP, Method::Nat, SERVER));
    let missed = |bed: &Bed| bed.stats[0].receive_missed.load(Relaxed);
    // Longer than any buffer.
    assert!(bed.wires[0][CLIENTS].inject(&vec![0; 70_000]));
    assert!(bed.settle().is_empty());
    bed.pass(1);
    assert_eq!(missed(&bed), 1);
    assert_eq!(bed.stats[0].transmit_errors.load(Relaxed), 0);
}

#[test]
fn frames_beyond_the_ports_buffers_wait_on_the_wire() {
    let config = Config::of(UDP, VIP, Method::Dr, SERVER);
    let mut bed = Bed::with(
        &config,
        &Limits {
            buffers: 1,
            ..Limits::default()
        },
    );
    let talk = Talk::udp(CLIENT, VIP);
    let mut frame = talk.packet(ACK, b"");
    super::bed::address(&mut frame, CLIENTS);
    bed.send_one(0, CLIENTS, &frame);
    for _ in 0..100 {
        assert!(bed.wires[0][CLIENTS].inject(&frame));
    }
    assert_eq!(bed.settle().len(), 100);
}
