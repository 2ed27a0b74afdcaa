//! What differs between IPv4 and IPv6 for a worker.

use super::{Flows, Worker};
use crate::packet::icmp::{self, ErrorKind};
use crate::packet::wire::Wire;
use crate::packet::{Packet, Parsed};
use crate::port::Port;
use conntrack::{V4, V6};
use std::net::IpAddr;

/// A family as the worker's code is generic over it.
pub(super) trait Ip: Wire<Address: Into<IpAddr> + Eq + std::hash::Hash> {
    /// The address, if it is of this family.
    fn from_ip(address: IpAddr) -> Option<Self::Address>;

    /// Writes a whole frame with an ICMP error about `original` into `scratch`; its length, or `None` where no error
    /// may be sent.
    fn icmp_error(
        scratch: &mut [u8],
        kind: ErrorKind,
        original: &[u8],
        packet: &Packet<Self>,
        source: Self::Address,
    ) -> Option<usize>;
}

impl Ip for V4 {
    fn from_ip(address: IpAddr) -> Option<Self::Address> {
        match address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        }
    }

    fn icmp_error(
        scratch: &mut [u8],
        kind: ErrorKind,
        original: &[u8],
        packet: &Packet<V4>,
        source: Self::Address,
    ) -> Option<usize> {
        icmp::error_v4(scratch, kind, original, packet, source)
    }
}

impl Ip for V6 {
    fn from_ip(address: IpAddr) -> Option<Self::Address> {
        match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => Some(address),
        }
    }

    fn icmp_error(
        scratch: &mut [u8],
        kind: ErrorKind,
        original: &[u8],
        packet: &Packet<V6>,
        source: Self::Address,
    ) -> Option<usize> {
        icmp::error_v6(scratch, kind, original, packet, source)
    }
}
