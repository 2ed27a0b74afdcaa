//! Sequence numbers in TCP headers, moved by a shift, with the checksum that covers them.

use super::shift::Shift;
use crate::frame::Offload;
use crate::packet::checksum::{self, Delta};
use crate::packet::wire::{TCP, TCP_LEN, Wire, read_u16, read_u32, write_u16, write_u32};
use crate::packet::{Packet, TcpFlags};
use std::ops::Range;

const SEQUENCE: usize = 4;
const ACKNOWLEDGEMENT: usize = 8;
const CHECKSUM: usize = 16;

/// Kinds of TCP options. Source: RFC 9293 §3.2, RFC 2018 §3.
const END: u8 = 0;
const PADDING: u8 = 1;
const SACK: u8 = 5;

/// The sequence number of a TCP segment.
pub(crate) fn sequence<F: Wire>(frame: &[u8], packet: &Packet<F>) -> u32 {
    read_u32(frame, packet.l4() + SEQUENCE)
}

/// Where the payload of a TCP segment lies in its frame; a first fragment's may end where the header should.
pub(crate) fn payload<F: Wire>(frame: &[u8], packet: &Packet<F>) -> Range<usize> {
    let header_len = usize::from(frame[packet.l4() + 12] >> 4) * 4;
    (packet.l4() + header_len).min(packet.end())..packet.end()
}

/// Whether a whole segment's checksum is right.
pub(crate) fn sums_up<F: Wire>(frame: &[u8], packet: &Packet<F>) -> bool {
    let (source, destination) = (packet.tuple.source, packet.tuple.destination);
    let segment = &frame[packet.l4()..packet.end()];
    checksum::l4::<F>(source, destination, TCP, segment) == 0
}

/// Makes the checksum of the whole TCP segment from `l4` to the end of `frame` anew.
pub(crate) fn write_checksum<F: Wire>(frame: &mut [u8], l3: usize, l4: usize) {
    let source = F::read_address(frame, l3 + F::SOURCE);
    let destination = F::read_address(frame, l3 + F::DESTINATION);
    write_u16(frame, l4 + CHECKSUM, 0);
    let sum = checksum::l4::<F>(source, destination, TCP, &frame[l4..]);
    write_u16(frame, l4 + CHECKSUM, sum);
}

/// Moves the sequence number of a server's segment.
pub(crate) fn move_sequence<F: Wire>(
    frame: &mut [u8],
    packet: &Packet<F>,
    shift: Shift,
    offload: &Offload,
) {
    let old = sequence(frame, packet);
    let new = old.wrapping_add_signed(shift.of(old));
    if new != old {
        change(frame, packet, offload, |frame| {
            write_u32(frame, packet.l4() + SEQUENCE, new);
        });
    }
}

/// Moves the acknowledgement of a client's segment, and the edges in its SACK option.
pub(crate) fn move_acknowledgement<F: Wire>(
    frame: &mut [u8],
    packet: &Packet<F>,
    shift: Shift,
    offload: &Offload,
) {
    if shift == Shift::default() || !packet.tcp_flags.has(TcpFlags::ACK) {
        return;
    }
    let options = packet.l4() + TCP_LEN..payload(frame, packet).start;
    change(frame, packet, offload, |frame| {
        move_number(frame, packet.l4() + ACKNOWLEDGEMENT, shift);
        move_edges(frame, options, shift);
    });
}

fn move_number(frame: &mut [u8], at: usize, shift: Shift) {
    let number = shift.back(read_u32(frame, at));
    write_u32(frame, at, number);
}

/// Moves what SACK options name. Options that do not end where the header does are left alone from there on.
fn move_edges(frame: &mut [u8], options: Range<usize>, shift: Shift) {
    let mut at = options.start;
    while at < options.end {
        let kind = frame[at];
        match kind {
            END => return,
            PADDING => {
                at += 1;
                continue;
            }
            _ => {}
        }
        let len = frame[..options.end]
            .get(at + 1)
            .map_or(0, |len| usize::from(*len));
        if len < 2 || at + len > options.end {
            return;
        }
        if kind == SACK && (len - 2).is_multiple_of(8) {
            for edge in (at + 2..at + len).step_by(4) {
                move_number(frame, edge, shift);
            }
        }
        at += len;
    }
}

/// Changes fields of the TCP header, and adjusts the checksum. A partial one does not cover them yet.
fn change<F: Wire>(
    frame: &mut [u8],
    packet: &Packet<F>,
    offload: &Offload,
    change: impl FnOnce(&mut [u8]),
) {
    let header = packet.l4()..payload(frame, packet).start;
    let before = checksum::sum(&frame[header.clone()]);
    change(frame);
    if !offload.partial_checksum {
        let after = checksum::sum(&frame[header]);
        let field = packet.l4() + CHECKSUM;
        let delta = Delta::of_word(before, after);
        write_u16(frame, field, checksum::apply(read_u16(frame, field), delta));
    }
}
