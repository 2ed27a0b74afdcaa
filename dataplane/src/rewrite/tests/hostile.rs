//! Whatever `parse` accepts, no rewriter panics on, and none writes where it should not.

use super::encapsulating::ENCAPSULATIONS;
use super::tunnelling::encapsulated;
use crate::frame::Offload;
use crate::packet::icmp::{self, ERROR_V6_LEN, ErrorKind, Quote};
use crate::packet::sample::{Sample, client_v4, client_v6, fix_header, of_protocol};
use crate::packet::wire::{ICMP, ICMPV6, SCTP, TCP, UDP};
use crate::packet::{Packet, Parsed, Tuple, V4, V6, checksum, ndp, parse};
use crate::rewrite::{
    Encapsulation, Outer, Translation, Tunnel, decrement_ttl, fragment_ipv4, tcp_segments,
    translate, translate_error, udp_segments,
};
use proptest::collection::vec;
use proptest::prelude::*;

/// Every rewriter in turn, each on a copy of its own.
fn rewrite<F: Sample>(frame: &[u8], packet: &Packet<F>, offload: &Offload, other: &Tuple<F>) {
    let source = Some((other.source, other.source_port));
    let destination = Some((other.destination, other.destination_port));
    let translation = Translation::new(&packet.tuple, source, destination);

    let mut copy = frame.to_vec();
    let in_time = decrement_ttl(&mut copy, packet).is_ok();
    translate(&mut copy, packet, &translation, offload);
    assert_eq!(copy[packet.end()..], frame[packet.end()..], "padding");
    let after = F::packet(&copy, offload);
    assert_eq!(
        (after.l4, after.end, after.fragment),
        (packet.l4, packet.end, packet.fragment)
    );
    assert_eq!(after.ttl, packet.ttl - u8::from(in_time));
    checksum::complete(&mut copy, offload);

    let mut scratch = vec![0; 70000];
    let mut emitted = 0;
    let mut emit = |_: &mut [u8]| emitted += 1;
    let mut count = tcp_segments(frame, packet, offload, &mut scratch, &mut emit);
    count += udp_segments(frame, packet, offload, &mut scratch, &mut emit);
    count += fragment_ipv4(
        frame,
        usize::from(offload.segment_len),
        &mut scratch,
        &mut emit,
    );
    assert_eq!(emitted, count);

    let outer = Outer::V4 {
        source: [10, 2, 0, 1].into(),
        destination: [10, 3, 0, 21].into(),
    };
    let tunnel = Tunnel {
        outer,
        copy_dont_fragment: true,
        encapsulation: Encapsulation::Ipip,
    };
    for encapsulation in ENCAPSULATIONS {
        let tunnel = Tunnel {
            encapsulation,
            ..tunnel
        };
        let carried = encapsulated(frame, packet, &tunnel, 7).unwrap();
        assert_eq!(
            carried[14 + tunnel.overhead()..],
            frame[14..packet.end()],
            "{encapsulation:?}"
        );
    }
}

fn answer<F: Quote + Sample>(frame: &[u8], packet: &Packet<F>, other: &Tuple<F>) {
    let mut copy = frame.to_vec();
    let Ok(quoted) = icmp::parse_error(frame, packet) else {
        return;
    };
    let inner = Translation::new(&quoted.tuple, Some((other.source, other.source_port)), None);
    translate_error(&mut copy, packet, &quoted, Some(other.source), None, &inner);
    let again = F::packet(&copy, &Offload::NONE);
    let relayed = icmp::parse_error(&copy, &again).unwrap();
    assert_eq!(
        (relayed.tuple.source, again.tuple.source),
        (other.source, other.source)
    );
}

fn any_offload() -> impl Strategy<Value = Offload> {
    (
        any::<bool>(),
        any::<u16>(),
        prop::sample::select(&[34u16, 38, 54, 62, 80][..]),
        0u16..20,
    )
        .prop_map(
            |(partial_checksum, segment_len, checksum_start, checksum_offset)| Offload {
                partial_checksum,
                checksum_start,
                checksum_offset,
                segment_len: segment_len % 200,
                ..Offload::NONE
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn no_accepted_frame_makes_a_rewriter_panic(
        v6: bool,
        protocol in prop::sample::select(&[TCP, UDP, SCTP, ICMP, ICMPV6, 47][..]),
        payload in vec(any::<u8>(), 8..100),
        options in 0usize..4,
        changes in vec((14usize..100, any::<u8>()), 0..4),
        padding in 0usize..8,
        offload in any_offload(),
    ) {
        let (other4, other6) = (client_v4(protocol), client_v6(protocol));
        let mut frame = if v6 {
            of_protocol(&Tuple { source_port: 1, ..other6 }, &payload)
        } else {
            of_protocol(&Tuple { source_port: 1, ..other4 }, &payload)
        };
        if !v6 {
            frame.splice(34..34, vec![1; options * 4]);
            frame[14] += u8::try_from(options).unwrap();
            frame[17] += u8::try_from(options * 4).unwrap();
        }
        for (at, value) in changes {
            if let Some(byte) = frame.get_mut(at) {
                *byte = value;
            }
        }
        frame.extend(vec![0xaa; padding]);
        if !v6 && usize::from(frame[14] & 15) * 4 + 14 <= frame.len() {
            fix_header(&mut frame);
        }
        let mut scratch = [0; ERROR_V6_LEN];
        match parse(&frame, &offload) {
            Parsed::Ipv4(packet) => {
                rewrite::<V4>(&frame, &packet, &offload, &other4);
                answer::<V4>(&frame, &packet, &other4);
                icmp::error_v4(&mut scratch, ErrorKind::TimeExceeded, &frame, &packet, other4.source, 0);
                icmp::echo_reply_v4(&mut frame, &packet);
            }
            Parsed::Ipv6(packet) => {
                rewrite::<V6>(&frame, &packet, &offload, &other6);
                answer::<V6>(&frame, &packet, &other6);
                let _ = ndp::parse(&frame, &packet);
                icmp::error_v6(&mut scratch, ErrorKind::TimeExceeded, &frame, &packet, other6.source);
                icmp::echo_reply_v6(&mut frame, &packet);
            }
            Parsed::Arp | Parsed::Other | Parsed::Drop(_) => {}
        }
    }
}
