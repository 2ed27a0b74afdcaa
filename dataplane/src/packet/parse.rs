//! From a frame's bytes to offsets, refusing what no correct host sends.

use super::wire::{
    self, ETHERNET_LEN, ICMP_LEN, IPV4_LEN, IPV6_LEN, SCTP_LEN, TCP_LEN, UDP_LEN, Wire, read_array,
    read_u16, read_u32,
};
use super::{Fragment, Packet, Parsed, TcpFlags, Tuple, V4, V6, checksum};
use crate::frame::Offload;
use crate::reason::Reason;

/// IPv6 extension headers that a packet may have.
const EXTENSIONS: usize = 8;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

/// Reads the headers of a frame as the driver delivered it.
///
/// Checked: every length against the frame, versions, the IPv4 header checksum, the extension chain, the transport
/// header (not its checksum: that is the receiver's), sources that no packet may have, and that a partial checksum is
/// where the driver says it is. IPv4 options are legal. An IPv6 payload length of 0 (jumbograms, BIG TCP) is not
/// supported.
///
/// Source: RFC 791, RFC 8200, RFC 7112, RFC 1122 §3.2.1.3.
#[must_use]
pub fn parse(frame: &[u8], offload: &Offload) -> Parsed {
    let Some(ethernet) = frame.first_chunk::<ETHERNET_LEN>() else {
        return Parsed::Drop(Reason::Truncated);
    };
    match read_u16(ethernet, 12) {
        wire::ETHER_TYPE_IPV4 => match ipv4(frame) {
            Ok(packet) if partial_checksum_fits(offload, &packet) => Parsed::Ipv4(packet),
            Ok(_) => Parsed::Drop(Reason::Malformed),
            Err(reason) => Parsed::Drop(reason),
        },
        wire::ETHER_TYPE_IPV6 => match ipv6(frame) {
            Ok(packet) if partial_checksum_fits(offload, &packet) => Parsed::Ipv6(packet),
            Ok(_) => Parsed::Drop(Reason::Malformed),
            Err(reason) => Parsed::Drop(reason),
        },
        wire::ETHER_TYPE_ARP => Parsed::Arp,
        wire::ETHER_TYPE_VLAN | wire::ETHER_TYPE_QINQ => Parsed::Drop(Reason::VlanTagged),
        _ => Parsed::Other,
    }
}

/// A sender's partial checksum begins at the transport header and is in that header's field, or further inside (the
/// payload of a tunnel).
fn partial_checksum_fits<F: Wire>(offload: &Offload, packet: &Packet<F>) -> bool {
    if !offload.partial_checksum {
        return true;
    }
    let start = usize::from(offload.checksum_start);
    let offset = usize::from(offload.checksum_offset);
    let field_len = if offset == 8 { 4 } else { 2 };
    if start < packet.l4()
        || start + offset + field_len > packet.end()
        || packet.fragment != Fragment::None
    {
        return false;
    }
    let protocol = packet.tuple.protocol;
    if start == packet.l4()
        && let Some(expected) = wire::checksum_offset(protocol)
    {
        return offset == expected;
    }
    let header_len = match protocol {
        // What TCP carries is a stream, and no packet with a checksum of its own.
        wire::TCP => return false,
        wire::UDP => UDP_LEN,
        wire::SCTP => SCTP_LEN,
        wire::ICMP | wire::ICMPV6 => ICMP_LEN,
        _ => 0,
    };
    start >= packet.l4() + header_len
}

pub(super) fn ipv4(frame: &[u8]) -> Result<Packet<V4>, Reason> {
    let l3 = ETHERNET_LEN;
    let header = frame[l3..]
        .first_chunk::<IPV4_LEN>()
        .ok_or(Reason::Truncated)?;
    if header[0] >> 4 != 4 {
        return Err(Reason::BadVersion);
    }
    let header_len = usize::from(header[0] & 0x0f) * 4;
    let total_len = usize::from(read_u16(header, 2));
    if header_len < IPV4_LEN || total_len < header_len {
        return Err(Reason::BadLength);
    }
    let l4 = l3 + header_len;
    let end = l3 + total_len;
    if frame.len() < l4 {
        return Err(Reason::Truncated);
    }
    if frame.len() < end {
        return Err(Reason::BadLength);
    }
    // Nearly all headers have this length, which the compiler then knows.
    let checksum = if header_len == IPV4_LEN {
        checksum::ipv4_header(header)
    } else {
        checksum::ipv4_header(&frame[l3..l4])
    };
    if checksum != 0 {
        return Err(Reason::BadIpChecksum);
    }
    let source = V4::read_address(header, V4::SOURCE);
    if source.is_multicast()
        || source.is_broadcast()
        || source.is_loopback()
        || source.is_unspecified()
    {
        return Err(Reason::BadSource);
    }
    let flags_and_offset = read_u16(header, 6);
    let more = flags_and_offset & 0x2000 != 0;
    let fragment = fragment_of(usize::from(flags_and_offset & 0x1fff) * 8, more, end - l4)?;
    let protocol = header[9];
    let transport = transport(&frame[l4..end], protocol, fragment)?;
    Ok(Packet {
        tuple: Tuple {
            source,
            destination: V4::read_address(header, V4::DESTINATION),
            source_port: transport.source_port,
            destination_port: transport.destination_port,
            protocol,
        },
        l3: offset(l3)?,
        l4: offset(l4)?,
        end: u32::try_from(end).map_err(|_| Reason::BadLength)?,
        ttl: header[V4::TTL],
        tos: header[1],
        tcp_flags: transport.tcp_flags,
        fragment,
        dont_fragment: flags_and_offset & 0x4000 != 0,
        fragment_id: u32::from(read_u16(header, 4)),
    })
}

pub(super) fn ipv6(frame: &[u8]) -> Result<Packet<V6>, Reason> {
    let l3 = ETHERNET_LEN;
    let header = frame[l3..]
        .first_chunk::<IPV6_LEN>()
        .ok_or(Reason::Truncated)?;
    if header[0] >> 4 != 6 {
        return Err(Reason::BadVersion);
    }
    let payload_len = usize::from(read_u16(header, 4));
    let end = l3 + IPV6_LEN + payload_len;
    if payload_len == 0 || frame.len() < end {
        return Err(Reason::BadLength);
    }
    let source = V6::read_address(header, V6::SOURCE);
    if source.is_multicast() || source.is_loopback() {
        return Err(Reason::BadSource);
    }
    let chain = chain(&frame[..end], l3 + IPV6_LEN, header[6])?;
    // Duplicate address detection asks without an address of its own; nothing else may come from nowhere.
    if source.is_unspecified() && chain.protocol != wire::ICMPV6 {
        return Err(Reason::BadSource);
    }
    let fragment = match chain.fragment {
        Some((offset, more)) => fragment_of(offset, more, end - chain.fragmentable)?,
        None => Fragment::None,
    };
    let transport = transport(&frame[chain.l4..end], chain.protocol, fragment)?;
    Ok(Packet {
        tuple: Tuple {
            source,
            destination: V6::read_address(header, V6::DESTINATION),
            source_port: transport.source_port,
            destination_port: transport.destination_port,
            protocol: chain.protocol,
        },
        l3: offset(l3)?,
        l4: offset(chain.l4)?,
        end: u32::try_from(end).map_err(|_| Reason::BadLength)?,
        ttl: header[V6::TTL],
        tos: V6::tos(header, 0),
        tcp_flags: transport.tcp_flags,
        fragment,
        dont_fragment: true,
        fragment_id: chain.fragment_id,
    })
}

/// An offset of a header, which an extension chain of bounded length keeps below 64 KiB.
fn offset(at: usize) -> Result<u16, Reason> {
    u16::try_from(at).map_err(|_| Reason::BadLength)
}

/// Which fragment one with `len` bytes at `offset` is.
///
/// # Errors
/// All but the last must end on a multiple of eight bytes, and none beyond the largest datagram.
fn fragment_of(offset: usize, more: bool, len: usize) -> Result<Fragment, Reason> {
    if offset == 0 && !more {
        return Ok(Fragment::None);
    }
    if more && !len.is_multiple_of(8) {
        return Err(Reason::Malformed);
    }
    if offset + len > usize::from(u16::MAX) {
        return Err(Reason::BadLength);
    }
    Ok(if offset == 0 {
        Fragment::First
    } else {
        Fragment::Later
    })
}

/// Where an IPv6 extension chain ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chain {
    /// The first protocol that is no extension header.
    pub(crate) protocol: u8,
    /// Where that begins.
    pub(crate) l4: usize,
    /// Offset in the datagram (bytes) and "more follow", where there is a fragment header.
    pub(crate) fragment: Option<(usize, bool)>,
    /// Where the part behind the fragment header begins.
    pub(crate) fragmentable: usize,
    /// The fragment header's identification, or 0.
    pub(crate) fragment_id: u32,
}

/// Walks the extension headers from `at`, where a header of kind `next` begins; `bytes` end where the packet does. A
/// later fragment's chain ends with its fragment header.
///
/// # Errors
/// `Malformed`: more than eight headers, hop-by-hop options that are not first, two fragment headers, or a routing
/// header with segments left (the destination in the IP header is not the final one then). `Truncated`: the chain does
/// not end inside the packet.
pub(crate) fn chain(bytes: &[u8], at: usize, next: u8) -> Result<Chain, Reason> {
    let mut chain = Chain {
        protocol: next,
        l4: at,
        fragment: None,
        fragmentable: at,
        fragment_id: 0,
    };
    for count in 0..=EXTENSIONS {
        let header = match chain.protocol {
            HOP_BY_HOP if count > 0 => return Err(Reason::Malformed),
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | FRAGMENT => bytes
                .get(chain.l4..)
                .and_then(<[u8]>::first_chunk::<8>)
                .ok_or(Reason::Truncated)?,
            _ => return Ok(chain),
        };
        let kind = std::mem::replace(&mut chain.protocol, header[0]);
        if kind != FRAGMENT {
            if kind == ROUTING && header[3] != 0 {
                return Err(Reason::Malformed);
            }
            chain.l4 += (usize::from(header[1]) + 1) * 8;
            if chain.l4 > bytes.len() {
                return Err(Reason::Truncated);
            }
            continue;
        }
        if chain.fragment.is_some() {
            return Err(Reason::Malformed);
        }
        let offset = usize::from(read_u16(header, 2) & 0xfff8);
        chain.l4 += 8;
        chain.fragment = Some((offset, header[3] & 1 != 0));
        chain.fragmentable = chain.l4;
        chain.fragment_id = read_u32(header, 4);
        if offset != 0 {
            return Ok(chain);
        }
    }
    Err(Reason::Malformed)
}

/// What a transport header says.
#[derive(Clone, Copy, Debug, Default)]
struct Transport {
    source_port: u16,
    destination_port: u16,
    tcp_flags: TcpFlags,
}

/// Reads the transport header at the start of `bytes`, which end where the packet does.
fn transport(bytes: &[u8], protocol: u8, fragment: Fragment) -> Result<Transport, Reason> {
    let needed = match protocol {
        _ if fragment == Fragment::Later => return Ok(Transport::default()),
        wire::TCP => TCP_LEN,
        wire::UDP => UDP_LEN,
        wire::SCTP => SCTP_LEN,
        wire::ICMP | wire::ICMPV6 => ICMP_LEN,
        _ => return Ok(Transport::default()),
    };
    if bytes.len() < needed {
        return Err(Reason::Truncated);
    }
    // The rest of a first fragment's datagram is elsewhere, so its lengths have no upper bound here.
    let available = if fragment == Fragment::None {
        bytes.len()
    } else {
        usize::MAX
    };
    let well_formed = match protocol {
        wire::TCP => (TCP_LEN..=available).contains(&(usize::from(bytes[12] >> 4) * 4)),
        wire::UDP => (UDP_LEN..=available).contains(&usize::from(read_u16(bytes, 4))),
        _ => true,
    };
    if !well_formed {
        return Err(Reason::Malformed);
    }
    if !wire::has_ports(protocol) {
        return Ok(Transport::default());
    }
    let [a, b, c, d] = read_array::<4>(bytes, 0);
    Ok(Transport {
        source_port: u16::from_be_bytes([a, b]),
        destination_port: u16::from_be_bytes([c, d]),
        tcp_flags: TcpFlags(if protocol == wire::TCP { bytes[13] } else { 0 }),
    })
}
