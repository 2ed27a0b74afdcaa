//! ICMP errors: those the director relays, and those it sends.

use super::bed::Bed;
use super::config::{
    CLIENTS, Config, DIRECTOR, ENCAPSULATIONS, SERVERS, ServiceConfig, ip, mac_of, socket,
};
use super::packets::{ACK, DATA, Got, SYN, Talk, icmp_error, with_ttl};
use crate::packet::wire::{ICMP, ICMPV6, TCP, UDP};
use crate::reason::Reason;
use crate::rewrite::Encapsulation;
use conntrack::{Method, Ticks};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

/// Routers on the way to the clients, and real servers.
const ROUTERS: [&str; 2] = ["10.9.9.9", "fd00:9::9"];

struct Case {
    config: Config,
    bed: Bed,
    method: Method,
    talk: Talk,
    /// What the server sees of the client.
    inside: Talk,
    /// 0 for IPv4, 1 for IPv6.
    family: usize,
}

/// A connection through every service of everything.
fn cases() -> impl Iterator<Item = Case> {
    let open = |service: &ServiceConfig| {
        let config = Config::everything();
        let mut bed = Bed::new(&config);
        let family = usize::from(service.address.is_ipv6());
        let talk = Talk {
            protocol: service.protocol,
            source: socket(["10.64.0.7:40001", "[fd00:64::7]:40001"][family]),
            destination: service.address,
        };
        let method = service.servers[0].method;
        let got = bed.send_one(0, CLIENTS, &talk.packet(SYN, b"")).packet();
        let inside = if method == Method::Tun {
            talk
        } else {
            got.talk
        };
        Case {
            config,
            bed,
            method,
            talk,
            inside,
            family,
        }
    };
    let services = Config::everything().services;
    services.into_iter().map(move |service| open(&service))
}

/// Too big, as either family says it.
pub(super) const TOO_BIG: [(u8, u8, u32); 2] = [(3, 4, 1300), (2, 0, 1300)];
const PORT_UNREACHABLE: [(u8, u8, u32); 2] = [(3, 3, 0), (1, 4, 0)];
const TIME_EXCEEDED: [(u8, u8, u32); 2] = [(11, 0, 0), (3, 0, 0)];

#[test]
fn an_error_from_the_clients_side_reaches_the_server_about_its_own_packet() {
    for mut case in cases() {
        let (talk, about) = (case.talk, format!("{:?} {:?}", case.method, case.talk));
        let quoted = talk.back().packet(DATA, b"too large");
        let router = ROUTERS[case.family];
        let error = icmp_error(router, talk.destination.ip(), TOO_BIG[case.family], &quoted);
        let seen = case.bed.send_one(0, CLIENTS, &error);
        let server = mac_of(ip(["10.2.0.11", "fd00:2::11"][case.family]));
        assert_eq!((seen.side, seen.to()), (SERVERS, server), "{about}");
        let mut got = seen.packet();
        if case.method == Method::Tun {
            got = got.inner();
        }
        assert_eq!(got.ttl, 63);
        assert_eq!(
            got.talk.destination.ip(),
            case.inside.destination.ip(),
            "{about}"
        );
        let from = match case.method {
            Method::FullNat => case.inside.source.ip(),
            _ => ip(router),
        };
        assert_eq!(got.talk.source.ip(), from, "{about}");
        assert_eq!(
            got.error(),
            (TOO_BIG[case.family], case.inside.back()),
            "{about}"
        );
    }
}

#[test]
fn an_error_from_the_servers_side_reaches_the_client_from_the_vip() {
    for mut case in cases().filter(|case| case.method.sees_replies()) {
        let about = format!("{:?} {:?}", case.method, case.talk);
        let quoted = case.inside.packet(DATA, b"nobody listens");
        // The server itself, and a router between.
        let server = case.inside.destination.ip().to_string();
        for from in [server.as_str(), ["10.2.0.254", "fd00:2::fe"][case.family]] {
            for kind in [PORT_UNREACHABLE, TIME_EXCEEDED, TOO_BIG] {
                let to = case.inside.source.ip();
                let error = icmp_error(from, to, kind[case.family], &quoted);
                let seen = case.bed.send_one(0, SERVERS, &error);
                let got = seen.packet();
                assert_eq!(seen.side, CLIENTS, "{about}");
                assert_eq!(got.talk.source.ip(), case.talk.destination.ip(), "{about}");
                assert_eq!(got.talk.destination.ip(), case.talk.source.ip(), "{about}");
                assert_eq!(got.error(), (kind[case.family], case.talk), "{about}");
            }
        }
    }
}

#[test]
fn an_error_that_quotes_only_the_ports_is_relayed_too() {
    for mut case in cases().filter(|case| case.method.sees_replies()) {
        let mut quoted = case.inside.packet(DATA, b"nobody listens");
        quoted.truncate(14 + [20, 40][case.family] + 8);
        let server = case.inside.destination.ip().to_string();
        let kind = PORT_UNREACHABLE[case.family];
        let error = icmp_error(&server, case.inside.source.ip(), kind, &quoted);
        let seen = case.bed.send_one(0, SERVERS, &error);
        assert_eq!(seen.packet().error(), (kind, case.talk));
    }
}

#[test]
fn a_relayed_error_counts_for_its_server() {
    for mut case in cases().filter(|case| case.method.sees_replies()) {
        let id = case.config.services.iter().find(|service| {
            service.address == case.talk.destination && service.protocol == case.talk.protocol
        });
        let id = scheduler::RealServerId(id.unwrap().servers[0].id);
        let counted = |bed: &Bed| {
            let stats = bed.stats[0].server(id).unwrap();
            let counters = [
                &stats.in_packets,
                &stats.in_bytes,
                &stats.out_packets,
                &stats.out_bytes,
            ];
            counters.map(|counter| counter.load(std::sync::atomic::Ordering::Relaxed))
        };
        let before = counted(&case.bed);
        let quoted = case.inside.packet(DATA, b"");
        let server = case.inside.destination.ip().to_string();
        let kind = PORT_UNREACHABLE[case.family];
        let error = icmp_error(&server, case.inside.source.ip(), kind, &quoted);
        let len = Got::of(&error).len as u64;
        case.bed.send_one(0, SERVERS, &error);
        let after = counted(&case.bed);
        assert_eq!(
            after,
            [before[0], before[1], before[2] + 1, before[3] + len]
        );
    }
}

#[test]
fn an_error_about_nothing_known_is_dropped_if_it_is_for_us_and_left_alone_if_not() {
    let mut bed = Bed::new(&Config::everything());
    for family in 0..2 {
        let vip = ["10.0.0.100:8000", "[fd00:a::100]:8000"][family];
        let client = ["10.64.0.7:40001", "[fd00:64::7]:40001"][family];
        let quoted = Talk::tcp(vip, client).packet(DATA, b"");
        let (vip, client) = (socket(vip).ip(), socket(client).ip());
        let error = icmp_error(ROUTERS[family], vip, TOO_BIG[family], &quoted);
        bed.send_for(0, CLIENTS, &error, Reason::IcmpUnrelated);
        let before = bed.books();
        let error = icmp_error(ROUTERS[family], client, TOO_BIG[family], &quoted);
        assert!(bed.send(0, SERVERS, &error).is_empty());
        let moved = BTreeMap::from([("received", 1), ("exceptions", 1)]);
        assert_eq!(bed.moved(&before), moved);
    }
}

#[test]
fn ipv4_redirects_and_parameter_problems_are_not_relayed() {
    for mut case in cases().filter(|case| case.family == 0) {
        let quoted = case.talk.back().packet(DATA, b"");
        let vip = case.talk.destination.ip();
        for kind in [5, 12, 1, 2, 6, 7, 19, 255] {
            let error = icmp_error(ROUTERS[0], vip, (kind, 0, 0), &quoted);
            case.bed
                .send_for(0, CLIENTS, &error, Reason::IcmpUnsupported);
        }
        let mut error = icmp_error(ROUTERS[0], vip, TOO_BIG[0], &quoted);
        *error.last_mut().unwrap() ^= 0xff;
        case.bed
            .send_for(0, CLIENTS, &error, Reason::BadIcmpChecksum);
    }
}

#[test]
fn all_icmpv6_errors_are_relayed_and_from_clients_even_with_a_wrong_checksum() {
    for mut case in cases().filter(|case| case.family == 1) {
        let quoted = case.talk.back().packet(DATA, b"");
        let vip = case.talk.destination.ip();
        for kind in [0, 1, 4, 5, 100, 127] {
            let mut error = icmp_error(ROUTERS[1], vip, (kind, 0, 0), &quoted);
            assert_eq!(case.bed.send_one(0, CLIENTS, &error).side, SERVERS);
            *error.last_mut().unwrap() ^= 0xff;
            assert_eq!(case.bed.send_one(0, CLIENTS, &error).side, SERVERS);
        }
    }
}

#[test]
fn a_relayed_error_without_a_hop_left_is_dropped_silently() {
    for mut case in cases() {
        let quoted = case.talk.back().packet(DATA, b"");
        let vip = case.talk.destination.ip();
        let error = icmp_error(ROUTERS[case.family], vip, TOO_BIG[case.family], &quoted);
        case.bed
            .send_for(0, CLIENTS, &with_ttl(error, 1), Reason::TtlExpired);
    }
}

#[test]
fn a_relayed_error_too_large_is_fragmented_or_dropped_silently() {
    for mut case in cases().filter(|case| case.method != Method::Tun) {
        case.config.mtu[SERVERS] = 600;
        case.bed.publish(&case.config);
        let quoted = case.talk.back().packet(DATA, &[9; 1000]);
        let vip = case.talk.destination.ip();
        let error = icmp_error(ROUTERS[case.family], vip, TOO_BIG[case.family], &quoted);
        if case.family == 1 {
            case.bed.send_for(0, CLIENTS, &error, Reason::TooBig);
        } else {
            assert_eq!(case.bed.send(0, CLIENTS, &error).len(), 2);
        }
    }
}

#[test]
fn a_service_without_a_usable_server_says_so() {
    for service in Config::everything().services {
        let mut config = Config::everything();
        config.server(service.servers[0].id).weight = 0;
        let mut bed = Bed::new(&config);
        let family = usize::from(service.address.is_ipv6());
        let talk = Talk {
            protocol: service.protocol,
            source: socket(["10.64.0.7:40001", "[fd00:64::7]:40001"][family]),
            destination: service.address,
        };
        let before = bed.books();
        let got = bed
            .send_one(0, CLIENTS, &talk.packet(SYN, b"anyone?"))
            .packet();
        let moved = [
            ("received", 1),
            ("originated", 1),
            ("replied", 1),
            (Reason::NoServer.name(), 1),
        ];
        assert_eq!(bed.moved(&before), BTreeMap::from(moved));
        assert_eq!(got.talk.protocol, [ICMP, ICMPV6][family]);
        assert_eq!(got.talk.source.ip(), talk.destination.ip());
        assert_eq!(got.talk.destination.ip(), talk.source.ip());
        assert_eq!(got.error(), (PORT_UNREACHABLE[family], talk));
        assert_eq!(bed.connections(), 0);
    }
}

#[test]
fn a_packet_without_a_hop_left_is_answered_by_the_vip_and_still_opens_a_connection() {
    for service in Config::everything().services {
        let mut bed = Bed::new(&Config::everything());
        let family = usize::from(service.address.is_ipv6());
        let talk = Talk {
            protocol: service.protocol,
            source: socket(["10.64.0.7:40001", "[fd00:64::7]:40001"][family]),
            destination: service.address,
        };
        let got = bed
            .send_one(0, CLIENTS, &with_ttl(talk.packet(SYN, b""), 1))
            .packet();
        assert_eq!(got.error(), (TIME_EXCEEDED[family], talk));
        assert_eq!(got.talk.source.ip(), talk.destination.ip());
        assert_eq!(bed.connections(), 1);
        assert_eq!(bed.books()[Reason::TtlExpired.name()], 1);
        let seen = bed.send_one(0, CLIENTS, &with_ttl(talk.packet(ACK, b""), 2));
        assert_eq!((seen.side, seen.packet().ttl), (SERVERS, 1));
    }
}

#[test]
fn a_server_of_nat_whose_reply_has_no_hop_left_hears_it_from_the_port_it_came_in_by() {
    let mut bed = Bed::new(&Config::of(
        TCP,
        "10.0.0.100:80",
        Method::Nat,
        "10.2.0.11:80",
    ));
    let talk = Talk::tcp("10.64.0.7:40001", "10.0.0.100:80");
    let there = bed.send_one(0, CLIENTS, &talk.packet(SYN, b"")).packet();
    let reply = with_ttl(there.talk.back().packet(ACK, b""), 1);
    let seen = bed.send_one(0, SERVERS, &reply);
    assert_eq!(seen.side, SERVERS);
    let got = seen.packet();
    assert_eq!(got.error(), (TIME_EXCEEDED[0], there.talk.back()));
    assert_eq!(got.talk.source.ip(), ip(DIRECTOR[SERVERS][0]));
}

#[test]
fn errors_of_our_own_are_limited_by_the_second() {
    let mut config = Config::of(TCP, "10.0.0.100:80", Method::Nat, "10.2.0.11:80");
    config.server(0).weight = 0;
    let mut bed = Bed::new(&config);
    let talk = Talk::tcp("10.64.0.7:1", "10.0.0.100:80");
    let send = |bed: &mut Bed, count: u16| {
        let ports = 1..=count;
        ports
            .map(|port| {
                bed.send(0, CLIENTS, &talk.at_port(port).packet(SYN, b""))
                    .len()
            })
            .sum::<usize>()
    };
    assert_eq!(send(&mut bed, 1005), 1000);
    let books = bed.books();
    assert_eq!(books[Reason::IcmpRateLimited.name()], 5);
    assert_eq!(books[Reason::NoServer.name()], 1005);
    bed.pass(1);
    assert_eq!(send(&mut bed, 10), 10);
}

#[test]
fn an_error_about_a_tunnel_becomes_one_from_the_vip_about_the_packet_inside() {
    for (client, vip, server) in [
        ("10.64.0.7:40001", "10.0.0.100:80", "10.2.0.11:80"),
        ("10.64.0.7:40001", "10.0.0.100:80", "[fd00:2::11]:80"),
        ("[fd00:64::7]:40001", "[fd00:a::100]:80", "10.2.0.11:80"),
        ("[fd00:64::7]:40001", "[fd00:a::100]:80", "[fd00:2::11]:80"),
    ] {
        for (protocol, encapsulation) in [TCP, UDP]
            .into_iter()
            .flat_map(|protocol| ENCAPSULATIONS.map(|encapsulation| (protocol, encapsulation)))
        {
            let mut config = Config::of(protocol, vip, Method::Tun, server);
            config.server(0).encapsulation = encapsulation;
            let mut bed = Bed::new(&config);
            let talk = Talk::new(protocol, client, vip);
            let tunnelled = bed.send_one(0, CLIENTS, &talk.whole(SYN, &[7; 300]));
            let (outside, inside) = (
                usize::from(server.starts_with('[')),
                usize::from(vip.starts_with('[')),
            );
            let director = ip(DIRECTOR[SERVERS][outside]);
            let router = ["10.2.0.254", "fd00:2::fe"][outside];
            let overhead = [20, 40][outside] + encapsulation.header_len();
            // Lets the director ask for the clients' router.
            let error = icmp_error(router, director, TIME_EXCEEDED[outside], &tunnelled.frame);
            bed.send_one(0, SERVERS, &error);
            for quote_len in [usize::MAX, 14 + overhead + [20, 40][inside] + 8] {
                let quoted = &tunnelled.frame[..tunnelled.frame.len().min(quote_len)];
                let mut case = |kind: (u8, u8, u32)| {
                    let error = icmp_error(router, director, kind, quoted);
                    let before = bed.books();
                    let seen = bed.send_one(0, SERVERS, &error);
                    let moved = BTreeMap::from([("received", 1), ("forwarded", 1)]);
                    assert_eq!(bed.moved(&before), moved);
                    assert_eq!(seen.side, CLIENTS);
                    assert_eq!(
                        seen.to(),
                        mac_of(ip(super::config::CLIENT_GATEWAYS[inside]))
                    );
                    let got = seen.packet();
                    assert_eq!(got.talk.source.ip(), talk.destination.ip());
                    assert_eq!(got.talk.destination.ip(), talk.source.ip());
                    let (kind, quoted) = got.error();
                    assert_eq!(quoted, talk);
                    kind
                };
                let overhead = u32::try_from(overhead).unwrap();
                let mtu = (TOO_BIG[inside].0, TOO_BIG[inside].1, 1400 - overhead);
                let too_big = TOO_BIG[outside];
                assert_eq!(case((too_big.0, too_big.1, 1400)), mtu);
                let exceeded = case(TIME_EXCEEDED[outside]);
                let expected = if outside == inside {
                    TIME_EXCEEDED[inside]
                } else {
                    [(3, 1, 0), (1, 3, 0)][inside]
                };
                assert_eq!(exceeded, expected);
                let least = case((too_big.0, too_big.1, 20)).2;
                assert_eq!(least, [[552, 1280][outside] - overhead, 1280][inside]);
                // What was learned is forgotten in time.
                let later = bed.now.after(Ticks::from_seconds(601));
                assert_eq!(config.server(0).path_mtu.limit(later), u32::MAX);
            }
            // Somebody else's tunnel: to another end, or of another kind.
            let kind = match encapsulation {
                Encapsulation::Ipip => None,
                Encapsulation::Gre { .. } => Some(1),
                Encapsulation::Gue { .. } => Some(3),
            };
            let end_at = 14 + [19, 39][outside];
            for other_at in [Some(end_at), kind.map(|at| end_at + 1 + at)]
                .into_iter()
                .flatten()
            {
                let mut other = tunnelled.frame.clone();
                other[other_at] ^= 1;
                if outside == 0 {
                    crate::packet::sample::fix_header(&mut other);
                }
                let error = icmp_error(router, director, TIME_EXCEEDED[outside], &other);
                bed.send_for(0, SERVERS, &error, Reason::IcmpUnrelated);
            }
        }
    }
}

#[test]
fn a_removed_server_still_hears_of_what_it_sent_and_it_counts_no_more() {
    for mut case in cases() {
        let id = case.config.services.iter().find(|service| {
            service.address == case.talk.destination && service.protocol == case.talk.protocol
        });
        let id = id.unwrap().servers[0].id;
        case.config.server(id).present = false;
        case.bed.publish(&case.config);
        let counted = |bed: &Bed| {
            let stats = bed.stats[0].server(scheduler::RealServerId(id)).unwrap();
            stats.in_packets.load(Relaxed)
        };
        let before = counted(&case.bed);
        let quoted = case.talk.back().packet(DATA, b"");
        let vip = case.talk.destination.ip();
        let error = icmp_error(ROUTERS[case.family], vip, TOO_BIG[case.family], &quoted);
        assert_eq!(case.bed.send_one(0, CLIENTS, &error).side, SERVERS);
        assert_eq!(counted(&case.bed), before);
    }
}
