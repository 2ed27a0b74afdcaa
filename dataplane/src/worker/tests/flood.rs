//! Floods of SYNs, and clients that mean it.

use super::bed::{Bed, Limits, address};
use super::config::{CLIENTS, Config, SERVERS};
use super::packets::{ACK, DATA, SYN, SYN_ACK, Talk};
use crate::packet::wire::{TCP, UDP};
use crate::reason::Reason;
use crate::worker::newcomers::PLACES_PER_TICK;
use conntrack::{Method, Ticks};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::Ordering::Relaxed;

const CLIENT: &str = "10.64.0.7:40001";
const VIP: &str = "10.0.0.100:80";
const SERVER: &str = "10.2.0.11:80";

fn client(port: u16) -> Talk {
    Talk::tcp(CLIENT, VIP).at_port(port)
}

/// Lets a worker receive SYNs of so many sources that never spoke before and never will again.
fn flood(bed: &mut Bed, worker: usize, sources: std::ops::Range<u32>) {
    for source in sources {
        let mut talk = client(1);
        let host = Ipv4Addr::from_bits(Ipv4Addr::new(10, 65, 0, 0).to_bits() + source / 1000);
        let port = 2000 + u16::try_from(source % 1000).unwrap();
        talk.source = SocketAddr::new(IpAddr::V4(host), port);
        let mut frame = talk.packet(SYN, b"");
        address(&mut frame, CLIENTS);
        assert!(bed.wires[worker][CLIENTS].inject(&frame));
    }
    bed.settle();
}

fn connect(bed: &mut Bed, port: u16) {
    bed.send_one(0, CLIENTS, &client(port).packet(SYN, b""));
    answer(bed, port);
}

/// The rest of the handshake.
fn answer(bed: &mut Bed, port: u16) {
    let reply = Talk::new(TCP, SERVER, &format!("10.64.0.7:{port}"));
    bed.send_one(0, SERVERS, &reply.packet(SYN_ACK, b""));
    bed.send_one(0, CLIENTS, &client(port).packet(ACK, b""));
}

fn replaced(bed: &Bed) -> u64 {
    let counts = bed.stats.iter().map(|stats| &stats.half_open_replaced);
    counts.map(|count| count.load(Relaxed)).sum()
}

#[test]
fn a_client_connects_at_its_second_try_and_the_established_lose_nothing() {
    let config = Config::of(TCP, VIP, Method::Nat, SERVER);
    let limits = Limits {
        half_open_percent: 25,
        ..Limits::default()
    };
    let mut bed = Bed::with(&config, &limits);
    for port in 101..=105 {
        connect(&mut bed, port);
    }
    let mut asks = 0;
    for tenth in 0..50_u32 {
        flood(&mut bed, 0, tenth * 300..(tenth + 1) * 300);
        for port in 101..=105 {
            bed.send_one(0, CLIENTS, &client(port).packet(DATA, b"goes on"));
        }
        let table = bed.tables.ipv4.statistics();
        assert!(table.half_open <= table.half_open_limit);
        // Linux says it again after a second.
        match tenth {
            20 => {
                asks += 1;
                bed.send_for(
                    0,
                    CLIENTS,
                    &client(200).packet(SYN, b""),
                    Reason::HalfOpenFull,
                );
            }
            30 => {
                asks += 1;
                connect(&mut bed, 200);
            }
            31.. => drop(bed.send_one(0, CLIENTS, &client(200).packet(DATA, b"at last"))),
            _ => {}
        }
        bed.now = bed.now.after(Ticks::from_millis(100));
    }
    let table = bed.tables.ipv4.statistics();
    // A sixteenth is for those who come again. One who did took the place of another, and left it when he was connected.
    assert_eq!((table.half_open_limit, table.half_open), (1024, 960));
    assert_eq!(replaced(&bed), 1);
    let refused = 50 * 300 + asks - 961 - 1;
    assert_eq!(table.inserts_refused_half_open, refused);
    let books = bed.books();
    assert_eq!(books[Reason::HalfOpenFull.name()], refused);
    let lost = Reason::ALL
        .iter()
        .filter(|reason| books.contains_key(reason.name()));
    assert_eq!(lost.count(), 1, "{books:?}");
    assert_eq!(config.load(0), (6 + 960, 0));
}

#[test]
fn nobody_gives_way_within_a_second_and_the_last_places_are_for_those_who_come_again() {
    let config = Config::of(TCP, VIP, Method::FullNat, SERVER);
    let limits = Limits {
        connections: 320,
        half_open_percent: 10,
        ..Limits::default()
    };
    let mut bed = Bed::with(&config, &limits);
    flood(&mut bed, 0, 0..100);
    assert_eq!(bed.tables.ipv4.statistics().half_open, 30);
    for port in 1..=3 {
        let syn = client(port).packet(SYN, b"");
        bed.send_for(0, CLIENTS, &syn, Reason::HalfOpenFull);
    }
    for port in 1..=2 {
        bed.send_one(0, CLIENTS, &client(port).packet(SYN, b""));
    }
    let third = client(3).packet(SYN, b"");
    bed.send_for(0, CLIENTS, &third, Reason::HalfOpenFull);
    bed.now = bed.now.after(Ticks::from_millis(900));
    bed.settle();
    bed.send_for(0, CLIENTS, &third, Reason::HalfOpenFull);
    bed.now = bed.now.after(Ticks::from_millis(200));
    bed.settle();
    bed.send_one(0, CLIENTS, &third);
    assert_eq!((replaced(&bed), config.load(0)), (1, (32, 0)));
    // Its local port came back with it.
    assert_eq!(bed.tables.ipv4.statistics().half_open, 32);
    bed.pass(1);
    assert_eq!(bed.stats[0].lip_ports_in_use.load(Relaxed), 32);
}

#[test]
fn the_search_for_one_that_gives_way_is_bounded_in_each_tick() {
    let config = Config::of(TCP, VIP, Method::Nat, SERVER).with(UDP, VIP, Method::Nat, &[SERVER]);
    let limits = Limits {
        half_open_percent: 1,
        ..Limits::default()
    };
    let mut bed = Bed::with(&config, &limits);
    let others = 2 * u16::try_from(PLACES_PER_TICK).unwrap();
    for port in 0..others {
        let talk = Talk::udp(CLIENT, VIP).at_port(5000 + port);
        bed.send_one(0, CLIENTS, &talk.packet(ACK, b""));
    }
    flood(&mut bed, 0, 0..60);
    bed.pass(2);
    let syn = |port| client(port).packet(SYN, b"");
    for port in 1..=3 {
        bed.send_for(0, CLIENTS, &syn(port), Reason::HalfOpenFull);
    }
    // There are two last places, and nobody was found to give way.
    bed.send_one(0, CLIENTS, &syn(1));
    bed.send_one(0, CLIENTS, &syn(2));
    bed.send_for(0, CLIENTS, &syn(3), Reason::HalfOpenFull);
    bed.now = bed.now.after(Ticks(1));
    bed.send_for(0, CLIENTS, &syn(3), Reason::HalfOpenFull);
    assert_eq!(replaced(&bed), 0);
    bed.now = bed.now.after(Ticks(1));
    bed.send_one(0, CLIENTS, &syn(3));
    assert_eq!(replaced(&bed), 1);
}

#[test]
fn a_worker_ends_no_connection_of_another() {
    let config = Config::of(TCP, VIP, Method::Dr, SERVER);
    let limits = Limits {
        workers: 2,
        connections: 320,
        half_open_percent: 10,
        ..Limits::default()
    };
    let mut bed = Bed::with(&config, &limits);
    flood(&mut bed, 1, 0..100);
    bed.pass(2);
    for port in 1..=3 {
        bed.send_for(
            0,
            CLIENTS,
            &client(port).packet(SYN, b""),
            Reason::HalfOpenFull,
        );
    }
    bed.send_one(0, CLIENTS, &client(1).packet(SYN, b""));
    bed.send_one(0, CLIENTS, &client(2).packet(SYN, b""));
    bed.send_for(
        0,
        CLIENTS,
        &client(3).packet(SYN, b""),
        Reason::HalfOpenFull,
    );
    assert_eq!(replaced(&bed), 0);
}

#[test]
fn a_service_that_is_gone_is_flooded_no_more() {
    let config = Config::of(TCP, VIP, Method::Nat, SERVER);
    let limits = Limits {
        half_open_percent: 1,
        ..Limits::default()
    };
    let mut bed = Bed::with(&config, &limits);
    flood(&mut bed, 0, 0..100);
    let syn = client(1).packet(SYN, b"");
    bed.send_for(0, CLIENTS, &syn, Reason::HalfOpenFull);
    bed.publish(&Config::of(UDP, VIP, Method::Nat, SERVER));
    bed.settle();
    let before = bed.books();
    assert!(bed.send(0, CLIENTS, &syn).is_empty());
    // It is the kernel's.
    assert_eq!(bed.moved(&before)["exceptions"], 1);
}
