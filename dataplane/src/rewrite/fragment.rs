//! Fragmentation: of IPv4 packets, and of the outer IPv6 packets of tunnels.

use crate::packet::wire::{
    ETHER_TYPE_IPV6, ETHERNET_LEN, IPV4_LEN, IPV6_LEN, read_u16, write_ipv4_checksum, write_u16,
    write_u32,
};

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

/// The IPv6 fragment header's number and length. Source: RFC 8200 §4.5.
const FRAGMENT_HEADER: u8 = 44;
const FRAGMENT_HEADER_LEN: usize = 8;

/// As [`fragment_ipv4`], of an IPv6 packet without extension headers that the director itself made; `id` is the datagram's
/// identification. Nothing is emitted, and 0 returned, when it is no such packet, or the MTU or `scratch` have no room.
///
/// Source: RFC 8200 §4.5, Linux net/ipv6/ip6_output.c (`ip6_fragment`).
pub fn fragment_ipv6(
    frame: &[u8],
    mtu: usize,
    id: u32,
    scratch: &mut [u8],
    emit: &mut dyn FnMut(&mut [u8]),
) -> usize {
    let l3 = ETHERNET_LEN;
    let payload = l3 + IPV6_LEN;
    let Some(header) = frame.get(l3..payload) else {
        return 0;
    };
    let next = header[6];
    let Some(data) = frame.get(payload..payload + usize::from(read_u16(header, 4))) else {
        return 0;
    };
    let room = mtu.saturating_sub(IPV6_LEN + FRAGMENT_HEADER_LEN) & !7;
    if header[0] >> 4 != 6 || room == 0 || scratch.len() < l3 + mtu {
        return 0;
    }
    let count = data.chunks(room).len();
    let begin = payload + FRAGMENT_HEADER_LEN;
    for (index, part) in data.chunks(room).enumerate() {
        let fragment = &mut scratch[..begin + part.len()];
        fragment[..payload].copy_from_slice(&frame[..payload]);
        let len = u16::try_from(FRAGMENT_HEADER_LEN + part.len()).expect("less than the MTU");
        write_u16(fragment, l3 + 4, len);
        fragment[l3 + 6] = FRAGMENT_HEADER;
        fragment[payload] = next;
        fragment[payload + 1] = 0;
        let offset = u16::try_from(index * room).expect("less than a datagram");
        write_u16(fragment, payload + 2, offset | u16::from(index + 1 < count));
        write_u32(fragment, payload + 4, id);
        fragment[begin..].copy_from_slice(part);
        emit(fragment);
    }
    count
}

/// Cuts a frame of either family: [`fragment_ipv4`], or [`fragment_ipv6`], which alone needs the identification.
pub fn fragment(
    frame: &[u8],
    mtu: usize,
    id: u32,
    scratch: &mut [u8],
    emit: &mut dyn FnMut(&mut [u8]),
) -> usize {
    let is_ipv6 = frame.get(12..14) == Some(ETHER_TYPE_IPV6.to_be_bytes().as_slice());
    if is_ipv6 {
        fragment_ipv6(frame, mtu, id, scratch, emit)
    } else {
        fragment_ipv4(frame, mtu, scratch, emit)
    }
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
