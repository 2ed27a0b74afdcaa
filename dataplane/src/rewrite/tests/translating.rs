use crate::frame::Offload;
use crate::packet::icmp;
use crate::packet::sample::{
    self, Sample, client_v4, client_v6, fix_header, make_partial, of_protocol, tcp, udp,
};
use crate::packet::wire::{ICMPV6, SCTP, TCP, UDP, read_u16};
use crate::packet::{Fragment, TcpFlags, Tuple, V4, V6, checksum};
use crate::port::Mac;
use crate::rewrite::translate::Endpoint;
use crate::rewrite::{Expired, Translation, decrement_ttl, set_macs, translate, translate_error};
use proptest::prelude::*;

const PROTOCOLS: &[u8] = &[TCP, UDP, SCTP];
const PARTIAL: &[u8] = &[TCP, UDP];

fn apply<F: Sample>(frame: &mut [u8], translation: &Translation<F>, offload: &Offload) {
    let packet = F::packet(frame, offload);
    translate(frame, &packet, translation, offload);
}

/// Four ends of a FULLNAT connection.
#[derive(Clone, Copy, Debug)]
struct Ends<F: Sample> {
    client: Endpoint<F>,
    vip: Endpoint<F>,
    lip: Endpoint<F>,
    rip: Endpoint<F>,
}

fn any_ends<F: Sample>() -> impl Strategy<Value = Ends<F>> {
    let end = || (F::any_address(), any::<u16>());
    (end(), end(), end(), end()).prop_map(|(client, vip, lip, rip)| Ends {
        client,
        vip,
        lip,
        rip,
    })
}

fn between<F: Sample>(source: Endpoint<F>, destination: Endpoint<F>, protocol: u8) -> Tuple<F> {
    Tuple {
        source: source.0,
        destination: destination.0,
        source_port: source.1,
        destination_port: destination.1,
        protocol,
    }
}

/// Both methods, both directions: the frame has the new tuple, the rest unchanged, all checksums right.
fn check<F: Sample>(ends: Ends<F>, protocol: u8, payload: &[u8]) {
    let Ends {
        client,
        vip,
        lip,
        rip,
    } = ends;
    let cases = [
        (
            Translation::<F>::request_nat(vip, rip),
            (client, vip),
            (client, rip),
        ),
        (
            Translation::<F>::reply_nat(vip, rip),
            (rip, client),
            (vip, client),
        ),
        (
            Translation::<F>::request_fullnat(client, vip, lip, rip),
            (client, vip),
            (lip, rip),
        ),
        (
            Translation::<F>::reply_fullnat(client, vip, lip, rip),
            (rip, lip),
            (vip, client),
        ),
    ];
    for (translation, old, new) in cases {
        let old = between::<F>(old.0, old.1, protocol);
        let new = between::<F>(new.0, new.1, protocol);
        let mut frame = of_protocol(&old, payload);
        apply(&mut frame, &translation, &Offload::NONE);
        assert_eq!(frame, of_protocol(&new, payload));
        let general = Translation::new(&old, translation.source, translation.destination);
        let mut again = of_protocol(&old, payload);
        apply(&mut again, &general, &Offload::NONE);
        assert_eq!(again, frame);
    }
}

/// A partial checksum, translated and then completed, is the full one.
fn check_partial<F: Sample>(ends: Ends<F>, protocol: u8, payload: &[u8]) {
    let Ends {
        client,
        vip,
        lip,
        rip,
    } = ends;
    let mut frame = of_protocol(&between::<F>(client, vip, protocol), payload);
    let offload = make_partial::<F>(&mut frame);
    apply(
        &mut frame,
        &Translation::<F>::request_fullnat(client, vip, lip, rip),
        &offload,
    );
    let mut expected = of_protocol(&between::<F>(lip, rip, protocol), payload);
    let mut waiting = expected.clone();
    make_partial::<F>(&mut waiting);
    assert_eq!(frame, waiting);
    checksum::complete(&mut frame, &offload);
    // Completing writes 0 as ffff, whatever the protocol.
    let field = usize::from(offload.checksum_start + offload.checksum_offset);
    if expected[field..field + 2] == [0, 0] {
        expected[field..field + 2].fill(0xff);
    }
    assert_eq!(frame, expected);
}

/// There and back by the negated differences is the identity, even for a wrong checksum.
fn check_there_and_back<F: Sample>(ends: Ends<F>, protocol: u8, payload: &[u8], error: u16) {
    let Ends {
        client,
        vip,
        lip,
        rip,
    } = ends;
    let mut original = of_protocol(&between::<F>(client, vip, protocol), payload);
    let offset = crate::packet::wire::checksum_offset(protocol).unwrap();
    let field = F::packet(&original, &Offload::NONE).l4() + offset;
    let wrong = read_u16(&original, field) ^ error;
    // 0 says "no checksum" in UDP and would be made one; ffff is another spelling of 0.
    let wrong = if matches!(wrong, 0 | 0xffff) && protocol != SCTP {
        1
    } else {
        wrong
    };
    original[field..field + 2].copy_from_slice(&wrong.to_be_bytes());
    let mut frame = original.clone();
    let there = Translation::<F>::request_fullnat(client, vip, lip, rip);
    let back = Translation::<F> {
        source: Some(client),
        destination: Some(vip),
        ip_delta: there.ip_delta.negated(),
        l4_delta: there.l4_delta.negated(),
    };
    apply(&mut frame, &there, &Offload::NONE);
    apply(&mut frame, &back, &Offload::NONE);
    assert_eq!(frame, original);
}

/// An ICMP error about a translated packet is, translated back, one about the packet as it was sent.
fn check_error<F: Sample>(ends: Ends<F>, protocol: u8, payload: &[u8]) {
    let Ends {
        client,
        vip,
        lip,
        rip,
    } = ends;
    let sent = of_protocol(&between::<F>(client, vip, protocol), payload);
    let mut received = sent.clone();
    apply(
        &mut received,
        &Translation::<F>::request_fullnat(client, vip, lip, rip),
        &Offload::NONE,
    );
    let mut frame = vec![0; 1400];
    let len = F::error(
        &mut frame,
        icmp::ErrorKind::PortUnreachable,
        &received,
        rip.0,
    )
    .unwrap();
    frame.truncate(len);

    let packet = F::packet(&frame, &Offload::NONE);
    let quoted = icmp::parse_error(&frame, &packet).unwrap();
    let inner = Translation::<F>::request_fullnat(lip, rip, client, vip);
    translate_error(
        &mut frame,
        &packet,
        &quoted,
        Some(vip.0),
        Some(client.0),
        &inner,
    );
    let packet = sample::assert_valid::<F>(&frame);
    assert_eq!(
        (packet.tuple.source, packet.tuple.destination),
        (vip.0, client.0)
    );
    let start = packet.l4() + 8;
    let quote = &frame[start..];
    let mut expected = sent[14..14 + quote.len()].to_vec();
    // The quoted transport's checksum is left alone.
    let field = match protocol {
        SCTP => Some(8..12),
        _ => crate::packet::wire::checksum_offset(protocol).map(|at| at..at + 2),
    };
    if let Some(field) = field {
        let l4 = usize::from(quoted.l4) - start;
        let field = l4 + field.start..l4 + field.end;
        expected[field.clone()].copy_from_slice(&received[14..][field]);
    }
    assert_eq!(quote, expected);
}

proptest! {
    #[test]
    fn translating_is_building_the_frame_anew(
        v4 in any_ends::<V4>(),
        v6 in any_ends::<V6>(),
        protocol in prop::sample::select(PROTOCOLS),
        payload in sample::any_payload(),
    ) {
        check(v4, protocol, &payload);
        check(v6, protocol, &payload);
    }

    #[test]
    fn a_partial_checksum_stays_partial_and_completes_right(
        v4 in any_ends::<V4>(),
        v6 in any_ends::<V6>(),
        protocol in prop::sample::select(PARTIAL),
        payload in sample::any_payload(),
    ) {
        check_partial(v4, protocol, &payload);
        check_partial(v6, protocol, &payload);
    }

    #[test]
    fn there_and_back_is_the_identity(
        v4 in any_ends::<V4>(),
        v6 in any_ends::<V6>(),
        protocol in prop::sample::select(PROTOCOLS),
        payload in sample::any_payload(),
        error: u16,
    ) {
        check_there_and_back(v4, protocol, &payload, error);
        check_there_and_back(v6, protocol, &payload, error);
    }

    #[test]
    fn an_error_is_about_the_packet_as_it_was_sent(
        v4 in any_ends::<V4>(),
        v6 in any_ends::<V6>(),
        protocol in prop::sample::select(PROTOCOLS),
        payload in sample::any_payload(),
    ) {
        check_error(v4, protocol, &payload);
        check_error(v6, protocol, &payload);
    }
}

fn to_server_v4() -> Translation<V4> {
    Translation::request_nat(([10, 0, 0, 100].into(), 80), ([10, 2, 0, 11].into(), 8080))
}

fn to_server_v6() -> Translation<V6> {
    Translation::request_nat(
        ("fd00:a::100".parse().unwrap(), 80),
        ("fd00:2::11".parse().unwrap(), 8080),
    )
}

#[test]
fn udp_without_a_checksum_gets_one() {
    let mut frame = udp(&client_v4(UDP), b"odd");
    frame[40..42].fill(0);
    frame.extend([0xaa; 15]);
    apply(&mut frame, &to_server_v4(), &Offload::NONE);
    let packet = sample::assert_valid::<V4>(&frame);
    assert_ne!(frame[40..42], [0, 0]);
    assert_eq!(packet.tuple.destination_port, 8080);

    let mut frame = udp(&client_v6(UDP), b"odd");
    frame[60..62].fill(0);
    apply(&mut frame, &to_server_v6(), &Offload::NONE);
    sample::assert_valid::<V6>(&frame);
}

#[test]
fn udp_that_is_shorter_than_its_datagram_is_summed_to_its_own_length() {
    let mut frame = udp(&client_v4(UDP), b"querytrailer");
    frame[39] = 8 + 5;
    frame[40..42].fill(0);
    apply(&mut frame, &to_server_v4(), &Offload::NONE);
    let expected = sample::reference_l4(&frame[26..34], UDP, &frame[34..34 + 13]);
    assert_eq!(expected, 0);
}

#[test]
fn a_first_fragment_keeps_udp_without_a_checksum() {
    let mut frame = udp(&client_v4(UDP), &[0; 16]);
    frame[40..42].fill(0);
    frame[20] = 0x20;
    fix_header(&mut frame);
    assert_eq!(V4::packet(&frame, &Offload::NONE).fragment, Fragment::First);
    apply(&mut frame, &to_server_v4(), &Offload::NONE);
    assert_eq!((read_u16(&frame, 36), read_u16(&frame, 40)), (8080, 0));
}

#[test]
fn udp_without_a_checksum_around_a_partial_one_keeps_none() {
    let mut frame = udp(&client_v4(UDP), &[0; 40]);
    frame[40..42].fill(0);
    let offload = Offload {
        partial_checksum: true,
        checksum_start: 50,
        checksum_offset: 16,
        ..Offload::NONE
    };
    apply(&mut frame, &to_server_v4(), &offload);
    assert_eq!((read_u16(&frame, 36), read_u16(&frame, 40)), (8080, 0));
}

#[test]
fn only_the_addresses_of_a_later_fragment_change() {
    let mut frame = V4::frame(
        [10, 64, 0, 7].into(),
        [10, 0, 0, 100].into(),
        UDP,
        &[0x55; 16],
    );
    frame[21] = 6;
    fix_header(&mut frame);
    apply(&mut frame, &to_server_v4(), &Offload::NONE);
    let mut expected = V4::frame(
        [10, 64, 0, 7].into(),
        [10, 2, 0, 11].into(),
        UDP,
        &[0x55; 16],
    );
    expected[21] = 6;
    fix_header(&mut expected);
    assert_eq!(frame, expected);
}

#[test]
fn a_first_fragment_is_translated_with_the_checksum_of_the_whole() {
    // The checksum covers what is elsewhere, and changes by the same difference.
    let whole = udp(&client_v4(UDP), &[7; 100]);
    let mut frame = whole[..14 + 20 + 8 + 48].to_vec();
    (frame[17], frame[20]) = (20 + 8 + 48, 0x20);
    fix_header(&mut frame);
    apply(&mut frame, &to_server_v4(), &Offload::NONE);
    let mut translated = whole;
    apply(&mut translated, &to_server_v4(), &Offload::NONE);
    assert_eq!(frame[34..], translated[34..frame.len()]);
}

#[test]
fn a_first_sctp_fragment_keeps_its_crc() {
    let mut frame = sample::sctp(&client_v4(SCTP), &[7; 20]);
    let crc = frame[42..46].to_vec();
    frame[20] = 0x20;
    fix_header(&mut frame);
    apply(&mut frame, &to_server_v4(), &Offload::NONE);
    assert_eq!((read_u16(&frame, 36), &frame[42..46]), (8080, &crc[..]));
}

#[test]
fn other_protocols_keep_their_payload() {
    let mut frame = V4::frame(
        [10, 64, 0, 7].into(),
        [10, 0, 0, 100].into(),
        47,
        &[0x55; 8],
    );
    apply(&mut frame, &to_server_v4(), &Offload::NONE);
    assert_eq!(
        frame,
        V4::frame([10, 64, 0, 7].into(), [10, 2, 0, 11].into(), 47, &[0x55; 8])
    );
}

#[test]
fn icmpv6_is_summed_with_its_new_addresses() {
    let tuple = client_v6(ICMPV6);
    let mut message = vec![128, 0, 0, 0, 0, 1, 0, 2, 3, 4];
    let checksum = sample::reference_l4(
        &V6::octets(tuple.source, tuple.destination),
        ICMPV6,
        &message,
    );
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    let mut frame = V6::frame(tuple.source, tuple.destination, ICMPV6, &message);
    apply(&mut frame, &to_server_v6(), &Offload::NONE);
    sample::assert_valid::<V6>(&frame);
}

#[test]
fn options_and_padding_are_untouched() {
    let mut frame = tcp(&client_v4(TCP), TcpFlags(2), b"");
    frame.splice(34..34, [1, 1, 1, 0]);
    (frame[14], frame[17]) = (0x46, 44);
    fix_header(&mut frame);
    frame.extend([0xaa; 5]);
    apply(&mut frame, &to_server_v4(), &Offload::NONE);
    sample::assert_valid::<V4>(&frame);
    assert_eq!(
        (&frame[34..38], &frame[58..]),
        (&[1, 1, 1, 0][..], &[0xaa; 5][..])
    );
}

#[test]
fn the_ttl_is_counted_down_to_one() {
    for ttl in 0..=255 {
        let mut v4 = tcp(&client_v4(TCP), TcpFlags(2), b"");
        v4[22] = ttl;
        fix_header(&mut v4);
        let mut v6 = tcp(&client_v6(TCP), TcpFlags(2), b"");
        v6[21] = ttl;
        let (before4, before6) = (v4.clone(), v6.clone());
        let packet4 = V4::packet(&v4, &Offload::NONE);
        let packet6 = V6::packet(&v6, &Offload::NONE);
        let results = (
            decrement_ttl(&mut v4, &packet4),
            decrement_ttl(&mut v6, &packet6),
        );
        if ttl <= 1 {
            assert_eq!(results, (Err(Expired), Err(Expired)));
            assert_eq!((v4, v6), (before4, before6));
        } else {
            assert_eq!(results, (Ok(()), Ok(())));
            let mut expected = before4;
            expected[22] = ttl - 1;
            fix_header(&mut expected);
            assert_eq!(v4, expected, "{ttl}");
            assert_eq!(v6[21], ttl - 1);
        }
    }
}

#[test]
fn macs_are_set_and_nothing_else() {
    let mut frame = tcp(&client_v4(TCP), TcpFlags(2), b"");
    let rest = frame[12..].to_vec();
    set_macs(
        &mut frame,
        Mac([1, 2, 3, 4, 5, 6]),
        Mac([7, 8, 9, 10, 11, 12]),
    );
    assert_eq!(frame[..12], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    assert_eq!(frame[12..], rest);
}
