//! Whatever is received, and however the configuration changes meanwhile: no panic, every frame in one book (the bed looks after each frame), nothing unreadable sent.

use super::bed::{Bed, Limits};
use super::config::{CLIENTS, Config, METHODS, SERVERS, ip, socket};
use super::fragments::cut;
use super::packets::{Talk, icmp_error, partial};
use crate::frame::{Gso, Offload};
use crate::helper::Helper;
use crate::mark::MarkRule;
use crate::packet::wire::{SCTP, TCP, UDP};
use crate::packet::{Parsed, TcpFlags, parse};
use crate::snapshot::{Engine, Persistence};
use conntrack::{Method, Ticks};
use proptest::collection::vec;
use proptest::prelude::*;
use std::sync::atomic::Ordering::Relaxed;

/// The protocol of a mark's service, and the first port that is marked.
const MARK: u8 = 0;
const MARKED: u16 = 7000;

/// A frame and how it is changed before it is received.
#[derive(Clone, Debug)]
struct Input {
    worker: usize,
    side: usize,
    kind: Kind,
    /// Bytes to be changed: where, and by what.
    flips: Vec<(u16, u8)>,
    /// Bytes to be cut off or added.
    resize: i16,
    offload: Option<(u16, u16, u8, u16)>,
    /// Tenths of a second that pass before.
    wait: u32,
}

#[derive(Clone, Debug)]
enum Kind {
    /// The EtherType is one of those that are looked into.
    Bytes(Vec<u8>, u8),
    /// Of a client: service, client, flags, payload length.
    Request(u8, u8, u8, u16),
    /// Of a server: likewise.
    Reply(u8, u8, u8, u16),
    /// An error about such a packet: type and code.
    Error(u8, u8, bool, u8, u8),
    /// A request with a partial checksum, and perhaps GSO.
    Local(u8, u8, u16, Option<u16>),
    /// One part of a packet: service, client, whether of the server, where the parts end (in eights of bytes), which.
    Fragment(u8, u8, bool, (u8, u8), u8),
    /// The configuration changes: service, how.
    Reload(u8, u8),
}

fn kind() -> impl Strategy<Value = Kind> {
    let len = 0u16..1600;
    prop_oneof![
        2 => (vec(any::<u8>(), 0..200), any::<u8>()).prop_map(|(bytes, kind)| Kind::Bytes(bytes, kind)),
        4 => (any::<u8>(), 0u8..4, any::<u8>(), len.clone())
            .prop_map(|(service, client, flags, len)| Kind::Request(service, client, flags, len)),
        3 => (any::<u8>(), 0u8..4, any::<u8>(), len)
            .prop_map(|(service, client, flags, len)| Kind::Reply(service, client, flags, len)),
        2 => (any::<u8>(), 0u8..4, any::<bool>(), any::<u8>(), any::<u8>())
            .prop_map(|(service, client, server, kind, code)| Kind::Error(service, client, server, kind, code)),
        2 => (any::<u8>(), 0u8..4, 0u16..8000, proptest::option::of(1u16..3000))
            .prop_map(|(service, client, len, gso)| Kind::Local(service, client, len, gso)),
        4 => (any::<u8>(), 0u8..4, any::<bool>(), (1u8..8, 1u8..100), 0u8..3)
            .prop_map(|(service, client, server, ends, which)| Kind::Fragment(service, client, server, ends, which)),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(service, how)| Kind::Reload(service, how)),
    ]
}

/// What is said where a helper listens.
const TEXTS: [&str; 9] = [
    "",
    "PASV\r\n",
    "227 (10,2,0,11,156,64)\r\n",
    "227 (010,002,000,011,35,40)\r\n",
    "EPSV\r\n",
    "229 (|||40000|)\r\n",
    "PORT 10,64,0,7,156,64\r\n",
    "EPRT |1|10.64.0.7|40000|\r\n",
    "EPRT |2|fd00:64::7|40000|\r\n",
];

fn input() -> impl Strategy<Value = Input> {
    let offload = (any::<u16>(), any::<u16>(), 0u8..6, any::<u16>());
    (
        0usize..2,
        0usize..2,
        kind(),
        prop_oneof![3 => Just(Vec::new()), 1 => vec((0u16..80, any::<u8>()), 1..4)],
        prop_oneof![6 => Just(0i16), 1 => -60i16..60],
        prop_oneof![12 => Just(None), 1 => offload.prop_map(Some)],
        prop_oneof![10 => Just(0u32), 1 => 1u32..700],
    )
        .prop_map(|(worker, side, kind, flips, resize, offload, wait)| Input {
            worker,
            side,
            kind,
            flips,
            resize,
            offload,
            wait,
        })
}

/// A client's flow, and what its server sees of it where that is known beforehand.
fn talks(config: &Config, service: u8, client: u8) -> (Talk, Talk) {
    let service = &config.services[usize::from(service) % config.services.len()];
    let number = u16::from(client);
    let client = if service.address.is_ipv4() {
        format!("10.64.0.7:{}", 40_000 + number)
    } else {
        format!("[fd00:64::7]:{}", 40_000 + number)
    };
    let mut request = Talk {
        protocol: service.protocol,
        source: socket(&client),
        destination: service.address,
    };
    if service.protocol == MARK {
        request.protocol = [TCP, UDP, SCTP, TCP][usize::from(number) % 4];
        request.destination = (ip("10.0.0.100"), MARKED + number % 2).into();
    }
    let mut inside = request;
    // A tunnel may lead to the other family, but nobody sends from there.
    if service.address.is_ipv4() == service.servers[0].address.is_ipv4() {
        inside.destination = service.servers[0].address;
    }
    if let Some(lip) = service.lips.first() {
        inside.source = (lip.address, 1024 + number).into();
    }
    (request, inside)
}

/// A payload that begins as a chunk of SCTP.
fn chunk(kind: u8, mut payload: Vec<u8>) -> Vec<u8> {
    if let Some(first) = payload.first_mut() {
        *first = kind % 16;
    }
    payload
}

fn build(config: &Config, kind: &Kind) -> (Vec<u8>, Offload) {
    let payload = |service: u8, len: u16| {
        let service = &config.services[usize::from(service) % config.services.len()];
        match service.helper {
            Some(_) => TEXTS[usize::from(len) % TEXTS.len()].as_bytes().to_vec(),
            None if service.protocol == UDP && !len.is_multiple_of(4) => {
                format!("INVITE sip:a@x SIP/2.0\r\nCall-ID: {len}@x\r\n\r\n").into_bytes()
            }
            None => vec![0x5a; usize::from(len)],
        }
    };
    let frame = match kind {
        Kind::Bytes(bytes, kind) => {
            let ether_type: [u8; 2] = match kind % 5 {
                0 => [8, 6],
                1 => [0x81, 0],
                2 | 3 => [8, 0],
                _ => [0x86, 0xdd],
            };
            let mut frame = [&[2; 12], ether_type.as_slice(), bytes].concat();
            if let Some(version) = frame.get_mut(14) {
                *version = if ether_type == [8, 0] { 0x45 } else { 0x60 };
            }
            frame
        }
        Kind::Request(service, client, flags, len) => {
            let (request, _) = talks(config, *service, *client);
            request.packet(TcpFlags(*flags), &chunk(*flags, payload(*service, *len)))
        }
        Kind::Reply(service, client, flags, len) => {
            let (_, inside) = talks(config, *service, *client);
            inside
                .back()
                .packet(TcpFlags(*flags), &chunk(*flags, payload(*service, *len)))
        }
        Kind::Error(service, client, from_server, kind, code) => {
            let (request, inside) = talks(config, *service, *client);
            let quoted = if *from_server { inside } else { request.back() };
            let from = if request.source.is_ipv4() {
                "10.9.9.9"
            } else {
                "fd00:9::9"
            };
            let kind = if kind % 3 == 0 { *kind } else { kind % 12 };
            let about = quoted.packet(TcpFlags(0x18), b"quoted");
            icmp_error(from, quoted.source.ip(), (kind, *code, 1300), &about)
        }
        Kind::Fragment(service, client, from_server, (first, second), which) => {
            let (request, inside) = talks(config, *service, *client);
            let talk = if *from_server { inside.back() } else { request };
            let ends = [first, second].map(|units| usize::from(*units) * 8);
            let ends = [ends[0], ends[0] + ends[1]];
            let parts = cut(&talk.packet(TcpFlags(2), &vec![0x5a; 1000]), &ends, 7);
            parts[usize::from(*which) % parts.len()].clone()
        }
        Kind::Reload(..) => Vec::new(),
        Kind::Local(service, client, len, gso) => {
            let (request, _) = talks(config, *service, *client);
            let mut frame = request.packet(TcpFlags(2), &payload(*service, *len));
            let mut offload = partial(&mut frame);
            if let Some(segment_len) = gso {
                offload.gso = match (request.protocol, request.source.is_ipv4()) {
                    (UDP, _) => Gso::Udp,
                    (_, true) => Gso::Tcp4 { ecn: false },
                    (_, false) => Gso::Tcp6 { ecn: false },
                };
                offload.segment_len = *segment_len;
            }
            return (frame, offload);
        }
    };
    (frame, Offload::NONE)
}

fn received(config: &Config, input: &Input) -> (Vec<u8>, Offload) {
    let (mut frame, mut offload) = build(config, &input.kind);
    super::bed::address(&mut frame, input.side);
    for (at, by) in &input.flips {
        if let Some(byte) = frame.get_mut(usize::from(*at)) {
            *byte ^= by;
        }
    }
    let len = frame.len().saturating_add_signed(input.resize.into());
    frame.resize(len, 0xcc);
    if let Some((checksum_start, checksum_offset, kind, segment_len)) = input.offload {
        offload = Offload {
            partial_checksum: kind > 1,
            checksum_start: checksum_start % 128,
            checksum_offset: checksum_offset % 32,
            gso: match kind {
                2 => Gso::Tcp4 { ecn: true },
                3 => Gso::Tcp6 { ecn: false },
                4 => Gso::Udp,
                _ => Gso::None,
            },
            segment_len: segment_len % 3000,
            header_len: checksum_start,
        };
    }
    (frame, offload)
}

/// Every mode for every protocol, a tunnel to the other family, and a service of a mark.
fn configured() -> Config {
    let mut config = Config::everything()
        .with(TCP, "10.0.0.100:9000", Method::Tun, &["[fd00:2::12]:9000"])
        .with(MARK, "0.0.0.5:0", Method::FullNat, &["10.2.0.11:80"]);
    config.marks.push(MarkRule {
        mark: 5,
        port: None,
        source: None,
        destination: None,
        protocol: None,
        source_ports: 0..=u16::MAX,
        destination_ports: MARKED..=MARKED + 1,
        ipv6: None,
    });
    for (port, method) in (9001..).zip(METHODS) {
        for (vip, server) in [
            ("10.0.0.100", "10.2.0.11"),
            ("[fd00:a::100]", "[fd00:2::11]"),
        ] {
            let vip = format!("{vip}:{port}");
            config = config.with(SCTP, &vip, method, &[&format!("{server}:{port}")]);
        }
    }
    for service in &mut config.services {
        let by_nat = service.servers[0].method == Method::Nat;
        service.helper = (by_nat && service.protocol == TCP).then_some(Helper::Ftp);
    }
    config
}

/// Changes one service as an operator might.
fn reload(config: &mut Config, service: u8, how: u8) {
    let count = config.services.len();
    let service = &mut config.services[usize::from(service) % count];
    let server = &mut service.servers[0];
    match how % 4 {
        0 => server.present = !server.present,
        1 => server.weight = 1 - server.weight,
        2 if service.persistence.is_some() => service.persistence = None,
        2 | 3 => {
            let engine = (service.protocol == UDP).then_some(Engine::Sip);
            service.persistence = Some(Persistence {
                timeout: Ticks::from_seconds(30),
                mask: u128::MAX << 1,
                engine: engine.filter(|_| how & 4 == 0),
            });
            service.one_packet = service.protocol == UDP && how & 8 == 0 && service.lips.is_empty();
        }
        _ => unreachable!("four ways"),
    }
}

/// Nothing is held any more.
fn assert_empty(bed: &Bed, config: &Config) {
    assert!(!bed.books().contains_key("waiting"));
    assert_eq!(bed.connections(), 0);
    for statistics in [bed.tables.ipv4.statistics(), bed.tables.ipv6.statistics()] {
        let kept = (statistics.keys, statistics.half_open, statistics.overflowed);
        assert_eq!(kept, (0, 0, 0));
    }
    assert_eq!(bed.tables.calls.in_use(), 0);
    assert_eq!(bed.tables.helpers.in_use(), 0);
    assert!(!bed.tables.helpers.expects());
    for stats in &bed.stats {
        assert_eq!(stats.lip_ports_in_use.load(Relaxed), 0);
    }
    for service in &config.services {
        let load = &service.servers[0].load;
        let counts = (load.active(), load.inactive(), load.persistent());
        assert_eq!(counts, (0, 0, 0), "{service:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_received_is_accounted_for(
        inputs in vec(input(), 1..40),
        modes in (0u8..4, 0u8..4, 0u8..4, any::<bool>()),
        (expire_nodest, expire_quiescent, schedule_icmp) in any::<(bool, bool, bool)>(),
        reloads in vec(any::<(u8, u8)>(), 0..20),
    ) {
        let mut config = configured();
        let ipvs = &mut config.ipvs;
        (ipvs.secure_tcp, ipvs.drop_packet, ipvs.drop_entry, ipvs.sloppy_sctp) = modes;
        ipvs.expire_nodest_conn = expire_nodest;
        ipvs.expire_quiescent_template = expire_quiescent;
        ipvs.schedule_icmp = schedule_icmp;
        for (service, how) in reloads {
            reload(&mut config, service, how | 2);
        }
        let limits = Limits {
            workers: 2,
            helpers: 2,
            connections: 16,
            neighbours: 16,
            buffers: 8,
            buffer_len: 16_384,
            ..Limits::default()
        };
        let mut bed = Bed::with(&config, &limits);
        bed.tables.calls.prepare();
        for input in inputs {
            if input.wait > 0 {
                bed.now = bed.now.after(Ticks(input.wait * 10));
            }
            if let Kind::Reload(service, how) = input.kind {
                reload(&mut config, service, how);
                bed.publish(&config);
                continue;
            }
            let (frame, offload) = received(&config, &input);
            for seen in bed.send_raw(input.worker, input.side, &frame, offload) {
                prop_assert!(matches!(seen.side, CLIENTS | SERVERS));
                let parsed = parse(&seen.frame, &seen.offload);
                prop_assert!(
                    matches!(parsed, Parsed::Ipv4(_) | Parsed::Ipv6(_)),
                    "{parsed:?} of {input:?}"
                );
            }
        }
        // Everything that waits comes to an end, and so does every connection.
        for _ in 0..15 {
            bed.now = bed.now.after(Ticks::from_seconds(100));
            for _ in 0..15 {
                bed.now = bed.now.after(Ticks(1));
                bed.settle();
            }
        }
        assert_empty(&bed, &config);
    }
}
