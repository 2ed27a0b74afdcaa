//! GSO in software: cutting a frame that is larger than the link into the segments its sender meant.

use crate::frame::Offload;
use crate::packet::wire::{self, TCP_LEN, UDP_LEN, Wire, read_u16, read_u32, write_u16, write_u32};
use crate::packet::{Fragment, Packet, checksum};

const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;

/// Cuts a TCP GSO frame. Each segment is built in `scratch` with final checksums and handed to `emit`; the count is
/// returned. Sequence numbers advance, the IPv4 identification counts up, FIN and PSH are on the last segment only, CWR
/// on the first only.
///
/// Nothing is emitted, and 0 returned, when the frame cannot be cut: not an unfragmented TCP packet, no segment length,
/// or `scratch` too short for headers and `segment_len` bytes.
///
/// Source: Linux net/ipv4/tcp_offload.c (`tcp_gso_segment`).
///
/// # Panics
/// When `packet` is not what `parse` made of this frame.
pub fn tcp_segments<F: Wire>(
    frame: &[u8],
    packet: &Packet<F>,
    offload: &Offload,
    scratch: &mut [u8],
    emit: &mut dyn FnMut(&mut [u8]),
) -> usize {
    let l4 = packet.l4();
    if packet.tuple.protocol != wire::TCP || packet.fragment != Fragment::None {
        return 0;
    }
    let header_len = usize::from(frame[l4 + 12] >> 4) * 4;
    debug_assert!(header_len >= TCP_LEN, "parse checked the data offset");
    let first_sequence = read_u32(frame, l4 + 4);
    let flags = frame[l4 + 13];
    cut(
        frame,
        packet,
        offload,
        l4 + header_len,
        scratch,
        &mut |segment, at| {
            let mut flags = flags;
            if !at.last {
                flags &= !(FIN | PSH);
            }
            if at.index > 0 {
                flags &= !CWR;
            }
            segment[l4 + 13] = flags;
            write_u32(segment, l4 + 4, first_sequence.wrapping_add(at.offset));
            write_u16(segment, l4 + 16, 0);
            let checksum = checksum_of(packet, segment);
            write_u16(segment, l4 + 16, checksum);
            emit(segment);
        },
    )
}

/// Cuts a UDP GSO frame into datagrams, as [`tcp_segments`] does. A datagram without checksum stays without.
///
/// Source: Linux net/ipv4/udp_offload.c (`__udp_gso_segment`).
///
/// # Panics
/// When `packet` is not what `parse` made of this frame.
pub fn udp_segments<F: Wire>(
    frame: &[u8],
    packet: &Packet<F>,
    offload: &Offload,
    scratch: &mut [u8],
    emit: &mut dyn FnMut(&mut [u8]),
) -> usize {
    let l4 = packet.l4();
    if packet.tuple.protocol != wire::UDP || packet.fragment != Fragment::None {
        return 0;
    }
    let without_checksum = !offload.partial_checksum && read_u16(frame, l4 + 6) == 0;
    cut(
        frame,
        packet,
        offload,
        l4 + UDP_LEN,
        scratch,
        &mut |segment, _| {
            let len = u16::try_from(segment.len() - l4)
                .expect("part of a datagram that has a 16-bit length");
            write_u16(segment, l4 + 4, len);
            write_u16(segment, l4 + 6, 0);
            if !without_checksum {
                let checksum = checksum::never_zero(checksum_of(packet, segment));
                write_u16(segment, l4 + 6, checksum);
            }
            emit(segment);
        },
    )
}

/// Where a segment is in its frame.
struct Position {
    index: u16,
    /// Bytes of payload before it.
    offset: u32,
    last: bool,
}

/// Builds segments with everything up to `payload` repeated and their IP lengths right; `finish` does the rest.
fn cut<F: Wire>(
    frame: &[u8],
    packet: &Packet<F>,
    offload: &Offload,
    payload: usize,
    scratch: &mut [u8],
    finish: &mut dyn FnMut(&mut [u8], &Position),
) -> usize {
    let segment_len = usize::from(offload.segment_len);
    let data = &frame[payload..packet.end()];
    let longest = payload + segment_len.min(data.len());
    if segment_len == 0 || scratch.len() < longest {
        return 0;
    }
    // A datagram has less than 64 KiB of data, so there are at most as many segments, and at least one.
    let count = data.len().div_ceil(segment_len).max(1);
    for index in 0..count {
        let offset = index * segment_len;
        let part = &data[offset..data.len().min(offset + segment_len)];
        let end = payload + part.len();
        // The headers again each time: whoever got the last segment may have changed them.
        scratch[..payload].copy_from_slice(&frame[..payload]);
        scratch[payload..end].copy_from_slice(part);
        let segment = &mut scratch[..end];
        let l3 = packet.l3();
        let index = u16::try_from(index).expect("fewer segments than bytes in a datagram");
        F::resize(segment, l3, end - l3, index);
        let offset = u32::try_from(offset).expect("less than a datagram");
        finish(
            segment,
            &Position {
                index,
                offset,
                last: usize::from(index) + 1 == count,
            },
        );
    }
    count
}

/// The transport checksum of a segment whose checksum field is 0, with the addresses that stand in it.
fn checksum_of<F: Wire>(packet: &Packet<F>, segment: &[u8]) -> u16 {
    let source = F::read_address(segment, packet.l3() + F::SOURCE);
    let destination = F::read_address(segment, packet.l3() + F::DESTINATION);
    checksum::l4::<F>(
        source,
        destination,
        packet.tuple.protocol,
        &segment[packet.l4()..],
    )
}
