use crate::frame::Offload;
use crate::packet::arp::{self, Arp, Operation};
use crate::packet::ndp::{self, Message};
use crate::packet::sample::{Sample, client_v6, hex, reference_l4, tcp};
use crate::packet::{Packet, Parsed, TcpFlags, V6, parse};
use crate::port::Mac;
use crate::reason::Reason;
use proptest::prelude::*;
use std::net::{Ipv4Addr, Ipv6Addr};

const OURS: Mac = Mac([2, 0, 0, 0, 1, 1]);
const THEIRS: Mac = Mac([2, 4, 10, 1, 0, 0xfe]);
const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 100);
const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 254);
const VIP6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xa, 0, 0, 0, 0, 0x12, 0x3456);
const ROUTER6: Ipv6Addr = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 0xfe);

#[test]
fn an_arp_request_is_laid_out_as_rfc_826_says() {
    let expected = "ffffffffffff 020000000101 0806 0001 0800 06 04 0001
                    020000000101 0a000064 000000000000 0a0100fe";
    assert_eq!(
        arp::request(OURS, VIP, ROUTER, None).to_vec(),
        hex(expected)
    );
}

#[test]
fn arp_round_trips() {
    let request = arp::request(THEIRS, ROUTER, VIP, None);
    let parsed = arp::parse(&request).unwrap();
    assert_eq!(parse(&request, &Offload::NONE), Parsed::Arp);
    assert_eq!(
        (parsed.operation, parsed.sender_mac, parsed.sender),
        (Operation::Request, THEIRS, ROUTER)
    );
    assert_eq!(parsed.target, VIP);
    assert!(!parsed.is_gratuitous());

    let reply = arp::reply(OURS, &parsed);
    assert_eq!((&reply[..6], &reply[6..12]), (&THEIRS.0[..], &OURS.0[..]));
    let expected = Arp {
        operation: Operation::Reply,
        sender_mac: OURS,
        sender: VIP,
        target_mac: THEIRS,
        target: ROUTER,
    };
    assert_eq!(arp::parse(&reply), Ok(expected));

    let gratuitous = arp::gratuitous(OURS, VIP);
    assert_eq!(gratuitous[..6], [0xff; 6]);
    let parsed = arp::parse(&gratuitous).unwrap();
    assert_eq!(
        (parsed.operation, parsed.sender, parsed.target),
        (Operation::Request, VIP, VIP)
    );
    assert!(parsed.is_gratuitous());

    let confirming = arp::request(OURS, VIP, ROUTER, Some(THEIRS));
    assert_eq!(confirming[..6], THEIRS.0);
}

#[test]
fn arp_that_is_not_ipv4_over_ethernet_is_dropped() {
    type Change = fn(&mut Vec<u8>);
    let cases: &[(&str, Change, Result<(), Reason>)] = &[
        ("as it is", |_| (), Ok(())),
        ("with padding", |frame| frame.extend([0; 18]), Ok(())),
        ("a probe", |frame| frame[28..32].fill(0), Ok(())),
        (
            "short of a byte",
            |frame| frame.truncate(41),
            Err(Reason::Truncated),
        ),
        (
            "hardware type 6",
            |frame| frame[15] = 6,
            Err(Reason::Malformed),
        ),
        (
            "protocol type IPv6",
            |frame| frame[16..18].copy_from_slice(&[0x86, 0xdd]),
            Err(Reason::Malformed),
        ),
        (
            "hardware addresses of 8 bytes",
            |frame| frame[18] = 8,
            Err(Reason::Malformed),
        ),
        (
            "protocol addresses of 16 bytes",
            |frame| frame[19] = 16,
            Err(Reason::Malformed),
        ),
        ("operation 0", |frame| frame[21] = 0, Err(Reason::Malformed)),
        (
            "operation 3 (RARP)",
            |frame| frame[21] = 3,
            Err(Reason::Malformed),
        ),
        (
            "a group MAC as sender",
            |frame| frame[22] |= 1,
            Err(Reason::Malformed),
        ),
        (
            "224.0.0.1 as sender",
            |frame| frame[28..32].copy_from_slice(&[224, 0, 0, 1]),
            Err(Reason::BadSource),
        ),
        (
            "255.255.255.255 as sender",
            |frame| frame[28..32].fill(255),
            Err(Reason::BadSource),
        ),
        (
            "127.0.0.1 as sender",
            |frame| frame[28..32].copy_from_slice(&[127, 0, 0, 1]),
            Err(Reason::BadSource),
        ),
    ];
    for (about, change, expected) in cases {
        let mut frame = arp::request(THEIRS, ROUTER, VIP, None).to_vec();
        change(&mut frame);
        assert_eq!(arp::parse(&frame).map(|_| ()), *expected, "{about}");
    }
}

fn ndp(frame: &[u8]) -> (Packet<V6>, Result<Message, Reason>) {
    let packet = V6::packet(frame, &Offload::NONE);
    (packet, ndp::parse(frame, &packet))
}

#[test]
fn a_solicitation_goes_to_the_solicited_node_group() {
    let frame = ndp::solicitation(OURS, ROUTER6, VIP6, None);
    assert_eq!(frame[..6], [0x33, 0x33, 0xff, 0x12, 0x34, 0x56]);
    let (packet, message) = ndp(&frame);
    let group: Ipv6Addr = "ff02::1:ff12:3456".parse().unwrap();
    assert_eq!(
        (packet.tuple.source, packet.tuple.destination, packet.ttl),
        (ROUTER6, group, 255)
    );
    assert_eq!(
        message,
        Ok(Message::Solicitation {
            target: VIP6,
            source_mac: Some(OURS)
        })
    );

    let frame = ndp::solicitation(OURS, ROUTER6, VIP6, Some(THEIRS));
    assert_eq!(
        (&frame[..6], ndp(&frame).0.tuple.destination),
        (&THEIRS.0[..], VIP6)
    );
}

#[test]
fn an_advertisement_answers_who_asked() {
    let frame = ndp::advertisement(OURS, VIP6, ROUTER6, THEIRS);
    let (packet, message) = ndp(&frame);
    assert_eq!(
        (packet.tuple.source, packet.tuple.destination),
        (VIP6, ROUTER6)
    );
    assert_eq!((&frame[..6], &frame[6..12]), (&THEIRS.0[..], &OURS.0[..]));
    let expected = Message::Advertisement {
        target: VIP6,
        target_mac: Some(OURS),
        router: false,
        solicited: true,
        replace: true,
    };
    assert_eq!(message, Ok(expected));
}

#[test]
fn an_announcement_goes_to_all_nodes() {
    let expected = Message::Advertisement {
        target: VIP6,
        target_mac: Some(OURS),
        router: false,
        solicited: false,
        replace: true,
    };
    let all_nodes: Ipv6Addr = "ff02::1".parse().unwrap();
    // The second is the answer to duplicate address detection.
    for frame in [
        ndp::unsolicited(OURS, VIP6),
        ndp::advertisement(OURS, VIP6, Ipv6Addr::UNSPECIFIED, THEIRS),
    ] {
        let (packet, message) = ndp(&frame);
        assert_eq!(frame[..6], [0x33, 0x33, 0, 0, 0, 1]);
        assert_eq!(
            (packet.tuple.source, packet.tuple.destination),
            (VIP6, all_nodes)
        );
        assert_eq!(message, Ok(expected));
    }
}

/// Makes the ICMPv6 checksum right after a change.
fn fix(frame: &mut [u8]) {
    let end = 54 + usize::from(frame[19]);
    frame[56..58].fill(0);
    let checksum = reference_l4(&frame[22..54], 58, &frame[54..end]);
    frame[56..58].copy_from_slice(&checksum.to_be_bytes());
}

/// A solicitation of another message body with the options given.
fn with_options(frame: &mut Vec<u8>, options: &[u8]) {
    frame.truncate(78);
    frame.extend(options);
    frame[19] = u8::try_from(frame.len() - 54).unwrap();
}

fn detect_duplicates(frame: &mut Vec<u8>) {
    frame[22..38].fill(0);
    with_options(frame, &[]);
}

#[test]
fn the_checks_of_rfc_4861_section_7_1_are_made() {
    type Change = fn(&mut Vec<u8>);
    let cases: &[(&str, Change, Result<(), Reason>)] = &[
        ("a solicitation", |_| (), Ok(())),
        ("without options", |frame| with_options(frame, &[]), Ok(())),
        (
            "with an unknown option",
            |frame| with_options(frame, &[14, 1, 0, 0, 0, 0, 0, 0]),
            Ok(()),
        ),
        (
            "from beyond the link",
            |frame| frame[21] = 254,
            Err(Reason::Malformed),
        ),
        ("with a code", |frame| frame[55] = 1, Err(Reason::Malformed)),
        (
            "about a group",
            |frame| frame[62] = 0xff,
            Err(Reason::Malformed),
        ),
        (
            "short of a byte",
            |frame| frame[19] = 23,
            Err(Reason::Malformed),
        ),
        (
            "with an option of length 0",
            |frame| frame[79] = 0,
            Err(Reason::Malformed),
        ),
        (
            "with an option beyond the end",
            |frame| frame[79] = 2,
            Err(Reason::Malformed),
        ),
        (
            "with half an option",
            |frame| with_options(frame, &[1, 1, 0]),
            Err(Reason::Malformed),
        ),
        ("from :: without a source MAC", detect_duplicates, Ok(())),
        (
            "from :: with a source MAC",
            |frame| frame[22..38].fill(0),
            Err(Reason::Malformed),
        ),
        (
            "from :: to a single host",
            |frame| {
                detect_duplicates(frame);
                frame[38] = 0xfd
            },
            Err(Reason::Malformed),
        ),
        (
            "a router solicitation",
            |frame| frame[54] = 133,
            Err(Reason::IcmpUnsupported),
        ),
        ("an advertisement", |frame| frame[54] = 136, Ok(())),
        (
            "a solicited advertisement to a group",
            |frame| (frame[54], frame[58]) = (136, 0x40),
            Err(Reason::Malformed),
        ),
        (
            "behind an extension header",
            |frame| {
                frame.splice(54..54, [58, 0, 1, 4, 0, 0, 0, 0]);
                (frame[19], frame[20]) = (40, 60);
            },
            Err(Reason::Malformed),
        ),
    ];
    for (about, change, expected) in cases {
        let mut frame = ndp::solicitation(THEIRS, ROUTER6, VIP6, None).to_vec();
        change(&mut frame);
        if frame[20] == 58 {
            fix(&mut frame);
        }
        assert_eq!(ndp(&frame).1.map(|_| ()), *expected, "{about}");
    }
    let mut frame = ndp::solicitation(THEIRS, ROUTER6, VIP6, None);
    frame[85] ^= 1;
    assert_eq!(ndp(&frame).1, Err(Reason::BadIcmpChecksum));
    assert_eq!(
        ndp(&tcp(&client_v6(6), TcpFlags(2), b"")).1,
        Err(Reason::IcmpUnsupported)
    );
}

#[test]
fn an_advertisement_may_lack_the_mac() {
    let mut frame = ndp::advertisement(THEIRS, ROUTER6, VIP6, OURS).to_vec();
    with_options(&mut frame, &[]);
    frame[58] |= 0x80;
    fix(&mut frame);
    let expected = Message::Advertisement {
        target: ROUTER6,
        target_mac: None,
        router: true,
        solicited: true,
        replace: true,
    };
    assert_eq!(ndp(&frame).1, Ok(expected));
}

proptest! {
    #[test]
    fn arbitrary_messages_never_panic(
        mut message in proptest::collection::vec(any::<u8>(), 8..100),
        advertisement: bool,
        arp in proptest::collection::vec(any::<u8>(), 0..60),
    ) {
        message[..2].copy_from_slice(if advertisement { &[136, 0] } else { &[135, 0] });
        let mut frame = V6::frame(ROUTER6, VIP6, 58, &message);
        frame[21] = 255;
        fix(&mut frame);
        let target = match ndp(&frame).1 {
            Ok(Message::Solicitation { target, .. } | Message::Advertisement { target, .. }) => target,
            Err(_) => VIP6,
        };
        prop_assert!(!target.is_multicast());
        if let Ok(parsed) = arp::parse(&arp) {
            prop_assert_eq!(parsed.sender_mac.0.as_slice(), &arp[22..28]);
        }
    }
}
