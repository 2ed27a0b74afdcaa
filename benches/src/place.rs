//! Who has which address, in both families.

use crate::case::Family;
use crate::frames::{Record, write_record};
use conntrack::{Table, V4, V6};
use dataplane::packet::wire::Wire;
use dataplane::worker::Tables;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// Bits of a client's number that are its address; those above them are its port.
const CLIENT_ADDRESS_BITS: u32 = 22;
/// Bits of a client's number.
pub(crate) const CLIENT_BITS: u32 = CLIENT_ADDRESS_BITS + 15;
/// The lowest port of clients.
const CLIENT_PORT: u16 = 1 << 15;

/// Whose address.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Host {
    /// The virtual service (VIP).
    Vip,
    /// The director.
    Director,
    /// The way to the clients.
    Router,
    /// A real server.
    Server(u32),
    /// A source address of FULLNAT (LIP).
    Local(u32),
    /// One of the clients, by 22 bits.
    Client(u32),
}

/// What the two families differ in here.
pub(crate) trait Ip: Wire {
    const FAMILY: Family;
    /// Where the header keeps a length, bytes from the frame's start.
    const LEN_FIELD: usize;

    fn address(host: Host) -> Self::Address;

    fn table(tables: &Tables) -> &Arc<Table<Self>>;

    /// Writes a frame and returns its length in memory.
    fn write(record: &Record<Self>, buffer: &mut [u8]) -> usize;

    /// The length field of a packet of `len` bytes.
    fn len_field(len: usize) -> u16;
}

impl Ip for V4 {
    const FAMILY: Family = Family::V4;
    const LEN_FIELD: usize = 16;

    fn address(host: Host) -> Ipv4Addr {
        let within = |net: [u8; 4], number| Ipv4Addr::from_bits(u32::from_be_bytes(net) + number);
        match host {
            Host::Vip => Ipv4Addr::new(10, 0, 0, 100),
            Host::Director => Ipv4Addr::new(10, 1, 0, 1),
            Host::Router => Ipv4Addr::new(10, 1, 0, 254),
            Host::Server(number) => within([10, 1, 1, 0], number),
            Host::Local(number) => within([10, 2, 0, 1], number),
            Host::Client(number) => within([100, 64, 0, 0], number),
        }
    }

    fn table(tables: &Tables) -> &Arc<Table<V4>> {
        &tables.ipv4
    }

    #[inline]
    fn write(record: &Record<V4>, buffer: &mut [u8]) -> usize {
        write_record::<V4, 64>(record, buffer)
    }

    fn len_field(len: usize) -> u16 {
        u16::try_from(len).expect("frames are of at most 9018 bytes")
    }
}

impl Ip for V6 {
    const FAMILY: Family = Family::V6;
    const LEN_FIELD: usize = 18;

    fn address(host: Host) -> Ipv6Addr {
        let within = |net: u16, number: u32| {
            let [a, b, c, d] = number.to_be_bytes();
            let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            Ipv6Addr::new(0xfd00, net, 0, 0, 0, 0, high, low)
        };
        match host {
            Host::Vip => within(0, 100),
            Host::Director => within(1, 1),
            Host::Router => within(1, 254),
            Host::Server(number) => within(1, 0x100 + number),
            Host::Local(number) => within(2, 1 + number),
            Host::Client(number) => within(3, number),
        }
    }

    fn table(tables: &Tables) -> &Arc<Table<V6>> {
        &tables.ipv6
    }

    #[inline]
    fn write(record: &Record<V6>, buffer: &mut [u8]) -> usize {
        write_record::<V6, 128>(record, buffer)
    }

    fn len_field(len: usize) -> u16 {
        u16::try_from(len - V6::HEADER_LEN).expect("frames are of at most 9018 bytes")
    }
}

/// An address of either family, as the snapshot wants it.
pub(crate) fn ip<F: Ip>(host: Host) -> IpAddr {
    F::address(host).into()
}

/// A client's address and port by its number, below 2^37: neighbours in number are nowhere near each other.
pub(crate) fn client<F: Ip>(number: u64) -> (F::Address, u16) {
    const MASK: u64 = (1 << CLIENT_BITS) - 1;
    assert!(number <= MASK, "client {number}");
    // Each step can be undone, so no two numbers are one client: odd factors, and a shift of half the bits or more.
    let mut bits = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) & MASK;
    bits ^= bits >> 19;
    bits = bits.wrapping_mul(0xbf58_476d_1ce4_e5b9) & MASK;
    bits ^= bits >> 19;
    let address = bits & ((1 << CLIENT_ADDRESS_BITS) - 1);
    let address = u32::try_from(address).expect("22 bits");
    let port = u16::try_from(bits >> CLIENT_ADDRESS_BITS).expect("15 bits");
    (F::address(Host::Client(address)), CLIENT_PORT | port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn clients_differ_and_are_spread() {
        let numbers = (0..100_000).chain((1 << CLIENT_BITS) - 1000..1 << CLIENT_BITS);
        let clients: HashSet<_> = numbers.map(client::<V4>).collect();
        assert_eq!(clients.len(), 101_000);
        let addresses: HashSet<_> = clients.iter().map(|(address, _)| address).collect();
        assert!(addresses.len() > 90_000, "{}", addresses.len());
        assert!(clients.iter().all(|(address, port)| {
            let [first, second, ..] = address.octets();
            first == 100 && (64..128).contains(&second) && *port >= CLIENT_PORT
        }));
    }
}
