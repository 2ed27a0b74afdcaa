//! SCTP by every method and both families.

use super::bed::Bed;
use super::config::{CLIENTS, Config, METHODS, SERVERS, mac_of, socket};
use super::fragments::cut;
use super::packets::{ACK, Seen, Talk, icmp_error, partial};
use crate::packet::wire::SCTP;
use crate::reason::Reason;
use conntrack::{Method, Ticks};
use std::net::SocketAddr;

const CLIENT: &str = "10.64.0.7:40001";
const VIP: &str = "10.0.0.100:3868";
const BOTH: [&str; 2] = ["10.2.0.11:3868", "10.2.0.12:3868"];
const BOTH_FAMILIES: [[&str; 3]; 2] = [
    [CLIENT, VIP, "10.2.0.11:"],
    ["[fd00:64::7]:40001", "[fd00:a::100]:3868", "[fd00:2::11]:"],
];

const INIT: &[u8] = &[
    1, 0, 0, 20, 1, 2, 3, 4, 0, 1, 0, 0, 0, 10, 0, 10, 0, 0, 0, 1,
];
const INIT_ACK: &[u8] = &[
    2, 0, 0, 20, 1, 2, 3, 4, 0, 1, 0, 0, 0, 10, 0, 10, 0, 0, 0, 1,
];
const COOKIE_ECHO: &[u8] = &[10, 0, 0, 8, 1, 2, 3, 4];
const COOKIE_ACK: &[u8] = &[11, 0, 0, 4];
const DATA: &[u8] = &[0, 3, 0, 20, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4];
const SHUTDOWN: &[u8] = &[7, 0, 0, 8, 0, 0, 0, 1];
const SHUTDOWN_ACK: &[u8] = &[8, 0, 0, 4];
const SHUTDOWN_COMPLETE: &[u8] = &[14, 0, 0, 4];
const ABORT: &[u8] = &[6, 0, 0, 4];

/// An SCTP packet of chunks.
fn packet(talk: &Talk, chunks: &[u8]) -> Vec<u8> {
    talk.packet(ACK, chunks)
}

fn states(bed: &Bed) -> Vec<&'static str> {
    let mut states = Vec::new();
    bed.tables
        .ipv4
        .for_each(|_, view| states.push(view.state.name()));
    bed.tables
        .ipv6
        .for_each(|_, view| states.push(view.state.name()));
    states
}

/// A client's packet as its server gets it; what the server answers to.
fn at_server(seen: &Seen, method: Method) -> Talk {
    let packet = seen.packet();
    match method {
        Method::Tun => packet.inner().talk,
        _ => packet.talk,
    }
}

#[test]
fn an_association_lives_by_every_method_and_in_both_families() {
    for [client, vip, server] in BOTH_FAMILIES {
        for method in METHODS {
            let port = if method.sees_replies() {
                "4000"
            } else {
                "3868"
            };
            let server = format!("{server}{port}");
            let config = Config::of(SCTP, vip, method, &server);
            let mut bed = Bed::new(&config);
            let talk = Talk::sctp(client, vip);
            let life: [(bool, &[u8], &str, &str); 9] = [
                (true, INIT, "INIT1", "INIT1"),
                (false, INIT_ACK, "C-SENT", ""),
                (true, COOKIE_ECHO, "C-REPLIED", "ESTABLISHED"),
                (false, COOKIE_ACK, "ESTABLISHED", ""),
                (true, DATA, "ESTABLISHED", "ESTABLISHED"),
                (false, DATA, "ESTABLISHED", ""),
                (true, SHUTDOWN, "S-RECEIVED", "S-RECEIVED"),
                (false, SHUTDOWN_ACK, "S-ACK-SENT", ""),
                (true, SHUTDOWN_COMPLETE, "CLOSED", "CLOSED"),
            ];
            let mut reply = talk;
            for (asks, chunks, both, alone) in life {
                if asks {
                    let seen = bed.send_one(0, CLIENTS, &packet(&talk, chunks));
                    let arrived = at_server(&seen, method);
                    let to: SocketAddr = if method.sees_replies() {
                        server.parse().unwrap()
                    } else {
                        talk.destination
                    };
                    assert_eq!(arrived.destination, to, "{method:?}");
                    let shown = if method == Method::FullNat {
                        "10.2.0.200"
                    } else {
                        "10.64.0.7"
                    };
                    if client == CLIENT {
                        assert_eq!(
                            arrived.source.ip(),
                            shown.parse::<std::net::IpAddr>().unwrap()
                        );
                    }
                    assert_eq!(seen.to(), mac_of(socket(&server).ip()));
                    reply = arrived.back();
                } else if method.sees_replies() {
                    let seen = bed.send_one(0, SERVERS, &packet(&reply, chunks));
                    assert_eq!((seen.packet().talk, seen.side), (talk.back(), CLIENTS));
                    assert_eq!(seen.packet().payload, chunks);
                } else {
                    continue;
                }
                let expected = if method.sees_replies() { both } else { alone };
                assert_eq!(states(&bed), [expected], "{method:?} {chunks:?}");
                let active = u32::from(expected == "ESTABLISHED");
                assert_eq!(config.load(0), (active, 1 - active));
            }
        }
    }
}

#[test]
fn without_sloppy_sctp_an_init_alone_begins_a_connection() {
    let talk = Talk::sctp(CLIENT, VIP);
    let mut config = Config::of(SCTP, VIP, Method::Nat, BOTH[0]);
    let mut bed = Bed::new(&config);
    for chunks in [DATA, COOKIE_ECHO, ABORT, b"", INIT_ACK] {
        bed.send_for(0, CLIENTS, &packet(&talk, chunks), Reason::NoConnection);
    }
    config.ipvs.sloppy_sctp = true;
    bed.publish(&config);
    bed.settle();
    for chunks in [b"", ABORT] {
        bed.send_for(0, CLIENTS, &packet(&talk, chunks), Reason::NoConnection);
    }
    for (port, chunks, expected) in [
        (1, DATA, "ESTABLISHED"),
        (2, COOKIE_ECHO, "C-REPLIED"),
        (3, SHUTDOWN, "S-RECEIVED"),
    ] {
        bed.send_one(0, CLIENTS, &packet(&talk.at_port(port), chunks));
        let mut found = Vec::new();
        bed.tables.ipv4.for_each(|_, view| {
            if view.client.1 == port {
                found.push(view.state.name());
            }
        });
        assert_eq!(found, [expected]);
    }
}

#[test]
fn an_init_on_a_closed_association_is_scheduled_anew() {
    for (mode, stays) in [(0, true), (1, false)] {
        let mut config = Config::new().with(SCTP, VIP, Method::Nat, &BOTH);
        config.ipvs.conn_reuse_mode = mode;
        let mut bed = Bed::new(&config);
        let talk = Talk::sctp(CLIENT, VIP);
        let mut server_of = |chunks: &[u8]| {
            bed.send_one(0, CLIENTS, &packet(&talk, chunks))
                .packet()
                .talk
                .destination
        };
        let first = server_of(INIT);
        // One that lives keeps its server.
        assert_eq!(server_of(INIT), first);
        server_of(ABORT);
        assert_eq!(server_of(DATA), first);
        assert_eq!(server_of(INIT) == first, stays, "{mode}");
        assert_eq!(bed.connections(), 1);
    }
}

#[test]
fn a_lost_first_init_is_forgotten_soon_and_half_open_ones_are_bounded() {
    let config = Config::of(SCTP, VIP, Method::Nat, BOTH[0]);
    let limits = super::bed::Limits {
        connections: 100,
        half_open_percent: 2,
        ..Default::default()
    };
    let mut bed = Bed::with(&config, &limits);
    let talk = Talk::sctp(CLIENT, VIP);
    for port in 1..=2 {
        bed.send_one(0, CLIENTS, &packet(&talk.at_port(port), INIT));
    }
    let third = packet(&talk.at_port(3), INIT);
    bed.send_for(0, CLIENTS, &third, Reason::HalfOpenFull);
    bed.pass(5);
    assert_eq!(bed.connections(), 0);
    bed.send_one(0, CLIENTS, &third);
}

#[test]
fn a_checksum_left_to_the_nic_is_made_before_the_packet_goes_on() {
    // The kernel takes SCTP's unfinished checksum for an Internet checksum when a frame with one is sent by a socket.
    for method in METHODS {
        for server in ["10.2.0.11:3868", "10.2.0.11:4000"] {
            if !method.sees_replies() && server.ends_with("4000") {
                continue;
            }
            let mut bed = Bed::new(&Config::of(SCTP, VIP, method, server));
            let mut frame = packet(&Talk::sctp(CLIENT, VIP), INIT);
            let offload = partial(&mut frame);
            assert_eq!(offload.checksum_offset, 8);
            super::bed::address(&mut frame, CLIENTS);
            let seen = bed.send_with(0, CLIENTS, &frame, offload);
            assert_eq!(seen.len(), 1);
            assert!(!seen[0].offload.partial_checksum, "{method:?}");
            let arrived = seen[0].packet();
            if method == Method::Tun {
                assert_eq!(arrived.inner().payload, INIT);
            } else {
                assert_eq!(arrived.payload, INIT);
            }
        }
    }
}

#[test]
fn errors_about_sctp_reach_the_other_end_with_its_own_ports() {
    for method in [Method::Nat, Method::FullNat] {
        let config = Config::of(SCTP, VIP, method, "10.2.0.11:4000");
        let mut bed = Bed::new(&config);
        let talk = Talk::sctp(CLIENT, VIP);
        let asked = bed.send_one(0, CLIENTS, &packet(&talk, INIT));
        // A router at the servers' side about the director's packet.
        let to = asked.packet().talk.source.ip();
        // The quoted checksum cannot follow the ports, so no more than they are quoted.
        let error = icmp_error("10.2.0.254", to, (3, 4, 1400), &asked.frame[..14 + 20 + 8]);
        let seen = bed.send_one(0, SERVERS, &error);
        let (kind, about) = seen.packet().error();
        assert_eq!((kind, about), ((3, 4, 1400), talk), "{method:?}");
        assert_eq!(seen.packet().talk.destination.ip(), talk.source.ip());
    }
}

#[test]
fn a_server_that_speaks_without_a_connection_is_told_unless_it_aborts() {
    let mut config = Config::of(SCTP, VIP, Method::Nat, BOTH[0]);
    config.ipvs.nat_icmp_send = true;
    let mut bed = Bed::new(&config);
    let stray = Talk::sctp(BOTH[0], CLIENT);
    let seen = bed.send_one(0, SERVERS, &packet(&stray, DATA));
    assert_eq!(seen.packet().error().1, stray);
    let before = bed.books();
    assert!(bed.send(0, SERVERS, &packet(&stray, ABORT)).is_empty());
    assert_eq!(bed.moved(&before).get("exceptions"), Some(&1));
}

#[test]
fn fragments_of_sctp_follow_the_first_where_the_ports_stay() {
    for [client, vip, server] in BOTH_FAMILIES {
        for method in [Method::Nat, Method::Dr] {
            let config = Config::of(SCTP, vip, method, &format!("{server}3868"));
            let mut bed = Bed::new(&config);
            let talk = Talk::sctp(client, vip);
            let large = [INIT, &[0; 1200]].concat();
            let pieces = cut(&packet(&talk, &large), &[800], 77);
            for piece in &pieces {
                let seen = bed.send_one(0, CLIENTS, piece);
                assert_eq!(seen.to(), mac_of(socket(&format!("{server}3868")).ip()));
            }
            assert_eq!(states(&bed), ["INIT1"]);
        }
    }
}

#[test]
fn an_established_association_lasts_a_quarter_of_an_hour() {
    let config = Config::of(SCTP, VIP, Method::Dr, BOTH[0]);
    let mut bed = Bed::new(&config);
    let talk = Talk::sctp(CLIENT, VIP);
    bed.send_one(0, CLIENTS, &packet(&talk, INIT));
    bed.send_one(0, CLIENTS, &packet(&talk, COOKIE_ECHO));
    let mut left = Ticks(0);
    let now = bed.now;
    bed.tables
        .ipv4
        .for_each(|_, view| left = view.expires_at.distance(now));
    assert_eq!(left, Ticks::from_seconds(900));
}
