use crate::frame::Offload;
use crate::packet::icmp::{self, ERROR_V4_LEN, ERROR_V6_LEN, ErrorKind, has_right_checksum};
use crate::packet::sample::{
    self, Sample, client_v4, client_v6, fix_header, reference_l4, reference_sum, tcp, udp,
};
use crate::packet::wire::{ICMP, ICMPV6, SCTP, TCP, UDP};
use crate::packet::{Parsed, TcpFlags, Tuple, V4, V6, checksum, parse};
use crate::reason::Reason;
use proptest::prelude::*;
use std::net::{Ipv4Addr, Ipv6Addr};

const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 100);
const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 254);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 7);
const VIP6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xa, 0, 0, 0, 0, 0, 0x100);
const CLIENT6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x64, 0, 0, 0, 0, 0, 7);

/// An ICMP message with a correct checksum.
fn message_v4(kind: u8, code: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0, 0, 0, 0, 0];
    message.extend(body);
    let checksum = !reference_sum(&message);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    V4::frame(ROUTER, VIP, ICMP, &message)
}

fn message_v6(kind: u8, code: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0, 0, 0, 0, 0];
    message.extend(body);
    let checksum = reference_l4(&V6::octets(CLIENT6, VIP6), ICMPV6, &message);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    V6::frame(CLIENT6, VIP6, ICMPV6, &message)
}

fn error_v4(frame: &[u8]) -> Option<Vec<u8>> {
    let mut scratch = [0xee; ERROR_V4_LEN];
    let len = V4::error(&mut scratch, ErrorKind::PortUnreachable, frame, VIP)?;
    Some(scratch[..len].to_vec())
}

fn error_v6(frame: &[u8]) -> Option<Vec<u8>> {
    let mut scratch = [0xee; ERROR_V6_LEN];
    let len = V6::error(&mut scratch, ErrorKind::PortUnreachable, frame, VIP6)?;
    Some(scratch[..len].to_vec())
}

#[test]
fn an_error_quotes_what_fits_into_576_bytes() {
    for (payload, len) in [
        (0, 14 + 28 + 28),
        (520, 14 + 28 + 548),
        (521, 14 + 576),
        (1400, 14 + 576),
    ] {
        let frame = udp(&client_v4(UDP), &vec![1; payload]);
        let error = error_v4(&frame).unwrap();
        assert_eq!(error.len(), len.min(ERROR_V4_LEN), "{payload}");
        assert_eq!(error[42..], frame[14..14 + error.len() - 42]);
        sample::assert_valid::<V4>(&error);
    }
}

#[test]
fn an_icmpv6_error_quotes_what_fits_into_1280_bytes() {
    for (payload, len) in [
        (0, 110),
        (1184, ERROR_V6_LEN),
        (1185, ERROR_V6_LEN),
        (1400, ERROR_V6_LEN),
    ] {
        let frame = udp(&client_v6(UDP), &vec![1; payload]);
        let error = error_v6(&frame).unwrap();
        assert_eq!(error.len(), len, "{payload}");
        assert_eq!(error[62..], frame[14..14 + error.len() - 62]);
        sample::assert_valid::<V6>(&error);
    }
}

#[test]
fn ethernet_padding_is_not_quoted() {
    let mut frame = tcp(&client_v4(TCP), TcpFlags(2), b"");
    frame.extend([0xaa; 6]);
    assert_eq!(error_v4(&frame).unwrap().len(), 14 + 28 + 40);
}

#[test]
fn every_kind_has_its_type_and_code() {
    let kinds = [
        (ErrorKind::TimeExceeded, [11, 0, 0, 0], [3, 0, 0, 0]),
        (
            ErrorKind::FragmentationNeeded { mtu: 1480 },
            [3, 4, 0x05, 0xc8],
            [2, 0, 0x05, 0xc8],
        ),
        (ErrorKind::PortUnreachable, [3, 3, 0, 0], [1, 4, 0, 0]),
        (ErrorKind::HostUnreachable, [3, 1, 0, 0], [1, 3, 0, 0]),
        (ErrorKind::NetUnreachable, [3, 0, 0, 0], [1, 0, 0, 0]),
        (
            ErrorKind::Relayed {
                kind: 3,
                code: 2,
                rest: 0x0102,
            },
            [3, 2, 1, 2],
            [3, 2, 1, 2],
        ),
    ];
    for (kind, v4, v6) in kinds {
        let mut scratch = [0xee; ERROR_V6_LEN];
        let frame = tcp(&client_v4(TCP), TcpFlags(2), b"");
        V4::error(&mut scratch, kind, &frame, VIP).unwrap();
        assert_eq!(
            [scratch[34], scratch[35], scratch[40], scratch[41]],
            v4,
            "{kind:?}"
        );
        let frame = tcp(&client_v6(TCP), TcpFlags(2), b"");
        V6::error(&mut scratch, kind, &frame, VIP6).unwrap();
        assert_eq!(
            [scratch[54], scratch[55], scratch[60], scratch[61]],
            v6,
            "{kind:?}"
        );
    }
}

#[test]
fn errors_keep_the_tos_but_for_precedence() {
    for (tos, expected) in [(0x00, 0xc0), (0xb8, 0xd8), (0xff, 0xde), (0x10, 0xd0)] {
        let mut frame = tcp(&client_v4(TCP), TcpFlags(2), b"");
        frame[15] = tos;
        fix_header(&mut frame);
        assert_eq!(error_v4(&frame).unwrap()[15], expected, "{tos:02x}");
    }
}

#[test]
fn no_error_answers_an_error_a_group_or_a_later_fragment() {
    type Change = fn(&mut Vec<u8>);
    let cases: &[(&str, Change, bool)] = &[
        ("a SYN", |_| (), true),
        (
            "from a group MAC's point of view",
            |frame| frame[0] = 1,
            false,
        ),
        (
            "to 224.0.0.18",
            |frame| frame[30..34].copy_from_slice(&[224, 0, 0, 18]),
            false,
        ),
        ("to 255.255.255.255", |frame| frame[30..34].fill(255), false),
        (
            "a first fragment",
            |frame| (frame[20], frame[17]) = (0x20, 44),
            true,
        ),
        ("a later fragment", |frame| frame[21] = 1, false),
        (
            "an echo request",
            |frame| *frame = message_v4(8, 0, b""),
            true,
        ),
        (
            "an echo reply",
            |frame| *frame = message_v4(0, 0, b""),
            true,
        ),
        (
            "a time exceeded",
            |frame| *frame = message_v4(11, 0, b""),
            false,
        ),
        ("a redirect", |frame| *frame = message_v4(5, 0, b""), false),
        (
            "an unknown ICMP type",
            |frame| *frame = message_v4(99, 0, b""),
            false,
        ),
    ];
    for (about, change, answered) in cases {
        let mut frame = tcp(&client_v4(TCP), TcpFlags(2), b"abcd");
        change(&mut frame);
        fix_header(&mut frame);
        assert_eq!(error_v4(&frame).is_some(), *answered, "{about}");
    }
}

#[test]
fn no_icmpv6_error_answers_an_error_a_group_or_nobody() {
    type Change = fn(&mut Vec<u8>);
    let cases: &[(&str, Change, bool)] = &[
        ("a SYN", |_| (), true),
        ("to a group MAC", |frame| frame[0] = 0x33, false),
        (
            "to ff02::1",
            |frame| frame[38..40].copy_from_slice(&[0xff, 2]),
            false,
        ),
        (
            "an echo request",
            |frame| *frame = message_v6(128, 0, b""),
            true,
        ),
        (
            "a parameter problem",
            |frame| *frame = message_v6(4, 0, b""),
            false,
        ),
        (
            "a redirect",
            |frame| *frame = message_v6(137, 0, b""),
            false,
        ),
        (
            "from ::",
            |frame| {
                *frame = message_v6(135, 0, b"");
                frame[22..38].fill(0)
            },
            false,
        ),
    ];
    for (about, change, answered) in cases {
        let mut frame = tcp(&client_v6(TCP), TcpFlags(2), b"");
        change(&mut frame);
        assert_eq!(error_v6(&frame).is_some(), *answered, "{about}");
    }
}

fn echo_v4(frame: &mut [u8]) -> bool {
    let packet = V4::packet(frame, &Offload::NONE);
    icmp::echo_reply_v4(frame, &packet)
}

fn echo_v6(frame: &mut [u8]) -> bool {
    let packet = V6::packet(frame, &Offload::NONE);
    icmp::echo_reply_v6(frame, &packet)
}

#[test]
fn only_valid_echo_requests_are_answered() {
    type Change = fn(&mut Vec<u8>);
    let cases: &[(&str, Change, bool)] = &[
        ("a request", |_| (), true),
        (
            "with an odd length",
            |frame| *frame = message_v4(8, 0, b"odd"),
            true,
        ),
        (
            "with Ethernet padding",
            |frame| frame.extend([0xaa; 4]),
            true,
        ),
        ("with a wrong checksum", |frame| frame[36] ^= 1, false),
        ("a reply", |frame| *frame = message_v4(0, 0, b"ping"), false),
        (
            "with a code",
            |frame| *frame = message_v4(8, 1, b"ping"),
            true,
        ),
        (
            "to a group",
            |frame| frame[30..34].copy_from_slice(&[224, 0, 0, 1]),
            false,
        ),
        ("to a group MAC", |frame| frame[0] = 0xff, false),
        (
            "in fragments",
            |frame| (frame[20], frame[17]) = (0x20, 28),
            false,
        ),
        (
            "TCP",
            |frame| *frame = tcp(&client_v4(TCP), TcpFlags(2), b""),
            false,
        ),
    ];
    for (about, change, answered) in cases {
        let mut frame = message_v4(8, 0, b"ping");
        change(&mut frame);
        fix_header(&mut frame);
        let before = frame.clone();
        assert_eq!(echo_v4(&mut frame), *answered, "{about}");
        if *answered {
            let packet = sample::assert_valid::<V4>(&frame);
            assert_eq!(
                (packet.tuple.source, packet.tuple.destination),
                (VIP, ROUTER)
            );
            assert_eq!(frame[..6], before[6..12]);
            assert_eq!(frame[6..12], before[..6]);
            assert_eq!((frame[34], &frame[38..]), (0, &before[38..]), "{about}");
        } else {
            assert_eq!(frame, before, "{about}");
        }
    }
}

#[test]
fn an_echo_reply_carries_no_options() {
    let mut frame = message_v4(8, 0, b"ping");
    frame.splice(34..34, [7, 7, 4, 0, 0, 0, 0, 0]);
    (frame[14], frame[17]) = (0x47, frame[17] + 8);
    fix_header(&mut frame);
    assert!(echo_v4(&mut frame));
    sample::assert_valid::<V4>(&frame);
    assert_eq!(frame[34..42], [1; 8]);
}

#[test]
fn only_valid_icmpv6_echo_requests_are_answered() {
    type Change = fn(&mut Vec<u8>);
    let cases: &[(&str, Change, bool)] = &[
        ("a request", |_| (), true),
        (
            "with a flow label and a traffic class",
            |frame| frame[14..18].copy_from_slice(&[0x6b, 0x8f, 1, 2]),
            true,
        ),
        ("with a wrong checksum", |frame| frame[56] ^= 1, false),
        (
            "a reply",
            |frame| *frame = message_v6(129, 0, b"ping"),
            false,
        ),
        (
            "behind an extension header",
            |frame| {
                let len = frame[19];
                frame.splice(54..54, [58, 0, 1, 4, 0, 0, 0, 0]);
                (frame[19], frame[20]) = (len + 8, 60);
            },
            false,
        ),
    ];
    for (about, change, answered) in cases {
        let mut frame = message_v6(128, 0, b"ping");
        change(&mut frame);
        let before = frame.clone();
        assert_eq!(echo_v6(&mut frame), *answered, "{about}");
        if *answered {
            let packet = sample::assert_valid::<V6>(&frame);
            assert_eq!(
                (packet.tuple.source, packet.tuple.destination),
                (VIP6, CLIENT6)
            );
            assert_eq!(
                (packet.tos, frame[15] & 15, frame[54]),
                (V6::packet(&before, &Offload::NONE).tos, 0, 129)
            );
        } else {
            assert_eq!(frame, before, "{about}");
        }
    }
}

/// The tuple and the quoted bytes of the transport, or why not.
fn quoted(frame: &[u8]) -> Result<(Tuple<V4>, usize), Reason> {
    let packet = V4::packet(frame, &Offload::NONE);
    icmp::parse_error(frame, &packet).map(|quoted| (quoted.tuple, quoted.available()))
}

fn quoted_v6(frame: &[u8]) -> Result<(Tuple<V6>, usize), Reason> {
    let packet = V6::packet(frame, &Offload::NONE);
    icmp::parse_error(frame, &packet).map(|quoted| (quoted.tuple, quoted.available()))
}

#[test]
fn ports_suffice_in_a_quoted_packet() {
    let inner = client_v4(TCP);
    let whole = &tcp(&inner, TcpFlags(2), b"")[14..];
    let cases = [
        (&whole[..19], Err(Reason::Truncated)),
        (&whole[..20], Err(Reason::Truncated)),
        (&whole[..23], Err(Reason::Truncated)),
        (&whole[..24], Ok((inner, 4))),
        (&whole[..28], Ok((inner, 8))),
        (whole, Ok((inner, 20))),
        (&[whole, &[0xee; 100]].concat(), Ok((inner, 20))),
    ];
    for (quote, expected) in cases {
        assert_eq!(
            quoted(&message_v4(3, 4, quote)),
            expected,
            "{} bytes",
            quote.len()
        );
    }
}

#[test]
fn only_errors_are_relayed() {
    let quote = tcp(&client_v4(TCP), TcpFlags(2), b"")[14..].to_vec();
    for kind in 0..=255 {
        let expected = if matches!(kind, 3 | 4 | 11) {
            Ok((client_v4(TCP), 20))
        } else {
            Err(Reason::IcmpUnsupported)
        };
        assert_eq!(
            quoted(&message_v4(kind, 0, &quote)),
            expected,
            "type {kind}"
        );
    }
    let quote = tcp(&client_v6(TCP), TcpFlags(2), b"")[14..].to_vec();
    for kind in 0..=255 {
        let expected = if kind < 128 {
            Ok((client_v6(TCP), 20))
        } else {
            Err(Reason::IcmpUnsupported)
        };
        assert_eq!(
            quoted_v6(&message_v6(kind, 0, &quote)),
            expected,
            "type {kind}"
        );
    }
    assert_eq!(
        quoted(&tcp(&client_v4(TCP), TcpFlags(2), b"")),
        Err(Reason::IcmpUnsupported)
    );
}

#[test]
fn what_is_no_packet_is_not_relayed() {
    type Change = fn(&mut Vec<u8>);
    let cases: &[(&str, Change, Reason)] = &[
        ("version 6", |quote| quote[0] = 0x65, Reason::BadVersion),
        (
            "a header of 16 bytes",
            |quote| quote[0] = 0x44,
            Reason::BadLength,
        ),
        (
            "a header longer than the packet",
            |quote| (quote[0], quote[3]) = (0x46, 20),
            Reason::BadLength,
        ),
        (
            "options that are not there",
            |quote| (quote[0], quote[3]) = (0x4f, 60),
            Reason::Truncated,
        ),
        (
            "a later fragment",
            |quote| quote[7] = 1,
            Reason::IcmpUnrelated,
        ),
        (
            "a packet that ends before its ports",
            |quote| quote[3] = 23,
            Reason::Truncated,
        ),
        ("nothing", Vec::clear, Reason::Truncated),
    ];
    for (about, change, reason) in cases {
        let mut quote = tcp(&client_v4(TCP), TcpFlags(2), b"")[14..].to_vec();
        change(&mut quote);
        assert_eq!(quoted(&message_v4(3, 3, &quote)), Err(*reason), "{about}");
    }
    let cases: &[(&str, Change, Reason)] = &[
        ("version 4", |quote| quote[0] = 0x45, Reason::BadVersion),
        (
            "half a header",
            |quote| quote.truncate(39),
            Reason::Truncated,
        ),
        (
            "without ports",
            |quote| quote.truncate(43),
            Reason::Truncated,
        ),
        (
            "a fragment header that is not there",
            |quote| {
                quote.truncate(44);
                quote[6] = 44
            },
            Reason::Truncated,
        ),
        (
            "a later fragment",
            |quote| (quote[6], quote[43]) = (44, 8),
            Reason::IcmpUnrelated,
        ),
    ];
    for (about, change, reason) in cases {
        let mut quote = tcp(&client_v6(TCP), TcpFlags(2), b"")[14..].to_vec();
        change(&mut quote);
        assert_eq!(
            quoted_v6(&message_v6(1, 4, &quote)),
            Err(*reason),
            "{about}"
        );
    }
}

#[test]
fn errors_with_a_wrong_checksum_or_in_fragments_are_dropped() {
    let quote = tcp(&client_v4(TCP), TcpFlags(2), b"")[14..].to_vec();
    let mut frame = message_v4(3, 3, &quote);
    frame[37] ^= 1;
    assert_eq!(quoted(&frame), Err(Reason::BadIcmpChecksum));
    let mut frame = message_v6(1, 4, &quote);
    frame[57] ^= 1;
    // Of ICMPv6 only those from the servers' side: the worker asks.
    assert_ne!(quoted_v6(&frame), Err(Reason::BadIcmpChecksum));
    let Parsed::Ipv6(packet) = parse(&frame, &Offload::NONE) else {
        panic!("no IPv6");
    };
    assert!(!has_right_checksum(&frame, &packet));
    let mut frame = message_v4(3, 3, &quote);
    frame[20] = 0x20;
    fix_header(&mut frame);
    assert_eq!(quoted(&frame), Err(Reason::Fragment));
}

#[test]
fn a_quoted_packet_without_ports_has_none() {
    let inner = Tuple {
        source_port: 0,
        destination_port: 0,
        ..client_v4(47)
    };
    let quote = V4::frame(inner.source, inner.destination, 47, b"")[14..].to_vec();
    assert_eq!(quoted(&message_v4(3, 2, &quote)), Ok((inner, 0)));
}

#[test]
fn an_error_about_a_tunnel_is_passed_on_about_the_packet_inside() {
    let inner = tcp(&client_v4(TCP), TcpFlags(0x18), b"hello");
    let tunnelled = V4::frame(
        Ipv4Addr::new(10, 2, 0, 1),
        Ipv4Addr::new(10, 2, 0, 13),
        4,
        &inner[14..],
    );
    let frame = message_v4(3, 1, &tunnelled[14..]);
    let packet = V4::packet(&frame, &Offload::NONE);
    let outer = icmp::parse_error(&frame, &packet).unwrap();
    assert_eq!(outer.tuple.protocol, 4);
    let quoted =
        icmp::parse_quoted::<V4>(&frame, usize::from(outer.l4), outer.end as usize).unwrap();
    assert_eq!(quoted.tuple, client_v4(TCP));

    let mut scratch = [0; ERROR_V4_LEN];
    let kind = ErrorKind::Relayed {
        kind: 3,
        code: 1,
        rest: 0,
    };
    let len = icmp::error_v4(
        &mut scratch,
        kind,
        &frame,
        &quoted.as_packet(&packet),
        VIP,
        7,
    )
    .unwrap();
    let error = sample::assert_valid::<V4>(&scratch[..len]);
    assert_eq!(
        (
            error.tuple.source,
            error.tuple.destination,
            error.fragment_id
        ),
        (VIP, CLIENT, 7)
    );
    assert_eq!(scratch[42..len], inner[14..]);
}

proptest! {
    #[test]
    fn quoting_and_reading_the_quote_is_a_round_trip(
        v4 in sample::any_tuple::<V4>(&[TCP, UDP, SCTP]),
        v6 in sample::any_tuple::<V6>(&[TCP, UDP, SCTP]),
        payload in sample::any_payload(),
    ) {
        let error = error_v4(&sample::of_protocol(&v4, &payload)).unwrap();
        prop_assert_eq!(quoted(&error).unwrap().0, v4);
        let error = error_v6(&sample::of_protocol(&v6, &payload)).unwrap();
        prop_assert_eq!(quoted_v6(&error).unwrap().0, v6);
    }

    #[test]
    fn arbitrary_quotes_never_panic(
        mut quote in proptest::collection::vec(any::<u8>(), 0..120),
        v6: bool,
        kind in 1u8..12,
    ) {
        if let Some(first) = quote.first_mut() {
            *first = if v6 { 0x60 | (*first & 15) } else { 0x40 | (*first & 15) };
        }
        if v6 {
            let frame = message_v6(kind, 0, &quote);
            if let Ok(quoted) = icmp::parse_error(&frame, &V6::packet(&frame, &Offload::NONE)) {
                prop_assert!(quoted.end as usize <= frame.len() && quoted.l3 < quoted.l4);
                prop_assert!(u32::from(quoted.l4) <= quoted.end);
            }
        } else {
            let frame = message_v4(kind, 0, &quote);
            if let Ok(quoted) = icmp::parse_error(&frame, &V4::packet(&frame, &Offload::NONE)) {
                prop_assert!(quoted.end as usize <= frame.len() && quoted.l3 < quoted.l4);
                prop_assert!(u32::from(quoted.l4) <= quoted.end);
            }
        }
    }
}

#[test]
fn an_icmp_checksum_covers_the_pseudo_header_in_ipv6_only() {
    let message = [128, 0, 0, 0, 0, 1, 0, 2];
    assert_eq!(
        checksum::icmp::<V4>(CLIENT, VIP, &message),
        !reference_sum(&message)
    );
    let expected = reference_l4(&V6::octets(CLIENT6, VIP6), ICMPV6, &message);
    assert_eq!(checksum::icmp::<V6>(CLIENT6, VIP6, &message), expected);
}
