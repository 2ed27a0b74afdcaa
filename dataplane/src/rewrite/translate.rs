//! Addresses, ports, TTL and MACs, with every checksum that covers them.

use crate::frame::Offload;
use crate::packet::checksum::{self, Delta};
use crate::packet::wire::{self, Wire, read_array, read_u16, write_u16};
use crate::packet::{Family, Fragment, Packet, Tuple, crc32c};
use crate::port::Mac;

/// An address and a port.
pub type Endpoint<F> = (<F as Family>::Address, u16);

/// What NAT and FULLNAT change in one direction of a connection, with the checksum differences that follow from it:
/// made once, when the connection is, and the same for all its packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation<F: Family> {
    /// The new source.
    pub source: Option<Endpoint<F>>,
    /// The new destination.
    pub destination: Option<Endpoint<F>>,
    /// The difference of the addresses: for the IPv4 header, and for what covers addresses but no ports.
    pub ip_delta: Delta,
    /// The difference of addresses and ports.
    pub l4_delta: Delta,
}

impl<F: Wire> Translation<F> {
    /// A translation of packets with the tuple `old`.
    #[must_use]
    pub fn new(
        old: &Tuple<F>,
        source: Option<Endpoint<F>>,
        destination: Option<Endpoint<F>>,
    ) -> Translation<F> {
        let (ip_source, port_source) = change::<F>((old.source, old.source_port), source);
        let (ip_destination, port_destination) =
            change::<F>((old.destination, old.destination_port), destination);
        let ip_delta = ip_source.combine(ip_destination);
        let l4_delta = ip_delta.combine(port_source).combine(port_destination);
        Translation {
            source,
            destination,
            ip_delta,
            l4_delta,
        }
    }

    /// NAT, client to real server: the destination `vip` becomes `rip`.
    #[must_use]
    pub fn request_nat(vip: Endpoint<F>, rip: Endpoint<F>) -> Translation<F> {
        let (ip_delta, port_delta) = change::<F>(vip, Some(rip));
        Translation {
            source: None,
            destination: Some(rip),
            ip_delta,
            l4_delta: ip_delta.combine(port_delta),
        }
    }

    /// NAT, real server to client: the source `rip` becomes `vip`. Its differences are those of the request, negated.
    #[must_use]
    pub fn reply_nat(vip: Endpoint<F>, rip: Endpoint<F>) -> Translation<F> {
        let request = Translation::<F>::request_nat(vip, rip);
        Translation {
            source: Some(vip),
            destination: None,
            ip_delta: request.ip_delta.negated(),
            l4_delta: request.l4_delta.negated(),
        }
    }

    /// FULLNAT, client to real server: the source `client` becomes the local address `lip`, the destination `vip`
    /// becomes `rip`.
    #[must_use]
    pub fn request_fullnat(
        client: Endpoint<F>,
        vip: Endpoint<F>,
        lip: Endpoint<F>,
        rip: Endpoint<F>,
    ) -> Translation<F> {
        let (ip_source, port_source) = change::<F>(client, Some(lip));
        let (ip_destination, port_destination) = change::<F>(vip, Some(rip));
        let ip_delta = ip_source.combine(ip_destination);
        let l4_delta = ip_delta.combine(port_source).combine(port_destination);
        Translation {
            source: Some(lip),
            destination: Some(rip),
            ip_delta,
            l4_delta,
        }
    }

    /// FULLNAT, real server to client: the source `rip` becomes `vip`, the destination `lip` becomes `client`. Its
    /// differences are those of the request, negated.
    #[must_use]
    pub fn reply_fullnat(
        client: Endpoint<F>,
        vip: Endpoint<F>,
        lip: Endpoint<F>,
        rip: Endpoint<F>,
    ) -> Translation<F> {
        let request = Translation::<F>::request_fullnat(client, vip, lip, rip);
        Translation {
            source: Some(vip),
            destination: Some(client),
            ip_delta: request.ip_delta.negated(),
            l4_delta: request.l4_delta.negated(),
        }
    }
}

/// The differences of address and port.
fn change<F: Wire>(old: Endpoint<F>, new: Option<Endpoint<F>>) -> (Delta, Delta) {
    new.map_or((Delta::NONE, Delta::NONE), |new| {
        (
            Delta::of_address::<F>(old.0, new.0),
            Delta::of_word(old.1, new.1),
        )
    })
}

/// Writes a translation's addresses and ports, and adjusts the IPv4 header checksum and the transport checksum:
/// - TCP, UDP and ICMPv6 incrementally, partial ones too; SCTP's CRC32c in the same spirit.
/// - A UDP checksum of 0 (none) becomes a real one, as in the kernel. A first fragment keeps its 0: the rest of what the
///   checksum covers is elsewhere. So does a frame whose payload still waits for a checksum of its own.
/// - Fragments but the first have no transport header, and only their addresses change.
/// - Other protocols' payload is left alone.
///
/// Source: Linux net/netfilter/ipvs/ip_vs_proto_tcp.c, ip_vs_proto_udp.c.
///
/// # Panics
/// When `packet` is not what `parse` made of this frame.
#[inline]
pub fn translate<F: Wire>(
    frame: &mut [u8],
    packet: &Packet<F>,
    translation: &Translation<F>,
    offload: &Offload,
) {
    let (l3, l4) = (packet.l3(), packet.l4());
    write_addresses::<F>(
        frame,
        l3,
        translation.source.map(|(address, _)| address),
        translation.destination.map(|(address, _)| address),
    );
    F::adjust_header(frame, l3, translation.ip_delta);
    if packet.fragment == Fragment::Later {
        return;
    }
    let protocol = packet.tuple.protocol;
    let partial = offload.partial_checksum && usize::from(offload.checksum_start) == l4;
    let old_ports = read_ports(frame, packet);
    if wire::has_ports(protocol) {
        write_ports(frame, l4, translation);
    }
    match protocol {
        wire::TCP | wire::UDP | wire::ICMPV6 if partial => {
            let field = l4 + usize::from(offload.checksum_offset);
            let sum = checksum::apply_partial(read_u16(frame, field), translation.ip_delta);
            write_u16(frame, field, sum);
        }
        wire::TCP => {
            let checksum = checksum::apply(read_u16(frame, l4 + 16), translation.l4_delta);
            write_u16(frame, l4 + 16, checksum);
        }
        wire::UDP => adjust_udp(frame, packet, translation, offload),
        wire::ICMPV6 => {
            let checksum = checksum::apply(read_u16(frame, l4 + 2), translation.ip_delta);
            write_u16(frame, l4 + 2, checksum);
        }
        // A partial CRC covers nothing yet. A first fragment's covers what is elsewhere, and the length of that is
        // part of the difference, so it cannot be adjusted: the receiver will notice and drop.
        wire::SCTP if !partial && packet.fragment == Fragment::None => {
            let new_ports = read_ports(frame, packet);
            crc32c::adjust_ports(&mut frame[l4..packet.end()], old_ports, new_ports);
        }
        _ => {}
    }
}

/// The two ports as they stand in the frame; 0 where there are none.
#[inline]
fn read_ports<F: Wire>(frame: &[u8], packet: &Packet<F>) -> [u8; 4] {
    if wire::has_ports(packet.tuple.protocol) {
        read_array(frame, packet.l4())
    } else {
        [0; 4]
    }
}

/// Writes the new addresses into the IP header at `l3`.
#[inline]
pub(crate) fn write_addresses<F: Wire>(
    frame: &mut [u8],
    l3: usize,
    source: Option<F::Address>,
    destination: Option<F::Address>,
) {
    if let Some(address) = source {
        F::write_address(frame, l3 + F::SOURCE, address);
    }
    if let Some(address) = destination {
        F::write_address(frame, l3 + F::DESTINATION, address);
    }
}

/// Writes the new ports into the transport header at `l4`.
#[inline]
pub(crate) fn write_ports<F: Wire>(frame: &mut [u8], l4: usize, translation: &Translation<F>) {
    if let Some((_, port)) = translation.source {
        write_u16(frame, l4, port);
    }
    if let Some((_, port)) = translation.destination {
        write_u16(frame, l4 + 2, port);
    }
}

#[inline]
fn adjust_udp<F: Wire>(
    frame: &mut [u8],
    packet: &Packet<F>,
    translation: &Translation<F>,
    offload: &Offload,
) {
    let (l3, l4) = (packet.l3(), packet.l4());
    let old = read_u16(frame, l4 + 6);
    if old != 0 {
        write_u16(
            frame,
            l4 + 6,
            checksum::apply_udp(old, translation.l4_delta),
        );
    } else if packet.fragment == Fragment::None && !offload.partial_checksum {
        let source = F::read_address(frame, l3 + F::SOURCE);
        let destination = F::read_address(frame, l3 + F::DESTINATION);
        checksum::write_udp::<F>(frame, source, destination, l4, packet.end());
    }
}

/// The packet's TTL or hop limit is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("TTL expired")]
pub struct Expired;

/// Takes one from the TTL or hop limit, and adjusts the IPv4 header checksum.
///
/// # Errors
/// At 1 or 0 the packet stays as it is and must not be forwarded.
///
/// # Panics
/// When `packet` is not what `parse` made of this frame.
#[inline]
pub fn decrement_ttl<F: Wire>(frame: &mut [u8], packet: &Packet<F>) -> Result<(), Expired> {
    let at = packet.l3() + F::TTL;
    let ttl = frame[at];
    if ttl <= 1 {
        return Err(Expired);
    }
    frame[at] = ttl - 1;
    // The TTL is the high byte of its word, so the low byte, the protocol, cancels out of the difference.
    let delta = Delta::of_word(u16::from(ttl) << 8, u16::from(ttl - 1) << 8);
    F::adjust_header(frame, packet.l3(), delta);
    Ok(())
}

/// Undoes [`decrement_ttl`].
///
/// # Panics
/// When `packet` is not what `parse` made of this frame.
pub fn restore_ttl<F: Wire>(frame: &mut [u8], packet: &Packet<F>) {
    let at = packet.l3() + F::TTL;
    let delta = Delta::of_word(u16::from(frame[at]) << 8, u16::from(packet.ttl) << 8);
    frame[at] = packet.ttl;
    F::adjust_header(frame, packet.l3(), delta);
}

/// Writes the Ethernet addresses. DR is this and [`decrement_ttl`].
///
/// # Panics
/// When the frame has no Ethernet header.
#[inline]
pub fn set_macs(frame: &mut [u8], destination: Mac, source: Mac) {
    frame[..6].copy_from_slice(&destination.0);
    frame[6..12].copy_from_slice(&source.0);
}

/// The same with both addresses as they stand in a frame.
#[inline]
pub(crate) fn write_macs(frame: &mut [u8], macs: [u8; 12]) {
    frame[..12].copy_from_slice(&macs);
}
