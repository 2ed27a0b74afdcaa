//! Connections by number, for both families.

use conntrack::{Family, Method, NewConnection, State, Table, TableConfig, Ticks, Tuple, V4, V6};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

pub(crate) trait Numbered: Family {
    fn address(number: u32) -> Self::Address;
}

impl Numbered for V4 {
    fn address(number: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(0x0a00_0000 + number)
    }
}

impl Numbered for V6 {
    fn address(number: u32) -> Ipv6Addr {
        Ipv6Addr::from_bits((0xfd00 << 112) + u128::from(number))
    }
}

pub(crate) const VIP: u32 = 1;
pub(crate) const LIP: u32 = 2;
pub(crate) const TCP: u8 = 6;

/// A client's connection: by FULLNAT with the local port given, otherwise by `method`.
pub(crate) fn flow<F: Numbered>(client: u32, method: Method, local_port: u16) -> NewConnection<F> {
    NewConnection {
        protocol: TCP,
        client: (F::address(0x1_0000 + client), 40_000),
        virtual_server: (F::address(VIP), 80),
        real_server: (F::address(0x100), 8080),
        local: (method == Method::FullNat).then(|| (F::address(LIP), local_port)),
        method,
        server: client % 3,
        control: None,
        state: State::Established,
        timeout: Ticks::from_seconds(900),
        ip_delta: 0x1234,
        l4_delta: 0x5678,
        reply_neighbour: 7,
        route_generation: 1,
        flags: 0,
    }
}

/// The key of its replies.
pub(crate) fn reply_tuple<F: Numbered>(new: &NewConnection<F>) -> Option<Tuple<F>> {
    let (destination, destination_port) = new.local.unwrap_or(new.client);
    new.method.sees_replies().then_some(Tuple {
        source: new.real_server.0,
        destination,
        source_port: new.real_server.1,
        destination_port,
        protocol: new.protocol,
    })
}

pub(crate) fn table<F: Family>(
    capacity: u32,
    half_open_percent: u8,
    workers: u16,
) -> Arc<Table<F>> {
    Table::new(&TableConfig {
        capacity,
        half_open_percent,
        workers,
        seeds: [1, 2, 3, 4],
    })
    .unwrap()
}
