//! secure_tcp, drop_packet and drop_entry, seen from outside.

use super::bed::{Bed, Limits};
use super::config::{CLIENTS, Config, SERVERS};
use super::packets::{ACK, DATA, SYN, SYN_ACK, Talk};
use crate::packet::TcpFlags;
use crate::packet::wire::{TCP, UDP};
use crate::reason::Reason;
use crate::worker::defence::PLACES_PER_TICK;
use conntrack::{Method, Ticks};
use std::sync::atomic::Ordering::Relaxed;

const CLIENT: &str = "10.64.0.7:40001";
const VIP: &str = "10.0.0.100:80";
const SERVER: &str = "10.2.0.11:80";

fn request(port: u16) -> Talk {
    Talk::tcp(CLIENT, VIP).at_port(port)
}

fn from_server(bed: &mut Bed, port: u16, flags: TcpFlags) {
    let reply = Talk::new(TCP, SERVER, &format!("10.64.0.7:{port}"));
    bed.send_one(0, SERVERS, &reply.packet(flags, b""));
}

fn from_client(bed: &mut Bed, port: u16, flags: TcpFlags) {
    bed.send_one(0, CLIENTS, &request(port).packet(flags, b""));
}

/// The client's port and the state of every IPv4 connection.
fn states(bed: &Bed) -> Vec<(u16, &'static str)> {
    let mut states = Vec::new();
    bed.tables
        .ipv4
        .for_each(|_, view| states.push((view.client.1, view.state.name())));
    states.sort_unstable();
    states
}

fn ended(bed: &Bed) -> u64 {
    bed.stats
        .iter()
        .map(|stats| stats.entries_dropped.load(Relaxed))
        .sum()
}

#[test]
fn secure_tcp_holds_for_the_next_packet_of_connections_that_are_there() {
    let mut config = Config::of(TCP, VIP, Method::Nat, SERVER);
    let mut bed = Bed::new(&config);
    for port in 1..=3 {
        from_client(&mut bed, port, SYN);
    }
    from_server(&mut bed, 3, SYN_ACK);
    from_client(&mut bed, 3, ACK);
    config.ipvs.secure_tcp = 3;
    bed.publish(&config);
    bed.settle();
    // The client's word alone establishes nothing any more.
    from_client(&mut bed, 1, ACK);
    from_server(&mut bed, 2, SYN_ACK);
    from_client(&mut bed, 2, ACK);
    let expected = [(1, "SYN_RECV"), (2, "SYNACK"), (3, "ESTABLISHED")];
    assert_eq!(states(&bed), expected);
    assert_eq!(config.load(0), (3, 0));
    from_server(&mut bed, 2, ACK);
    config.ipvs.secure_tcp = 0;
    bed.publish(&config);
    bed.settle();
    from_client(&mut bed, 1, ACK);
    let expected = [1, 2, 3].map(|port| (port, "ESTABLISHED"));
    assert_eq!(states(&bed), expected);
}

#[test]
fn with_secure_tcp_a_syn_by_dr_waits_in_synack() {
    for method in [Method::Dr, Method::Tun] {
        let mut config = Config::of(TCP, VIP, method, SERVER);
        config.ipvs.secure_tcp = 3;
        let mut bed = Bed::new(&config);
        from_client(&mut bed, 1, SYN);
        assert_eq!(states(&bed), [(1, "SYNACK")]);
        from_client(&mut bed, 1, ACK);
        assert_eq!(states(&bed), [(1, "ESTABLISHED")]);
    }
}

#[test]
fn of_the_packets_that_would_begin_connections_every_tenth_is_dropped_and_no_other() {
    let mut config =
        Config::of(TCP, VIP, Method::Nat, SERVER).with(UDP, VIP, Method::Nat, &[SERVER]);
    let mut bed = Bed::new(&config);
    from_client(&mut bed, 999, SYN);
    config.ipvs.drop_packet = 3;
    bed.publish(&config);
    bed.settle();
    for port in 100..125 {
        from_client(&mut bed, 999, SYN);
        // What may begin none does not count.
        let stray = request(2000 + port).packet(ACK, b"");
        bed.send_for(0, CLIENTS, &stray, Reason::NoConnection);
        let talk = if port % 2 == 0 {
            request(port)
        } else {
            Talk::udp(CLIENT, VIP).at_port(port)
        };
        let first = talk.packet(SYN, b"");
        if port % 10 == 0 {
            bed.send_for(0, CLIENTS, &first, Reason::DropPacket);
        } else {
            bed.send_one(0, CLIENTS, &first);
        }
    }
}

#[test]
fn another_drop_rate_holds_from_the_next_second_on() {
    let mut config = Config::of(TCP, VIP, Method::Nat, SERVER);
    config.ipvs.drop_packet = 3;
    config.ipvs.am_droprate = 4;
    let mut bed = Bed::new(&config);
    let dropped = |bed: &mut Bed, first: u16| {
        let mut count = 0;
        for port in first..first + 8 {
            let syn = request(port).packet(SYN, b"");
            count += usize::from(bed.send(0, CLIENTS, &syn).is_empty());
        }
        count
    };
    assert_eq!(dropped(&mut bed, 100), 2);
    config.ipvs.am_droprate = 1000;
    bed.publish(&config);
    bed.settle();
    assert_eq!(dropped(&mut bed, 200), 2);
    bed.pass(2);
    assert_eq!(dropped(&mut bed, 300), 1);
    assert_eq!(dropped(&mut bed, 400), 0);
}

#[test]
fn by_itself_the_defence_begins_when_the_table_is_nearly_full_and_ends_again() {
    let mut config =
        Config::of(UDP, VIP, Method::Nat, SERVER).with(TCP, VIP, Method::Nat, &[SERVER]);
    config.ipvs.drop_packet = 1;
    config.ipvs.secure_tcp = 1;
    let limits = Limits {
        connections: 640,
        ..Limits::default()
    };
    let mut bed = Bed::with(&config, &limits);
    let talk = Talk::udp(CLIENT, VIP);
    // Ten free ones are enough, nine are not.
    for port in 3000..3630 {
        bed.send_one(0, CLIENTS, &talk.at_port(port).packet(ACK, b""));
    }
    bed.pass(1);
    bed.send_one(0, CLIENTS, &talk.at_port(1000).packet(ACK, b""));
    bed.send_one(0, CLIENTS, &talk.at_port(1001).packet(ACK, b""));
    bed.pass(1);
    // 10 / (10 - 8) = 5.
    let mut dropped = Vec::new();
    for place in 0..7 {
        let frame = talk.at_port(2000 + place).packet(ACK, b"");
        if bed.send(0, CLIENTS, &frame).is_empty() {
            dropped.push(place);
        }
    }
    assert_eq!(dropped, [4]);
    assert_eq!(bed.books()[Reason::DropPacket.name()], 1);
    bed.pass(320);
    assert_eq!(bed.connections(), 0);
    for port in 100..120 {
        bed.send_one(0, CLIENTS, &talk.at_port(port).packet(ACK, b""));
    }
}

#[test]
fn drop_entry_ends_half_open_connections_within_a_round_and_leaves_the_others() {
    let mut config = Config::of(TCP, VIP, Method::FullNat, SERVER);
    config.ipvs.drop_entry = 3;
    config
        .timeouts
        .set_one(conntrack::State::SynRecv, Ticks::from_seconds(600));
    let mut bed = Bed::with_workers(&config, 2);
    for port in 101..=140 {
        let worker = usize::from(port % 2);
        bed.send(worker, CLIENTS, &request(port).packet(SYN, b""));
        if port <= 104 {
            bed.send(worker, CLIENTS, &request(port).packet(ACK, b""));
        }
    }
    bed.pass(1);
    assert!(ended(&bed) < 36, "not all at once");
    bed.pass(35);
    let expected = [101, 102, 103, 104].map(|port| (port, "ESTABLISHED"));
    assert_eq!(states(&bed), expected);
    assert_eq!((config.load(0), ended(&bed)), ((4, 0), 36));
    let in_use = |bed: &Bed| -> u64 {
        let ports = bed.stats.iter().map(|stats| &stats.lip_ports_in_use);
        ports.map(|count| count.load(Relaxed)).sum()
    };
    assert_eq!(in_use(&bed), 4);
}

#[test]
fn drop_entry_ends_idle_connections_of_few_packets() {
    let mut config =
        Config::of(TCP, VIP, Method::Nat, SERVER).with(UDP, VIP, Method::Nat, &[SERVER]);
    config.ipvs.drop_entry = 3;
    let mut bed = Bed::new(&config);
    // 1: few packets; 2: many; 3: few, but not idle; and a UDP flow of one.
    for port in 1..=3 {
        from_client(&mut bed, port, SYN);
        from_client(&mut bed, port, ACK);
    }
    for _ in 0..7 {
        from_client(&mut bed, 2, DATA);
    }
    bed.send_one(
        0,
        CLIENTS,
        &Talk::udp(CLIENT, VIP).at_port(4).packet(ACK, b""),
    );
    for _ in 0..4 {
        bed.pass(25);
        from_server(&mut bed, 3, DATA);
    }
    assert_eq!(states(&bed), [(2, "ESTABLISHED"), (3, "ESTABLISHED")]);
    assert_eq!(ended(&bed), 2);
    // Nothing happens without it.
    config.ipvs.drop_entry = 0;
    bed.publish(&config);
    bed.pass(100);
    assert_eq!((states(&bed).len(), ended(&bed)), (2, 2));
}

#[test]
fn no_tick_looks_at_more_places_than_the_limit() {
    let mut config = Config::of(UDP, VIP, Method::Nat, SERVER);
    let limits = Limits {
        connections: 16_384,
        ..Limits::default()
    };
    let mut bed = Bed::with(&config, &limits);
    for port in 1000..5000 {
        bed.send_one(
            0,
            CLIENTS,
            &Talk::udp(CLIENT, VIP).at_port(port).packet(ACK, b""),
        );
    }
    config.ipvs.drop_entry = 3;
    bed.publish(&config);
    for port in 1000..5000 {
        bed.send_one(
            0,
            CLIENTS,
            &Talk::udp(CLIENT, VIP).at_port(port).packet(ACK, b""),
        );
    }
    // A minute at once, as after a long sleep: a second's places at most, though all are idle.
    bed.now = bed.now.after(Ticks::from_seconds(61));
    bed.settle();
    let limit = u64::from(PLACES_PER_TICK);
    assert!((1..=limit).contains(&ended(&bed)), "{}", ended(&bed));
}
