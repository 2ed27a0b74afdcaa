//! Fragments: whole datagrams arrive, whatever the mode, the family and the order; what cannot arrive is bounded.

use super::bed::Bed;
use super::config::{CLIENTS, Config, METHODS, SERVERS, ip, mac_of, socket};
use super::packets::{ACK, DATA, Got, SYN, Seen, Talk, with_ttl};
use crate::frame::{Gso, Offload};
use crate::packet::sample::fix_header;
use crate::packet::wire::{TCP, UDP};
use crate::reason::Reason;
use crate::worker::fragments::{HELD, HELD_OF_ONE, MEMORY, PATIENCE, REMEMBERED};
use conntrack::{Method, Ticks};
use proptest::prelude::*;
use std::net::SocketAddr;

const CLIENT: &str = "10.64.0.7:40001";
const VIP: &str = "10.0.0.100:80";
const SERVER: &str = "10.2.0.11:80";
const FRAGMENT: u8 = 44;

/// Cuts a frame so that each of `ends` (multiples of eight) and the datagram's end is where a fragment ends.
pub(super) fn cut(frame: &[u8], ends: &[usize], id: u32) -> Vec<Vec<u8>> {
    let ipv4 = frame[12..14] == [8, 0];
    let header_end = if ipv4 {
        14 + usize::from(frame[14] & 15) * 4
    } else {
        54
    };
    let payload = &frame[header_end..];
    let mut start = 0;
    let mut fragments = Vec::new();
    for &end in ends.iter().chain([&payload.len()]) {
        let part = &payload[start..end.min(payload.len())];
        let more = end < payload.len();
        let mut fragment = frame[..header_end].to_vec();
        let offset = u16::try_from(start).unwrap();
        if ipv4 {
            let len = u16::try_from(header_end - 14 + part.len()).unwrap();
            fragment[16..18].copy_from_slice(&len.to_be_bytes());
            fragment[18..20].copy_from_slice(&u16::try_from(id).unwrap().to_be_bytes());
            let flags = u16::from(more) << 13 | u16::from(frame[20] & 0x40) << 8;
            fragment[20..22].copy_from_slice(&(flags | (offset / 8)).to_be_bytes());
            fix_header(&mut fragment);
        } else {
            let len = u16::try_from(8 + part.len()).unwrap();
            fragment[18..20].copy_from_slice(&len.to_be_bytes());
            let next = std::mem::replace(&mut fragment[20], FRAGMENT);
            fragment.extend([next, 0]);
            fragment.extend((offset | u16::from(more)).to_be_bytes());
            fragment.extend(id.to_be_bytes());
        }
        fragment.extend(part);
        fragments.push(fragment);
        start = end;
        if !more {
            break;
        }
    }
    fragments
}

/// In parts of `len` bytes.
fn cut_by(frame: &[u8], len: usize, id: u32) -> Vec<Vec<u8>> {
    let ends: Vec<usize> = (1..frame.len() / len + 1)
        .map(|count| count * len)
        .collect();
    cut(frame, &ends, id)
}

/// The datagram of fragments in any order, duplicates among them, as its receiver has it. Every part must be there.
fn reassembled(fragments: &[Vec<u8>]) -> Vec<u8> {
    let ipv4 = fragments[0][12..14] == [8, 0];
    let mut parts: Vec<(usize, bool, &[u8])> = Vec::new();
    let mut identifications = Vec::new();
    let mut headers = Vec::new();
    for fragment in fragments {
        let header = if ipv4 {
            &fragment[20..22]
        } else {
            &fragment[56..58]
        };
        let word = u16::from_be_bytes([header[0], header[1]]);
        let (offset, more, payload) = if ipv4 {
            assert_eq!(crate::packet::checksum::ipv4_header(&fragment[14..34]), 0);
            let len = usize::from(u16::from_be_bytes([fragment[16], fragment[17]]));
            identifications.push(fragment[18..20].to_vec());
            (
                usize::from(word & 0x1fff) * 8,
                word & 0x2000 != 0,
                &fragment[34..14 + len],
            )
        } else {
            assert_eq!(fragment[20], FRAGMENT);
            identifications.push(fragment[58..62].to_vec());
            (usize::from(word & 0xfff8), word & 1 != 0, &fragment[62..])
        };
        let mut addresses = fragment[12..if ipv4 { 34 } else { 54 }].to_vec();
        // What differs between the headers of one datagram's fragments.
        if ipv4 {
            addresses[4..6].fill(0);
            addresses[8..10].fill(0);
            addresses[12..14].fill(0);
        } else {
            addresses[6..8].fill(0);
        }
        headers.push(addresses);
        parts.push((offset, more, payload));
    }
    identifications.dedup();
    assert_eq!(identifications.len(), 1, "one identification");
    headers.dedup();
    assert_eq!(headers.len(), 1, "one header");
    parts.sort();
    parts.dedup();
    let mut payload = Vec::new();
    for (offset, _, part) in &parts {
        assert_eq!(*offset, payload.len(), "nothing missing");
        payload.extend_from_slice(part);
    }
    assert_eq!(
        parts.iter().filter(|(_, more, _)| !more).count(),
        1,
        "one end"
    );
    let mut frame = fragments[0][..if ipv4 { 34 } else { 54 }].to_vec();
    if ipv4 {
        let len = u16::try_from(20 + payload.len()).unwrap();
        frame[16..18].copy_from_slice(&len.to_be_bytes());
        frame[20] &= 0x40;
        frame[21] = 0;
        frame.extend(payload);
        fix_header(&mut frame);
    } else {
        let len = u16::try_from(payload.len()).unwrap();
        frame[18..20].copy_from_slice(&len.to_be_bytes());
        frame[20] = fragments[0][54];
        frame.extend(payload);
    }
    frame
}

/// The frame of the packet that a tunnel's packet carries.
fn unwrapped(seen: &Seen) -> Vec<u8> {
    let outer = seen.packet();
    assert_eq!((outer.ttl, outer.tos), (63, 0));
    let ether_type: &[u8] = match outer.talk.protocol {
        4 => &[8, 0],
        41 => &[0x86, 0xdd],
        other => panic!("protocol {other} is no tunnel"),
    };
    [&[0; 12], ether_type, &outer.payload].concat()
}

/// A flow through one service.
struct Way {
    bed: Bed,
    method: Method,
    request: Talk,
    real: SocketAddr,
    /// As the server sees the flow.
    inside: Option<Talk>,
}

impl Way {
    fn new(service: usize) -> Way {
        let config = Config::everything();
        let service = &config.services[service];
        let client = if service.address.is_ipv4() {
            CLIENT
        } else {
            "[fd00:64::7]:40001"
        };
        Way {
            bed: Bed::new(&config),
            method: service.servers[0].method,
            request: Talk {
                protocol: service.protocol,
                source: socket(client),
                destination: service.address,
            },
            real: service.servers[0].address,
            inside: None,
        }
    }

    fn about(&self) -> String {
        format!("{:?} by {:?}", self.request, self.method)
    }

    /// The director receives `fragments`, of `frame`; the server gets as many, of the same datagram.
    fn request(&mut self, frame: &[u8], fragments: &[Vec<u8>]) {
        let mut seen = Vec::new();
        for fragment in fragments {
            seen.extend(self.bed.send(0, CLIENTS, fragment));
        }
        self.arrived_at_server(frame, &seen, fragments.len());
    }

    fn arrived_at_server(&mut self, frame: &[u8], seen: &[Seen], count: usize) {
        assert_eq!(seen.len(), count, "{} {:?}", self.about(), self.bed.books());
        for seen in seen {
            assert_eq!((seen.side, seen.to()), (SERVERS, mac_of(self.real.ip())));
        }
        let frames: Vec<Vec<u8>> = match self.method {
            Method::Tun => seen.iter().map(unwrapped).collect(),
            _ => seen.iter().map(|seen| seen.frame.clone()).collect(),
        };
        let got = Got::of(&reassembled(&frames));
        let mut inside = self.request;
        if self.method.sees_replies() {
            inside.destination = self.real;
        }
        if self.method == Method::FullNat {
            let lip = if self.real.is_ipv4() {
                "10.2.0.200"
            } else {
                "fd00:2::200"
            };
            inside.source = SocketAddr::new(ip(lip), got.talk.source.port());
        }
        let sent = Got::of(frame);
        let id = got.id;
        let expected = Got {
            talk: inside,
            ttl: 63,
            id,
            ..sent
        };
        assert_eq!(got, expected, "{}", self.about());
        self.inside = Some(inside);
    }

    fn reply(&mut self, frame: &[u8], fragments: &[Vec<u8>]) {
        let mut seen = Vec::new();
        for fragment in fragments {
            seen.extend(self.bed.send(0, SERVERS, fragment));
        }
        assert_eq!(
            seen.len(),
            fragments.len(),
            "{} {:?}",
            self.about(),
            self.bed.books()
        );
        assert!(seen.iter().all(|seen| seen.side == CLIENTS));
        let frames: Vec<Vec<u8>> = seen.iter().map(|seen| seen.frame.clone()).collect();
        let got = Got::of(&reassembled(&frames));
        let id = got.id;
        let expected = Got {
            talk: self.request.back(),
            ttl: 63,
            id,
            ..Got::of(frame)
        };
        assert_eq!(got, expected, "{}", self.about());
    }

    /// There and, where the director sees it, back, each datagram in fragments that `arrange` puts into an order.
    fn exchange(&mut self, arrange: &dyn Fn(&mut Vec<Vec<u8>>)) {
        for (id, flags) in [(7, SYN), (8, DATA)] {
            let frame = self.request.packet(flags, &[0x5a; 85]);
            let mut fragments = cut_by(&frame, 40, id);
            assert_eq!(fragments.len(), 3);
            arrange(&mut fragments);
            self.request(&frame, &fragments);
            if self.method.sees_replies() {
                let frame = self
                    .inside
                    .expect("it arrived")
                    .back()
                    .packet(ACK, &[0xa5; 83]);
                let mut fragments = cut_by(&frame, 40, id);
                arrange(&mut fragments);
                self.reply(&frame, &fragments);
            }
        }
        assert_eq!(self.bed.books()["connections"], 1, "{}", self.about());
        assert!(!self.bed.books().contains_key("waiting"));
    }
}

fn exchanges(arrange: &dyn Fn(&mut Vec<Vec<u8>>)) {
    for service in 0..Config::everything().services.len() {
        Way::new(service).exchange(arrange);
    }
}

#[test]
fn fragments_in_order_pass_in_every_mode_family_and_direction() {
    exchanges(&|_| {});
}

#[test]
fn fragments_in_reverse_order_wait_for_the_first_and_follow_it() {
    exchanges(&|fragments| fragments.reverse());
}

#[test]
fn a_first_fragment_in_the_middle_is_followed_by_those_before_it() {
    exchanges(&|fragments| fragments.rotate_right(1));
}

#[test]
fn duplicates_of_fragments_pass_as_duplicates() {
    exchanges(&|fragments| {
        let again = fragments.clone();
        fragments.extend(again);
    });
    exchanges(&|fragments| {
        let again = fragments.clone();
        fragments.extend(again);
        fragments.reverse();
    });
}

#[test]
fn interleaved_datagrams_are_told_apart() {
    for method in METHODS {
        let config = Config::of(UDP, VIP, method, SERVER).with(TCP, VIP, method, &[SERVER]);
        let mut bed = Bed::new(&config);
        // The same identification from two clients, from one by two protocols; and another one from the first.
        let talks = [
            (Talk::udp(CLIENT, VIP), 7),
            (Talk::udp("10.64.0.8:40001", VIP), 7),
            (Talk::tcp(CLIENT, VIP), 7),
            (Talk::udp(CLIENT, VIP).at_port(40002), 8),
        ];
        let frames: Vec<Vec<u8>> = (0u8..)
            .zip(&talks)
            .map(|(number, (talk, _))| talk.packet(SYN, &[number; 200]))
            .collect();
        let cuts: Vec<Vec<Vec<u8>>> = frames
            .iter()
            .zip(&talks)
            .map(|(frame, (_, id))| cut_by(frame, 40, *id))
            .collect();
        let mut seen = Vec::new();
        for index in [3, 0, 5, 1, 2, 4] {
            for fragments in &cuts {
                if let Some(fragment) = fragments.get(index) {
                    seen.extend(bed.send(0, CLIENTS, fragment));
                }
            }
        }
        let mut out: Vec<Vec<u8>> = match method {
            Method::Tun => seen.iter().map(unwrapped).collect(),
            _ => seen.into_iter().map(|seen| seen.frame).collect(),
        };
        assert_eq!(out.len(), cuts.iter().map(Vec::len).sum::<usize>());
        for (number, frame) in (0u8..).zip(&frames) {
            // All bytes but those of the transport header are the datagram's number.
            let (mine, others) = out
                .into_iter()
                .partition(|fragment| *fragment.last().unwrap() == number);
            out = others;
            let got = Got::of(&reassembled(&mine));
            assert_eq!(got.payload, Got::of(frame).payload, "{method:?}");
        }
    }
}

#[test]
fn fragments_too_large_for_the_next_link_are_cut_again() {
    for method in METHODS {
        let mut config = Config::of(UDP, VIP, method, SERVER);
        config.mtu[SERVERS] = 1000;
        for reverse in [false, true] {
            let mut bed = Bed::new(&config);
            let frame = Talk::udp(CLIENT, VIP).packet(ACK, &[0x5a; 4000]);
            let mut fragments = cut_by(&frame, 1480, 7);
            if reverse {
                fragments.reverse();
            }
            let before = bed.books();
            let mut seen = Vec::new();
            for fragment in &fragments {
                seen.extend(bed.send(0, CLIENTS, fragment));
            }
            assert_eq!(bed.moved(&before)["forwarded"], 3);
            assert!(seen.len() > 3 && seen.iter().all(|seen| seen.frame.len() <= 1014));
            let mut frames: Vec<Vec<u8>> = seen.into_iter().map(|seen| seen.frame).collect();
            if method == Method::Tun {
                // Each of the director's own datagrams is a fragment inside.
                frames.sort_by_key(|frame| [frame[18], frame[19]]);
                frames = frames
                    .chunk_by(|a, b| a[18..20] == b[18..20])
                    .map(|outer| {
                        let whole = reassembled(outer);
                        [&[0; 12], [8, 0].as_slice(), &whole[34..]].concat()
                    })
                    .collect();
                assert_eq!(frames.len(), 3);
            }
            assert_eq!(
                Got::of(&reassembled(&frames)).payload,
                [0x5a; 4000],
                "{method:?}"
            );
        }
    }
}

#[test]
fn an_ipv4_fragment_too_large_for_a_tunnel_over_ipv6_is_cut_outside() {
    let config = Config::of(UDP, VIP, Method::Tun, "[fd00:2::11]:80");
    let mut bed = Bed::new(&config);
    let frame = Talk::udp(CLIENT, VIP).packet(ACK, &[0x5a; 4000]);
    let mut seen = Vec::new();
    for fragment in cut_by(&frame, 1480, 7).iter().rev() {
        seen.extend(bed.send(0, CLIENTS, fragment));
    }
    assert!(seen.len() > 3 && seen.iter().all(|seen| seen.frame.len() <= 1514));
    let mut seen = seen.into_iter().peekable();
    let mut frames = Vec::new();
    while let Some(mut whole) = seen.next() {
        // The pieces of one follow each other: of those that are no first one, the payload goes on.
        let is_cut = |frame: &[u8]| frame[20] == 44;
        if is_cut(&whole.frame) {
            let next = whole.frame[54];
            whole.frame.drain(54..62);
            whole.frame[20] = next;
            let offset = |frame: &[u8]| u16::from_be_bytes([frame[56], frame[57]]) & 0xfff8;
            while let Some(piece) =
                seen.next_if(|seen| is_cut(&seen.frame) && offset(&seen.frame) > 0)
            {
                whole.frame.extend(&piece.frame[62..]);
            }
            let len = u16::try_from(whole.frame.len() - 54).unwrap();
            whole.frame[18..20].copy_from_slice(&len.to_be_bytes());
        }
        frames.push(unwrapped(&whole));
    }
    assert_eq!(frames.len(), 3);
    assert_eq!(Got::of(&reassembled(&frames)).payload, [0x5a; 4000]);
}

#[test]
fn the_fragments_of_a_datagram_scheduled_alone_go_to_one_server() {
    for (method, port) in [(Method::Nat, 81), (Method::Dr, 80), (Method::Tun, 80)] {
        for reverse in [false, true] {
            let servers = ["10.2.0.11:81", "10.2.0.12:81"];
            let mut config = Config::new().with(UDP, VIP, method, &servers);
            config.services[0].one_packet = true;
            let mut bed = Bed::new(&config);
            for id in 1..4 {
                let frame = Talk::udp(CLIENT, VIP).packet(ACK, &[0x5a; 200]);
                let mut fragments = cut_by(&frame, 64, id);
                if reverse {
                    fragments.reverse();
                }
                let mut seen = Vec::new();
                for fragment in &fragments {
                    seen.extend(bed.send(0, CLIENTS, fragment));
                }
                assert_eq!(seen.len(), fragments.len(), "{method:?} {reverse}");
                assert!(seen.iter().all(|one| one.to() == seen[0].to()));
                let frames: Vec<Vec<u8>> = seen
                    .iter()
                    .map(|one| match method {
                        Method::Tun => unwrapped(one),
                        _ => one.frame.clone(),
                    })
                    .collect();
                let got = Got::of(&reassembled(&frames));
                assert_eq!(
                    (got.payload.len(), got.talk.destination.port()),
                    (200, port)
                );
            }
            assert_eq!(bed.connections(), 0);
        }
    }
}

#[test]
fn a_later_fragment_that_must_not_be_cut_or_has_no_life_left_is_dropped_without_a_word() {
    let mut config = Config::of(UDP, VIP, Method::Nat, SERVER);
    config.mtu[SERVERS] = 1000;
    let mut bed = Bed::new(&config);
    let frame = Talk::udp(CLIENT, VIP).whole(ACK, &[0x5a; 2000]);
    let fragments = cut(&frame, &[800], 7);
    bed.send_one(0, CLIENTS, &fragments[0]);
    bed.send_for(0, CLIENTS, &fragments[1], Reason::TooBig);
    let dying = with_ttl(fragments[1].clone(), 1);
    bed.send_for(0, CLIENTS, &dying, Reason::TtlExpired);
}

#[test]
fn an_ipv6_fragment_too_large_for_the_tunnel_is_the_senders_to_cut() {
    for server in ["[fd00:2::11]:80", "10.2.0.11:80"] {
        let vip = "[fd00:a::100]:80";
        let mut bed = Bed::new(&Config::of(UDP, vip, Method::Tun, server));
        let frame = Talk::udp("[fd00:64::7]:40001", vip).packet(ACK, &[0x5a; 3000]);
        let fragments = cut_by(&frame, 1448, 7);
        let told = bed.send_one(0, CLIENTS, &fragments[0]);
        assert_eq!(told.side, CLIENTS);
        bed.send_for(0, CLIENTS, &fragments[1], Reason::TooBig);
    }
}

#[test]
fn fragments_wait_for_their_neighbour_in_order() {
    for reverse in [false, true] {
        let mut way = Way::new(4);
        way.bed.silent.insert(way.real.ip());
        let frame = way.request.packet(ACK, &[0x5a; 200]);
        let mut fragments = cut_by(&frame, 40, 7);
        if reverse {
            fragments[1..].reverse();
        }
        let mut seen = Vec::new();
        for fragment in &fragments {
            seen.extend(way.bed.send(0, CLIENTS, fragment));
        }
        assert!(seen.is_empty());
        assert_eq!(way.bed.books()["waiting"], fragments.len() as u64);
        way.bed.silent.clear();
        let seen = way.bed.pass(2);
        let tails = |frames: &[Vec<u8>]| -> Vec<Vec<u8>> {
            frames.iter().map(|frame| frame[20..22].to_vec()).collect()
        };
        let frames: Vec<Vec<u8>> = seen.iter().map(|seen| seen.frame.clone()).collect();
        assert_eq!(tails(&frames), tails(&fragments));
        way.arrived_at_server(&frame, &seen, fragments.len());
    }
}

#[test]
fn without_its_first_a_fragment_is_dropped_after_a_while_and_makes_no_connection() {
    for service in 0..Config::everything().services.len() {
        let mut way = Way::new(service);
        let frame = way.request.packet(SYN, &[0x5a; 85]);
        let fragments = cut_by(&frame, 40, 7);
        for fragment in &fragments[1..] {
            assert!(way.bed.send(0, CLIENTS, fragment).is_empty());
        }
        assert_eq!(way.bed.books()["waiting"], 2);
        way.bed.now = way.bed.now.after(Ticks(PATIENCE.0 - 1));
        way.bed.settle();
        assert_eq!(way.bed.books()["waiting"], 2);
        way.bed.now = way.bed.now.after(Ticks(1));
        assert!(way.bed.settle().is_empty());
        let books = way.bed.books();
        assert_eq!(books[Reason::FragmentWaitedTooLong.name()], 2);
        assert!(!books.contains_key("waiting") && !books.contains_key("connections"));
        // Too late for them, but not for itself.
        assert_eq!(way.bed.send(0, CLIENTS, &fragments[0]).len(), 1);
    }
}

#[test]
fn a_first_fragment_is_remembered_for_half_a_minute() {
    let mut way = Way::new(4);
    let fragments = cut_by(&way.request.packet(ACK, &[0x5a; 85]), 40, 7);
    way.bed.send_one(0, CLIENTS, &fragments[0]);
    way.bed.now = way.bed.now.after(Ticks(MEMORY.0 - 1));
    way.bed.send_one(0, CLIENTS, &fragments[1]);
    way.bed.now = way.bed.now.after(Ticks(1));
    assert!(way.bed.send(0, CLIENTS, &fragments[2]).is_empty());
    assert_eq!(way.bed.books()["waiting"], 1);
    // Again, and what waited follows.
    assert_eq!(way.bed.send(0, CLIENTS, &fragments[0]).len(), 2);
}

#[test]
fn more_first_fragments_than_can_be_remembered_push_out_the_oldest() {
    let mut way = Way::new(5);
    let fragments = |port: u16| {
        let frame = way.request.at_port(port).packet(ACK, &[0x5a; 85]);
        cut_by(&frame, 40, u32::from(port))
    };
    let count = u16::try_from(REMEMBERED).unwrap();
    let all: Vec<Vec<Vec<u8>>> = (0..=count)
        .map(|number| fragments(number % 64 + 1))
        .collect();
    // The same connections again and again, under identifications of their own.
    let first = |number: u16| {
        let mut frame = all[usize::from(number)][0].clone();
        frame[18..20].copy_from_slice(&number.to_be_bytes());
        fix_header(&mut frame);
        frame
    };
    let later = |number: u16| {
        let mut frame = all[usize::from(number)][1].clone();
        frame[18..20].copy_from_slice(&number.to_be_bytes());
        fix_header(&mut frame);
        frame
    };
    for number in 0..count {
        way.bed.send_one(0, CLIENTS, &first(number));
    }
    let forgotten = |way: &Way| {
        way.bed.stats[0]
            .fragments_forgotten
            .load(std::sync::atomic::Ordering::Relaxed)
    };
    assert_eq!(forgotten(&way), 0);
    way.bed.send_one(0, CLIENTS, &later(0));
    way.bed.send_one(0, CLIENTS, &first(count));
    assert_eq!(forgotten(&way), 1);
    assert!(way.bed.send(0, CLIENTS, &later(0)).is_empty());
    way.bed.send_one(0, CLIENTS, &later(1));
    way.bed.send_one(0, CLIENTS, &later(count));
    // One that is remembered anew is the newest, and takes no room from others but its own.
    way.bed.send_one(0, CLIENTS, &first(1));
    way.bed.send_one(0, CLIENTS, &later(1));
    // With time all are forgotten, and none before its time.
    way.bed.pass(MEMORY.as_seconds() + 10);
    let before = forgotten(&way);
    way.bed.send_one(0, CLIENTS, &first(3));
    assert_eq!(forgotten(&way), before);
}

#[test]
fn those_that_wait_are_bounded_for_a_datagram_and_for_the_worker() {
    let mut way = Way::new(5);
    let big = way.request.packet(ACK, &[0x5a; 8 * 100]);
    let fragments = cut_by(&big, 8, 7);
    for fragment in &fragments[1..=HELD_OF_ONE] {
        assert!(way.bed.send(0, CLIENTS, fragment).is_empty());
    }
    let refused = &fragments[HELD_OF_ONE + 1];
    way.bed
        .send_for(0, CLIENTS, refused, Reason::FragmentQueueFull);
    for id in 0..u32::try_from(HELD - HELD_OF_ONE).unwrap() {
        let other = cut_by(&big, 400, 100 + id);
        assert!(way.bed.send(0, CLIENTS, &other[1]).is_empty());
    }
    assert_eq!(way.bed.books()["waiting"], HELD as u64);
    // The worker's queue is full: the oldest goes.
    let other = cut_by(&big, 400, 99);
    way.bed
        .send_for(0, CLIENTS, &other[1], Reason::FragmentQueueFull);
    assert_eq!(way.bed.books()["waiting"], HELD as u64);
    assert_eq!(way.bed.send(0, CLIENTS, &other[0]).len(), 2);
    let rest = way.bed.send(0, CLIENTS, &fragments[0]);
    let expected: Vec<&[u8]> = [&fragments[0]]
        .into_iter()
        .chain(&fragments[2..=HELD_OF_ONE])
        .map(|fragment| &fragment[20..22])
        .collect();
    let offsets: Vec<&[u8]> = rest.iter().map(|seen| &seen.frame[20..22]).collect();
    assert_eq!(offsets, expected);
    way.bed.pass(2);
    assert!(!way.bed.books().contains_key("waiting"));
}

#[test]
fn a_newer_datagram_with_the_same_identification_is_followed_instead() {
    let config = Config::of(UDP, VIP, Method::Nat, SERVER).with(
        UDP,
        "10.0.0.100:81",
        Method::Nat,
        &["10.2.0.12:81"],
    );
    let mut bed = Bed::new(&config);
    for (vip, server) in [(VIP, "10.2.0.11"), ("10.0.0.100:81", "10.2.0.12")] {
        let frame = Talk::udp(CLIENT, vip).packet(ACK, &[0x5a; 85]);
        for fragment in cut_by(&frame, 40, 7) {
            let seen = bed.send_one(0, CLIENTS, &fragment);
            assert_eq!(seen.to(), mac_of(ip(server)));
        }
    }
}

#[test]
fn fragments_that_are_nobodys_here_are_left_to_the_kernel() {
    let config = Config::of(UDP, VIP, Method::Nat, SERVER);
    for (talk, side) in [
        // To nobody we know, to ourselves at no service, and from a server to somebody it has no connection with.
        (Talk::udp(CLIENT, "10.9.9.9:80"), CLIENTS),
        (Talk::udp(CLIENT, "10.0.0.100:99"), CLIENTS),
        (Talk::udp(SERVER, "10.64.0.99:5000"), SERVERS),
    ] {
        for reverse in [false, true] {
            let mut bed = Bed::new(&config);
            let mut fragments = cut_by(&talk.packet(ACK, &[0x5a; 85]), 40, 7);
            if reverse {
                fragments.reverse();
            }
            for fragment in &fragments {
                assert!(bed.send(0, side, fragment).is_empty());
            }
            assert_eq!(bed.books()["exceptions"], 3, "{talk:?}");
            assert!(!bed.books().contains_key("waiting"));
        }
    }
}

#[test]
fn fragments_follow_a_dropped_first_and_a_removed_server() {
    let mut config = Config::of(UDP, VIP, Method::Nat, SERVER);
    config.server(0).weight = 0;
    let mut bed = Bed::new(&config);
    let fragments = cut_by(&Talk::udp(CLIENT, VIP).packet(ACK, &[0x5a; 85]), 40, 7);
    assert!(bed.send(0, CLIENTS, &fragments[2]).is_empty());
    let told = bed.send_one(0, CLIENTS, &fragments[0]);
    assert_eq!(told.side, CLIENTS);
    assert_eq!(bed.books()[Reason::Fragment.name()], 1);
    bed.send_for(0, CLIENTS, &fragments[1], Reason::Fragment);

    config.server(0).weight = 1;
    bed.publish(&config);
    bed.send_one(0, CLIENTS, &fragments[0]);
    config.server(0).present = false;
    bed.publish(&config);
    bed.send_for(0, CLIENTS, &fragments[1], Reason::ServerGone);
}

#[test]
fn fragments_for_the_director_as_server_are_left_to_the_kernel() {
    let config = Config::of(UDP, VIP, Method::Local, "10.0.0.100:80");
    let mut bed = Bed::new(&config);
    for fragment in cut_by(&Talk::udp(CLIENT, VIP).packet(ACK, &[0x5a; 85]), 40, 7) {
        assert!(bed.send(0, CLIENTS, &fragment).is_empty());
    }
    assert_eq!(bed.books()["exceptions"], 3);
    assert_eq!(bed.books()["connections"], 1);
}

#[test]
fn a_fragment_that_reaches_into_the_first_is_dropped() {
    for vip in [VIP, "[fd00:a::100]:80"] {
        let (client, server) = if vip == VIP {
            (CLIENT, SERVER)
        } else {
            ("[fd00:64::7]:40001", "[fd00:2::11]:80")
        };
        let mut bed = Bed::new(&Config::of(TCP, vip, Method::Nat, server));
        let frame = Talk::tcp(client, vip).packet(SYN, &[0x5a; 100]);
        let good = cut(&frame, &[40], 7);
        for end in [8, 16, 32] {
            let evil = &cut(&frame, &[end], 7)[1];
            bed.send_one(0, CLIENTS, &good[0]);
            bed.send_for(0, CLIENTS, evil, Reason::FragmentOverlap);
        }
        bed.send_one(0, CLIENTS, &good[1]);
    }
}

#[test]
fn a_first_fragment_without_its_whole_transport_header_is_dropped() {
    let mut bed = Bed::new(&Config::of(TCP, VIP, Method::Nat, SERVER));
    let mut frame = Talk::tcp(CLIENT, VIP).packet(SYN, &[1; 100]);
    for end in [8, 16] {
        bed.send_for(0, CLIENTS, &cut(&frame, &[end], 7)[0], Reason::Truncated);
    }
    // Eight bytes of options, of which the first fragment has half.
    frame[46] = 0x70;
    bed.send_for(0, CLIENTS, &cut(&frame, &[24], 7)[0], Reason::Truncated);
    assert_eq!(bed.send(0, CLIENTS, &cut(&frame, &[32], 7)[0]).len(), 1);
}

#[test]
fn a_udp_checksum_of_none_stays_none() {
    let mut way = Way::new(4);
    let mut frame = way.request.packet(ACK, &[0x5a; 85]);
    frame[40..42].fill(0);
    for fragment in cut_by(&frame, 40, 7) {
        let is_first = fragment[21] == 0;
        let seen = way.bed.send_one(0, CLIENTS, &fragment);
        assert_eq!(seen.frame[40..42] == [0, 0], is_first);
        assert_eq!(seen.frame[42..], fragment[42..]);
    }
}

#[test]
fn an_extension_header_inside_the_fragments_is_no_obstacle() {
    let config = Config::of(UDP, "[fd00:a::100]:80", Method::Nat, "[fd00:2::11]:80");
    for reverse in [false, true] {
        let mut bed = Bed::new(&config);
        let mut frame =
            Talk::udp("[fd00:64::7]:40001", "[fd00:a::100]:80").packet(ACK, &[0x5a; 100]);
        let next = std::mem::replace(&mut frame[20], 60);
        frame[19] += 8;
        frame.splice(54..54, [next, 0, 1, 4, 0, 0, 0, 0]);
        let mut fragments = cut_by(&frame, 40, 7);
        let overlap = &cut(&frame, &[32], 7)[1];
        if reverse {
            fragments.reverse();
        }
        let mut frames = Vec::new();
        for fragment in &fragments {
            frames.extend(
                bed.send(0, CLIENTS, fragment)
                    .into_iter()
                    .map(|seen| seen.frame),
            );
        }
        assert_eq!(frames.len(), 3, "{:?}", bed.books());
        let got = Got::of(&reassembled(&frames));
        assert_eq!(got.talk.destination, socket("[fd00:2::11]:80"));
        bed.send_for(0, CLIENTS, overlap, Reason::FragmentOverlap);
    }
}

#[test]
fn fragments_of_icmp_to_an_address_of_ours_are_dropped() {
    let mut bed = Bed::new(&Config::of(UDP, VIP, Method::Nat, SERVER));
    let echo = super::packets::icmp(ip("10.64.0.7"), ip("10.0.0.100"), vec![8; 100]);
    for fragment in cut_by(&echo, 40, 7) {
        bed.send_for(0, CLIENTS, &fragment, Reason::Fragment);
    }
}

#[test]
fn a_fragment_that_claims_to_be_a_batch_of_segments_is_dropped() {
    let mut way = Way::new(0);
    let fragments = cut_by(&way.request.packet(SYN, &[0x5a; 85]), 40, 7);
    let offload = Offload {
        gso: Gso::Tcp4 { ecn: false },
        segment_len: 8,
        ..Offload::NONE
    };
    for fragment in &fragments {
        assert!(way.bed.send_with(0, CLIENTS, fragment, offload).is_empty());
    }
    assert_eq!(way.bed.books()[Reason::Malformed.name()], 3);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn any_split_and_order_of_a_datagram_arrives_whole(
        service in 0usize..16,
        len in 0usize..4000,
        cuts in proptest::collection::vec((1usize..150, any::<u16>(), prop::bool::weighted(0.1)), 2..40),
        id in any::<u16>(),
        back in any::<bool>(),
    ) {
        let mut way = Way::new(service);
        let payload: Vec<u8> = (0..len).map(|at| at.to_le_bytes()[0] ^ at.to_le_bytes()[1]).collect();
        let split = |frame: &[u8]| {
            // The first holds the transport header; the last holds what is left, in packets of ordinary size.
            let mut ends = vec![24 + cuts[0].0 * 8];
            for (units, ..) in &cuts[1..] {
                ends.push(ends[ends.len() - 1] + units * 8);
            }
            while ends[ends.len() - 1] < frame.len() {
                ends.push(ends[ends.len() - 1] + 1200);
            }
            let fragments = cut(frame, &ends, id.into());
            let mut keyed: Vec<(u16, Vec<u8>)> = Vec::new();
            for (index, fragment) in fragments.into_iter().enumerate() {
                let (_, order, twice) = cuts[index % cuts.len()];
                if twice {
                    keyed.push((order.rotate_left(5), fragment.clone()));
                }
                keyed.push((order, fragment));
            }
            keyed.sort();
            keyed.into_iter().map(|(_, fragment)| fragment).collect::<Vec<_>>()
        };
        let frame = way.request.packet(SYN, &payload);
        let fragments = split(&frame);
        if fragments.len() > 1 {
            way.request(&frame, &fragments);
        } else {
            let seen = way.bed.send(0, CLIENTS, &frame);
            let mut inside = seen[0].packet();
            if way.method == Method::Tun {
                inside = inside.inner();
            }
            way.inside = Some(inside.talk);
        }
        if back && way.method.sees_replies() {
            let frame = way.inside.expect("it arrived").back().packet(ACK, &payload);
            let fragments = split(&frame);
            if fragments.len() > 1 {
                way.reply(&frame, &fragments);
            }
        }
    }
}
