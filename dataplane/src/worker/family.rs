//! What differs between IPv4 and IPv6 for a worker.

use crate::packet::Packet;
use crate::packet::icmp::Quote;
use crate::packet::icmp::{self, ErrorKind};
use crate::packet::plain::PlainFamily;
use crate::packet::wire::{IPV6_LEN, read_u16};
use conntrack::{V4, V6};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The IPv6 fragment header's number and length. Source: RFC 8200 §4.5.
const FRAGMENT: u8 = 44;
const FRAGMENT_LEN: usize = 8;

/// A family as the worker's code is generic over it.
pub(super) trait Ip: Quote + PlainFamily {
    /// Bytes of the header that fragments alone have.
    const FRAGMENT_HEADER_LEN: u32;

    /// The address, if it is of this family.
    fn from_ip(address: IpAddr) -> Option<Self::Address>;

    /// The address with only the bits of `mask` (for IPv4 its low 32).
    fn masked(address: Self::Address, mask: u128) -> Self::Address;

    /// Whether it is no address that a packet could be forwarded to: none, or the host's own loopback.
    fn is_nowhere(address: Self::Address) -> bool;

    /// Turns an echo request into its reply, in place. False for anything else.
    fn echo_reply(frame: &mut [u8], packet: &Packet<Self>) -> bool;

    /// Writes a whole frame with an ICMP error about `original` into `scratch`; its length, or `None` where no error
    /// may be sent.
    fn icmp_error(
        scratch: &mut [u8],
        kind: ErrorKind,
        original: &[u8],
        packet: &Packet<Self>,
        source: Self::Address,
        identification: u16,
    ) -> Option<usize>;

    /// What of the protocol, beside addresses and identification, tells datagrams in fragments apart.
    fn fragment_protocol(protocol: u8) -> u8;

    /// Where the part that was fragmented begins in a fragment's frame: behind the header, or the fragment header.
    fn fragmentable(frame: &[u8], packet: &Packet<Self>) -> usize;

    /// Where a later fragment begins in the part that was fragmented, bytes.
    fn fragment_offset(frame: &[u8], packet: &Packet<Self>) -> usize;
}

impl Ip for V4 {
    const FRAGMENT_HEADER_LEN: u32 = 0;

    fn from_ip(address: IpAddr) -> Option<Self::Address> {
        match address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        }
    }

    #[allow(clippy::cast_possible_truncation, reason = "the low bits are meant")]
    fn masked(address: Self::Address, mask: u128) -> Self::Address {
        Ipv4Addr::from_bits(address.to_bits() & mask as u32)
    }

    fn is_nowhere(address: Self::Address) -> bool {
        address.is_unspecified() || address.is_loopback()
    }

    fn echo_reply(frame: &mut [u8], packet: &Packet<V4>) -> bool {
        icmp::echo_reply_v4(frame, packet)
    }

    fn icmp_error(
        scratch: &mut [u8],
        kind: ErrorKind,
        original: &[u8],
        packet: &Packet<V4>,
        source: Self::Address,
        identification: u16,
    ) -> Option<usize> {
        icmp::error_v4(scratch, kind, original, packet, source, identification)
    }

    fn fragment_protocol(protocol: u8) -> u8 {
        protocol
    }

    fn fragmentable(_: &[u8], packet: &Packet<V4>) -> usize {
        packet.l4()
    }

    fn fragment_offset(frame: &[u8], packet: &Packet<V4>) -> usize {
        usize::from(read_u16(frame, packet.l3() + 6) & 0x1fff) * 8
    }
}

impl Ip for V6 {
    const FRAGMENT_HEADER_LEN: u32 = 8;

    fn from_ip(address: IpAddr) -> Option<Self::Address> {
        match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => Some(address),
        }
    }

    fn masked(address: Self::Address, mask: u128) -> Self::Address {
        Ipv6Addr::from_bits(address.to_bits() & mask)
    }

    fn is_nowhere(address: Self::Address) -> bool {
        address.is_unspecified() || address.is_loopback()
    }

    fn echo_reply(frame: &mut [u8], packet: &Packet<V6>) -> bool {
        icmp::echo_reply_v6(frame, packet)
    }

    fn icmp_error(
        scratch: &mut [u8],
        kind: ErrorKind,
        original: &[u8],
        packet: &Packet<V6>,
        source: Self::Address,
        _: u16,
    ) -> Option<usize> {
        icmp::error_v6(scratch, kind, original, packet, source)
    }

    fn fragment_protocol(_: u8) -> u8 {
        0
    }

    fn fragmentable(frame: &[u8], packet: &Packet<V6>) -> usize {
        let mut at = packet.l3() + IPV6_LEN;
        let mut next = frame[packet.l3() + 6];
        while next != FRAGMENT && at < packet.l4() {
            next = frame[at];
            at += (usize::from(frame[at + 1]) + 1) * 8;
        }
        at + FRAGMENT_LEN
    }

    fn fragment_offset(frame: &[u8], packet: &Packet<V6>) -> usize {
        // A later fragment's payload follows the fragment header.
        usize::from(read_u16(frame, packet.l4() - FRAGMENT_LEN + 2) & 0xfff8)
    }
}
