//! What a capture sees of a worker.

use super::bed::Bed;
use super::config::{CLIENTS, Config, SERVERS, ip};
use super::packets::{ACK, SYN, SYN_ACK, Talk, with_ttl};
use crate::capture::{Capture, Dropped, Fate, Filter, LARGEST_SNAP, Wanted};
use crate::mark::Network;
use crate::packet::wire::{TCP, UDP};
use crate::port::PortId;
use crate::reason::Reason;
use conntrack::Method;
use std::sync::Arc;

const VIP: &str = "10.0.0.100:80";
const SERVER: &str = "10.2.0.11:8080";

struct Shown {
    port: PortId,
    is_leaving: bool,
    fate: String,
    bytes: Vec<u8>,
}

fn begin(bed: &Bed, filter: Filter) -> Arc<Capture> {
    let wanted = Wanted {
        filter,
        before: true,
        after: true,
        snap_len: LARGEST_SNAP,
    };
    bed.publisher.captures().begin(wanted).unwrap()
}

fn shown(capture: &Capture) -> Vec<Shown> {
    let mut all = Vec::new();
    while capture.next(|record| {
        assert!(record.time_ns > 1_700_000_000_000_000_000, "{record:?}");
        all.push(Shown {
            port: record.port,
            is_leaving: record.is_leaving,
            fate: match record.fate {
                Fate::Forwarded(Some(towards)) => format!("{} {:?}", towards.to, towards.method),
                fate => format!("{fate:?}"),
            },
            bytes: record.bytes().to_vec(),
        });
    }) {}
    all
}

fn facts(capture: &Capture) -> Vec<(u16, bool, String)> {
    let shown = shown(capture).into_iter();
    shown
        .map(|shown| (shown.port.0, shown.is_leaving, shown.fate))
        .collect()
}

/// Of TCP, so that the hosts' ARP is not told.
fn tcp() -> Filter {
    Filter {
        protocol: Some(TCP),
        ..Filter::default()
    }
}

#[test]
fn a_packet_is_shown_as_it_came_and_as_it_leaves_with_where_to() {
    let mut bed = Bed::new(&Config::of(TCP, VIP, Method::Nat, SERVER));
    let capture = begin(&bed, tcp());
    let talk = Talk::tcp("10.64.0.7:40000", VIP);
    let request = talk.packet(SYN, b"");
    bed.send_one(0, CLIENTS, &request);
    // Nobody knew the server: the first packet waited for its neighbour.
    let told = shown(&capture);
    let fates: Vec<_> = told.iter().map(|shown| &*shown.fate).collect();
    assert_eq!(fates, ["Waits", "Waited"]);
    let reply = Talk::tcp(SERVER, "10.64.0.7:40000").packet(SYN_ACK, b"");
    // Nor did anybody know the client's router.
    bed.send_one(0, SERVERS, &reply);
    drop(shown(&capture));
    let back = bed.send_one(0, SERVERS, &reply);
    let told = shown(&capture);
    assert_eq!(told.len(), 2);
    for (shown, (port, is_leaving)) in told.iter().zip([(1, false), (0, true)]) {
        assert_eq!((shown.port.0, shown.is_leaving), (port, is_leaving));
        assert_eq!(shown.fate, "10.64.0.7:40000 Nat");
    }
    assert_eq!(told[0].bytes[14..], reply[14..]);
    assert_eq!(told[1].bytes, back.frame);
    // Known, and steady from here on.
    for _ in 0..3 {
        let sent = bed.send_one(0, CLIENTS, &talk.packet(ACK, b"x"));
        let told = shown(&capture);
        assert_eq!(told.len(), 2);
        assert!(told.iter().all(|shown| shown.fate == "10.2.0.11:8080 Nat"));
        assert_eq!(told[1].bytes, sent.frame);
    }
    bed.publisher.captures().end();
    bed.send_one(0, CLIENTS, &talk.packet(ACK, b"y"));
    assert!(shown(&capture).is_empty());
    assert_eq!(capture.missed(), 0);
    assert_eq!(Arc::strong_count(&capture), 1, "the workers have let go");
}

#[test]
fn a_dropped_packet_is_shown_with_its_reason() {
    let mut config = Config::of(TCP, VIP, Method::Nat, SERVER);
    config.services[0].servers[0].weight = 0;
    let mut bed = Bed::new(&config);
    let capture = begin(
        &bed,
        Filter {
            dropped: Some(Dropped::All),
            ..Filter::default()
        },
    );
    let talk = Talk::tcp("10.64.0.7:40000", VIP);
    bed.send(0, CLIENTS, &talk.packet(SYN, b""));
    assert_eq!(
        facts(&capture),
        [(0, false, "Dropped(NoServer)".to_owned())]
    );
    bed.send(0, CLIENTS, &talk.packet(ACK, b""));
    assert_eq!(
        facts(&capture),
        [(0, false, "Dropped(NoConnection)".to_owned())]
    );
    // Left to the kernel.
    bed.send(
        0,
        CLIENTS,
        &Talk::tcp("10.64.0.7:1", "10.9.9.9:1").packet(SYN, b""),
    );
    assert!(facts(&capture).is_empty());
    bed.publisher.captures().end();
    let capture = begin(
        &bed,
        Filter {
            dropped: Some(Dropped::For(Reason::NoServer)),
            ..Filter::default()
        },
    );
    bed.send(0, CLIENTS, &talk.packet(ACK, b""));
    bed.send(0, CLIENTS, &talk.packet(SYN, b""));
    assert_eq!(
        facts(&capture),
        [(0, false, "Dropped(NoServer)".to_owned())]
    );
}

#[test]
fn what_is_answered_and_what_is_left_is_told() {
    let mut bed = Bed::new(&Config::of(TCP, VIP, Method::Dr, "10.2.0.11:80"));
    let capture = begin(&bed, tcp());
    let other = Talk::tcp("10.64.0.7:1", "10.9.9.9:1").packet(SYN, b"");
    bed.send(0, CLIENTS, &other);
    assert_eq!(facts(&capture), [(0, false, "Left".to_owned())]);
    bed.publisher.captures().end();
    let capture = begin(&bed, Filter::default());
    // The answer to an expired packet is the director's own, and the packet is dropped.
    let talk = Talk::tcp("10.64.0.7:40000", VIP);
    bed.send_one(0, CLIENTS, &talk.packet(SYN, b""));
    drop(facts(&capture));
    bed.send(0, CLIENTS, &with_ttl(talk.packet(ACK, b""), 1));
    assert_eq!(
        facts(&capture),
        [
            (0, false, "Dropped(TtlExpired)".to_owned()),
            (0, true, "Originated".to_owned())
        ]
    );
}

#[test]
fn a_filter_takes_both_sides_of_a_translated_packet() {
    let config = Config::of(TCP, VIP, Method::Nat, SERVER).with(
        UDP,
        "10.0.0.100:53",
        Method::Nat,
        &["10.2.0.12:53"],
    );
    let mut bed = Bed::new(&config);
    let talk = Talk::tcp("10.64.0.7:40000", VIP);
    let other = Talk::udp("10.64.0.8:40000", "10.0.0.100:53");
    bed.send(0, CLIENTS, &talk.packet(SYN, b""));
    bed.send(0, CLIENTS, &other.packet(ACK, b"?"));
    let vip = Filter {
        host: Some(Network::new(ip("10.0.0.100"), 32)),
        transport_port: Some(80),
        ..Filter::default()
    };
    let to = "10.2.0.11:8080 Nat".to_owned();
    for (filter, wanted) in [
        (vip, vec![(0, false, to.clone()), (1, true, to.clone())]),
        (
            Filter {
                port: Some(PortId(0)),
                ..vip
            },
            vec![(0, false, to.clone())],
        ),
        (
            Filter {
                port: Some(PortId(1)),
                ..vip
            },
            vec![(1, true, to.clone())],
        ),
        (
            Filter {
                host: Some(Network::new(ip("10.3.0.0"), 16)),
                ..vip
            },
            vec![],
        ),
    ] {
        let capture = begin(&bed, filter);
        bed.send(0, CLIENTS, &other.packet(ACK, b"?"));
        bed.send(0, CLIENTS, &talk.packet(ACK, b""));
        assert_eq!(facts(&capture), wanted, "{filter:?}");
        bed.publisher.captures().end();
        bed.settle();
    }
}

#[test]
fn a_full_capture_counts_what_it_misses_and_packets_go_on() {
    let mut bed = Bed::new(&Config::of(TCP, VIP, Method::Nat, SERVER));
    let capture = begin(&bed, tcp());
    let talk = Talk::tcp("10.64.0.7:40000", VIP);
    let rounds = 1500;
    for _ in 0..rounds {
        bed.send_one(0, CLIENTS, &talk.packet(SYN, b""));
    }
    let told = shown(&capture).len() as u64;
    assert!(told > 1000 && capture.missed() > 1000, "{told}");
    assert_eq!(told + capture.missed(), 2 * rounds);
    // There is room again.
    bed.send_one(0, CLIENTS, &talk.packet(SYN, b""));
    assert_eq!(shown(&capture).len(), 2);
}
