//! Where the headers keep what: offsets, protocol numbers, and the little that differs between the families.

use super::checksum::{self, Delta};
use super::{Family, V4, V6};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Bytes of an Ethernet header without tags.
pub const ETHERNET_LEN: usize = 14;
/// Bytes of an IPv4 header without options.
pub const IPV4_LEN: usize = 20;
/// Bytes of an IPv6 header without extension headers.
pub const IPV6_LEN: usize = 40;
/// Bytes of a TCP header without options.
pub const TCP_LEN: usize = 20;
/// Bytes of a UDP header.
pub const UDP_LEN: usize = 8;
/// Bytes of an SCTP common header.
pub const SCTP_LEN: usize = 12;
/// Bytes of an ICMP or ICMPv6 header, the word after the checksum included.
pub const ICMP_LEN: usize = 8;

/// EtherType of IPv4.
pub const ETHER_TYPE_IPV4: u16 = 0x0800;
/// EtherType of ARP.
pub const ETHER_TYPE_ARP: u16 = 0x0806;
/// EtherType of an 802.1Q tag.
pub const ETHER_TYPE_VLAN: u16 = 0x8100;
/// EtherType of an 802.1ad tag.
pub const ETHER_TYPE_QINQ: u16 = 0x88a8;
/// EtherType of IPv6.
pub const ETHER_TYPE_IPV6: u16 = 0x86dd;

/// Protocol number of ICMP.
pub const ICMP: u8 = 1;
/// Protocol number of IPv4 inside IP.
pub const IPIP: u8 = 4;
/// Protocol number of TCP.
pub const TCP: u8 = 6;
/// Protocol number of UDP.
pub const UDP: u8 = 17;
/// Protocol number of IPv6 inside IP.
pub const IPV6: u8 = 41;
/// Protocol number of GRE.
pub const GRE: u8 = 47;
/// Protocol number of ICMPv6.
pub const ICMPV6: u8 = 58;
/// Protocol number of SCTP.
pub const SCTP: u8 = 132;

/// Where the transport header of `protocol` keeps its checksum, bytes from its start; `None` for a protocol whose
/// checksum a change of addresses does not touch.
#[inline]
#[must_use]
pub const fn checksum_offset(protocol: u8) -> Option<usize> {
    match protocol {
        TCP => Some(16),
        UDP => Some(6),
        SCTP => Some(8),
        ICMPV6 => Some(2),
        _ => None,
    }
}

/// Whether the transport header of `protocol` begins with a source and a destination port.
#[inline]
#[must_use]
pub const fn has_ports(protocol: u8) -> bool {
    matches!(protocol, TCP | UDP | SCTP)
}

/// A family's header as it stands in a frame. Offsets are in bytes from the start of the IP header; every `l3` is
/// the offset of that header in the frame.
///
/// # Panics
/// The functions panic when the header is not inside the frame; after `parse` it is.
pub trait Wire: Family {
    /// The EtherType.
    const ETHER_TYPE: u16;
    /// Its protocol number where it is the payload of another IP packet.
    const AS_PAYLOAD: u8;
    /// The protocol number of its ICMP.
    const ICMP: u8;
    /// Bytes of the header without options and extensions.
    const HEADER_LEN: usize;
    /// Where the source address is.
    const SOURCE: usize;
    /// Where the destination address is.
    const DESTINATION: usize;
    /// Where the TTL or hop limit is.
    const TTL: usize;

    /// Reads an address at `at` bytes from the start of `bytes`.
    fn read_address(bytes: &[u8], at: usize) -> Self::Address;

    /// Writes an address at `at` bytes from the start of `bytes`.
    fn write_address(bytes: &mut [u8], at: usize, address: Self::Address);

    /// The one's complement sum of an address's 16-bit words.
    fn address_sum(address: Self::Address) -> u16;

    /// Adds a change of header fields to the header checksum; nothing to do where there is none.
    fn adjust_header(frame: &mut [u8], l3: usize, delta: Delta);

    /// Adjusts the header checksum to a TTL that went down by one; nothing to do where there is none.
    fn count_hop(frame: &mut [u8], l3: usize);

    /// Makes the header checksum anew (IPv4; nothing for IPv6).
    fn renew_header(frame: &mut [u8], l3: usize);

    /// TOS or traffic class.
    fn tos(frame: &[u8], l3: usize) -> u8;

    /// Gives the header the length of a datagram of `len` bytes (header included, at most 65535), counts
    /// an IPv4 identification up by `step`, and makes the header checksum anew.
    fn resize(frame: &mut [u8], l3: usize, len: usize, step: u16);

    /// The sum of the pseudo-header that an ICMP message's checksum covers: 0 for IPv4, which has none there.
    fn icmp_pseudo_header(source: Self::Address, destination: Self::Address, len: u32) -> u16;
}

impl Wire for V4 {
    const ETHER_TYPE: u16 = ETHER_TYPE_IPV4;
    const AS_PAYLOAD: u8 = IPIP;
    const ICMP: u8 = ICMP;
    const HEADER_LEN: usize = IPV4_LEN;
    const SOURCE: usize = 12;
    const DESTINATION: usize = 16;
    const TTL: usize = 8;

    #[inline]
    fn read_address(bytes: &[u8], at: usize) -> Ipv4Addr {
        Ipv4Addr::from(read_array::<4>(bytes, at))
    }

    #[inline]
    fn write_address(bytes: &mut [u8], at: usize, address: Ipv4Addr) {
        bytes[at..at + 4].copy_from_slice(&address.octets());
    }

    #[inline]
    fn address_sum(address: Ipv4Addr) -> u16 {
        checksum::sum(&address.octets())
    }

    #[inline]
    fn adjust_header(frame: &mut [u8], l3: usize, delta: Delta) {
        let old = read_u16(frame, l3 + 10);
        write_u16(frame, l3 + 10, checksum::apply(old, delta));
    }

    #[inline]
    fn count_hop(frame: &mut [u8], l3: usize) {
        let field = checksum::apply_hop(read_array(frame, l3 + 10));
        frame[l3 + 10..l3 + 12].copy_from_slice(&field);
    }

    fn renew_header(frame: &mut [u8], l3: usize) {
        write_ipv4_checksum(frame, l3);
    }

    #[inline]
    fn tos(frame: &[u8], l3: usize) -> u8 {
        frame[l3 + 1]
    }

    fn resize(frame: &mut [u8], l3: usize, len: usize, step: u16) {
        write_u16(frame, l3 + 2, u16::try_from(len).expect("at most 65535"));
        let id = read_u16(frame, l3 + 4).wrapping_add(step);
        write_u16(frame, l3 + 4, id);
        write_ipv4_checksum(frame, l3);
    }

    #[inline]
    fn icmp_pseudo_header(_: Ipv4Addr, _: Ipv4Addr, _: u32) -> u16 {
        0
    }
}

impl Wire for V6 {
    const ETHER_TYPE: u16 = ETHER_TYPE_IPV6;
    const AS_PAYLOAD: u8 = IPV6;
    const ICMP: u8 = ICMPV6;
    const HEADER_LEN: usize = IPV6_LEN;
    const SOURCE: usize = 8;
    const DESTINATION: usize = 24;
    const TTL: usize = 7;

    #[inline]
    fn read_address(bytes: &[u8], at: usize) -> Ipv6Addr {
        Ipv6Addr::from(read_array::<16>(bytes, at))
    }

    #[inline]
    fn write_address(bytes: &mut [u8], at: usize, address: Ipv6Addr) {
        bytes[at..at + 16].copy_from_slice(&address.octets());
    }

    #[inline]
    fn address_sum(address: Ipv6Addr) -> u16 {
        checksum::sum(&address.octets())
    }

    #[inline]
    fn adjust_header(_: &mut [u8], _: usize, _: Delta) {}

    #[inline]
    fn count_hop(_: &mut [u8], _: usize) {}

    fn renew_header(_: &mut [u8], _: usize) {}

    #[inline]
    fn tos(frame: &[u8], l3: usize) -> u8 {
        (frame[l3] << 4) | (frame[l3 + 1] >> 4)
    }

    fn resize(frame: &mut [u8], l3: usize, len: usize, _: u16) {
        write_u16(
            frame,
            l3 + 4,
            u16::try_from(len - IPV6_LEN).expect("at most 65535"),
        );
    }

    #[inline]
    fn icmp_pseudo_header(source: Ipv6Addr, destination: Ipv6Addr, len: u32) -> u16 {
        checksum::pseudo_header::<V6>(source, destination, ICMPV6, len)
    }
}

/// Makes the checksum of the IPv4 header at `l3` anew, options included.
///
/// # Panics
/// When the header is not inside the frame.
pub fn write_ipv4_checksum(frame: &mut [u8], l3: usize) {
    let len = usize::from(frame[l3] & 0x0f) * 4;
    write_u16(frame, l3 + 10, 0);
    let checksum = checksum::ipv4_header(&frame[l3..l3 + len]);
    write_u16(frame, l3 + 10, checksum);
}

/// `N` bytes at `at`.
///
/// # Panics
/// When they are not all there, as do the three below.
#[inline]
pub(crate) fn read_array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    *bytes[at..]
        .first_chunk::<N>()
        .expect("the caller checked the length")
}

/// A 16-bit field in network byte order.
#[inline]
pub(crate) fn read_u16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(read_array(bytes, at))
}

/// A 32-bit field in network byte order.
#[inline]
pub(crate) fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(read_array(bytes, at))
}

/// Writes a 16-bit field in network byte order.
#[inline]
pub(crate) fn write_u16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// Writes a 32-bit field in network byte order.
#[inline]
pub(crate) fn write_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
}
