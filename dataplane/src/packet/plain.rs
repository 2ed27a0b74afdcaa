//! Packets as nearly all are: IPv4 without options or IPv6 without extensions, no fragment, TCP or UDP, and no shorter than
//! with TCP's header. All offsets are known beforehand, so that such a packet is read in a fraction of the instructions that
//! `parse` needs for any packet.

use super::wire::{ETHERNET_LEN, IPV4_LEN, IPV6_LEN, TCP, TCP_LEN, UDP, UDP_LEN, Wire};
use super::wire::{read_array, read_u16, read_u32};
use super::{Fragment, Packet, TcpFlags, Tuple, V4, V6};
use std::net::Ipv6Addr;

const VERSION_4_WITHOUT_OPTIONS: u8 = 0x45;
/// "More fragments", and the offset.
const FRAGMENT: u16 = 0x3fff;
const DONT_FRAGMENT: u16 = 0x4000;

/// What is read of a plain packet.
#[derive(Clone, Copy, Debug)]
pub struct Plain<F: Wire> {
    /// Addresses, ports and transport protocol: TCP or UDP.
    pub tuple: Tuple<F>,
    /// The end of the IP packet, bytes from the start of the frame.
    pub end: u32,
    /// TTL or hop limit as received.
    pub ttl: u8,
    /// The flags of a TCP header; 0 for UDP.
    pub tcp_flags: TcpFlags,
}

/// A family whose plain packets are known.
pub trait PlainFamily: Wire {
    /// Where the transport header of a plain packet is, bytes from the start of the frame.
    const L4: usize = ETHERNET_LEN + Self::HEADER_LEN;

    /// The tuple of the packet in a frame with this family's `EtherType`, if it is a plain one, which nobody has looked at yet:
    /// what its bucket is asked for by, while there is something else to do. `None`: it is too short for one.
    fn guess(frame: &[u8]) -> Option<Tuple<Self>>;

    /// Whether the packet in a frame with this family's `EtherType` is a plain one, not from port 0, with nothing wrong about
    /// it but perhaps its source. False says nothing: [`parse`](super::parse) finds out.
    fn is_plain(frame: &[u8]) -> bool;

    /// Whether the source of a plain packet is none that no packet may have. No connection is of such a one.
    fn may_speak(frame: &[u8]) -> bool;

    /// What the headers of a plain packet say. `None`: the frame is too short for one.
    fn read(frame: &[u8]) -> Option<Plain<Self>>;

    /// The same as [`parse`](super::parse) reads of it, from its frame.
    fn whole(frame: &[u8], plain: &Plain<Self>) -> Packet<Self>;
}

/// Headers of a plain packet, of which UDP's is followed by bytes that do not matter.
const HEADERS_V4: usize = ETHERNET_LEN + IPV4_LEN + TCP_LEN;
const HEADERS_V6: usize = ETHERNET_LEN + IPV6_LEN + TCP_LEN;

impl PlainFamily for V4 {
    #[inline(always)]
    fn guess(frame: &[u8]) -> Option<Tuple<V4>> {
        Some(Self::tuple(frame.first_chunk::<HEADERS_V4>()?))
    }

    #[inline(always)]
    fn is_plain(frame: &[u8]) -> bool {
        let Some(headers) = frame.first_chunk::<HEADERS_V4>() else {
            return false;
        };
        let end = ETHERNET_LEN + usize::from(read_u16(headers, ETHERNET_LEN + 2));
        headers[ETHERNET_LEN] == VERSION_4_WITHOUT_OPTIONS
            && read_u16(headers, ETHERNET_LEN + 6) & FRAGMENT == 0
            && end <= frame.len()
            && is_sound(headers)
            && has_transport::<V4, HEADERS_V4>(headers, headers[ETHERNET_LEN + 9], end)
    }

    fn may_speak(frame: &[u8]) -> bool {
        may_speak(read_u32(frame, ETHERNET_LEN + Self::SOURCE))
    }

    #[inline(always)]
    fn read(frame: &[u8]) -> Option<Plain<V4>> {
        let headers = frame.first_chunk::<HEADERS_V4>()?;
        Some(Plain {
            tuple: Self::tuple(headers),
            end: short(ETHERNET_LEN + usize::from(read_u16(headers, ETHERNET_LEN + 2))),
            ttl: headers[ETHERNET_LEN + Self::TTL],
            tcp_flags: tcp_flags::<V4, HEADERS_V4>(headers, headers[ETHERNET_LEN + 9]),
        })
    }

    fn whole(frame: &[u8], plain: &Plain<V4>) -> Packet<V4> {
        Packet {
            tos: frame[ETHERNET_LEN + 1],
            dont_fragment: read_u16(frame, ETHERNET_LEN + 6) & DONT_FRAGMENT != 0,
            fragment_id: u32::from(read_u16(frame, ETHERNET_LEN + 4)),
            ..common(plain)
        }
    }
}

impl PlainFamily for V6 {
    #[inline(always)]
    fn guess(frame: &[u8]) -> Option<Tuple<V6>> {
        Some(Self::tuple(frame.first_chunk::<HEADERS_V6>()?))
    }

    #[inline(always)]
    fn is_plain(frame: &[u8]) -> bool {
        let Some(headers) = frame.first_chunk::<HEADERS_V6>() else {
            return false;
        };
        let end = Self::L4 + usize::from(read_u16(headers, ETHERNET_LEN + 4));
        headers[ETHERNET_LEN] >> 4 == 6
            && end <= frame.len()
            && has_transport::<V6, HEADERS_V6>(headers, headers[ETHERNET_LEN + 6], end)
    }

    fn may_speak(frame: &[u8]) -> bool {
        let source = Ipv6Addr::from(read_array::<16>(frame, ETHERNET_LEN + Self::SOURCE));
        !source.is_multicast() && source.to_bits() > 1
    }

    #[inline(always)]
    fn read(frame: &[u8]) -> Option<Plain<V6>> {
        let headers = frame.first_chunk::<HEADERS_V6>()?;
        Some(Plain {
            tuple: Self::tuple(headers),
            end: short(Self::L4 + usize::from(read_u16(headers, ETHERNET_LEN + 4))),
            ttl: headers[ETHERNET_LEN + Self::TTL],
            tcp_flags: tcp_flags::<V6, HEADERS_V6>(headers, headers[ETHERNET_LEN + 6]),
        })
    }

    fn whole(frame: &[u8], plain: &Plain<V6>) -> Packet<V6> {
        Packet {
            tos: V6::tos(frame, ETHERNET_LEN),
            dont_fragment: true,
            fragment_id: 0,
            ..common(plain)
        }
    }
}

trait Headers<const LEN: usize>: Wire {
    /// What the headers say of who speaks to whom.
    fn tuple(headers: &[u8; LEN]) -> Tuple<Self>;
}

impl Headers<HEADERS_V4> for V4 {
    #[inline(always)]
    fn tuple(headers: &[u8; HEADERS_V4]) -> Tuple<V4> {
        Tuple {
            source: Self::read_address(headers, ETHERNET_LEN + Self::SOURCE),
            destination: Self::read_address(headers, ETHERNET_LEN + Self::DESTINATION),
            source_port: read_u16(headers, Self::L4),
            destination_port: read_u16(headers, Self::L4 + 2),
            protocol: headers[ETHERNET_LEN + 9],
        }
    }
}

impl Headers<HEADERS_V6> for V6 {
    #[inline(always)]
    fn tuple(headers: &[u8; HEADERS_V6]) -> Tuple<V6> {
        Tuple {
            source: Self::read_address(headers, ETHERNET_LEN + Self::SOURCE),
            destination: Self::read_address(headers, ETHERNET_LEN + Self::DESTINATION),
            source_port: read_u16(headers, Self::L4),
            destination_port: read_u16(headers, Self::L4 + 2),
            protocol: headers[ETHERNET_LEN + 6],
        }
    }
}

fn common<F: PlainFamily>(plain: &Plain<F>) -> Packet<F> {
    #[allow(clippy::cast_possible_truncation, reason = "headers are short")]
    Packet {
        tuple: plain.tuple,
        l3: ETHERNET_LEN as u16,
        l4: F::L4 as u16,
        end: plain.end,
        ttl: plain.ttl,
        tos: 0,
        tcp_flags: plain.tcp_flags,
        fragment: Fragment::None,
        dont_fragment: false,
        fragment_id: 0,
    }
}

#[inline]
#[allow(
    clippy::cast_possible_truncation,
    reason = "the sum of two headers and 65535 at most"
)]
fn short(end: usize) -> u32 {
    end as u32
}

/// Whether there is a whole header of TCP or UDP, and a port that it comes from.
#[inline(always)]
fn has_transport<F: PlainFamily, const LEN: usize>(
    headers: &[u8; LEN],
    protocol: u8,
    end: usize,
) -> bool {
    let has_room = match protocol {
        TCP => {
            let header_len = usize::from(headers[F::L4 + 12] >> 4) * 4;
            header_len >= TCP_LEN && F::L4 + header_len <= end
        }
        UDP => {
            let len = usize::from(read_u16(headers, F::L4 + 4));
            len >= UDP_LEN && F::L4 + len <= end
        }
        _ => false,
    };
    has_room && read_u16(headers, F::L4) != 0
}

/// The flags of a TCP header, or none of UDP's.
#[inline(always)]
fn tcp_flags<F: PlainFamily, const LEN: usize>(headers: &[u8; LEN], protocol: u8) -> TcpFlags {
    match protocol {
        TCP => TcpFlags(headers[F::L4 + 13]),
        _ => TcpFlags::default(),
    }
}

/// Whether the IP header's checksum is right: the sum of its words, in any order of bytes, is one of zero's spellings.
#[inline]
fn is_sound(headers: &[u8; HEADERS_V4]) -> bool {
    let word = |at: usize| u64::from(u32::from_ne_bytes(read_array(headers, ETHERNET_LEN + at)));
    let sum = word(0) + word(4) + word(8) + word(12) + word(16);
    // Folding keeps the remainder by 0xffff, which the compiler finds by multiplication.
    sum.is_multiple_of(0xffff)
}

/// Whether a source is none that no packet may have: nowhere, loopback, a group or everybody.
///
/// Source: RFC 1122 §3.2.1.3.
#[inline]
fn may_speak(source: u32) -> bool {
    source != 0 && source != u32::MAX && source >> 24 != 127 && source >> 28 != 0xe
}
