//! Connections that somebody beside the workers wants ended or reset.

use super::bed::Bed;
use super::config::{CLIENTS, Config, METHODS, SERVERS};
use super::packets::{ACK, DATA, Got, RST, SYN, SYN_ACK, Talk};
use crate::packet::TcpFlags;
use crate::packet::wire::{TCP, UDP};
use crate::reason::Reason;
use conntrack::{Busy, ConnectionId, Method, REQUEST_LIMIT};
use std::sync::atomic::Ordering::Relaxed;

const CLIENT: &str = "10.64.0.7:40001";
const VIP: &str = "10.0.0.100:80";
const RIP: &str = "10.2.0.11:80";

fn request() -> Talk {
    Talk::tcp(CLIENT, VIP)
}

/// The only connection there is.
fn only(bed: &Bed) -> ConnectionId {
    let mut ids = Vec::new();
    bed.tables.ipv4.for_each(|id, _| ids.push(id));
    assert_eq!(ids.len(), 1);
    ids[0]
}

fn ask(bed: &mut Bed, mark: bool) {
    bed.tables.ipv4.ask(only(bed), 0, mark).unwrap();
    bed.pass(1);
}

#[test]
fn a_connection_that_is_to_end_is_forgotten_and_counts_no_more() {
    for method in METHODS {
        let config = Config::of(TCP, VIP, method, RIP);
        let mut bed = Bed::new(&config);
        bed.send_one(0, CLIENTS, &request().packet(SYN, b""));
        assert_eq!((config.load(0), bed.connections()), ((1, 0), 1));
        let id = only(&bed);
        // Asked for twice, it ends once.
        bed.tables.ipv4.ask(id, 0, false).unwrap();
        ask(&mut bed, false);
        assert_eq!(
            (config.load(0), bed.connections()),
            ((0, 0), 0),
            "{method:?}"
        );
        assert_eq!(bed.stats[0].lip_ports_in_use.load(Relaxed), 0);
        let next = request().packet(DATA, b"more");
        bed.send_for(0, CLIENTS, &next, Reason::NoConnection);
        bed.send_one(0, CLIENTS, &request().packet(SYN, b""));
        // An id of the life before means nobody.
        bed.tables.ipv4.ask(id, 0, false).unwrap();
        bed.pass(1);
        assert_eq!((config.load(0), bed.connections()), ((1, 0), 1));
    }
}

#[test]
fn more_than_a_worker_can_remember_is_refused_and_all_that_is_accepted_is_done() {
    let config = Config::of(UDP, VIP, Method::Nat, RIP);
    let mut bed = Bed::new(&config);
    let count = u16::try_from(REQUEST_LIMIT).unwrap() + 1;
    for port in 0..count {
        let packet = Talk::udp(CLIENT, VIP)
            .at_port(1000 + port)
            .packet(ACK, b"x");
        bed.send_one(0, CLIENTS, &packet);
    }
    let mut ids = Vec::new();
    bed.tables.ipv4.for_each(|id, _| ids.push(id));
    let refused: Vec<_> = ids
        .iter()
        .filter(|id| bed.tables.ipv4.ask(**id, 0, false) == Err(Busy))
        .collect();
    assert_eq!(refused, [ids.last().unwrap()]);
    assert_eq!(
        bed.tables.ipv4.ask(ids[0], 9, false),
        Err(Busy),
        "no such worker"
    );
    bed.pass(4);
    assert_eq!((config.load(0), bed.connections()), ((0, 1), 1));
}

/// The RSTs that come out at a side.
fn resets(seen: &[super::packets::Seen], side: usize) -> Vec<Got> {
    let seen = seen.iter().filter(|seen| seen.side == side);
    let packets: Vec<_> = seen.map(super::packets::Seen::packet).collect();
    assert!(
        packets
            .iter()
            .all(|got| got.flags.has(TcpFlags::RST) && got.payload.is_empty())
    );
    packets
}

#[test]
fn the_next_packet_of_a_connection_that_is_to_be_reset_resets_both_ends() {
    for from_server in [false, true] {
        let config = Config::of(TCP, VIP, Method::Nat, RIP);
        let mut bed = Bed::new(&config);
        let reply = Talk::tcp(RIP, CLIENT);
        bed.send_one(0, CLIENTS, &request().packet(SYN, b""));
        bed.send_one(0, SERVERS, &reply.packet(SYN_ACK, b""));
        bed.send_one(0, CLIENTS, &request().packet(ACK, b""));
        ask(&mut bed, true);
        assert_eq!(
            (config.load(0), bed.connections()),
            ((1, 0), 1),
            "nothing was sent yet"
        );
        for _ in 0..2 {
            let seen = match from_server {
                true => bed.send(0, SERVERS, &reply.packet(DATA, b"some")),
                false => bed.send(0, CLIENTS, &request().packet(DATA, b"some")),
            };
            let [to_client, to_server] = [CLIENTS, SERVERS].map(|side| resets(&seen, side));
            assert_eq!((to_client.len(), to_server.len()), (1, 1), "{seen:?}");
            assert_eq!(to_client[0].talk, request().back());
            assert_eq!(to_server[0].talk, reply.back());
            assert_eq!(config.load(0), (0, 1), "closed");
        }
        // RSTs are not answered: no war of them.
        let seen = bed.send(0, CLIENTS, &request().packet(RST, b""));
        assert_eq!(seen.len(), 1);
        bed.pass(11);
        assert_eq!((config.load(0), bed.connections()), ((0, 0), 0));
    }
}

#[test]
fn sequence_numbers_of_rsts_are_those_that_the_ends_expect() {
    let config = Config::of(TCP, VIP, Method::Dr, RIP);
    let mut bed = Bed::new(&config);
    bed.send_one(0, CLIENTS, &request().packet(SYN, b""));
    ask(&mut bed, true);
    let mut packet = request().packet(ACK, b"");
    packet[38..42].copy_from_slice(&7_000_u32.to_be_bytes());
    packet[42..46].copy_from_slice(&9_000_u32.to_be_bytes());
    fix_tcp(&mut packet);
    let seen = bed.send(0, CLIENTS, &packet);
    let number = |side: usize, at: usize| {
        let frame = &seen.iter().find(|seen| seen.side == side).unwrap().frame;
        u32::from_be_bytes(frame[at..at + 4].try_into().unwrap())
    };
    assert_eq!((number(CLIENTS, 38), number(SERVERS, 38)), (9_000, 7_000));
    assert_eq!(
        resets(&seen, SERVERS)[0].talk,
        request(),
        "by DR as the client sent it"
    );
    // What acknowledges nothing is acknowledged.
    let mut packet = request().packet(TcpFlags(1), b"four");
    packet[38..42].copy_from_slice(&7_000_u32.to_be_bytes());
    fix_tcp(&mut packet);
    let seen = bed.send(0, CLIENTS, &packet);
    let frame = &seen.iter().find(|seen| seen.side == CLIENTS).unwrap().frame;
    assert_eq!(frame[42..46], 7_005_u32.to_be_bytes());
}

/// Makes the checksum of a TCP packet without IP options anew.
fn fix_tcp(frame: &mut [u8]) {
    use crate::packet::{V4, checksum};
    frame[50..52].fill(0);
    let address = |at: usize| {
        let octets: [u8; 4] = frame[at..at + 4].try_into().unwrap();
        octets.into()
    };
    let sum = checksum::l4::<V4>(address(26), address(30), TCP, &frame[34..]);
    frame[50..52].copy_from_slice(&sum.to_be_bytes());
}

#[test]
fn over_ipv6_too() {
    let (client, vip, rip) = ("[fd00:64::7]:40001", "[fd00::100]:80", "[fd00:2::11]:80");
    let config = Config::of(TCP, vip, Method::FullNat, rip);
    let mut bed = Bed::new(&config);
    let request = Talk::tcp(client, vip);
    bed.send_one(0, CLIENTS, &request.packet(SYN, b""));
    let mut ids = Vec::new();
    bed.tables.ipv6.for_each(|id, _| ids.push(id));
    bed.tables.ipv6.ask(ids[0], 0, true).unwrap();
    bed.pass(1);
    let seen = bed.send(0, CLIENTS, &request.packet(DATA, b"some"));
    assert_eq!(resets(&seen, CLIENTS)[0].talk, request.back());
    assert_eq!(resets(&seen, SERVERS).len(), 1);
}
