//! Frames of local senders: partial checksums and GSO; and frames too large for the next link.

use super::bed::{Bed, Limits};
use super::config::{CLIENTS, Config, ENCAPSULATIONS, METHODS, SERVERS, mac_of, socket};
use super::packets::{ACK, DATA, Got, SYN, Seen, Talk, partial};
use crate::frame::{Gso, Offload};
use crate::packet::sample::reference_l4;
use crate::packet::wire::{TCP, UDP};
use crate::reason::Reason;
use conntrack::Method;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// A client's half of a conversation with each service of everything.
fn talks(config: &Config) -> Vec<(Talk, Method)> {
    let talk = |service: &super::config::ServiceConfig| {
        let client = if service.address.is_ipv4() {
            "10.64.0.7:40001"
        } else {
            "[fd00:64::7]:40001"
        };
        let talk = Talk {
            protocol: service.protocol,
            source: socket(client),
            destination: service.address,
        };
        (talk, service.servers[0].method)
    };
    config.services.iter().map(talk).collect()
}

/// What arrives inside, however it got there.
fn arrived(seen: &Seen, method: Method) -> Got {
    let got = seen.packet();
    if method == Method::Tun {
        got.inner()
    } else {
        got
    }
}

#[test]
fn a_partial_checksum_is_right_when_it_is_completed_behind_the_director() {
    let config = Config::everything();
    let mut bed = Bed::new(&config);
    for (talk, method) in talks(&config) {
        let mut frame = talk.packet(SYN, b"some bytes");
        let sent = Got::of(&frame);
        let offload = partial(&mut frame);
        let seen = bed.send_with(0, CLIENTS, &frame, offload);
        assert_eq!(seen.len(), 1, "{talk:?}");
        let got = arrived(&seen[0], method);
        assert_eq!(got.payload, sent.payload);
        let expected = if method == Method::Tun {
            Offload::NONE
        } else {
            offload
        };
        assert_eq!(seen[0].offload, expected, "{talk:?}");
        if method.sees_replies() {
            let mut frame = got.talk.back().packet(ACK, b"local server");
            let offload = partial(&mut frame);
            let seen = bed.send_with(0, SERVERS, &frame, offload);
            assert_eq!(seen[0].packet().talk, talk.back());
            assert_eq!(seen[0].offload, offload);
        }
    }
}

/// A frame with `len` bytes of payload that is to be cut every `segment_len`.
fn gso(talk: &Talk, len: usize, segment_len: u16) -> (Vec<u8>, Offload) {
    let payload: Vec<u8> = (0..len).map(|index| index.to_le_bytes()[0]).collect();
    let mut frame = talk.whole(DATA, &payload);
    let gso = match (talk.protocol, talk.source.is_ipv4()) {
        (UDP, _) => Gso::Udp,
        (_, true) => Gso::Tcp4 { ecn: false },
        (_, false) => Gso::Tcp6 { ecn: false },
    };
    let offload = Offload {
        gso,
        segment_len,
        ..partial(&mut frame)
    };
    (frame, offload)
}

#[test]
fn a_gso_frame_passes_whole_and_is_cut_in_front_of_a_tunnel() {
    let config = Config::everything();
    let mut bed = Bed::new(&config);
    for (talk, method) in talks(&config) {
        bed.send_one(0, CLIENTS, &talk.packet(SYN, b""));
        for (len, count) in [(4000, 4), (60_001, 61), (1, 1)] {
            let (frame, offload) = gso(&talk, len, 1000);
            let before = bed.books();
            let seen = bed.send_with(0, CLIENTS, &frame, offload);
            let moved = BTreeMap::from([("received", 1), ("forwarded", 1)]);
            assert_eq!(bed.moved(&before), moved, "{talk:?}");
            let payload: Vec<u8> = seen
                .iter()
                .flat_map(|seen| arrived(seen, method).payload)
                .collect();
            assert_eq!(payload.len(), len);
            assert!(
                payload
                    .iter()
                    .zip(0usize..)
                    .all(|(byte, index)| *byte == index.to_le_bytes()[0])
            );
            let (frames, kept) = if method == Method::Tun {
                (count, Offload::NONE)
            } else {
                (1, offload)
            };
            assert_eq!(seen.len(), frames, "{talk:?}");
            assert!(seen.iter().all(|seen| seen.offload == kept), "{talk:?}");
            assert!(
                seen.iter()
                    .all(|seen| seen.to() != mac_of(talk.source.ip()))
            );
        }
    }
}

#[test]
fn a_ring_that_is_short_of_room_is_flushed_a_bounded_number_of_times() {
    let talk = Talk::tcp("10.64.0.7:40001", "10.0.0.100:80");
    for (ring, fits) in [(4, true), (1, false)] {
        let config = Config::of(TCP, "10.0.0.100:80", Method::Tun, "10.2.0.11:80");
        let mut bed = Bed::with(
            &config,
            &Limits {
                ring: Some(ring),
                ..Limits::default()
            },
        );
        bed.send_one(0, CLIENTS, &talk.packet(SYN, b""));
        let (frame, offload) = gso(&talk, 12_000, 1000);
        let seen = bed.send_with(0, CLIENTS, &frame, offload);
        // The ring's room, once and after each of eight flushes.
        assert_eq!(seen.len(), if fits { 12 } else { 9 });
        let drops = bed.stats[0].drops(Reason::TransmitFull);
        assert_eq!(drops, u64::from(!fits));
        let whole = Talk::tcp("10.64.0.7:40001", "10.0.0.100:80").packet(ACK, b"");
        assert_eq!(bed.send(0, CLIENTS, &whole).len(), 1, "the next round");
    }
}

#[test]
fn a_gso_frame_that_waits_for_its_neighbour_goes_out_in_the_same_pieces() {
    let config = Config::everything();
    for (talk, method) in talks(&config) {
        let mut bed = Bed::new(&config);
        // Nobody has asked for the server yet: the frame that opens the connection is the one that is cut.
        let (mut frame, offload) = gso(&talk, 5000, 1000);
        if talk.protocol == TCP {
            let flags = usize::from(offload.checksum_start) + 13;
            frame[flags] = SYN.0;
        }
        let server = config
            .services
            .iter()
            .find(|service| service.address == talk.destination);
        let server = server.unwrap().servers[0].address.ip();
        bed.silent.insert(server);
        assert!(bed.send_with(0, CLIENTS, &frame, offload).is_empty());
        assert_eq!(bed.books()["waiting"], 1, "{talk:?}");
        bed.silent.clear();
        let seen = bed.pass(2);
        assert_eq!(seen.len(), if method == Method::Tun { 5 } else { 1 });
        assert_eq!(bed.books()["forwarded"], 1, "{talk:?}");
        assert!(!bed.books().contains_key("waiting"));
        let payload: usize = seen
            .iter()
            .map(|seen| arrived(seen, method).payload.len())
            .sum();
        assert_eq!(payload, 5000);
    }
}

/// What a host tells of the largest packet that would have gone.
fn told_mtu(got: &Got) -> u32 {
    match got.error().0 {
        (3, 4, rest) | (2, 0, rest) => rest,
        other => panic!("{other:?} is not about size"),
    }
}

#[test]
fn a_packet_too_large_is_refused_with_the_mtu_that_would_do() {
    let mut config = Config::everything();
    config.mtu[SERVERS] = 1400;
    let mut bed = Bed::new(&config);
    for (talk, method) in talks(&config) {
        bed.send_one(0, CLIENTS, &talk.packet(SYN, b""));
        let header = if talk.source.is_ipv4() { 20 } else { 40 };
        let l4 = if talk.protocol == TCP { 20 } else { 8 };
        let overhead = match (method, talk.source.is_ipv4()) {
            (Method::Tun, true) => 20,
            (Method::Tun, false) => 40,
            _ => 0,
        };
        let fits = 1400 - overhead - header - l4;
        let seen = bed.send_one(0, CLIENTS, &talk.whole(DATA, &vec![7; fits]));
        assert_eq!((seen.side, seen.packet().len), (SERVERS, 1400), "{talk:?}");

        let before = bed.books();
        let frame = talk.whole(DATA, &vec![7; fits + 1]);
        let seen = bed.send_one(0, CLIENTS, &frame);
        let told = seen.packet();
        let expected = [
            ("received", 1),
            ("originated", 1),
            ("replied", 1),
            (Reason::TooBig.name(), 1),
        ];
        assert_eq!(bed.moved(&before), BTreeMap::from(expected), "{talk:?}");
        assert_eq!((seen.side, seen.worker), (CLIENTS, 0));
        assert_eq!(told.talk.source.ip(), talk.destination.ip(), "{talk:?}");
        assert_eq!(told.talk.destination.ip(), talk.source.ip());
        assert_eq!(told_mtu(&told), 1400 - u32::try_from(overhead).unwrap());

        // So is a frame whose segments would be too large.
        let too_large = u16::try_from(fits + 1).unwrap();
        let (frame, offload) = gso(&talk, 4000, too_large);
        let seen = bed.send_with(0, CLIENTS, &frame, offload);
        assert_eq!((seen.len(), seen[0].side), (1, CLIENTS));
        let (frame, offload) = gso(&talk, 4000, too_large - 1);
        let seen = bed.send_with(0, CLIENTS, &frame, offload);
        assert!(seen.iter().all(|seen| seen.side == SERVERS), "{talk:?}");
    }
}

/// The payloads of fragments in order, which must fit `mtu`.
fn reassembled(seen: &[Seen], mtu: usize, open: impl Fn(Got) -> Got) -> (Talk, Vec<u8>) {
    assert!(seen.len() > 1);
    let mut payload = Vec::new();
    for seen in seen {
        let got = seen.packet();
        assert!(got.len <= mtu, "{got:?}");
        payload.extend(open(got).payload);
    }
    (open(seen[0].packet()).talk, payload)
}

#[test]
fn a_packet_that_may_be_fragmented_is() {
    for method in METHODS {
        for (protocol, len) in [(TCP, 1400), (UDP, 1400), (UDP, 60_000)] {
            let mut config = Config::of(protocol, "10.0.0.100:80", method, "10.2.0.11:80");
            config.mtu[SERVERS] = 1400;
            let mut bed = Bed::new(&config);
            let talk = Talk::new(protocol, "10.64.0.7:40001", "10.0.0.100:80");
            bed.send_one(0, CLIENTS, &talk.packet(SYN, b""));
            let body = vec![0x5a; len];
            let mut frame = talk.packet(DATA, &body);
            let offload = partial(&mut frame);
            let before = bed.books();
            let seen = bed.send_with(0, CLIENTS, &frame, offload);
            let moved = BTreeMap::from([("received", 1), ("forwarded", 1)]);
            assert_eq!(bed.moved(&before), moved);
            assert!(
                seen.iter()
                    .all(|seen| seen.to() == mac_of(socket("10.2.0.11:80").ip()))
            );
            let (talk, payload) = reassembled(&seen, 1400, |got| got);
            let transport = if method == Method::Tun {
                let whole = [&[0; 12], [8, 0].as_slice(), &payload].concat();
                assert_eq!(Got::of(&whole).payload, body);
                continue;
            } else {
                payload
            };
            let octets = |address: IpAddr| match address {
                IpAddr::V4(address) => address.octets(),
                IpAddr::V6(_) => unreachable!(),
            };
            let addresses = [octets(talk.source.ip()), octets(talk.destination.ip())].concat();
            assert_eq!(
                reference_l4(&addresses, protocol, &transport),
                0,
                "{method:?}"
            );
            assert!(transport.ends_with(&body));
        }
    }
}

#[test]
fn a_packet_in_an_ipv6_tunnel_is_fragmented_outside() {
    let mut config = Config::of(UDP, "10.0.0.100:80", Method::Tun, "[fd00:2::11]:80");
    config.mtu[SERVERS] = 1400;
    let mut bed = Bed::new(&config);
    let talk = Talk::udp("10.64.0.7:40001", "10.0.0.100:80");
    let body = vec![0x5a; 3000];
    let mut frame = talk.packet(DATA, &body);
    let offload = partial(&mut frame);
    let seen = bed.send_with(0, CLIENTS, &frame, offload);
    // RFC 8200 §4.5: each piece's payload follows a fragment header, whose identification is one for all.
    let mut inner = Vec::new();
    let id = seen[0].frame[58..62].to_vec();
    for (index, seen) in seen.iter().enumerate() {
        let (header, payload) = seen.frame[14..].split_at(48);
        let more = u16::from(inner.len() + payload.len() < 3028);
        let offset = u16::try_from(inner.len()).unwrap();
        assert_eq!((header[6], header[40]), (44, 4), "piece {index}");
        assert_eq!(header[42..44], (offset | more).to_be_bytes());
        assert_eq!(header[44..48], id);
        assert_eq!(
            usize::from(u16::from_be_bytes([header[4], header[5]])),
            8 + payload.len()
        );
        assert!(seen.frame.len() <= 14 + 1400);
        inner.extend(payload);
    }
    assert_eq!(seen.len(), 3);
    let addresses = [[10, 64, 0, 7], [10, 0, 0, 100]].concat();
    assert_eq!(reference_l4(&addresses, UDP, &inner[20..]), 0);
    assert!(inner.ends_with(&body));
}

#[test]
fn without_path_mtu_discovery_a_tunnel_is_fragmented_whatever_the_packet_inside_says() {
    for server in ["10.2.0.11:80", "[fd00:2::11]:80"] {
        for encapsulation in ENCAPSULATIONS {
            let mut config = Config::of(UDP, "10.0.0.100:80", Method::Tun, server);
            config.server(0).copy_dont_fragment = false;
            config.server(0).encapsulation = encapsulation;
            let mut bed = Bed::new(&config);
            let talk = Talk::udp("10.64.0.7:40001", "10.0.0.100:80");
            let body = vec![0x5a; 1472];
            let seen = bed.send(0, CLIENTS, &talk.whole(DATA, &body));
            let header_len = encapsulation.header_len();
            if server.starts_with('[') {
                assert!(seen.iter().all(|seen| seen.side == SERVERS));
                let mut payload = Vec::new();
                for seen in &seen {
                    payload.extend(&seen.frame[14 + 48..]);
                }
                assert!(
                    seen.len() == 2 && payload.ends_with(&body),
                    "{encapsulation:?}"
                );
                continue;
            }
            let (_, payload) = reassembled(&seen, 1500, |got| got);
            let inner = Got::of(&[&[0; 12], [8, 0].as_slice(), &payload[header_len..]].concat());
            assert!(inner.dont_fragment);
            assert_eq!(inner.payload, body);
        }
    }
}
