//! Relaying ICMP errors about translated packets.

use super::translate::{Translation, write_addresses, write_ports};
use crate::packet::Packet;
use crate::packet::checksum::{self, Delta};
use crate::packet::icmp::{Quote, Quoted};
use crate::packet::wire::{self, write_u16};

/// Rewrites an ICMP error for its way on: the error's own addresses, and the quoted packet's addresses and ports back
/// to what they were where the error goes to. The checksums of both IPv4 headers and of the ICMP message are right
/// afterwards, even where the quoted one was not. The quoted transport's stays as it was, against RFC 5508 §4.2: nobody looks at it.
///
/// Source: Linux net/netfilter/ipvs/ip_vs_core.c (`ip_vs_nat_icmp`, `ip_vs_nat_icmp_v6`).
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
    write_addresses::<F>(
        frame,
        l3,
        inner.source.map(|(address, _)| address),
        inner.destination.map(|(address, _)| address),
    );
    F::renew_header(frame, l3);
    if wire::has_ports(quoted.tuple.protocol) {
        write_ports(frame, l4, inner);
    }
}
