//! The rewriting of plain packets (`packet::plain`): as `translate` does it for all, at offsets that are known beforehand.

use super::Endpoint;
use crate::packet::checksum::{self, Delta};
use crate::packet::plain::PlainFamily;
use crate::packet::wire::{ETHERNET_LEN, TCP, read_u16, write_u16};

/// What one hop less to live adds to the IPv4 header checksum, whatever the TTL was: minus 0x0100. Source: RFC 1624 §3.
const ONE_HOP: Delta = Delta(!0x0100);
const TCP_CHECKSUM: usize = 16;
const UDP_CHECKSUM: usize = 6;

/// Both ends of a packet as they are to be, with the checksum differences that follow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change<F: PlainFamily> {
    pub(crate) source: Endpoint<F>,
    pub(crate) destination: Endpoint<F>,
    pub(crate) ip_delta: Delta,
    pub(crate) l4_delta: Delta,
}

/// Takes one from the TTL or hop limit, which is more than 1.
#[inline]
pub(crate) fn step<F: PlainFamily>(frame: &mut [u8]) {
    let (headers, _) = frame.split_at_mut(F::L4);
    headers[ETHERNET_LEN + F::TTL] -= 1;
    F::count_hop(headers, ETHERNET_LEN);
}

/// The same, and where the frame goes.
#[inline]
pub(crate) fn step_to<F: PlainFamily>(frame: &mut [u8], macs: [u8; 12]) {
    let (headers, _) = frame.split_at_mut(F::L4);
    headers[..12].copy_from_slice(&macs);
    step::<F>(headers);
}

/// The same, and the new ends. A UDP checksum of 0 must have been left to `translate`.
#[inline]
pub(crate) fn translate<F: PlainFamily>(frame: &mut [u8], protocol: u8, change: &Change<F>) {
    let (headers, segment) = frame.split_at_mut(F::L4);
    headers[ETHERNET_LEN + F::TTL] -= 1;
    F::adjust_header(headers, ETHERNET_LEN, ONE_HOP.combine(change.ip_delta));
    F::write_address(headers, ETHERNET_LEN + F::SOURCE, change.source.0);
    F::write_address(headers, ETHERNET_LEN + F::DESTINATION, change.destination.0);
    let ports = u32::from(change.source.1) << 16 | u32::from(change.destination.1);
    segment[..4].copy_from_slice(&ports.to_be_bytes());
    if protocol == TCP {
        let sum = checksum::apply(read_u16(segment, TCP_CHECKSUM), change.l4_delta);
        write_u16(segment, TCP_CHECKSUM, sum);
    } else {
        let sum = checksum::apply_udp(read_u16(segment, UDP_CHECKSUM), change.l4_delta);
        write_u16(segment, UDP_CHECKSUM, sum);
    }
}

/// Whether a UDP datagram has no checksum.
#[inline]
pub(crate) fn has_no_checksum<F: PlainFamily>(frame: &[u8]) -> bool {
    read_u16(frame, F::L4 + UDP_CHECKSUM) == 0
}
