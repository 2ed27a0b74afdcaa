//! What a frame is: parsed headers, checksums, ICMP, ARP and neighbour discovery.

pub mod arp;
pub mod checksum;
pub mod crc32c;
pub mod icmp;
pub mod ndp;
mod parse;
pub mod plain;
pub mod reset;
#[cfg(test)]
pub(crate) mod sample;
pub mod sctp;
#[cfg(test)]
mod tests;
pub mod wire;

pub use conntrack::{Family, TcpFlags, Tuple, V4, V6};
pub use parse::parse;

use crate::reason::Reason;

/// What [`parse()`] makes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A valid IPv4 packet.
    Ipv4(Packet<V4>),
    /// A valid IPv6 packet.
    Ipv6(Packet<V6>),
    /// ARP; see [`arp::parse`].
    Arp,
    /// An EtherType that is not the director's business: the exception path.
    Other,
    /// Nothing that may be forwarded.
    Drop(Reason),
}

/// Which part of a datagram a packet is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fragment {
    /// All of it (an IPv6 "atomic fragment" included).
    #[default]
    None,
    /// Its beginning, with the whole transport header.
    First,
    /// A later part, without transport header: the ports are 0, and for IPv6 the protocol is what the fragment header
    /// says.
    Later,
}

/// Where a packet's headers are and what they say. Offsets are bytes from the start of the frame; all that they name
/// lies inside the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<F: Family> {
    /// Addresses, ports (0 where there are none) and transport protocol.
    pub tuple: Tuple<F>,
    /// The IP header.
    pub l3: u16,
    /// The transport header; in a later fragment, the payload.
    pub l4: u16,
    /// The end of the IP datagram: what follows is Ethernet padding.
    pub end: u32,
    /// TTL or hop limit as received.
    pub ttl: u8,
    /// TOS or traffic class.
    pub tos: u8,
    /// The flags of a TCP header; 0 for other protocols and in later fragments.
    pub tcp_flags: TcpFlags,
    /// Which part of its datagram it is.
    pub fragment: Fragment,
    /// Routers must not fragment it: IPv4's DF bit; always for IPv6.
    pub dont_fragment: bool,
    /// The IPv4 identification, or that of an IPv6 fragment header (0 without).
    pub fragment_id: u32,
}

impl<F: Family> Packet<F> {
    /// `l3` as an index.
    #[inline]
    #[must_use]
    pub const fn l3(&self) -> usize {
        self.l3 as usize
    }

    /// `l4` as an index.
    #[inline]
    #[must_use]
    pub const fn l4(&self) -> usize {
        self.l4 as usize
    }

    /// `end` as an index.
    #[inline]
    #[must_use]
    pub const fn end(&self) -> usize {
        self.end as usize
    }
}
