//! The Internet checksum: made, checked and, above all, adjusted.
//!
//! # The one idea
//! The checksum of a header is the complement of the one's complement sum of its 16-bit words. One's complement
//! addition (add, and add the carry back in) is commutative and associative, has a zero with two spellings (0x0000 and
//! 0xffff) and an inverse (`!x`, since `x + !x` is 0xffff). So when a word `m` becomes `m'`, the sum changes by
//! `!m + m'`, whatever else the packet holds, and a change of many words is the sum of their changes:
//!
//! ```text
//!   HC' = !(!HC + !m + m')            RFC 1624 §3, equation 3
//!         ~~~~~~~~ ~~~~~~~
//!         the sum  a Delta: known when the connection is made, the same for every packet of it
//! ```
//!
//! Three things follow that the rest of the crate relies on:
//! - A packet is translated with one addition per checksum, however long it is. The reply's change is the request's
//!   negated: `!delta`.
//! - A wrong checksum stays exactly as wrong, so that the receiver notices what happened before the director.
//! - A *partial* checksum (a local sender leaves the rest to the NIC) is the sum of the pseudo-header alone, and not
//!   complemented. The same delta is added, but plainly, and only that of the addresses: ports are no part of the
//!   pseudo-header; they are summed when the checksum is completed.
//!
//! Equation 3 in this order never turns a sum that stands for a non-zero header into the other spelling of zero, which
//! is what the older RFC 1141 formula got wrong. Words are in host order after being read as big-endian.
//!
//! Source: RFC 1071, RFC 1624.

use super::crc32c;
use super::wire::{self, Wire, read_u16, write_u16};
use crate::frame::Offload;

/// The one's complement difference of changed fields, to be added to a checksum that covers them.
///
/// `Delta(0)` and `Delta(0xffff)` both mean no change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delta(pub u16);

impl Delta {
    /// No change.
    pub const NONE: Delta = Delta(0);

    /// The change of one 16-bit field, a port for instance.
    #[inline]
    #[must_use]
    pub const fn of_word(old: u16, new: u16) -> Delta {
        Delta(add(!old, new))
    }

    /// The change of several 16-bit words.
    #[must_use]
    pub fn of(old: &[u16], new: &[u16]) -> Delta {
        let old = old.iter().fold(0, |sum, &word| add(sum, word));
        let new = new.iter().fold(0, |sum, &word| add(sum, word));
        Delta::of_word(old, new)
    }

    /// The change of an address.
    #[inline]
    #[must_use]
    pub fn of_address<F: Wire>(old: F::Address, new: F::Address) -> Delta {
        Delta::of_word(F::address_sum(old), F::address_sum(new))
    }

    /// Both changes.
    #[inline]
    #[must_use]
    pub const fn combine(self, other: Delta) -> Delta {
        Delta(add(self.0, other.0))
    }

    /// The change back.
    #[inline]
    #[must_use]
    pub const fn negated(self) -> Delta {
        Delta(!self.0)
    }
}

/// One's complement addition. The carry cannot carry again: a wrapped sum is at most 0xfffe.
#[inline]
const fn add(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    sum.wrapping_add(carry as u16)
}

/// A checksum field after a change of what it covers. Source: RFC 1624 §3 eqn. 3.
#[inline]
#[must_use]
pub const fn apply(checksum: u16, delta: Delta) -> u16 {
    !add(!checksum, delta.0)
}

/// An IPv4 header's checksum field after its TTL went down by one, whatever it was: as [`apply`] of minus 0x0100, in the
/// order of the packet's bytes, in which one's complement sums are right, too. Source: RFC 1071 §2(B), RFC 1624 §3.
#[inline]
#[must_use]
#[allow(clippy::cast_possible_truncation, reason = "the carry was added")]
pub const fn apply_hop(field: [u8; 2]) -> [u8; 2] {
    let sum = u16::from_ne_bytes(field) as u32 + u16::from_ne_bytes([1, 0]) as u32;
    // 0xffff is written as 0.
    ((sum + (sum >= 0xffff) as u32) as u16).to_ne_bytes()
}

/// [`apply`] for UDP, where a result of 0 would say "no checksum" and is sent as 0xffff. Source: RFC 768.
#[inline]
#[must_use]
pub const fn apply_udp(checksum: u16, delta: Delta) -> u16 {
    never_zero(apply(checksum, delta))
}

/// The un-complemented pseudo-header sum of a partial checksum after a change of addresses.
#[inline]
#[must_use]
pub const fn apply_partial(sum: u16, delta: Delta) -> u16 {
    add(sum, delta.0)
}

/// The other spelling of zero.
#[inline]
pub(crate) const fn never_zero(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

/// The one's complement sum of `bytes` as 16-bit words, an odd last byte padded with zero; not complemented.
///
/// Words are added in host order, four bytes at a time into 64 bits, and turned around once at the end, which RFC 1071
/// §2 (B) allows.
#[inline]
#[must_use]
pub fn sum(bytes: &[u8]) -> u16 {
    let (words, rest) = bytes.as_chunks::<4>();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    // No overflow below 16 GiB.
    let mut total = u64::from(u32::from_ne_bytes(last));
    for word in words {
        total += u64::from(u32::from_ne_bytes(*word));
    }
    total = (total >> 32) + (total & 0xffff_ffff);
    total = (total >> 32) + (total & 0xffff_ffff);
    total = (total >> 16) + (total & 0xffff);
    total = (total >> 16) + (total & 0xffff);
    #[allow(
        clippy::cast_possible_truncation,
        reason = "folded above: 16 bits and a carry into them"
    )]
    u16::from_be(total as u16)
}

/// The checksum of an IPv4 header whose checksum field is 0; 0 for a header with a correct one.
#[inline]
#[must_use]
pub fn ipv4_header(header: &[u8]) -> u16 {
    !sum(header)
}

/// The un-complemented sum of a pseudo-header; `len` is that of transport header and payload, bytes.
///
/// Source: RFC 9293 §3.1, RFC 768, RFC 8200 §8.1: for IPv4 and IPv6 the sums have the same parts.
#[must_use]
pub fn pseudo_header<F: Wire>(
    source: F::Address,
    destination: F::Address,
    protocol: u8,
    len: u32,
) -> u16 {
    let [a, b, c, d] = len.to_be_bytes();
    let len = add(u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    add(
        add(F::address_sum(source), F::address_sum(destination)),
        add(len, u16::from(protocol)),
    )
}

/// The checksum over pseudo-header and `bytes` (transport header and payload) whose checksum field is 0; 0 for bytes
/// with a correct one. For UDP a result of 0 is to be sent as 0xffff.
///
/// # Panics
/// When `bytes` are 4 GiB or more.
#[must_use]
pub fn l4<F: Wire>(source: F::Address, destination: F::Address, protocol: u8, bytes: &[u8]) -> u16 {
    let len = u32::try_from(bytes.len()).expect("a packet is shorter than 4 GiB");
    !add(
        pseudo_header::<F>(source, destination, protocol, len),
        sum(bytes),
    )
}

/// The checksum of an ICMP or ICMPv6 message whose checksum field is 0; 0 for a message with a correct one.
///
/// # Panics
/// When the message is 4 GiB or more.
#[must_use]
pub fn icmp<F: Wire>(source: F::Address, destination: F::Address, message: &[u8]) -> u16 {
    let len = u32::try_from(message.len()).expect("a packet is shorter than 4 GiB");
    !add(
        F::icmp_pseudo_header(source, destination, len),
        sum(message),
    )
}

/// Finishes a partial checksum in software, as the NIC would: over everything from `checksum_start` to the end of the
/// frame. Frames with a partial checksum come from a local sender and carry no Ethernet padding. The caller clears
/// `partial_checksum`. A frame without one, or with offsets beyond its end, stays as it is.
///
/// A checksum 8 bytes into its header is SCTP's, a CRC32c: no other protocol has its checksum there.
///
/// Source: Linux net/core/dev.c (`skb_checksum_help`).
pub fn complete(frame: &mut [u8], offload: &Offload) {
    let start = usize::from(offload.checksum_start);
    let field = start + usize::from(offload.checksum_offset);
    if !offload.partial_checksum || field + 2 > frame.len() {
        return;
    }
    if offload.is_partial_crc() {
        // Padding behind the packet adds nothing to a sum, but to a CRC.
        let end = ip_end(frame).clamp(start, frame.len());
        if end - start >= wire::SCTP_LEN {
            crc32c::write(&mut frame[start..end]);
        }
        return;
    }
    // The field itself takes part: it holds the pseudo-header's sum.
    let checksum = never_zero(!sum(&frame[start..]));
    write_u16(frame, field, checksum);
}

/// Where the IP packet ends that the frame carries.
fn ip_end(frame: &[u8]) -> usize {
    let word = |at: usize| {
        frame
            .get(at..at + 2)
            .map_or(0, |word| usize::from(read_u16(word, 0)))
    };
    match word(12) {
        ether_type if ether_type == usize::from(wire::ETHER_TYPE_IPV6) => {
            wire::ETHERNET_LEN + wire::IPV6_LEN + word(18)
        }
        _ => wire::ETHERNET_LEN + word(16),
    }
}

/// Makes the UDP checksum of the datagram at `l4` anew; `end` is where its payload ends.
pub(crate) fn write_udp<F: Wire>(
    frame: &mut [u8],
    source: F::Address,
    destination: F::Address,
    l4_start: usize,
    end: usize,
) {
    write_u16(frame, l4_start + 6, 0);
    let len = usize::from(read_u16(frame, l4_start + 4)).min(end - l4_start);
    let datagram = &frame[l4_start..l4_start + len];
    let checksum = never_zero(l4::<F>(source, destination, wire::UDP, datagram));
    write_u16(frame, l4_start + 6, checksum);
}
