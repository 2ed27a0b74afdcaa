//! Relaying ICMP errors about translated packets.

use super::translate::{Translation, write_addresses, write_ports};
use crate::packet::Packet;
use crate::packet::checksum::{self, Delta};
use crate::packet::icmp::{Quote, Quoted};
use crate::packet::wire::{self, read_u16, write_u16};

/// Rewrites an ICMP error for its way on: the error's own addresses, and the quoted packet's addresses and ports back
/// to what they were where the error goes to. All checksums over them are right afterwards: both IPv4 headers', the
/// quoted transport's as far as it is quoted, and the ICMP message's.
///
/// Differs from IPVS: the kernel leaves the quoted transport checksum as it was. RFC 5508 §4.2 wants the quoted headers
/// as the receiver of the error once sent them. (A quoted SCTP checksum stays: it cannot be adjusted without the rest.)
///
/// # Panics
/// When `packet` or `quoted` are not what `parse` and [`parse_error`](crate::packet::icmp::parse_error) made of this frame.
pub fn translate_error<F: Quote>(
    frame: &mut [u8],
    packet: &Packet<F>,
    quoted: &Quoted<F>,
    source: Option<F::Address>,
    destination: Option<F::Address>,
    inner: &Translation<F>,
) {
    let source_delta = source.map(|new| Delta::of_address::<F>(packet.tuple.source, new));
    let destination_delta =
        destination.map(|new| Delta::of_address::<F>(packet.tuple.destination, new));
    write_addresses::<F>(frame, packet.l3(), source, destination);
    let delta = source_delta
        .unwrap_or_default()
        .combine(destination_delta.unwrap_or_default());
    F::adjust_header(frame, packet.l3(), delta);

    translate_quoted(frame, quoted, inner);

    let source = source.unwrap_or(packet.tuple.source);
    let destination = destination.unwrap_or(packet.tuple.destination);
    write_u16(frame, packet.l4() + 2, 0);
    let checksum = checksum::icmp::<F>(source, destination, &frame[packet.l4()..packet.end()]);
    write_u16(frame, packet.l4() + 2, checksum);
}

fn translate_quoted<F: Quote>(frame: &mut [u8], quoted: &Quoted<F>, inner: &Translation<F>) {
    let (l3, l4) = (usize::from(quoted.l3), usize::from(quoted.l4));
    let protocol = quoted.tuple.protocol;
    write_addresses::<F>(
        frame,
        l3,
        inner.source.map(|(address, _)| address),
        inner.destination.map(|(address, _)| address),
    );
    F::adjust_header(frame, l3, inner.ip_delta);
    if wire::has_ports(protocol) {
        write_ports(frame, l4, inner);
    }
    let Some(offset) = wire::checksum_offset(protocol) else {
        return;
    };
    if quoted.available() < offset + 2 {
        return;
    }
    let old = read_u16(frame, l4 + offset);
    let new = match protocol {
        wire::TCP => checksum::apply(old, inner.l4_delta),
        wire::UDP if old != 0 => checksum::apply_udp(old, inner.l4_delta),
        wire::ICMPV6 => checksum::apply(old, inner.ip_delta),
        _ => old,
    };
    write_u16(frame, l4 + offset, new);
}
