use crate::frame::Offload;
use crate::packet::checksum::{self, Delta};
use crate::packet::crc32c;
use crate::packet::sample::{self, Sample, hex, reference_l4, reference_sum};
use crate::packet::wire::{SCTP, TCP, UDP};
use crate::packet::{Tuple, V4, V6};
use proptest::collection::vec;
use proptest::prelude::*;
use std::net::{Ipv4Addr, Ipv6Addr};

#[test]
fn the_sum_of_rfc_1071_section_3() {
    assert_eq!(checksum::sum(&hex("0001 f203 f4f5 f6f7")), 0xddf2);
}

#[test]
fn the_example_of_rfc_1624_section_4() {
    // The one on which RFC 1141's formula yields 0xffff.
    assert_eq!(
        checksum::apply(0xdd2f, Delta::of_word(0x5555, 0x3285)),
        0x0000
    );
}

#[test]
fn a_udp_checksum_that_comes_out_as_zero_is_sent_as_ffff() {
    assert_eq!(
        checksum::apply_udp(0xdd2f, Delta::of_word(0x5555, 0x3285)),
        0xffff
    );
}

#[test]
fn the_crc_of_rfc_3720_appendix_b_4() {
    assert_eq!(crc32c::of(&[0; 32]), 0x8a91_36aa);
    assert_eq!(crc32c::of(&[0xff; 32]), 0x62a8_ab43);
    let ascending: Vec<u8> = (0..32).collect();
    assert_eq!(crc32c::of(&ascending), 0x46dd_794e);
    assert_eq!(crc32c::of(b"123456789"), 0xe306_9283);
}

#[test]
fn completing_leaves_frames_alone_that_need_it_not_or_lie() {
    let tuple = sample::client_v4(UDP);
    let frame = sample::udp(&tuple, b"query");
    let partial = Offload {
        partial_checksum: true,
        ..Offload::NONE
    };
    let len = u16::try_from(frame.len()).unwrap();
    for offload in [
        Offload::NONE,
        Offload {
            checksum_start: len - 1,
            ..partial
        },
        Offload {
            checksum_start: len,
            checksum_offset: 65535,
            ..partial
        },
    ] {
        let mut copy = frame.clone();
        checksum::complete(&mut copy, &offload);
        assert_eq!(copy, frame, "{offload:?}");
    }
}

proptest! {
    #[test]
    fn the_fast_sum_is_the_plain_one(bytes in vec(any::<u8>(), 0..2000)) {
        prop_assert_eq!(checksum::sum(&bytes), reference_sum(&bytes));
    }

    #[test]
    fn the_transport_checksum_is_the_plain_one(
        source: [u8; 4],
        destination: [u8; 4],
        source6: [u8; 16],
        destination6: [u8; 16],
        protocol: u8,
        bytes in vec(any::<u8>(), 0..100),
    ) {
        prop_assert_eq!(
            checksum::l4::<V4>(source.into(), destination.into(), protocol, &bytes),
            reference_l4(&[source, destination].concat(), protocol, &bytes)
        );
        prop_assert_eq!(
            checksum::l4::<V6>(source6.into(), destination6.into(), protocol, &bytes),
            reference_l4(&[source6, destination6].concat(), protocol, &bytes)
        );
    }

    #[test]
    fn an_adjusted_checksum_is_the_recomputed_one(
        words in vec(any::<u16>(), 1..20),
        rest in 1u16..,
        at: prop::sample::Index,
        new: u16,
    ) {
        let full = |words: &[u16]| {
            let bytes: Vec<u8> = words.iter().chain(&[rest]).flat_map(|word| word.to_be_bytes()).collect();
            !reference_sum(&bytes)
        };
        let mut changed = words.clone();
        let old = std::mem::replace(&mut changed[at.index(words.len())], new);
        prop_assert_eq!(checksum::apply(full(&words), Delta::of_word(old, new)), full(&changed));
        prop_assert_eq!(checksum::apply(full(&words), Delta::of(&words, &changed)), full(&changed));
    }

    #[test]
    fn differences_add_up_and_turn_around(checksum in 0u16..0xffff, a: u16, b: u16, c: u16) {
        let there = Delta::of_word(a, b);
        let on = Delta::of_word(b, c);
        let direct = checksum::apply(checksum, Delta::of_word(a, c));
        prop_assert_eq!(checksum::apply(checksum, there.combine(on)), direct);
        prop_assert_eq!(checksum::apply(checksum::apply(checksum, there), on), direct);
        prop_assert_eq!(checksum::apply(checksum::apply(checksum, there), there.negated()), checksum);
    }

    #[test]
    fn an_address_is_the_sum_of_its_words(old: [u16; 8], new: [u16; 8]) {
        let v6 = Delta::of_address::<V6>(Ipv6Addr::from(old), Ipv6Addr::from(new));
        prop_assert_eq!(v6, Delta::of(&old, &new));
        let v4 = |words: [u16; 8]| Ipv4Addr::from_bits(u32::from(words[0]) << 16 | u32::from(words[1]));
        prop_assert_eq!(Delta::of_address::<V4>(v4(old), v4(new)), Delta::of(&old[..2], &new[..2]));
    }

    #[test]
    fn a_completed_checksum_is_valid(
        v4 in sample::any_tuple::<V4>(&[TCP, UDP, SCTP]),
        v6 in sample::any_tuple::<V6>(&[TCP, UDP, SCTP]),
        payload in sample::any_payload(),
    ) {
        complete_and_check(&mut sample::of_protocol(&v4, &payload), v4.protocol == SCTP, V4::packet);
        complete_and_check(&mut sample::of_protocol(&v6, &payload), v6.protocol == SCTP, V6::packet);
    }

    #[test]
    fn a_crc_adjusted_for_ports_is_the_recomputed_one(
        mut packet in vec(any::<u8>(), 12..3000),
        old: [u8; 4],
        new: [u8; 4],
    ) {
        packet[..4].copy_from_slice(&old);
        crc32c::write(&mut packet);
        let mut recomputed = packet.clone();
        recomputed[..4].copy_from_slice(&new);
        crc32c::write(&mut recomputed);
        packet[..4].copy_from_slice(&new);
        crc32c::adjust_ports(&mut packet, old, new);
        prop_assert_eq!(packet, recomputed);
    }
}

#[test]
fn a_crc_is_adjusted_in_the_largest_packet() {
    let mut packet = vec![7; 65_535];
    crc32c::write(&mut packet);
    crc32c::adjust_ports(&mut packet, [7; 4], [1, 2, 3, 4]);
    let adjusted = packet.clone();
    packet[..4].copy_from_slice(&[1, 2, 3, 4]);
    crc32c::write(&mut packet);
    assert_eq!(adjusted[8..12], packet[8..12]);
}

#[test]
fn padding_is_no_part_of_a_completed_crc() {
    fn check<F: Sample>(mut frame: Vec<u8>) {
        let len = frame.len();
        frame.extend([0xaa; 14]);
        let offload = sample::make_partial::<F>(&mut frame);
        assert!(offload.is_partial_crc());
        checksum::complete(&mut frame, &offload);
        assert_eq!(frame[len..], [0xaa; 14]);
        sample::assert_valid::<F>(&frame);
    }
    let v4 = Tuple::<V4> {
        source: [10, 0, 0, 1].into(),
        destination: [10, 0, 0, 2].into(),
        source_port: 1,
        destination_port: 2,
        protocol: SCTP,
    };
    check::<V4>(sample::sctp(&v4, b"abc"));
    let v6 = Tuple::<V6> {
        source: (0xfd00 << 112 | 1_u128).into(),
        destination: (0xfd00 << 112 | 2_u128).into(),
        source_port: 1,
        destination_port: 2,
        protocol: SCTP,
    };
    check::<V6>(sample::sctp(&v6, b"abc"));
}

fn complete_and_check<F: Sample>(
    frame: &mut [u8],
    is_sctp: bool,
    packet: fn(&[u8], &Offload) -> crate::packet::Packet<F>,
) {
    let offload = if is_sctp {
        let l4 = packet(frame, &Offload::NONE).l4;
        frame[usize::from(l4) + 8..][..4].fill(0);
        Offload {
            partial_checksum: true,
            checksum_start: l4,
            checksum_offset: 8,
            ..Offload::NONE
        }
    } else {
        sample::make_partial::<F>(frame)
    };
    packet(frame, &offload);
    checksum::complete(frame, &offload);
    sample::assert_valid::<F>(frame);
}
