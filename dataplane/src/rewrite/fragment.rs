//! IPv4 fragmentation.

use crate::packet::wire::{ETHERNET_LEN, IPV4_LEN, read_u16, write_ipv4_checksum, write_u16};

/// The identification's neighbour: reserved, don't fragment, more fragments, and 13 bits of offset.
const DONT_FRAGMENT: u16 = 0x4000;
const MORE: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;

/// Bytes of the longest Ethernet and IPv4 header.
const LONGEST_HEADERS: usize = ETHERNET_LEN + 60;

/// Cuts an IPv4 packet into fragments with IP packets of at most `mtu` bytes. Each is built in `scratch` and handed to
/// `emit`; the count is returned. A fragment is fragmented again: offsets count on from its own, and the last piece
/// keeps its "more fragments". A packet that fits is emitted as it is, without Ethernet padding.
///
/// Options that are not to be copied (RFC 791 §3.1) become no-operations in all but the first fragment, so that all
/// headers have the same length. A partial checksum must have been completed before.
///
/// Nothing is emitted, and 0 returned, when it must not or cannot be cut: not a valid IPv4 packet, DF, an MTU without
/// room for eight bytes of payload, or `scratch` shorter than an Ethernet header and `mtu` (or the packet).
///
/// Source: RFC 791 §3.2, Linux net/ipv4/ip_output.c (`ip_do_fragment`).
pub fn fragment_ipv4(
    frame: &[u8],
    mtu: usize,
    scratch: &mut [u8],
    emit: &mut dyn FnMut(&mut [u8]),
) -> usize {
    let l3 = ETHERNET_LEN;
    let Some(header) = frame.get(l3..).and_then(<[u8]>::first_chunk::<IPV4_LEN>) else {
        return 0;
    };
    let header_len = usize::from(header[0] & 0x0f) * 4;
    let total_len = usize::from(read_u16(header, 2));
    let flags_and_offset = read_u16(header, 6);
    let payload = l3 + header_len;
    let end = l3 + total_len;
    if header[0] >> 4 != 4 || header_len < IPV4_LEN || total_len < header_len || end > frame.len() {
        return 0;
    }
    if scratch.len() < l3 + total_len.min(mtu) {
        return 0;
    }
    if total_len <= mtu {
        scratch[..end].copy_from_slice(&frame[..end]);
        emit(&mut scratch[..end]);
        return 1;
    }
    let room = mtu.saturating_sub(header_len) & !7;
    if room == 0 || flags_and_offset & DONT_FRAGMENT != 0 {
        return 0;
    }
    let first_offset = flags_and_offset & OFFSET;
    let data = &frame[payload..end];
    let count = data.len().div_ceil(room);
    let mut headers = [0; LONGEST_HEADERS];
    headers[..payload].copy_from_slice(&frame[..payload]);
    for (index, part) in data.chunks(room).enumerate() {
        let last = index + 1 == count;
        let units = u16::try_from(index * room / 8).expect("less than a datagram");
        let more = if last { flags_and_offset & MORE } else { MORE };
        let end = payload + part.len();
        let fragment = &mut scratch[..end];
        fragment[..payload].copy_from_slice(&headers[..payload]);
        fragment[payload..].copy_from_slice(part);
        write_u16(
            fragment,
            l3 + 2,
            u16::try_from(end - l3).expect("part of a datagram"),
        );
        // A datagram that would reach beyond 64 KiB is none that `parse` lets through.
        write_u16(
            fragment,
            l3 + 6,
            more | (first_offset.wrapping_add(units) & OFFSET),
        );
        write_ipv4_checksum(fragment, l3);
        emit(fragment);
        if index == 0 {
            keep_copied_options(&mut headers[l3 + IPV4_LEN..payload]);
        }
    }
    count
}

/// Turns options without the copied flag into no-operations.
fn keep_copied_options(options: &mut [u8]) {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const COPIED: u8 = 0x80;
    let mut at = 0;
    while at < options.len() {
        let kind = options[at];
        if kind == END {
            return;
        }
        let len = match options.get(at + 1) {
            _ if kind == NO_OPERATION => 1,
            Some(&len) if len >= 2 && at + usize::from(len) <= options.len() => usize::from(len),
            // Malformed: what follows cannot be told apart, so nothing of it goes on.
            _ => {
                options[at..].fill(NO_OPERATION);
                return;
            }
        };
        if kind & COPIED == 0 {
            options[at..at + len].fill(NO_OPERATION);
        }
        at += len;
    }
}
