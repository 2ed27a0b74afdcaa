//! TUN: IP in IP, either family in either; directly, in GRE or in GUE.

pub use super::encapsulation::Encapsulation;

use super::encapsulation::{Between, LARGEST};
use crate::frame::{Frame, Gso, Offload};
use crate::packet::wire::{
    self, ETHERNET_LEN, IPV4_LEN, IPV6_LEN, Wire, write_ipv4_checksum, write_u16,
};
use crate::packet::{Packet, V4, V6};
use crate::reason::Reason;
use std::net::{Ipv4Addr, Ipv6Addr};

/// The tunnel's ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outer {
    /// The outer header is IPv4.
    V4 {
        /// The director.
        source: Ipv4Addr,
        /// The real server.
        destination: Ipv4Addr,
    },
    /// The outer header is IPv6.
    V6 {
        /// The director.
        source: Ipv6Addr,
        /// The real server.
        destination: Ipv6Addr,
    },
}

/// The most bytes that a tunnel adds in front of a packet: what a received frame's headroom must hold.
pub const LARGEST_OVERHEAD: usize = IPV6_LEN + LARGEST;

/// How packets reach one real server by TUN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// The ends.
    pub outer: Outer,
    /// The outer IPv4 header of an IPv4 packet says "don't fragment" when the inner does (`pmtu_disc`, on by default).
    pub copy_dont_fragment: bool,
    /// What stands between the outer header and the packet.
    pub encapsulation: Encapsulation,
}

impl Tunnel {
    /// Bytes that the tunnel adds in front of a packet: what the path's MTU is less for the client.
    #[must_use]
    pub const fn overhead(&self) -> usize {
        self.header_len() + self.encapsulation.header_len()
    }

    /// Bytes of the outer IP header.
    const fn header_len(&self) -> usize {
        match self.outer {
            Outer::V4 { .. } => IPV4_LEN,
            Outer::V6 { .. } => IPV6_LEN,
        }
    }
}

/// Puts a packet whose TTL is already decremented into the tunnel: the Ethernet header moves to the front, its padding
/// is cut off, and `packet` no longer describes the frame. The outer header has the inner's TTL, its DSCP and, of its
/// ECN field, all but CE, which becomes ECT(0); the DF bit as [`Tunnel`] says; the identification 0 with DF,
/// else `id`; the IPv6 flow label 0.
///
/// The packet must be complete: the caller has finished a partial checksum and cut a GSO frame.
///
/// Source: RFC 2003, RFC 2473, RFC 2784, RFC 6040 §4.1 (compatibility mode), Linux net/netfilter/ipvs/ip_vs_xmit.c.
///
/// # Errors
/// `TooBig`: no outer length field could hold it. `NoHeadroom`: the buffer has no room in front. The frame's headers
/// are unchanged then.
///
/// # Panics
/// When `packet` is not what `parse` made of this frame.
pub fn encapsulate<F: Wire>(
    frame: &mut Frame,
    packet: &Packet<F>,
    tunnel: &Tunnel,
    id: u16,
) -> Result<(), Reason> {
    debug_assert!(
        !frame.offload.partial_checksum,
        "complete the checksum first"
    );
    debug_assert!(frame.offload.gso == Gso::None, "cut the frame first");
    frame.truncate(packet.end());
    let header = Header::new(frame.bytes(), packet, tunnel, id)?;
    if !frame.prepend(tunnel.overhead()) {
        return Err(Reason::NoHeadroom);
    }
    header.write(frame.bytes_mut());
    frame.offload = Offload::NONE;
    Ok(())
}

/// As [`encapsulate`], from one buffer into another: returns the length of the frame in `out`.
///
/// # Errors
/// `TooBig`: no outer length field could hold it. `NoHeadroom`: `out` is too short.
///
/// # Panics
/// When `packet` is not what `parse` made of this frame.
pub fn encapsulate_copy<F: Wire>(
    frame: &[u8],
    packet: &Packet<F>,
    tunnel: &Tunnel,
    id: u16,
    out: &mut [u8],
) -> Result<usize, Reason> {
    let header = Header::new(frame, packet, tunnel, id)?;
    let overhead = tunnel.overhead();
    let len = overhead + packet.end();
    let out = out.get_mut(..len).ok_or(Reason::NoHeadroom)?;
    out[overhead..].copy_from_slice(&frame[..packet.end()]);
    header.write(out);
    Ok(len)
}

/// An outer header and what follows it, apart from the buffer they go into.
#[derive(Clone, Copy, Debug)]
struct Header {
    outer: Outer,
    between: Between,
    /// Bytes of both.
    overhead: usize,
    tos: u8,
    ttl: u8,
    id: u16,
    dont_fragment: bool,
    /// The header's length field.
    len: u16,
}

impl Header {
    fn new<F: Wire>(
        frame: &[u8],
        packet: &Packet<F>,
        tunnel: &Tunnel,
        id: u16,
    ) -> Result<Header, Reason> {
        let l3 = packet.l3();
        let inner_len = packet.end() - l3;
        let payload_len = tunnel.encapsulation.header_len() + inner_len;
        let len = match tunnel.outer {
            Outer::V4 { .. } => IPV4_LEN + payload_len,
            Outer::V6 { .. } => payload_len,
        };
        let tos = F::tos(frame, l3);
        let dont_fragment =
            tunnel.copy_dont_fragment && packet.dont_fragment && F::AS_PAYLOAD == wire::IPIP;
        Ok(Header {
            outer: tunnel.outer,
            between: Between::new(packet, tunnel.encapsulation),
            overhead: tunnel.overhead(),
            tos: if tos & 3 == 3 { tos & !1 } else { tos },
            ttl: frame[l3 + F::TTL],
            id: if dont_fragment { 0 } else { id },
            dont_fragment,
            len: u16::try_from(len).map_err(|_| Reason::TooBig)?,
        })
    }

    /// Writes it into a frame that was grown at its front by the overhead.
    fn write(&self, frame: &mut [u8]) {
        let l3 = ETHERNET_LEN;
        frame.copy_within(self.overhead..self.overhead + ETHERNET_LEN, 0);
        match self.outer {
            Outer::V4 {
                source,
                destination,
            } => {
                write_u16(frame, 12, wire::ETHER_TYPE_IPV4);
                frame[l3] = 0x45;
                frame[l3 + 1] = self.tos;
                write_u16(frame, l3 + 2, self.len);
                write_u16(frame, l3 + 4, self.id);
                write_u16(frame, l3 + 6, u16::from(self.dont_fragment) << 14);
                frame[l3 + 8] = self.ttl;
                frame[l3 + 9] = self.between.protocol();
                frame[l3 + 12..l3 + 16].copy_from_slice(&source.octets());
                frame[l3 + 16..l3 + 20].copy_from_slice(&destination.octets());
                write_ipv4_checksum(frame, l3);
                self.between
                    .write::<V4>(frame, l3 + IPV4_LEN, source, destination);
            }
            Outer::V6 {
                source,
                destination,
            } => {
                write_u16(frame, 12, wire::ETHER_TYPE_IPV6);
                write_u16(frame, l3, 0x6000 | (u16::from(self.tos) << 4));
                write_u16(frame, l3 + 2, 0);
                write_u16(frame, l3 + 4, self.len);
                frame[l3 + 6] = self.between.protocol();
                frame[l3 + 7] = self.ttl;
                frame[l3 + 8..l3 + 24].copy_from_slice(&source.octets());
                frame[l3 + 24..l3 + 40].copy_from_slice(&destination.octets());
                self.between
                    .write::<V6>(frame, l3 + IPV6_LEN, source, destination);
            }
        }
    }
}
