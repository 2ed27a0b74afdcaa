//! What stands between a tunnel's outer IP header and the packet inside: nothing, GRE, or UDP and GUE.
//!
//! ```text
//!   ipip   outer IP │ inner IP …
//!   gre    outer IP │ GRE 4: flags, EtherType │ checksum 2, zero 2 (full) │ inner IP …
//!   gue    outer IP │ UDP 8 │ GUE 4: version and length 0, protocol, flags 0 │ inner IP …
//! ```

use crate::packet::wire::{GRE, UDP, UDP_LEN, Wire, write_u16, write_u32};
use crate::packet::{Fragment, Packet, checksum};

/// Bytes of a GRE header without checksum, and of the checksum with the zero behind it.
const GRE_LEN: usize = 4;
const GRE_CHECKSUM_LEN: usize = 4;
/// The GRE flag that tells of a checksum.
const GRE_CHECKSUM: u16 = 0x8000;
/// Bytes of a GUE header without optional fields.
const GUE_LEN: usize = 4;

/// The longest there is.
pub(super) const LARGEST: usize = UDP_LEN + GUE_LEN;

/// How a packet is wrapped below the outer IP header.
///
/// Source: Linux net/netfilter/ipvs/ip_vs_xmit.c (`ipvs_gre_encap`, `ipvs_gue_encap`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encapsulation {
    /// Not at all: IP in IP.
    #[default]
    Ipip,
    /// Generic routing encapsulation. Source: RFC 2784.
    Gre {
        /// A checksum over header and packet.
        checksum: bool,
    },
    /// Generic UDP encapsulation, variant 0. The source port is made from the flow inside, so that the path and the
    /// real server spread flows; the checksum of 0 that says "none" is sent over IPv6 too (RFC 6935).
    ///
    /// Source: draft-ietf-intarea-gue.
    ///
    /// Differs from IPVS: there is no remote checksum offload option. The kernel too sends one only for packets whose
    /// own checksum is not finished, and a full checksum for all others; here every packet in a tunnel is finished.
    /// Differs from IPVS: source ports are 49152 to 65535, as RFC 6335 §6 has them, and not of
    /// `net.ipv4.ip_local_port_range`.
    Gue {
        /// UDP port at the real server.
        port: u16,
        /// A UDP checksum over header and packet.
        checksum: bool,
    },
}

impl Encapsulation {
    /// Bytes between the outer IP header and the packet.
    #[inline]
    #[must_use]
    pub const fn header_len(self) -> usize {
        match self {
            Encapsulation::Ipip => 0,
            Encapsulation::Gre { checksum: false } => GRE_LEN,
            Encapsulation::Gre { checksum: true } => GRE_LEN + GRE_CHECKSUM_LEN,
            Encapsulation::Gue { .. } => UDP_LEN + GUE_LEN,
        }
    }
}

/// The header between, apart from the buffer it goes into.
#[derive(Clone, Copy, Debug)]
pub(super) struct Between {
    encapsulation: Encapsulation,
    /// The packet inside, as an IP payload.
    inner_protocol: u8,
    /// The packet inside, as an Ethernet payload.
    inner_ether_type: u16,
    /// Of GUE; else 0.
    source_port: u16,
}

impl Between {
    #[inline]
    pub(super) fn new<F: Wire>(packet: &Packet<F>, encapsulation: Encapsulation) -> Between {
        let source_port = match encapsulation {
            Encapsulation::Gue { .. } => source_port(packet),
            _ => 0,
        };
        Between {
            encapsulation,
            inner_protocol: F::AS_PAYLOAD,
            inner_ether_type: F::ETHER_TYPE,
            source_port,
        }
    }

    /// What the outer IP header says of its payload.
    #[inline]
    pub(super) fn protocol(&self) -> u8 {
        match self.encapsulation {
            Encapsulation::Ipip => self.inner_protocol,
            Encapsulation::Gre { .. } => GRE,
            Encapsulation::Gue { .. } => UDP,
        }
    }

    /// Writes it at `at`, in front of the packet, which reaches to the end of the frame. The addresses are the outer.
    #[inline]
    pub(super) fn write<O: Wire>(
        &self,
        frame: &mut [u8],
        at: usize,
        source: O::Address,
        destination: O::Address,
    ) {
        match self.encapsulation {
            Encapsulation::Ipip => {}
            Encapsulation::Gre { checksum } => {
                write_u16(frame, at, if checksum { GRE_CHECKSUM } else { 0 });
                write_u16(frame, at + 2, self.inner_ether_type);
                if checksum {
                    write_u32(frame, at + GRE_LEN, 0);
                    let checksum = !checksum::sum(&frame[at..]);
                    write_u16(frame, at + GRE_LEN, checksum);
                }
            }
            Encapsulation::Gue { port, checksum } => {
                let end = frame.len();
                let len = u16::try_from(end - at).expect("the outer IP header holds the length");
                write_u16(frame, at, self.source_port);
                write_u16(frame, at + 2, port);
                write_u16(frame, at + 4, len);
                write_u16(frame, at + 6, 0);
                write_u32(frame, at + UDP_LEN, u32::from(self.inner_protocol) << 16);
                if checksum {
                    checksum::write_udp::<O>(frame, source, destination, at, end);
                }
            }
        }
    }
}

/// A port that tells flows apart: of the dynamic ones, the same for every packet of a flow. Fragments have no ports to
/// go by, and all of a datagram take one way.
#[inline]
fn source_port<F: Wire>(packet: &Packet<F>) -> u16 {
    let tuple = &packet.tuple;
    let ports = match packet.fragment {
        Fragment::None => u64::from(tuple.source_port) << 16 | u64::from(tuple.destination_port),
        Fragment::First | Fragment::Later => 0,
    };
    let source = u64::from(F::address_sum(tuple.source));
    let addresses = source << 16 | u64::from(F::address_sum(tuple.destination));
    // Multiplied by 2⁶⁴ divided by the golden ratio, the highest bits depend on all of the factor's.
    let hash = (addresses << 32 | (addresses ^ ports)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    #[allow(clippy::cast_possible_truncation, reason = "14 bits are left")]
    let low = (hash >> 50) as u16;
    0xc000 | low
}
