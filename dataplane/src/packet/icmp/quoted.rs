//! ICMP errors about packets the director forwarded: the packet they quote tells which connection they belong to.

use super::super::parse::chain;
use super::super::wire::{self, ICMP_LEN, IPV4_LEN, IPV6_LEN, Wire, read_u16};
use super::super::{Family, Fragment, Packet, TcpFlags, Tuple, V4, V6, checksum};
use crate::reason::Reason;

/// The packet that an ICMP error quotes, as far as it is there. Offsets are bytes from the start of the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quoted<F: Family> {
    /// Its addresses, ports and protocol, as they were on the link where the error arose.
    pub tuple: Tuple<F>,
    /// Its IP header.
    pub l3: u16,
    /// Its transport header. Of TCP, UDP and SCTP at least the ports are there.
    pub l4: u16,
    /// Where the quotation ends.
    pub end: u32,
}

impl<F: Family> Quoted<F> {
    /// Bytes of transport header and payload that are there.
    #[must_use]
    pub fn available(&self) -> usize {
        self.end as usize - usize::from(self.l4)
    }

    /// The quoted packet as if it had come in by itself, to be quoted again by [`error_v4`](super::error_v4) or
    /// [`error_v6`](super::error_v6) (a tunnel's error is passed on to the client this way).
    #[must_use]
    pub fn as_packet(&self, outer: &Packet<F>) -> Packet<F> {
        Packet {
            tuple: self.tuple,
            l3: self.l3,
            l4: self.l4,
            end: self.end,
            tcp_flags: TcpFlags::default(),
            fragment: Fragment::None,
            ..*outer
        }
    }
}

/// A family's way of quoting.
pub trait Quote: Wire {
    /// Whether an ICMP type is an error that a director relays.
    fn is_relayed(kind: u8) -> bool;

    /// Where the transport header of the packet at `l3` is, and its protocol.
    ///
    /// # Errors
    /// See [`parse_quoted`].
    fn quoted_transport(frame: &[u8], l3: usize, end: usize) -> Result<QuotedTransport, Reason>;
}

/// Where a quoted packet's transport header is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotedTransport {
    /// What it is.
    pub protocol: u8,
    /// Where it begins.
    pub l4: usize,
    /// Where the packet would end, were it quoted whole.
    pub end: usize,
}

impl Quote for V4 {
    /// Destination unreachable, source quench, time exceeded. Redirects are for the local link, parameter problems
    /// point at bytes of a packet the director changed.
    fn is_relayed(kind: u8) -> bool {
        matches!(kind, 3 | 4 | 11)
    }

    fn quoted_transport(frame: &[u8], l3: usize, end: usize) -> Result<QuotedTransport, Reason> {
        let header = frame[l3..end]
            .first_chunk::<IPV4_LEN>()
            .ok_or(Reason::Truncated)?;
        let header_len = usize::from(header[0] & 0x0f) * 4;
        let total_len = usize::from(read_u16(header, 2));
        if header[0] >> 4 != 4 {
            return Err(Reason::BadVersion);
        }
        if header_len < IPV4_LEN || total_len < header_len {
            return Err(Reason::BadLength);
        }
        if l3 + header_len > end {
            return Err(Reason::Truncated);
        }
        if read_u16(header, 6) & 0x1fff != 0 {
            return Err(Reason::IcmpUnrelated);
        }
        Ok(QuotedTransport {
            protocol: header[9],
            l4: l3 + header_len,
            end: l3 + total_len,
        })
    }
}

impl Quote for V6 {
    /// Whatever is no information (RFC 4443 §2.1), known or not.
    fn is_relayed(kind: u8) -> bool {
        kind < 128
    }

    fn quoted_transport(frame: &[u8], l3: usize, end: usize) -> Result<QuotedTransport, Reason> {
        let header = frame[l3..end]
            .first_chunk::<IPV6_LEN>()
            .ok_or(Reason::Truncated)?;
        if header[0] >> 4 != 6 {
            return Err(Reason::BadVersion);
        }
        let chain = chain(&frame[..end], l3 + IPV6_LEN, header[6])?;
        if chain.fragment.is_some_and(|(offset, _)| offset != 0) {
            return Err(Reason::IcmpUnrelated);
        }
        let end = l3 + IPV6_LEN + usize::from(read_u16(header, 4));
        Ok(QuotedTransport {
            protocol: chain.protocol,
            l4: chain.l4,
            end,
        })
    }
}

/// Reads an ICMP error and the packet it quotes. Four bytes of the quoted transport header suffice.
///
/// # Errors
/// `IcmpUnsupported`: no error, or not one that is relayed (IPv4: types 3, 4 and 11; IPv6: below 128). `Fragment`: the
/// error is itself fragmented. `BadIcmpChecksum`: of IPv4; for IPv6 see [`has_right_checksum`]. Otherwise as
/// [`parse_quoted`].
///
/// Source: RFC 792, RFC 4443, Linux net/netfilter/ipvs/ip_vs_core.c (`ip_vs_in_icmp`, `ip_vs_in_icmp_v6`).
///
/// # Panics
/// When `packet` is not what `parse` made of this frame.
pub fn parse_error<F: Quote>(frame: &[u8], packet: &Packet<F>) -> Result<Quoted<F>, Reason> {
    let tuple = &packet.tuple;
    if packet.fragment != Fragment::None {
        return Err(Reason::Fragment);
    }
    let message = &frame[packet.l4()..packet.end()];
    if tuple.protocol != F::ICMP || !F::is_relayed(message[0]) {
        return Err(Reason::IcmpUnsupported);
    }
    if F::ICMP == wire::ICMP && !has_right_checksum(frame, packet) {
        return Err(Reason::BadIcmpChecksum);
    }
    parse_quoted(frame, packet.l4() + ICMP_LEN, packet.end())
}

/// Whether an ICMP message's checksum is right. The kernel does not ask this of ICMPv6 errors from the clients' side.
///
/// Source: Linux net/netfilter/ipvs/ip_vs_core.c (`ip_vs_in_icmp_v6`, `ip_vs_out_icmp_v6`), recorded.
///
/// # Panics
/// When `packet` is not what `parse` made of this frame.
pub fn has_right_checksum<F: Quote>(frame: &[u8], packet: &Packet<F>) -> bool {
    let message = &frame[packet.l4()..packet.end()];
    checksum::icmp::<F>(packet.tuple.source, packet.tuple.destination, message) == 0
}

/// Reads the quoted packet at `l3`, of which no more than up to `end` is there. Also for the packet inside a quoted
/// tunnel packet: `l3` is the `l4` of its [`Quoted`] then.
///
/// # Errors
/// `Truncated`: the IP header or the ports are not all there. `BadVersion`, `BadLength`, `Malformed`: the header is
/// none. `IcmpUnrelated`: a fragment but the first, which has no ports.
///
/// # Panics
/// When `end` is beyond the frame, or `l3` beyond `end`.
pub fn parse_quoted<F: Quote>(frame: &[u8], l3: usize, end: usize) -> Result<Quoted<F>, Reason> {
    let transport = F::quoted_transport(frame, l3, end)?;
    let l4 = transport.l4;
    // Behind the quoted packet there may be extensions (RFC 4884), which are none of its bytes.
    let end = end.min(transport.end);
    let ports = if wire::has_ports(transport.protocol) {
        let bytes = frame.get(l4..end).ok_or(Reason::Truncated)?;
        *bytes.first_chunk::<4>().ok_or(Reason::Truncated)?
    } else {
        [0; 4]
    };
    let end = end.max(l4);
    let tuple = Tuple {
        source: F::read_address(frame, l3 + F::SOURCE),
        destination: F::read_address(frame, l3 + F::DESTINATION),
        source_port: read_u16(&ports, 0),
        destination_port: read_u16(&ports, 2),
        protocol: transport.protocol,
    };
    Ok(Quoted {
        tuple,
        l3: u16::try_from(l3).map_err(|_| Reason::BadLength)?,
        l4: u16::try_from(l4).map_err(|_| Reason::BadLength)?,
        end: u32::try_from(end).map_err(|_| Reason::BadLength)?,
    })
}
