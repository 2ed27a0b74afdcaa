use crate::frame::Offload;
use crate::packet::plain::PlainFamily;
use crate::packet::sample::{self, Sample, client_v4, client_v6, fix_header, tcp, udp};
use crate::packet::wire::{TCP, UDP};
use crate::packet::{Fragment, Packet, Parsed, TcpFlags, V4, V6, parse};
use crate::reason::Reason;
use proptest::collection::vec;
use proptest::prelude::*;

const SYN: TcpFlags = TcpFlags(2);

fn syn_v4() -> Vec<u8> {
    tcp(&client_v4(TCP), SYN, b"")
}

fn syn_v6() -> Vec<u8> {
    tcp(&client_v6(TCP), SYN, b"")
}

fn verdict(frame: &[u8]) -> Result<Fragment, Option<Reason>> {
    match parse(frame, &Offload::NONE) {
        Parsed::Ipv4(packet) => Ok(packet.fragment),
        Parsed::Ipv6(packet) => Ok(packet.fragment),
        Parsed::Drop(reason) => Err(Some(reason)),
        Parsed::Arp | Parsed::Other => Err(None),
    }
}

type Change = fn(&mut Vec<u8>);
type Verdict = Result<Fragment, Option<Reason>>;

/// An IPv4 SYN, a change, the header checksum made right again (where there is a header), the verdict.
#[rustfmt::skip]
const IPV4: &[(&str, Change, Verdict)] = &[
    ("a plain SYN", |_| (), Ok(Fragment::None)),
    ("with Ethernet padding", |frame| frame.extend([0xaa; 6]), Ok(Fragment::None)),
    ("nothing at all", Vec::clear, Err(Some(Reason::Truncated))),
    ("half an Ethernet header", |frame| frame.truncate(13), Err(Some(Reason::Truncated))),
    ("an Ethernet header alone", |frame| frame.truncate(14), Err(Some(Reason::Truncated))),
    ("an IP header short of a byte", |frame| frame.truncate(33), Err(Some(Reason::Truncated))),
    ("an IP header alone", |frame| frame.truncate(34), Err(Some(Reason::BadLength))),
    ("a frame short of a byte", |frame| frame.truncate(53), Err(Some(Reason::BadLength))),
    ("version 6", |frame| frame[14] = 0x65, Err(Some(Reason::BadVersion))),
    ("version 0", |frame| frame[14] = 0x05, Err(Some(Reason::BadVersion))),
    ("IHL of 16 bytes", |frame| frame[14] = 0x44, Err(Some(Reason::BadLength))),
    ("options beyond the datagram", |frame| frame[14] = 0x4f, Err(Some(Reason::BadLength))),
    ("options beyond the frame", |frame| { frame[14] = 0x4f; frame[17] = 60; frame.truncate(40) }, Err(Some(Reason::Truncated))),
    ("total length 0", |frame| frame[17] = 0, Err(Some(Reason::BadLength))),
    ("total length beyond the frame", |frame| frame[17] = 41, Err(Some(Reason::BadLength))),
    ("a TCP header short of a byte", |frame| frame[17] = 39, Err(Some(Reason::Truncated))),
    ("four no-operations as options", |frame| { frame.splice(34..34, [1; 4]); frame[14] = 0x46; frame[17] = 44 }, Ok(Fragment::None)),
    ("TCP data offset 4", |frame| frame[46] = 0x40, Err(Some(Reason::Malformed))),
    ("TCP options beyond the datagram", |frame| frame[46] = 0x60, Err(Some(Reason::Malformed))),
    ("source 0.0.0.0", |frame| frame[26..30].fill(0), Err(Some(Reason::BadSource))),
    ("source 255.255.255.255", |frame| frame[26..30].fill(255), Err(Some(Reason::BadSource))),
    ("source 127.0.0.1", |frame| frame[26..30].copy_from_slice(&[127, 0, 0, 1]), Err(Some(Reason::BadSource))),
    ("source 224.0.0.1", |frame| frame[26..30].copy_from_slice(&[224, 0, 0, 1]), Err(Some(Reason::BadSource))),
    ("802.1Q", |frame| frame[12..14].copy_from_slice(&[0x81, 0]), Err(Some(Reason::VlanTagged))),
    ("802.1ad", |frame| frame[12..14].copy_from_slice(&[0x88, 0xa8]), Err(Some(Reason::VlanTagged))),
    ("ARP", |frame| frame[13] = 6, Err(None)),
    ("LLDP", |frame| frame[12..14].copy_from_slice(&[0x88, 0xcc]), Err(None)),
    ("802.3 with a length", |frame| frame[12..14].copy_from_slice(&[0, 40]), Err(None)),
    ("a first fragment", |frame| { frame.extend([0; 4]); frame[17] = 44; frame[20] = 0x20 }, Ok(Fragment::First)),
    ("a first fragment with half a TCP header", |frame| { frame[17] = 36; frame[20] = 0x20 }, Err(Some(Reason::Truncated))),
    ("a first fragment with a part of its TCP options", |frame| { frame.extend([0; 4]); frame[17] = 44; frame[20] = 0x20; frame[46] = 0xf0 }, Ok(Fragment::First)),
    ("a first fragment of 20 bytes, not a multiple of eight", |frame| frame[20] = 0x20, Err(Some(Reason::Malformed))),
    ("a middle fragment", |frame| { frame[17] = 36; frame[20] = 0x20; frame[21] = 5 }, Ok(Fragment::Later)),
    ("a last fragment of a byte", |frame| { frame[17] = 21; frame[21] = 5 }, Ok(Fragment::Later)),
    ("a last fragment beyond 64 KiB", |frame| { frame[20] = 0x1f; frame[21] = 0xff }, Err(Some(Reason::BadLength))),
    ("don't fragment", |frame| frame[20] = 0x40, Ok(Fragment::None)),
    ("a protocol without ports and no payload", |frame| { frame[17] = 20; frame[23] = 47 }, Ok(Fragment::None)),
    ("half an ICMP header", |frame| { frame[17] = 24; frame[23] = 1 }, Err(Some(Reason::Truncated))),
    ("UDP that is longer than its datagram", |frame| { frame[23] = 17; frame[38..40].copy_from_slice(&[0, 21]) }, Err(Some(Reason::Malformed))),
    ("UDP that is shorter than its header", |frame| { frame[23] = 17; frame[38..40].copy_from_slice(&[0, 7]) }, Err(Some(Reason::Malformed))),
    ("UDP that is shorter than its datagram", |frame| { frame[23] = 17; frame[38..40].copy_from_slice(&[0, 9]) }, Ok(Fragment::None)),
    ("half an SCTP header", |frame| { frame[17] = 28; frame[23] = 132 }, Err(Some(Reason::Truncated))),
];

#[test]
fn ipv4_frames_get_their_verdict() {
    for (about, change, expected) in IPV4 {
        let mut frame = syn_v4();
        change(&mut frame);
        if frame.len() >= 34 && frame.len() >= 14 + usize::from(frame[14] & 15) * 4 {
            fix_header(&mut frame);
        }
        assert_eq!(verdict(&frame), *expected, "{about}");
    }
}

#[test]
fn a_wrong_ipv4_header_checksum_is_dropped() {
    for bit in 0..160 {
        let mut frame = syn_v4();
        frame[14 + bit / 8] ^= 0x80 >> (bit % 8);
        assert!(verdict(&frame).is_err(), "bit {bit}");
    }
    let mut frame = syn_v4();
    frame[22] -= 1;
    assert_eq!(verdict(&frame), Err(Some(Reason::BadIpChecksum)));
}

/// Puts an extension header in front of the transport header.
fn extend(frame: &mut Vec<u8>, kind: u8, mut header: Vec<u8>) {
    header[0] = std::mem::replace(&mut frame[20], kind);
    let len = u16::from_be_bytes([frame[18], frame[19]]) + u16::try_from(header.len()).unwrap();
    frame[18..20].copy_from_slice(&len.to_be_bytes());
    frame.splice(54..54, header);
}

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;

fn options(kind: u8, frame: &mut Vec<u8>) {
    extend(frame, kind, vec![0, 0, 1, 4, 0, 0, 0, 0]);
}

fn fragment(frame: &mut Vec<u8>, offset: u16, more: bool) {
    let [high, low] = (offset | u16::from(more)).to_be_bytes();
    extend(
        frame,
        FRAGMENT,
        vec![0, 0, high, low, 0xde, 0xad, 0xbe, 0xef],
    );
}

/// An IPv6 SYN, a change, the verdict.
#[rustfmt::skip]
const IPV6: &[(&str, Change, Verdict)] = &[
    ("a plain SYN", |_| (), Ok(Fragment::None)),
    ("with Ethernet padding", |frame| frame.extend([0xaa; 6]), Ok(Fragment::None)),
    ("an Ethernet header alone", |frame| frame.truncate(14), Err(Some(Reason::Truncated))),
    ("an IP header short of a byte", |frame| frame.truncate(53), Err(Some(Reason::Truncated))),
    ("an IP header alone", |frame| frame.truncate(54), Err(Some(Reason::BadLength))),
    ("version 4", |frame| frame[14] = 0x45, Err(Some(Reason::BadVersion))),
    ("payload length 0, as a jumbogram has", |frame| frame[19] = 0, Err(Some(Reason::BadLength))),
    ("payload length beyond the frame", |frame| frame[19] = 21, Err(Some(Reason::BadLength))),
    ("a TCP header short of a byte", |frame| frame[19] = 19, Err(Some(Reason::Truncated))),
    ("source ::", |frame| frame[22..38].fill(0), Err(Some(Reason::BadSource))),
    ("source ::1", |frame| { frame[22..37].fill(0); frame[37] = 1 }, Err(Some(Reason::BadSource))),
    ("source ff02::1", |frame| { frame[22] = 0xff; frame[23] = 2 }, Err(Some(Reason::BadSource))),
    ("ICMPv6 from ::, as duplicate address detection", |frame| { frame[22..38].fill(0); frame[20] = 58 }, Ok(Fragment::None)),
    ("no next header", |frame| frame[20] = 59, Ok(Fragment::None)),
    ("hop-by-hop options", |frame| options(HOP_BY_HOP, frame), Ok(Fragment::None)),
    ("hop-by-hop options, not first", |frame| { options(HOP_BY_HOP, frame); options(DESTINATION, frame) }, Err(Some(Reason::Malformed))),
    ("options that reach beyond the packet", |frame| { options(DESTINATION, frame); frame[55] = 3 }, Err(Some(Reason::Truncated))),
    ("options cut off by the packet's end", |frame| { frame[20] = DESTINATION; frame[19] = 7 }, Err(Some(Reason::Truncated))),
    ("a routing header without segments left", |frame| extend(frame, ROUTING, vec![0; 8]), Ok(Fragment::None)),
    ("a routing header with a segment left", |frame| extend(frame, ROUTING, vec![0, 0, 0, 1, 0, 0, 0, 0]), Err(Some(Reason::Malformed))),
    ("eight extension headers", |frame| (0..8).for_each(|_| options(DESTINATION, frame)), Ok(Fragment::None)),
    ("nine extension headers", |frame| (0..9).for_each(|_| options(DESTINATION, frame)), Err(Some(Reason::Malformed))),
    ("an atomic fragment", |frame| fragment(frame, 0, false), Ok(Fragment::None)),
    ("a first fragment", |frame| { frame.extend([0; 4]); frame[19] = 24; fragment(frame, 0, true) }, Ok(Fragment::First)),
    ("a first fragment without its TCP header", |frame| { frame[19] = 16; fragment(frame, 0, true) }, Err(Some(Reason::Truncated))),
    ("a first fragment of 20 bytes, not a multiple of eight", |frame| fragment(frame, 0, true), Err(Some(Reason::Malformed))),
    ("a last fragment", |frame| fragment(frame, 1480, false), Ok(Fragment::Later)),
    ("a last fragment whose payload looks like an extension header", |frame| { fragment(frame, 1480, false); frame[54] = HOP_BY_HOP }, Ok(Fragment::Later)),
    ("a last fragment beyond 64 KiB", |frame| fragment(frame, 0xfff8, false), Err(Some(Reason::BadLength))),
    ("two fragment headers", |frame| { fragment(frame, 0, false); fragment(frame, 0, false) }, Err(Some(Reason::Malformed))),
    ("a fragment behind hop-by-hop options", |frame| { fragment(frame, 8, false); options(HOP_BY_HOP, frame) }, Ok(Fragment::Later)),
];

#[test]
fn ipv6_frames_get_their_verdict() {
    for (about, change, expected) in IPV6 {
        let mut frame = syn_v6();
        change(&mut frame);
        assert_eq!(verdict(&frame), *expected, "{about}");
    }
}

#[test]
fn an_ipv4_packet_is_described() {
    let mut frame = syn_v4();
    frame[15] = 0xb8;
    frame[20] = 0x40;
    fix_header(&mut frame);
    frame.extend([0; 6]);
    let packet = V4::packet(&frame, &Offload::NONE);
    assert_eq!(packet.tuple, client_v4(TCP));
    assert_eq!((packet.l3, packet.l4, packet.end), (14, 34, 54));
    assert_eq!((packet.ttl, packet.tos, packet.tcp_flags), (64, 0xb8, SYN));
    assert!(packet.dont_fragment);
    assert_eq!(packet.fragment_id, 0x1234);
}

#[test]
fn an_ipv6_packet_is_described() {
    let mut frame = syn_v6();
    frame[14..16].copy_from_slice(&[0x6b, 0x8f]);
    fragment(&mut frame, 0, false);
    options(HOP_BY_HOP, &mut frame);
    let packet = V6::packet(&frame, &Offload::NONE);
    assert_eq!(packet.tuple, client_v6(TCP));
    assert_eq!((packet.l3, packet.l4, packet.end), (14, 70, 90));
    assert_eq!((packet.ttl, packet.tos, packet.tcp_flags), (64, 0xb8, SYN));
    assert!(packet.dont_fragment);
    assert_eq!(packet.fragment_id, 0xdead_beef);
}

#[test]
fn a_later_fragment_has_no_ports() {
    let mut frame = syn_v4();
    frame[21] = 5;
    fix_header(&mut frame);
    let packet = V4::packet(&frame, &Offload::NONE);
    assert_eq!(
        (packet.tuple.source_port, packet.tuple.destination_port),
        (0, 0)
    );
    assert_eq!(
        (packet.tuple.protocol, packet.tcp_flags),
        (TCP, TcpFlags(0))
    );
}

#[test]
fn the_largest_gso_frame_is_accepted() {
    let frame = tcp(&client_v4(TCP), SYN, &vec![7; 65535 - 40]);
    assert_eq!(V4::packet(&frame, &Offload::NONE).end, 65535 + 14);
    let frame = tcp(&client_v6(TCP), SYN, &vec![7; 65535 - 20]);
    assert_eq!(V6::packet(&frame, &Offload::NONE).end, 65535 + 54);
}

#[test]
fn a_partial_checksum_must_be_where_the_protocol_has_it() {
    let mut frame = udp(&client_v4(UDP), b"0123456789");
    let offload = sample::make_partial::<V4>(&mut frame);
    let cases = [
        ("as it is", offload, true),
        (
            "TCP's place in UDP",
            Offload {
                checksum_offset: 16,
                ..offload
            },
            false,
        ),
        (
            "before the transport header",
            Offload {
                checksum_start: 30,
                ..offload
            },
            false,
        ),
        (
            "beyond the frame",
            Offload {
                checksum_start: 51,
                ..offload
            },
            false,
        ),
        (
            "in the payload, as of a tunnelled packet",
            Offload {
                checksum_start: 42,
                ..offload
            },
            true,
        ),
        (
            "inside the transport header",
            Offload {
                checksum_start: 36,
                ..offload
            },
            false,
        ),
        (
            "SCTP's field half inside",
            Offload {
                checksum_start: 42,
                checksum_offset: 8,
                ..offload
            },
            false,
        ),
    ];
    for (about, offload, accepted) in cases {
        let parsed = parse(&frame, &offload);
        let expected = if accepted {
            matches!(parsed, Parsed::Ipv4(_))
        } else {
            parsed == Parsed::Drop(Reason::Malformed)
        };
        assert!(expected, "{about}: {parsed:?}");
    }
}

#[test]
fn a_partial_checksum_of_tcp_is_its_own() {
    let mut frame = tcp(&client_v4(TCP), TcpFlags::ACK, b"0123456789");
    let offload = sample::make_partial::<V4>(&mut frame);
    assert!(matches!(parse(&frame, &offload), Parsed::Ipv4(_)));
    // At 44, completing it would have written over the data offset; TCP's payload holds no other packet.
    for checksum_start in 35..60 {
        let elsewhere = Offload {
            checksum_start,
            checksum_offset: 1,
            ..offload
        };
        assert_eq!(
            parse(&frame, &elsewhere),
            Parsed::Drop(Reason::Malformed),
            "{checksum_start}"
        );
    }
}

fn assert_offsets_are_inside(frame: &[u8], offload: &Offload) {
    let (l3, l4, end) = match parse(frame, offload) {
        Parsed::Ipv4(packet) => (packet.l3(), packet.l4(), packet.end()),
        Parsed::Ipv6(packet) => (packet.l3(), packet.l4(), packet.end()),
        _ => return,
    };
    assert!(14 == l3 && l3 + 20 <= l4 && l4 <= end && end <= frame.len());
}

fn any_offload() -> impl Strategy<Value = Offload> {
    (any::<bool>(), 0u16..120, 0u16..20).prop_map(
        |(partial_checksum, checksum_start, checksum_offset)| Offload {
            partial_checksum,
            checksum_start,
            checksum_offset,
            ..Offload::NONE
        },
    )
}

proptest! {
    /// The short way to read a packet leads where the long one does, or nowhere.
    #[test]
    fn a_plain_packet_is_read_as_any_other(
        is_tcp: bool,
        payload in vec(any::<u8>(), 0..40),
        changes in vec((0usize..60, any::<u8>()), 0..3),
        rights_checksum: bool,
        cut in 0usize..8,
    ) {
        let mut frame = if is_tcp {
            tcp(&client_v4(TCP), SYN, &payload)
        } else {
            udp(&client_v4(UDP), &payload)
        };
        for (at, value) in changes {
            if let Some(byte) = frame.get_mut(at) {
                *byte = value;
            }
        }
        if rights_checksum && 14 + usize::from(frame[14] & 15) * 4 <= frame.len() {
            fix_header(&mut frame);
        }
        frame.truncate(frame.len() - cut.min(frame.len()));
        let long = crate::packet::parse::ipv4(&frame);
        match V4::read(&frame).filter(|_| V4::is_plain(&frame) && V4::may_speak(&frame)) {
            Some(plain) => prop_assert_eq!(Ok(V4::whole(&frame, &plain)), long),
            None => {
                let is_plain = |packet: &Packet<V4>| {
                    packet.l4 == 34
                        && packet.fragment == Fragment::None
                        && matches!(packet.tuple.protocol, TCP | UDP)
                        && packet.tuple.source_port != 0
                        && frame.len() >= 54
                };
                prop_assert!(!long.is_ok_and(|packet| is_plain(&packet)), "{:02x?}", frame);
            }
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(mut frame in vec(any::<u8>(), 0..200), v6: bool, offload in any_offload()) {
        if let Some(ether_type) = frame.get_mut(12..14) {
            ether_type.copy_from_slice(if v6 { &[0x86, 0xdd] } else { &[8, 0] });
        }
        assert_offsets_are_inside(&frame, &offload);
    }

    #[test]
    fn mutated_frames_never_panic(
        v6: bool,
        extensions in vec(prop::sample::select(&[HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION][..]), 0..4),
        changes in vec((14usize..130, any::<u8>()), 0..4),
        len in 0usize..150,
        offload in any_offload(),
    ) {
        let mut frame = if v6 { syn_v6() } else { syn_v4() };
        if v6 {
            for kind in extensions {
                extend(&mut frame, kind, vec![0; 8]);
            }
        }
        for (at, value) in changes {
            if let Some(byte) = frame.get_mut(at) {
                *byte = value;
            }
        }
        if !v6 && usize::from(frame[14] & 15) * 4 + 14 <= frame.len() {
            fix_header(&mut frame);
        }
        assert_offsets_are_inside(&frame, &offload);
        frame.truncate(len);
        assert_offsets_are_inside(&frame, &offload);
    }

    #[test]
    fn what_was_built_is_parsed(tuple in sample::any_tuple::<V4>(&[6, 17, 132]), payload in sample::any_payload()) {
        prop_assert_eq!(sample::assert_valid::<V4>(&sample::of_protocol(&tuple, &payload)).tuple, tuple);
    }

    #[test]
    fn what_was_built_is_parsed_v6(tuple in sample::any_tuple::<V6>(&[6, 17, 132]), payload in sample::any_payload()) {
        prop_assert_eq!(sample::assert_valid::<V6>(&sample::of_protocol(&tuple, &payload)).tuple, tuple);
    }
}
