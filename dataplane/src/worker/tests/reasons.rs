//! Every reason to drop a packet is met somewhere, and counted once.

use super::bed::{Bed, Limits, address};
use super::config::{CLIENTS, Config, SERVERS, ip, socket};
use super::fragments::cut;
use super::packets::{ACK, DATA, Got, SYN, Talk, icmp, icmp_error, with_ttl};
use crate::calls::CallId;
use crate::frame::Offload;
use crate::packet::sample::fix_header;
use crate::packet::wire::{TCP, UDP};
use crate::reason::Reason;
use crate::snapshot::{Engine, Persistence};
use crate::worker::fragments::HELD_OF_ONE;
use conntrack::{Method, Ticks};

const CLIENT: &str = "10.64.0.7:40001";
const VIP: &str = "10.0.0.100:80";
const SERVER: &str = "10.2.0.11:80";
const PERSISTENCE: Persistence = Persistence {
    timeout: Ticks::from_seconds(60),
    mask: u128::MAX,
    engine: None,
};

fn syn() -> Vec<u8> {
    Talk::tcp(CLIENT, VIP).packet(SYN, b"")
}

fn syn6() -> Vec<u8> {
    Talk::tcp("[fd00:64::7]:40001", "[fd00:a::100]:80").packet(SYN, b"")
}

/// In fragments of 24 bytes and then eight.
fn cut_all(frame: &[u8]) -> Vec<Vec<u8>> {
    let ends: Vec<usize> = (3..frame.len() / 8).map(|units| units * 8).collect();
    cut(frame, &ends, 7)
}

/// Lets a packet be dropped for `reason`, and returns the bed that it happened in.
fn provoke(reason: Reason) -> Bed {
    let mut config = Config::of(TCP, VIP, Method::Nat, SERVER);
    let mut limits = Limits::default();
    let mut frame = syn();
    let mut first: Vec<Vec<u8>> = Vec::new();
    match reason {
        Reason::Truncated => frame.truncate(30),
        Reason::BadLength => frame.truncate(14 + 30),
        Reason::BadVersion => frame[14] = 0x65,
        Reason::BadIpChecksum => frame[24] ^= 1,
        Reason::BadIcmpChecksum => {
            frame = icmp(
                ip("10.64.0.7"),
                ip("10.0.0.100"),
                vec![8, 0, 0, 0, 0, 0, 0, 0],
            );
            frame[36] ^= 1;
        }
        Reason::BadTcpChecksum => {
            config.services[0].helper = Some(crate::helper::Helper::Ftp);
            first = vec![syn()];
            frame = Talk::tcp(CLIENT, VIP).packet(ACK, b"NOOP\r\n");
            *frame.last_mut().unwrap() ^= 1;
        }
        Reason::Malformed => frame[14 + 20 + 12] = 0x40,
        Reason::BadSource => {
            frame[26] = 224;
            fix_header(&mut frame);
        }
        Reason::VlanTagged => {
            frame.splice(12..12, [0x81, 0, 0, 5]);
        }
        Reason::Fragment => {
            frame = icmp(ip("10.64.0.7"), ip("10.0.0.100"), vec![8; 48]);
            frame = cut(&frame, &[40], 7).remove(1);
        }
        Reason::FragmentOverlap => {
            frame = cut(&syn(), &[8], 7).remove(1);
            first = vec![cut(&Talk::tcp(CLIENT, VIP).packet(SYN, &[0; 20]), &[24], 7).remove(0)];
        }
        Reason::FragmentWaitedTooLong | Reason::FragmentQueueFull => {
            let mut bed = Bed::new(&config);
            // The server's hardware address is known.
            bed.send_one(
                0,
                CLIENTS,
                &Talk::tcp(CLIENT, VIP).at_port(1).packet(SYN, b""),
            );
            let fragments = cut_all(&Talk::tcp(CLIENT, VIP).packet(SYN, &[0; 1000]));
            let waits = if reason == Reason::FragmentQueueFull {
                HELD_OF_ONE + 1
            } else {
                1
            };
            for fragment in &fragments[3..3 + waits] {
                assert!(bed.send(0, CLIENTS, fragment).is_empty());
            }
            if waits > 1 {
                assert_eq!(bed.send(0, CLIENTS, &fragments[0]).len(), waits);
            } else {
                assert!(bed.pass(2).is_empty());
            }
            return bed;
        }
        Reason::TtlExpired => frame = with_ttl(frame, 1),
        Reason::TooBig => {
            config.mtu[SERVERS] = 1000;
            frame = Talk::tcp(CLIENT, VIP).whole(SYN, &[0; 1000]);
        }
        Reason::NoConnection => frame = Talk::tcp(CLIENT, VIP).packet(ACK, b""),
        Reason::NoServer => config.server(0).weight = 0,
        Reason::NoClientPort => {
            let mut bed = Bed::new(&config);
            frame = Talk::tcp("10.64.0.7:0", VIP).packet(SYN, b"");
            bed.send_one(0, CLIENTS, &frame);
            config.services[0].persistence = Some(PERSISTENCE);
            bed.publish(&config);
            let talk = Talk::tcp(CLIENT, VIP);
            assert!(bed.send(0, CLIENTS, &talk.packet(SYN, b"")).is_empty());
            return bed;
        }
        Reason::NoCallId | Reason::TooManyCalls => {
            config = Config::of(UDP, VIP, Method::Nat, SERVER);
            config.services[0].persistence = Some(Persistence {
                engine: Some(Engine::Sip),
                ..PERSISTENCE
            });
            let mut bed = Bed::new(&config);
            bed.tables.calls.prepare();
            let call = CallId::new(b"other").unwrap();
            let calls = &bed.tables.calls;
            let message: &[u8] = if reason == Reason::TooManyCalls {
                while calls.take(&call).is_some() {}
                b"OPTIONS sip:a SIP/2.0\r\nCall-ID: one\r\n\r\n"
            } else {
                b"OPTIONS sip:a SIP/2.0\r\n\r\n"
            };
            let frame = Talk::udp(CLIENT, VIP).packet(ACK, message);
            assert!(bed.send(0, CLIENTS, &frame).is_empty());
            return bed;
        }
        Reason::ServerGone => {
            let mut bed = Bed::new(&config);
            bed.send_one(0, CLIENTS, &frame);
            config.server(0).present = false;
            bed.publish(&config);
            bed.send(0, CLIENTS, &frame);
            return bed;
        }
        Reason::TableFull => {
            config = config.with(UDP, VIP, Method::Dr, &[SERVER]);
            limits.connections = 2;
            let talk = Talk::udp(CLIENT, VIP);
            first = [1, 2]
                .map(|port| talk.at_port(port).packet(ACK, b""))
                .to_vec();
        }
        Reason::DropPacket => config.ipvs.drop_packet = 3,
        Reason::HalfOpenFull => {
            limits.connections = 100;
            limits.half_open_percent = 1;
            first = vec![Talk::tcp(CLIENT, VIP).at_port(1).packet(SYN, b"")];
        }
        Reason::ReplyTupleTaken => {
            // The server was a client too, of a service that had the address that its own client has now.
            let before = Config::of(TCP, CLIENT, Method::Dr, "10.2.0.12:40001");
            let mut bed = Bed::new(&before);
            bed.send_one(0, CLIENTS, &Talk::tcp(SERVER, CLIENT).packet(SYN, b""));
            bed.publish(&config);
            bed.send_for(0, CLIENTS, &frame, reason);
            return bed;
        }
        Reason::LipPortsExhausted => {
            config = Config::of(TCP, VIP, Method::FullNat, SERVER);
            config.services[0].lips.clear();
        }
        Reason::NoRoute => config.default_route = false,
        Reason::NeighbourQueueFull => {
            let mut bed = Bed::new(&config);
            bed.silent.insert(ip("10.2.0.11"));
            for port in 0..65 {
                let frame = Talk::tcp(CLIENT, VIP).at_port(port).packet(SYN, b"");
                assert!(bed.send(0, CLIENTS, &frame).is_empty());
            }
            bed.silent.clear();
            assert_eq!(bed.pass(2).len(), 64);
            return bed;
        }
        Reason::NeighbourUnreachable => {
            let mut bed = Bed::new(&config);
            bed.silent.insert(ip("10.2.0.11"));
            assert!(bed.send(0, CLIENTS, &frame).is_empty());
            assert!(bed.pass(10).is_empty());
            return bed;
        }
        Reason::NeighbourTableFull => {
            limits.neighbours = 16;
            config = Config::of(TCP, "10.1.0.100:80", Method::Nat, SERVER);
            let clients = (10..25).map(|host| format!("10.1.0.{host}:1"));
            first = clients
                .map(|client| Talk::tcp(&client, "10.1.0.100:80").packet(SYN, b""))
                .collect();
            frame = Talk::tcp("10.1.0.9:1", "10.1.0.100:80").packet(SYN, b"");
        }
        Reason::TransmitFull => {
            let mut bed = Bed::new(&config);
            bed.send_one(0, CLIENTS, &frame);
            bed.wires[0][SERVERS].limit_transmit(0);
            bed.send(0, CLIENTS, &frame);
            bed.wires[0][SERVERS].limit_transmit(100);
            bed.send_one(0, CLIENTS, &frame);
            return bed;
        }
        Reason::NoHeadroom => {
            config = Config::of(TCP, VIP, Method::Tun, SERVER);
            limits.headroom = Some(8);
        }
        Reason::IcmpUnrelated | Reason::IcmpUnsupported => {
            let kind = if reason == Reason::IcmpUnrelated {
                3
            } else {
                5
            };
            let quoted = Talk::tcp(VIP, CLIENT).packet(ACK, b"");
            frame = icmp_error("10.64.0.9", ip("10.0.0.100"), (kind, 0, 0), &quoted);
        }
        Reason::PathMtuLearned => {
            let mut bed = Bed::new(&Config::of(TCP, VIP, Method::Tun, SERVER));
            let tunnelled = bed.send_one(0, CLIENTS, &frame);
            let too_big = (3, 4, 1400);
            let error = icmp_error("10.2.0.254", ip("10.2.0.1"), too_big, &tunnelled.frame);
            bed.send_for(0, SERVERS, &error, reason);
            return bed;
        }
        Reason::IcmpRateLimited => {
            config.server(0).weight = 0;
            let mut bed = Bed::new(&config);
            for _ in 0..=1000 {
                bed.send(0, CLIENTS, &frame);
            }
            return bed;
        }
    }
    let mut bed = Bed::with(&config, &limits);
    for frame in &first {
        bed.send_one(0, CLIENTS, frame);
    }
    let seen = bed.send(0, CLIENTS, &frame);
    assert!(
        seen.iter().all(|seen| seen.side == CLIENTS),
        "{reason:?} went on"
    );
    bed
}

#[test]
fn every_reason_is_met_and_counted_once_and_alone() {
    for &reason in Reason::ALL {
        let bed = provoke(reason);
        let drops: Vec<(Reason, u64)> = Reason::ALL
            .iter()
            .map(|&other| (other, bed.stats[0].drops(other)))
            .filter(|(_, count)| *count > 0)
            .collect();
        match reason {
            // What is not told is another drop than that of the packet it is about.
            Reason::IcmpRateLimited => {
                assert_eq!(drops, [(Reason::NoServer, 1001), (reason, 1)]);
            }
            _ => assert_eq!(drops, [(reason, 1)]),
        }
    }
}

/// A change of one valid frame, and what becomes of it then.
type Malformation = (&'static str, fn(&mut Vec<u8>), Option<Reason>);

#[test]
fn a_malformed_ipv4_frame_is_dropped_for_what_is_wrong_with_it() {
    let table: &[Malformation] = &[
        ("as it is", |_| {}, None),
        ("padded", |frame| frame.resize(100, 0xff), None),
        ("no byte at all", Vec::clear, Some(Reason::Truncated)),
        (
            "half an Ethernet header",
            |frame| frame.truncate(7),
            Some(Reason::Truncated),
        ),
        (
            "half an IP header",
            |frame| frame.truncate(24),
            Some(Reason::Truncated),
        ),
        (
            "half a TCP header",
            |frame| frame.truncate(44),
            Some(Reason::BadLength),
        ),
        (
            "an IP packet without a whole TCP header",
            |frame| {
                frame.truncate(44);
                frame[17] = 30;
                fix_header(frame);
            },
            Some(Reason::Truncated),
        ),
        (
            "total length too large",
            |frame| {
                frame[16] = 1;
                fix_header(frame);
            },
            Some(Reason::BadLength),
        ),
        (
            "total length below the header's",
            |frame| {
                frame[17] = 19;
                fix_header(frame);
            },
            Some(Reason::BadLength),
        ),
        (
            "header length 4",
            |frame| frame[14] = 0x44,
            Some(Reason::BadLength),
        ),
        (
            "version 6",
            |frame| frame[14] = 0x65,
            Some(Reason::BadVersion),
        ),
        (
            "header checksum",
            |frame| frame[25] ^= 0x80,
            Some(Reason::BadIpChecksum),
        ),
        (
            "from loopback",
            |frame| {
                frame[26] = 127;
                fix_header(frame);
            },
            Some(Reason::BadSource),
        ),
        (
            "from everybody",
            |frame| {
                frame[26..30].fill(255);
                fix_header(frame);
            },
            Some(Reason::BadSource),
        ),
        (
            "data offset beyond the end",
            |frame| frame[46] = 0xf0,
            Some(Reason::Malformed),
        ),
        (
            "802.1Q",
            |frame| {
                frame.splice(12..12, [0x81, 0, 0, 5]);
            },
            Some(Reason::VlanTagged),
        ),
        (
            "802.1ad",
            |frame| {
                frame.splice(12..12, [0x88, 0xa8, 0, 5]);
            },
            Some(Reason::VlanTagged),
        ),
    ];
    for (name, change, expected) in table {
        let mut bed = Bed::new(&Config::of(TCP, VIP, Method::Nat, SERVER));
        let mut frame = syn();
        address(&mut frame, CLIENTS);
        change(&mut frame);
        let seen = bed.send_raw(0, CLIENTS, &frame, Offload::NONE);
        match expected {
            None => {
                assert_eq!(seen[0].packet().talk.destination, socket(SERVER), "{name}");
                assert_eq!(seen[0].packet().ttl, 63);
            }
            Some(reason) => {
                assert!(seen.is_empty(), "{name}");
                assert_eq!(bed.stats[0].drops(*reason), 1, "{name}: {:?}", bed.books());
            }
        }
    }
}

#[test]
fn a_malformed_ipv6_frame_is_dropped_for_what_is_wrong_with_it() {
    let table: &[Malformation] = &[
        ("as it is", |_| {}, None),
        (
            "half an IP header",
            |frame| frame.truncate(30),
            Some(Reason::Truncated),
        ),
        (
            "half a TCP header",
            |frame| frame.truncate(60),
            Some(Reason::BadLength),
        ),
        (
            "version 4",
            |frame| frame[14] = 0x40,
            Some(Reason::BadVersion),
        ),
        (
            "payload length 0",
            |frame| frame[18..20].fill(0),
            Some(Reason::BadLength),
        ),
        (
            "from a group",
            |frame| frame[22] = 0xff,
            Some(Reason::BadSource),
        ),
        (
            "from nowhere",
            |frame| frame[22..38].fill(0),
            Some(Reason::BadSource),
        ),
        (
            "destination options",
            |frame| {
                let next = frame[20];
                frame[20] = 60;
                frame[19] += 8;
                frame.splice(54..54, [next, 0, 1, 4, 0, 0, 0, 0]);
            },
            None,
        ),
        (
            "an extension header without end",
            |frame| frame[20] = 60,
            Some(Reason::Truncated),
        ),
        (
            "hop-by-hop options behind others",
            |frame| {
                let next = frame[20];
                frame[20] = 60;
                frame[19] += 16;
                frame.splice(54..54, [0, 0, 1, 4, 0, 0, 0, 0, next, 0, 1, 4, 0, 0, 0, 0]);
            },
            Some(Reason::Malformed),
        ),
        (
            "an atomic fragment",
            |frame| {
                let next = frame[20];
                frame[20] = 44;
                frame[19] += 8;
                frame.splice(54..54, [next, 0, 0, 0, 0, 0, 0, 1]);
            },
            None,
        ),
    ];
    for (name, change, expected) in table {
        let config = Config::of(TCP, "[fd00:a::100]:80", Method::Nat, "[fd00:2::11]:80");
        let mut bed = Bed::new(&config);
        let mut frame = syn6();
        address(&mut frame, CLIENTS);
        change(&mut frame);
        let seen = bed.send_raw(0, CLIENTS, &frame, Offload::NONE);
        match expected {
            None => {
                let got = seen[0].packet();
                assert_eq!(got.talk.destination, socket("[fd00:2::11]:80"), "{name}");
                assert_eq!(got.ttl, 63);
            }
            Some(reason) => {
                assert!(seen.is_empty(), "{name}");
                assert_eq!(bed.stats[0].drops(*reason), 1, "{name}: {:?}", bed.books());
            }
        }
    }
}

#[test]
fn ipv4_options_pass_in_every_mode() {
    for method in super::config::METHODS {
        let mut bed = Bed::new(&Config::of(TCP, VIP, method, SERVER));
        let mut frame = syn();
        // Three no-operations and an end.
        frame.splice(34..34, [1, 1, 1, 0]);
        frame[14] = 0x46;
        frame[17] += 4;
        fix_header(&mut frame);
        let sent = Got::of(&frame);
        let seen = bed.send_one(0, CLIENTS, &frame);
        let mut got = seen.packet();
        if method == Method::Tun {
            got = got.inner();
        }
        assert_eq!((got.len, got.ttl), (sent.len, 63), "{method:?}");
    }
}

#[test]
fn a_wrong_transport_checksum_stays_wrong_and_none_becomes_one() {
    let config = Config::of(UDP, VIP, Method::Nat, SERVER);
    let mut bed = Bed::new(&config);
    let talk = Talk::udp(CLIENT, VIP);
    let mut frame = talk.packet(ACK, b"payload");
    frame[41] ^= 1;
    let seen = bed.send(0, CLIENTS, &frame);
    assert!(
        std::panic::catch_unwind(|| seen[0].packet()).is_err(),
        "still wrong"
    );
    frame[40..42].fill(0);
    let seen = bed.send_one(0, CLIENTS, &frame);
    assert_eq!(seen.packet().payload, b"payload");
    assert_ne!(seen.frame[40..42], [0, 0]);
}

#[test]
fn a_packet_for_the_director_itself_as_server_is_left_to_the_kernel() {
    let config = Config::of(TCP, VIP, Method::Local, "10.0.0.100:80");
    let mut bed = Bed::new(&config);
    let before = bed.books();
    assert!(bed.send(0, CLIENTS, &syn()).is_empty());
    let data = Talk::tcp(CLIENT, VIP).packet(DATA, b"");
    assert!(bed.send(0, CLIENTS, &data).is_empty());
    let quoted = Talk::tcp(VIP, CLIENT).packet(DATA, b"");
    let error = icmp_error("10.64.0.9", ip("10.0.0.100"), (3, 3, 0), &quoted);
    assert!(bed.send(0, CLIENTS, &error).is_empty());
    assert_eq!(bed.moved(&before)["exceptions"], 3);
    assert_eq!(config.load(0), (1, 0), "and counted");
}
