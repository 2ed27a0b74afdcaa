//! What an operator may choose of a connection's life: the kernel's sysctls, thresholds, one-packet scheduling.

use super::bed::Bed;
use super::config::{CLIENTS, Config, SERVERS, ip, socket};
use super::packets::{ACK, DATA, FIN, RST, SYN, SYN_ACK, Talk};
use crate::packet::TcpFlags;
use crate::packet::wire::{TCP, UDP};
use crate::reason::Reason;
use crate::stats::WorkerStats;
use conntrack::Method;
use scheduler::RealServerId;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;

const CLIENT: &str = "10.64.0.7:40001";
const VIP: &str = "10.0.0.100:80";
const BOTH: [&str; 2] = ["10.2.0.11:80", "10.2.0.12:80"];

fn request(port: u16) -> Talk {
    Talk::tcp(CLIENT, VIP).at_port(port)
}

/// The server that a client's packet reaches by NAT.
fn server_of(bed: &mut Bed, port: u16, flags: TcpFlags) -> SocketAddr {
    let seen = bed.send_one(0, CLIENTS, &request(port).packet(flags, b""));
    seen.packet().talk.destination
}

fn two_by_nat() -> Config {
    Config::new().with(TCP, VIP, Method::Nat, &BOTH)
}

#[test]
fn without_connection_reuse_a_syn_goes_to_the_server_of_the_connection_that_ended() {
    for (mode, stays) in [(0, true), (1, false), (2, false)] {
        let mut config = two_by_nat();
        config.ipvs.conn_reuse_mode = mode;
        let mut bed = Bed::new(&config);
        let first = server_of(&mut bed, 1, SYN);
        server_of(&mut bed, 1, ACK);
        server_of(&mut bed, 1, RST);
        assert_eq!(server_of(&mut bed, 1, SYN) == first, stays, "{mode}");
        assert_eq!(bed.connections(), 1);
    }
}

#[test]
fn a_syn_with_other_flags_ends_an_ended_connection_and_with_a_reset_begins_none() {
    for (flags, left) in [
        (SYN_ACK, 1),
        (SYN | FIN, 1),
        (SYN | RST, 0),
        (SYN_ACK | RST, 0),
    ] {
        let mut bed = Bed::new(&two_by_nat());
        let first = server_of(&mut bed, 1, SYN);
        server_of(&mut bed, 1, ACK);
        server_of(&mut bed, 1, RST);
        let seen = bed.send(0, CLIENTS, &request(1).packet(flags, b""));
        for frame in &seen {
            assert_ne!(frame.packet().talk.destination, first, "{flags:?}");
        }
        assert_eq!(seen.len(), left, "{flags:?}");
        assert_eq!(bed.connections(), u32::try_from(left).unwrap());
    }
}

#[test]
fn only_mode_two_reuses_a_connection_that_the_client_alone_was_seen_to_close() {
    for method in [Method::Nat, Method::Dr, Method::Tun] {
        for (mode, reused) in [(1, false), (2, method != Method::Nat)] {
            let mut config = Config::new().with(TCP, VIP, method, &BOTH);
            config.ipvs.conn_reuse_mode = mode;
            let mut bed = Bed::new(&config);
            let first = bed.send_one(0, CLIENTS, &request(1).packet(SYN, b"")).to();
            bed.send_one(0, CLIENTS, &request(1).packet(ACK, b""));
            bed.send_one(0, CLIENTS, &request(1).packet(FIN, b""));
            let again = bed.send_one(0, CLIENTS, &request(1).packet(SYN, b"")).to();
            assert_eq!(again != first, reused, "{method:?} {mode}");
        }
    }
}

#[test]
fn with_expire_nodest_conn_a_syn_leaves_a_drained_server_and_other_packets_do_not() {
    for expire in [false, true] {
        let mut config = two_by_nat();
        config.ipvs.expire_nodest_conn = expire;
        config.services[0].scheduler = "wrr";
        let mut bed = Bed::new(&config);
        let first = server_of(&mut bed, 1, SYN);
        let drained = u32::from(first != socket(BOTH[0]));
        config.server(drained).weight = 0;
        bed.publish(&config);
        assert_eq!(server_of(&mut bed, 1, ACK), first);
        assert_eq!(server_of(&mut bed, 1, SYN) != first, expire);
        let gone = config.load(drained) == (0, 0);
        assert_eq!((gone, bed.connections()), (expire, 1));
    }
}

#[test]
fn with_expire_nodest_conn_the_first_packet_ends_a_connection_to_a_removed_server() {
    for method in [Method::Nat, Method::Dr, Method::FullNat] {
        let mut config = Config::new().with(TCP, VIP, method, &BOTH);
        let mut bed = Bed::with_workers(&config, 2);
        for port in 1..=4 {
            bed.send_one(0, CLIENTS, &request(port).packet(SYN, b""));
        }
        config.server(0).present = false;
        bed.publish(&config);
        bed.settle();
        // The setting alone, later than the removal, ends nothing.
        config.ipvs.expire_nodest_conn = true;
        bed.publish(&config);
        bed.settle();
        assert_eq!(bed.connections(), 4);
        let (mut dropped, mut replaced) = (0, 0);
        for port in 1..=2 {
            let seen = bed.send(0, CLIENTS, &request(port).packet(DATA, b""));
            dropped += u32::from(seen.is_empty());
        }
        for port in 3..=4 {
            bed.send_one(0, CLIENTS, &request(port).packet(SYN, b""));
            replaced += 1;
        }
        assert_eq!((dropped, replaced), (1, 2), "{method:?}");
        assert_eq!(bed.books()[Reason::NoConnection.name()], 1);
        assert_eq!((config.load(0), config.load(1)), ((0, 0), (3, 0)));
    }
}

#[test]
fn another_worker_lets_the_owner_end_a_fullnat_connection_to_a_removed_server() {
    let mut config = Config::of(TCP, VIP, Method::FullNat, BOTH[0]);
    let mut bed = Bed::with_workers(&config, 2);
    bed.send_one(0, CLIENTS, &request(1).packet(SYN, b""));
    config.server(0).present = false;
    bed.publish(&config);
    bed.settle();
    config.ipvs.expire_nodest_conn = true;
    bed.publish(&config);
    bed.settle();
    bed.send_for(1, CLIENTS, &request(1).packet(ACK, b""), Reason::ServerGone);
    bed.pass(2);
    assert_eq!((config.load(0), bed.connections()), ((0, 0), 0));
}

#[test]
fn with_sloppy_tcp_anything_but_a_reset_begins_a_connection() {
    let mut config = two_by_nat();
    config.ipvs.sloppy_tcp = true;
    let mut bed = Bed::new(&config);
    bed.send_for(
        0,
        CLIENTS,
        &request(1).packet(RST, b""),
        Reason::NoConnection,
    );
    for (port, flags) in [(2, ACK), (3, DATA), (4, FIN)] {
        server_of(&mut bed, port, flags);
    }
    let mut states = Vec::new();
    bed.tables
        .ipv4
        .for_each(|_, view| states.push((view.client.1, view.state.name())));
    states.sort_unstable();
    assert_eq!(
        states,
        [(2, "ESTABLISHED"), (3, "ESTABLISHED"), (4, "CLOSE")]
    );
}

#[test]
fn with_nat_icmp_send_a_server_that_speaks_without_a_connection_is_told() {
    let client = socket(CLIENT);
    let from = |server: &str| Talk {
        protocol: TCP,
        source: socket(server),
        destination: client,
    };
    let mut config = two_by_nat();
    let mut bed = Bed::new(&config);
    assert!(
        bed.send(0, SERVERS, &from(BOTH[0]).packet(SYN_ACK, b""))
            .is_empty()
    );
    config.ipvs.nat_icmp_send = true;
    bed.publish(&config);
    let seen = bed.send_one(0, SERVERS, &from(BOTH[0]).packet(SYN_ACK, b""));
    let packet = seen.packet();
    assert_eq!(
        (seen.side, packet.talk.source.ip(), packet.error()),
        (SERVERS, ip("10.2.0.1"), ((3, 3, 0), from(BOTH[0])))
    );
    // What is for the director has no hop less to live, and no address is no sender's to hear from.
    let to = |target: &str| Talk {
        destination: socket(target),
        ..from(BOTH[0])
    };
    let frame = to("10.0.0.100:99").packet(SYN_ACK, b"");
    let seen = bed.send_one(0, SERVERS, &frame);
    assert_eq!(seen.packet().talk.source.ip(), ip("10.0.0.100"));
    assert!(seen.frame.ends_with(&frame[14..]));
    for nowhere in ["127.0.0.1:99", "0.0.0.0:99"] {
        let frame = to(nowhere).packet(SYN_ACK, b"");
        assert!(bed.send(0, SERVERS, &frame).is_empty());
    }
    // A reset, another port and another host are the kernel's.
    for (server, flags) in [
        (BOTH[0], RST),
        ("10.2.0.11:81", DATA),
        ("10.2.0.13:80", DATA),
    ] {
        assert!(
            bed.send(0, SERVERS, &from(server).packet(flags, b""))
                .is_empty()
        );
    }
    assert_eq!(bed.books()["exceptions"], 6);
}

#[test]
fn what_comes_in_as_from_the_director_itself_begins_nothing() {
    for source in ["10.0.0.100:41000", "10.2.0.1:41000"] {
        let mut bed = Bed::new(&two_by_nat());
        let talk = Talk {
            source: socket(source),
            ..request(1)
        };
        bed.send_for(0, CLIENTS, &talk.packet(SYN, b""), Reason::BadSource);
        assert_eq!(bed.connections(), 0, "{source}");
    }
}

#[test]
fn a_server_at_its_upper_threshold_is_passed_over_until_it_is_below_the_lower_one() {
    let config = two_by_nat();
    let load = |id: u32| config.clone().server(id).load.clone();
    load(0).set_thresholds(4, 2);
    let mut bed = Bed::new(&config);
    for port in 1..=12 {
        server_of(&mut bed, port, SYN);
    }
    assert_eq!((config.load(0), config.load(1)), ((4, 0), (8, 0)));
    // Connections that only became inactive still count.
    let of_first: Vec<u16> = (1..=12)
        .filter(|&port| server_of(&mut bed, port, ACK) == socket(BOTH[0]))
        .collect();
    for (ended, open) in [(1, false), (2, false), (3, true)] {
        server_of(&mut bed, of_first[ended - 1], RST);
        assert!(load(0).overloaded());
        bed.pass(13);
        assert_eq!(load(0).overloaded(), !open, "{ended}");
    }
    for port in 21..=40 {
        server_of(&mut bed, port, SYN);
    }
    assert_eq!(config.load(0), (4, 0));
}

#[test]
fn each_datagram_of_a_one_packet_service_is_scheduled_alone() {
    let counters = |stats: &WorkerStats, id: u32| {
        let server = stats.server(RealServerId(id)).unwrap();
        let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Relaxed);
        (
            load(&server.connections),
            load(&server.in_packets),
            load(&server.in_bytes),
        )
    };
    for method in [Method::Nat, Method::Dr, Method::Tun] {
        for (vip, client, servers, header) in [
            (VIP, CLIENT, BOTH, 28),
            (
                "[fd00:a::100]:80",
                "[fd00:64::7]:9",
                ["[fd00:2::11]:80", "[fd00:2::12]:80"],
                48,
            ),
        ] {
            let mut config = Config::new().with(UDP, vip, method, &servers);
            config.services[0].one_packet = true;
            let mut bed = Bed::new(&config);
            let talk = Talk::udp(client, vip);
            let to: Vec<_> = (0..4)
                .map(|_| bed.send_one(0, CLIENTS, &talk.packet(ACK, b"what")))
                .collect();
            assert_eq!((to[0].to(), to[1].to()), (to[2].to(), to[3].to()));
            assert_ne!(to[0].to(), to[1].to());
            assert_eq!(bed.connections(), 0);
            for id in 0..2 {
                let seen = counters(&bed.stats[0], id);
                assert_eq!(seen, (2, 2, 2 * (header + 4)), "{method:?}");
            }
            if method == Method::Nat {
                let inside = to[0].packet();
                assert_eq!((inside.talk.source, inside.ttl), (talk.source, 63));
                assert!(servers.map(socket).contains(&inside.talk.destination));
                let reply = inside.talk.back().packet(ACK, b"that");
                let before = bed.books();
                assert!(bed.send(0, SERVERS, &reply).is_empty());
                assert_eq!(bed.moved(&before)["exceptions"], 1);
            }
        }
    }
}

#[test]
fn a_connection_that_is_there_goes_on_when_its_service_becomes_a_one_packet_one() {
    let mut config = Config::new().with(UDP, VIP, Method::Nat, &BOTH);
    let mut bed = Bed::new(&config);
    let talk = Talk::udp(CLIENT, VIP);
    let first = bed.send_one(0, CLIENTS, &talk.packet(ACK, b"")).to();
    config.services[0].one_packet = true;
    bed.publish(&config);
    for _ in 0..3 {
        assert_eq!(bed.send_one(0, CLIENTS, &talk.packet(ACK, b"")).to(), first);
    }
    assert_eq!(bed.connections(), 1);
}
