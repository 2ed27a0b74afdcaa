use crate::frame::{Gso, Offload};
use crate::packet::sample::{
    self, Sample, client_v4, client_v6, fix_header, make_partial, tcp, udp,
};
use crate::packet::wire::{TCP, UDP, read_u16, read_u32};
use crate::packet::{Fragment, TcpFlags, V4, V6};
use crate::rewrite::{fragment_ipv4, fragment_ipv6, tcp_segments, udp_segments};
use proptest::prelude::*;

const ALL_FLAGS: TcpFlags = TcpFlags(0x99); // CWR, ACK, PSH, FIN

fn bytes(len: usize) -> Vec<u8> {
    (0..len)
        .map(|index| u8::try_from(index % 251).unwrap())
        .collect()
}

fn gso<F: Sample>(frame: &mut [u8], gso: Gso, segment_len: usize) -> Offload {
    Offload {
        gso,
        segment_len: u16::try_from(segment_len).unwrap(),
        ..make_partial::<F>(frame)
    }
}

/// The segments of a frame; the one who gets them spoils them, as a port that sets MACs would.
fn segments<F: Sample>(frame: &[u8], offload: &Offload, scratch: usize) -> Vec<Vec<u8>> {
    let packet = F::packet(frame, offload);
    let mut scratch = vec![0xee; scratch];
    let mut segments = Vec::new();
    let mut emit = |segment: &mut [u8]| {
        segments.push(segment.to_vec());
        segment.fill(0x11);
    };
    let cut = if packet.tuple.protocol == TCP {
        tcp_segments
    } else {
        udp_segments
    };
    let count = cut(frame, &packet, offload, &mut scratch, &mut emit);
    assert_eq!(count, segments.len());
    segments
}

fn check_tcp<F: Sample>(frame: &mut [u8], payload: &[u8], segment_len: usize) {
    let offload = gso::<F>(frame, Gso::Tcp4 { ecn: true }, segment_len);
    let original = F::packet(frame, &offload);
    let segments = segments::<F>(frame, &offload, 2000);
    assert_eq!(segments.len(), payload.len().div_ceil(segment_len).max(1));
    let mut reassembled = Vec::<u8>::new();
    for (index, segment) in segments.iter().enumerate() {
        let packet = sample::assert_valid::<F>(segment);
        assert_eq!(
            (packet.tuple, packet.end()),
            (original.tuple, segment.len())
        );
        let l4 = packet.l4();
        let expected =
            read_u32(frame, original.l4() + 4) + u32::try_from(reassembled.len()).unwrap();
        assert_eq!(read_u32(segment, l4 + 4), expected, "sequence number");
        let last = index + 1 == segments.len();
        let flags = 0x10 | if index == 0 { 0x80 } else { 0 } | if last { 0x09 } else { 0 };
        assert_eq!(
            packet.tcp_flags,
            TcpFlags(flags),
            "flags of segment {index}"
        );
        if F::ETHER_TYPE == 0x0800 {
            assert_eq!(
                packet.fragment_id,
                original.fragment_id + u32::try_from(index).unwrap()
            );
        }
        let data = &segment[l4 + usize::from(segment[l4 + 12] >> 4) * 4..];
        assert!(last || data.len() == segment_len);
        reassembled.extend(data);
    }
    assert_eq!(reassembled, payload);
}

proptest! {
    #[test]
    fn tcp_segments_carry_the_payload_in_order(len in 0usize..6000, segment_len in 1usize..1500) {
        let segment_len = segment_len.max(len / 200);
        let payload = bytes(len);
        check_tcp::<V4>(&mut tcp(&client_v4(TCP), ALL_FLAGS, &payload), &payload, segment_len);
        check_tcp::<V6>(&mut tcp(&client_v6(TCP), ALL_FLAGS, &payload), &payload, segment_len);
    }

    #[test]
    fn fragments_carry_the_payload_in_order(len in 0usize..4000, mtu in 68usize..1500, again in 68usize..1500) {
        let payload = bytes(len);
        let frame = udp(&client_v4(UDP), &payload);
        let fragments = fragments_of(&frame, mtu);
        prop_assert_eq!(&reassemble(&fragments, mtu), &frame[34..]);
        let finer: Vec<Vec<u8>> = fragments.iter().flat_map(|fragment| fragments_of(fragment, again)).collect();
        prop_assert_eq!(&reassemble(&finer, mtu.min(again)), &frame[34..]);
    }
}

#[test]
fn a_full_64_kib_frame_is_cut() {
    let payload = bytes(65535 - 40);
    check_tcp::<V4>(
        &mut tcp(&client_v4(TCP), ALL_FLAGS, &payload),
        &payload,
        1460,
    );
    let payload = bytes(65535 - 20);
    check_tcp::<V6>(
        &mut tcp(&client_v6(TCP), ALL_FLAGS, &payload),
        &payload,
        1440,
    );
}

#[test]
fn one_segment_may_be_all_of_the_largest_packet() {
    let mut frame = tcp(&client_v6(TCP), ALL_FLAGS, &bytes(65535 - 20));
    let offload = gso::<V6>(&mut frame, Gso::Tcp6 { ecn: false }, 65535);
    let segments = segments::<V6>(&frame, &offload, 70000);
    assert_eq!(segments.len(), 1);
    assert_eq!(sample::assert_valid::<V6>(&segments[0]).end(), frame.len());
}

#[test]
fn identification_and_sequence_number_wrap_around() {
    let mut frame = tcp(&client_v4(TCP), TcpFlags(0x10), &bytes(30));
    frame[18..20].fill(0xff);
    frame[38..42].fill(0xff);
    fix_header(&mut frame);
    let offload = gso::<V4>(&mut frame, Gso::Tcp4 { ecn: false }, 10);
    let segments = segments::<V4>(&frame, &offload, 100);
    let found: Vec<_> = segments
        .iter()
        .map(|segment| (read_u16(segment, 18), read_u32(segment, 38)))
        .collect();
    assert_eq!(found, [(0xffff, 0xffff_ffff), (0, 9), (1, 19)]);
}

#[test]
fn ethernet_padding_is_not_sent_as_payload() {
    let mut frame = tcp(&client_v4(TCP), TcpFlags(0x10), b"0123456789");
    frame.extend([0xaa; 6]);
    let offload = Offload {
        segment_len: 4,
        ..Offload::NONE
    };
    let segments = segments::<V4>(&frame, &offload, 100);
    assert_eq!(
        segments.iter().map(Vec::len).collect::<Vec<_>>(),
        [58, 58, 56]
    );
}

fn check_udp<F: Sample>(mut frame: Vec<u8>, payload: &[u8], segment_len: usize) {
    let offload = gso::<F>(&mut frame, Gso::Udp, segment_len);
    let mut reassembled = Vec::<u8>::new();
    for segment in segments::<F>(&frame, &offload, 2000) {
        let packet = sample::assert_valid::<F>(&segment);
        let l4 = packet.l4();
        assert_eq!(usize::from(read_u16(&segment, l4 + 4)), segment.len() - l4);
        assert_ne!(read_u16(&segment, l4 + 6), 0);
        reassembled.extend(&segment[l4 + 8..]);
    }
    assert_eq!(reassembled, payload);
}

#[test]
fn udp_segments_are_datagrams_of_their_own() {
    for (len, segment_len) in [(0, 5), (1, 5), (5, 5), (6, 5), (4000, 1400), (65000, 1400)] {
        let payload = bytes(len);
        check_udp::<V4>(udp(&client_v4(UDP), &payload), &payload, segment_len);
        check_udp::<V6>(udp(&client_v6(UDP), &payload), &payload, segment_len);
    }
}

#[test]
fn udp_segments_without_checksum_stay_without() {
    let mut frame = udp(&client_v4(UDP), &bytes(100));
    frame[40..42].fill(0);
    let offload = Offload {
        gso: Gso::Udp,
        segment_len: 30,
        ..Offload::NONE
    };
    for segment in segments::<V4>(&frame, &offload, 100) {
        assert_eq!(segment[40..42], [0, 0]);
    }
}

#[test]
fn what_cannot_be_cut_is_not() {
    let mut frame = tcp(&client_v4(TCP), ALL_FLAGS, &bytes(100));
    let offload = gso::<V4>(&mut frame, Gso::Tcp4 { ecn: false }, 10);
    assert_eq!(segments::<V4>(&frame, &offload, 54 + 10).len(), 10);
    assert_eq!(
        segments::<V4>(&frame, &offload, 54 + 9).len(),
        0,
        "scratch too short"
    );
    let no_length = Offload {
        segment_len: 0,
        ..offload
    };
    assert_eq!(
        segments::<V4>(&frame, &no_length, 2000).len(),
        0,
        "no segment length"
    );

    let packet = V4::packet(&frame, &offload);
    let mut emit = |_: &mut [u8]| panic!("nothing to emit");
    assert_eq!(
        udp_segments(&frame, &packet, &offload, &mut [0; 2000], &mut emit),
        0,
        "not UDP"
    );
    let datagram = udp(&client_v4(UDP), &bytes(100));
    let packet = V4::packet(&datagram, &Offload::NONE);
    assert_eq!(
        tcp_segments(&datagram, &packet, &offload, &mut [0; 2000], &mut emit),
        0,
        "not TCP"
    );

    let mut fragment = tcp(&client_v4(TCP), ALL_FLAGS, &bytes(4));
    fragment[20] = 0x20;
    fix_header(&mut fragment);
    let offload = Offload {
        segment_len: 2,
        ..Offload::NONE
    };
    assert_eq!(
        segments::<V4>(&fragment, &offload, 2000).len(),
        0,
        "a fragment"
    );
}

fn fragments_of(frame: &[u8], mtu: usize) -> Vec<Vec<u8>> {
    let mut fragments = Vec::new();
    let mut scratch = vec![0xee; 70000];
    let mut emit = |fragment: &mut [u8]| {
        fragments.push(fragment.to_vec());
        fragment.fill(0x11);
    };
    let count = fragment_ipv4(frame, mtu, &mut scratch, &mut emit);
    assert_eq!(count, fragments.len());
    fragments
}

/// Puts fragments in order back together, and checks that they fit, join and end.
fn reassemble(fragments: &[Vec<u8>], mtu: usize) -> Vec<u8> {
    let mut data = Vec::new();
    for (index, fragment) in fragments.iter().enumerate() {
        let packet = V4::packet(fragment, &Offload::NONE);
        assert!(fragment.len() - 14 <= mtu);
        assert_eq!(packet.fragment_id, 0x1234);
        let flags_and_offset = read_u16(fragment, 20);
        assert_eq!(usize::from(flags_and_offset & 0x1fff) * 8, data.len());
        assert_eq!(flags_and_offset & 0x2000 != 0, index + 1 < fragments.len());
        data.extend(&fragment[14 + usize::from(fragment[14] & 15) * 4..]);
    }
    data
}

#[test]
fn a_packet_is_cut_at_multiples_of_eight() {
    let frame = udp(&client_v4(UDP), &bytes(2000 - 28));
    // 1500 - 20 is a multiple of eight, 1499 - 20 is not.
    let lens = |mtu| {
        fragments_of(&frame, mtu)
            .iter()
            .map(|fragment| fragment.len() - 14)
            .collect::<Vec<_>>()
    };
    assert_eq!(lens(2000), [2000]);
    assert_eq!(lens(1999), [1996, 24]);
    assert_eq!(lens(1500), [1500, 520]);
    assert_eq!(lens(1499), [1492, 528]);
    assert_eq!(lens(28).len(), 1980_usize.div_ceil(8));
    assert_eq!(lens(27), []);
    assert_eq!(lens(0), []);
}

#[test]
fn a_middle_fragment_is_fragmented_as_a_middle_fragment() {
    let mut frame = V4::frame(
        [10, 64, 0, 7].into(),
        [10, 0, 0, 100].into(),
        UDP,
        &bytes(80),
    );
    (frame[20], frame[21]) = (0x20, 10);
    fix_header(&mut frame);
    let found: Vec<u16> = fragments_of(&frame, 60)
        .iter()
        .map(|fragment| read_u16(fragment, 20))
        .collect();
    assert_eq!(found, [0x2000 | 10, 0x2000 | 15]);
    frame[20] = 0;
    fix_header(&mut frame);
    let found: Vec<u16> = fragments_of(&frame, 60)
        .iter()
        .map(|fragment| read_u16(fragment, 20))
        .collect();
    assert_eq!(found, [0x2000 | 10, 15]);
}

#[test]
fn only_options_to_be_copied_are_in_later_fragments() {
    // Record route (7, not copied), a security option (130, copied), end of options and what lies behind.
    let options = [7, 7, 4, 0, 0, 0, 0, 130, 3, 9, 0, 7];
    let mut frame = V4::frame(
        [10, 64, 0, 7].into(),
        [10, 0, 0, 100].into(),
        UDP,
        &bytes(80),
    );
    frame.splice(34..34, options);
    (frame[14], frame[17]) = (0x48, frame[17] + 12);
    fix_header(&mut frame);
    let fragments = fragments_of(&frame, 80);
    assert_eq!(reassemble(&fragments, 80), bytes(80));
    assert_eq!(fragments[0][34..46], options);
    assert_eq!(fragments[1][34..46], [1, 1, 1, 1, 1, 1, 1, 130, 3, 9, 0, 7]);
    assert!(
        fragments
            .iter()
            .all(|fragment| V4::packet(fragment, &Offload::NONE).fragment != Fragment::None)
    );
}

#[test]
fn malformed_options_do_not_go_on() {
    for options in [
        [130, 1, 9, 9],
        [130, 5, 9, 9],
        [1, 1, 1, 130],
        [130, 0, 9, 9],
    ] {
        let mut frame = V4::frame(
            [10, 64, 0, 7].into(),
            [10, 0, 0, 100].into(),
            UDP,
            &bytes(80),
        );
        frame.splice(34..34, options);
        (frame[14], frame[17]) = (0x46, frame[17] + 4);
        fix_header(&mut frame);
        let fragments = fragments_of(&frame, 80);
        assert_eq!(fragments[0][34..38], options);
        assert_eq!(fragments[1][34..38], [1; 4], "{options:?}");
    }
}

#[test]
fn what_is_no_ipv6_packet_or_has_no_room_is_not_fragmented() {
    let frame = udp(&client_v6(UDP), &bytes(1000));
    let cut = |frame: &[u8], mtu: usize, scratch: usize| {
        let mut count = 0;
        let mut emit = |_: &mut [u8]| count += 1;
        let returned = fragment_ipv6(frame, mtu, 7, &mut vec![0; scratch], &mut emit);
        assert_eq!(returned, count);
        count
    };
    assert_eq!(cut(&frame, 500, 514), 3);
    assert_eq!(cut(&frame, 500, 513), 0, "scratch too short");
    assert_eq!(cut(&frame, 55, 514), 0, "no room for eight bytes");
    assert_eq!(cut(&frame[..1000], 500, 514), 0, "truncated");
    assert_eq!(cut(&frame[..40], 500, 514), 0, "no header");
    let ipv4 = udp(&client_v4(UDP), &bytes(1000));
    assert_eq!(cut(&ipv4, 500, 514), 0, "IPv4");
}

#[test]
fn what_must_not_be_fragmented_is_not() {
    let frame = udp(&client_v4(UDP), &bytes(1000));
    let cut = |frame: &[u8], scratch: usize| {
        let mut count = 0;
        let returned = fragment_ipv4(frame, 500, &mut vec![0; scratch], &mut |_| count += 1);
        assert_eq!(returned, count);
        count
    };
    assert_eq!(cut(&frame, 514), 3);
    assert_eq!(cut(&frame, 513), 0, "scratch too short");
    let mut changed = frame.clone();
    changed[20] = 0x40;
    assert_eq!(cut(&changed, 514), 0, "don't fragment");
    assert_eq!(cut(&frame[..1000], 514), 0, "truncated");
    assert_eq!(cut(&frame[..30], 514), 0, "half a header");
    for (at, value) in [(14, 0x65), (14, 0x44), (14, 0x41)] {
        let mut changed = frame.clone();
        changed[at] = value;
        assert_eq!(cut(&changed, 514), 0, "first byte {value:02x}");
    }
}
