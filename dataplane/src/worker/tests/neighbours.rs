//! Packets and the hardware addresses they need.

use super::bed::{Bed, Limits};
use super::config::{CLIENTS, Config, DIRECTOR, METHODS, SERVERS, director_mac, ip, mac_of};
use super::packets::{ACK, DATA, SYN, SYN_ACK, Seen, Talk};
use crate::frame::Offload;
use crate::packet::wire::{TCP, UDP};
use crate::packet::{Parsed, arp, ndp, parse};
use crate::port::Mac;
use crate::reason::Reason;
use conntrack::Method;
use std::net::{IpAddr, Ipv4Addr};

const CLIENT: &str = "10.64.0.7:40001";
const VIP: &str = "10.0.0.100:80";
const SERVER: &str = "10.2.0.11:80";

fn request() -> Talk {
    Talk::tcp(CLIENT, VIP)
}

/// Whom the director asked for on one side, and at which hardware address.
fn asked(bed: &mut Bed, side: usize) -> Vec<(IpAddr, Mac)> {
    let chatter = std::mem::take(&mut bed.chatter);
    let of_side = chatter.iter().filter(|(_, at, _)| *at == side);
    let question = |(_, _, frame): &(usize, usize, Vec<u8>)| {
        let to = Mac(frame[..6].try_into().unwrap());
        assert_eq!(frame[6..12], director_mac(side).0);
        match parse(frame, &Offload::NONE) {
            Parsed::Arp => {
                let message = arp::parse(frame).unwrap();
                let asks = message.operation == arp::Operation::Request && !message.is_gratuitous();
                assert!(!asks || IpAddr::V4(message.sender) == ip(DIRECTOR[side][0]));
                asks.then_some((message.target.into(), to))
            }
            Parsed::Ipv6(packet) => match ndp::parse(frame, &packet).unwrap() {
                ndp::Message::Solicitation { target, .. } => {
                    assert_eq!(IpAddr::V6(packet.tuple.source), ip(DIRECTOR[side][1]));
                    Some((target.into(), to))
                }
                ndp::Message::Advertisement { .. } => None,
            },
            other => panic!("{other:?}"),
        }
    };
    of_side.filter_map(question).collect()
}

#[test]
fn packets_wait_in_order_until_their_neighbour_answers() {
    for (client, vip, server) in [
        (CLIENT, VIP, SERVER),
        ("[fd00:64::7]:40001", "[fd00:a::100]:80", "[fd00:2::11]:80"),
    ] {
        for method in METHODS {
            let config = Config::of(TCP, vip, method, server);
            let mut bed = Bed::new(&config);
            let host = super::config::socket(server).ip();
            let talk = Talk::tcp(client, vip);
            bed.silent.insert(host);
            bed.chatter.clear();
            for port in 1..=5 {
                let seen = bed.send(0, CLIENTS, &talk.at_port(port).packet(SYN, b""));
                assert!(seen.is_empty());
            }
            assert_eq!(bed.books()["waiting"], 5);
            let everybody = asked(&mut bed, SERVERS);
            assert_eq!(everybody.len(), 1, "asked once a second: {everybody:?}");
            assert_eq!(everybody[0].0, host);
            assert_eq!(everybody[0].1.0[0] & 1, 1, "a group is asked");
            bed.silent.clear();
            let seen = bed.pass(2);
            let ports = |seen: &Seen| {
                let got = seen.packet();
                let got = if method == Method::Tun {
                    got.inner()
                } else {
                    got
                };
                got.talk.source.port()
            };
            if method != Method::FullNat {
                assert!(seen.iter().map(ports).eq(1..=5), "{method:?}");
            }
            assert!(seen.iter().all(|seen| seen.to() == mac_of(host)));
            assert!(seen.iter().all(|seen| seen.from() == director_mac(SERVERS)));
            let books = bed.books();
            assert_eq!((books["forwarded"], books.get("waiting")), (5, None));
        }
    }
}

#[test]
fn packets_that_wait_are_not_overtaken_when_another_worker_gets_the_answer() {
    for method in METHODS {
        let mut bed = Bed::with_workers(&Config::of(TCP, VIP, method, SERVER), 2);
        bed.answers_at = Some(1);
        let talk = request();
        assert!(bed.send(0, CLIENTS, &talk.packet(SYN, b"")).is_empty());
        assert_eq!(bed.books()["waiting"], 1);
        // In the same tick.
        let seen = bed.send(0, CLIENTS, &talk.packet(ACK, b""));
        let flags = seen.iter().map(|seen| {
            let got = seen.packet();
            let got = if method == Method::Tun {
                got.inner()
            } else {
                got
            };
            got.flags
        });
        assert!(flags.eq([SYN, ACK]), "{method:?}: {seen:?}");
        assert_eq!(bed.books().get("waiting"), None);
    }
}

#[test]
fn a_neighbour_and_all_neighbours_together_have_a_limit_of_waiting_packets() {
    let servers: Vec<String> = (11..=19).map(|host| format!("10.2.0.{host}:80")).collect();
    let servers: Vec<&str> = servers.iter().map(String::as_str).collect();
    let mut config = Config::new();
    for (index, server) in servers.iter().enumerate() {
        config = config.with(
            TCP,
            &format!("10.0.0.100:{}", 100 + index),
            Method::Dr,
            &[server],
        );
    }
    let mut bed = Bed::new(&config);
    bed.silent
        .extend((11..=19).map(|host| IpAddr::from([10, 2, 0, host])));
    let talk = |service: u16, port: u16| {
        Talk::tcp(CLIENT, &format!("10.0.0.100:{}", 100 + service)).at_port(port)
    };
    for service in 0..8 {
        for port in 1..=64 {
            assert!(
                bed.send(0, CLIENTS, &talk(service, port).packet(SYN, b""))
                    .is_empty()
            );
        }
        let before = bed.books();
        assert!(
            bed.send(0, CLIENTS, &talk(service, 65).packet(SYN, b""))
                .is_empty()
        );
        assert_eq!(bed.moved(&before)[Reason::NeighbourQueueFull.name()], 1);
    }
    assert_eq!(bed.books()["waiting"], 512);
    bed.send(0, CLIENTS, &talk(8, 1).packet(SYN, b""));
    assert_eq!(bed.books()[Reason::NeighbourQueueFull.name()], 9);
    bed.silent.clear();
    assert_eq!(bed.pass(2).len(), 512);
    // The buffers are there again.
    bed.send_one(0, CLIENTS, &talk(8, 1).packet(SYN, b""));
}

#[test]
fn a_neighbour_that_does_not_answer_is_unreachable_until_it_does() {
    let config = Config::of(TCP, VIP, Method::Nat, SERVER);
    let mut bed = Bed::new(&config);
    bed.silent.insert(ip("10.2.0.11"));
    bed.send(0, CLIENTS, &request().packet(SYN, b""));
    bed.chatter.clear();
    assert!(bed.pass(6).is_empty());
    assert_eq!(asked(&mut bed, SERVERS).len(), 2, "three requests in all");
    let books = bed.books();
    assert_eq!(books[Reason::NeighbourUnreachable.name()], 1);
    assert_eq!(books.get("waiting"), None);
    // Refused at once, but asked for again.
    bed.send(0, CLIENTS, &request().packet(SYN, b""));
    assert_eq!(bed.books()[Reason::NeighbourUnreachable.name()], 2);
    assert_eq!(asked(&mut bed, SERVERS).len(), 1);
    bed.silent.clear();
    bed.pass(2);
    let seen = bed.send_one(0, CLIENTS, &request().packet(SYN, b""));
    assert_eq!(seen.to(), mac_of(ip("10.2.0.11")));
}

#[test]
fn a_neighbour_in_use_is_confirmed_without_a_packet_waiting() {
    let config = Config::of(TCP, VIP, Method::Nat, SERVER);
    let mut bed = Bed::new(&config);
    bed.send_one(0, CLIENTS, &request().packet(SYN, b""));
    bed.send_one(0, SERVERS, &Talk::tcp(SERVER, CLIENT).packet(SYN_ACK, b""));
    bed.chatter.clear();
    for _ in 0..50 {
        bed.pass(2);
        bed.send_one(0, CLIENTS, &request().packet(DATA, b""));
    }
    let asked = asked(&mut bed, SERVERS);
    assert!(
        (2..=4).contains(&asked.len()),
        "every thirty seconds: {asked:?}"
    );
    assert!(asked.iter().all(|(_, to)| *to == mac_of(ip("10.2.0.11"))));
}

#[test]
fn an_announced_change_of_address_is_followed() {
    let config = Config::everything();
    let mut bed = Bed::new(&config);
    let new = Mac([2, 9, 9, 9, 9, 9]);
    let ipv4 = Talk::udp(CLIENT, "10.0.0.100:8000");
    let ipv6 = Talk::udp("[fd00:64::7]:40001", "[fd00:a::100]:8000");
    for talk in [ipv4, ipv6] {
        bed.send_one(0, CLIENTS, &talk.packet(ACK, b""));
    }
    bed.send_raw(
        0,
        SERVERS,
        &arp::gratuitous(new, Ipv4Addr::new(10, 2, 0, 11)),
        Offload::NONE,
    );
    let IpAddr::V6(server) = ip("fd00:2::11") else {
        unreachable!();
    };
    bed.send_raw(0, SERVERS, &ndp::unsolicited(new, server), Offload::NONE);
    for talk in [ipv4, ipv6] {
        assert_eq!(bed.send_one(0, CLIENTS, &talk.packet(ACK, b"")).to(), new);
    }
    // What is said on the clients' link says nothing of the servers'.
    let there = Mac([2, 8, 8, 8, 8, 8]);
    bed.send_raw(
        0,
        CLIENTS,
        &arp::gratuitous(there, Ipv4Addr::new(10, 2, 0, 11)),
        Offload::NONE,
    );
    assert_eq!(bed.send_one(0, CLIENTS, &ipv4.packet(ACK, b"")).to(), new);
}

#[test]
fn a_forgotten_neighbour_comes_back() {
    for method in METHODS {
        let config = Config::of(TCP, VIP, method, SERVER);
        let mut bed = Bed::new(&config);
        let inside = bed
            .send_one(0, CLIENTS, &request().packet(SYN, b""))
            .packet()
            .talk;
        bed.send_one(0, CLIENTS, &request().packet(ACK, b""));
        if method.sees_replies() {
            bed.send_one(0, SERVERS, &inside.back().packet(ACK, b""));
        }
        bed.pass(650);
        assert_eq!(bed.neighbours.list(), []);
        let seen = bed.send_one(0, CLIENTS, &request().packet(DATA, b""));
        assert_eq!(seen.to(), mac_of(ip("10.2.0.11")));
        if method.sees_replies() {
            let seen = bed.send_one(0, SERVERS, &inside.back().packet(DATA, b""));
            assert_eq!(seen.to(), mac_of(ip("10.1.0.254")));
        }
    }
}

#[test]
fn a_packet_leaves_when_another_worker_hears_the_answer() {
    let config = Config::of(TCP, VIP, Method::Dr, SERVER);
    let mut bed = Bed::with_workers(&config, 2);
    bed.answers_at = Some(0);
    assert!(bed.send(1, CLIENTS, &request().packet(SYN, b"")).is_empty());
    let seen = bed.pass(1);
    assert_eq!((seen.len(), seen[0].worker), (1, 1));
}

#[test]
fn fragments_wait_together_and_only_whole_packets_take_places() {
    let config = Config::of(UDP, VIP, Method::Dr, SERVER);
    let mut bed = Bed::new(&config);
    bed.silent.insert(ip("10.2.0.11"));
    let talk = Talk::udp(CLIENT, VIP);
    // 21 fragments each: the fourth packet finds one place left.
    for count in 1..=4 {
        bed.send(0, CLIENTS, &talk.packet(ACK, &vec![1; 30_000]));
        let books = bed.books();
        assert_eq!(books["waiting"], count.min(3));
    }
    assert_eq!(bed.books()[Reason::NeighbourQueueFull.name()], 1);
    bed.silent.clear();
    assert_eq!(bed.pass(2).len(), 63);
    assert_eq!(bed.books()["forwarded"], 3);
}

#[test]
fn new_routes_hold_for_connections_that_exist() {
    let mut config = Config::of(TCP, VIP, Method::Nat, SERVER);
    let mut bed = Bed::with(&config, &Limits::default());
    bed.send_one(0, CLIENTS, &request().packet(SYN, b""));
    let reply = Talk::tcp(SERVER, CLIENT);
    bed.send_one(0, SERVERS, &reply.packet(SYN_ACK, b""));
    config.default_route = false;
    config.route_generation += 1;
    bed.publish(&config);
    bed.send_for(0, SERVERS, &reply.packet(ACK, b""), Reason::NoRoute);
    config.default_route = true;
    config.route_generation += 1;
    bed.publish(&config);
    bed.send_one(0, SERVERS, &reply.packet(ACK, b""));
}
