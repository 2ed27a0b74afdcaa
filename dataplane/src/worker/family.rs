//! What differs between IPv4 and IPv6 for a worker.

use crate::packet::Packet;
use crate::packet::icmp::Quote;
use crate::packet::icmp::{self, ErrorKind};
use conntrack::{V4, V6};
use std::net::IpAddr;

/// A family as the worker's code is generic over it.
pub(super) trait Ip: Quote {
    /// The address, if it is of this family.
    fn from_ip(address: IpAddr) -> Option<Self::Address>;

    /// Turns an echo request into its reply, in place. False for anything else.
    fn echo_reply(frame: &mut [u8], packet: &Packet<Self>) -> bool;

    /// Writes a whole frame with an ICMP error about `original` into `scratch`; its length, or `None` where no error
    /// may be sent.
    fn icmp_error(
        scratch: &mut [u8],
        kind: ErrorKind,
        original: &[u8],
        packet: &Packet<Self>,
        source: Self::Address,
        identification: u16,
    ) -> Option<usize>;
}

impl Ip for V4 {
    fn from_ip(address: IpAddr) -> Option<Self::Address> {
        match address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        }
    }

    fn echo_reply(frame: &mut [u8], packet: &Packet<V4>) -> bool {
        icmp::echo_reply_v4(frame, packet)
    }

    fn icmp_error(
        scratch: &mut [u8],
        kind: ErrorKind,
        original: &[u8],
        packet: &Packet<V4>,
        source: Self::Address,
        identification: u16,
    ) -> Option<usize> {
        icmp::error_v4(scratch, kind, original, packet, source, identification)
    }
}

impl Ip for V6 {
    fn from_ip(address: IpAddr) -> Option<Self::Address> {
        match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => Some(address),
        }
    }

    fn echo_reply(frame: &mut [u8], packet: &Packet<V6>) -> bool {
        icmp::echo_reply_v6(frame, packet)
    }

    fn icmp_error(
        scratch: &mut [u8],
        kind: ErrorKind,
        original: &[u8],
        packet: &Packet<V6>,
        source: Self::Address,
        _: u16,
    ) -> Option<usize> {
        icmp::error_v6(scratch, kind, original, packet, source)
    }
}
