//! Stands in for the `conntrack` types of the same names until they are merged.

use std::fmt::Debug;
use std::hash::Hash;
use std::net::{Ipv4Addr, Ipv6Addr};

/// An address family.
pub trait Family: Copy + Debug + Eq + Hash + Send + Sync + 'static {
    /// Its addresses.
    type Address: Copy + Debug + Eq + Hash + Send + Sync;
}

/// IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct V4;

/// IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct V6;

impl Family for V4 {
    type Address = Ipv4Addr;
}

impl Family for V6 {
    type Address = Ipv6Addr;
}

/// What tells one flow's packets from another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple<F: Family> {
    /// Where from.
    pub source: F::Address,
    /// Where to.
    pub destination: F::Address,
    /// Port, or 0.
    pub source_port: u16,
    /// Port, or 0.
    pub destination_port: u16,
    /// IP protocol number.
    pub protocol: u8,
}

/// The flags byte of a TCP header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TcpFlags(pub u8);
