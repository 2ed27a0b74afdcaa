//! Static routes: longest prefix first, one hash table per prefix length in use.

use crate::Map;
use crate::port::PortId;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where packets for a prefix go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The port they leave by.
    pub port: PortId,
    /// The router; `None` where the destination is on the link.
    pub gateway: Option<IpAddr>,
}

/// All routes. Looked up when a connection is made, not per packet.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    ipv4: Vec<(u8, Map<Ipv4Addr, Route>)>,
    ipv6: Vec<(u8, Map<Ipv6Addr, Route>)>,
}

impl Routes {
    /// Adds a route. The first one added for a prefix stays. Bits of `prefix` beyond `len` are ignored.
    pub fn insert(&mut self, prefix: IpAddr, len: u8, route: Route) {
        match mask(prefix, len) {
            IpAddr::V4(prefix) => insert(&mut self.ipv4, prefix, len.min(32), route),
            IpAddr::V6(prefix) => insert(&mut self.ipv6, prefix, len.min(128), route),
        }
    }

    /// The port and the neighbour to hand a packet for `destination` to.
    #[must_use]
    pub fn lookup(&self, destination: IpAddr) -> Option<(PortId, IpAddr)> {
        let route = match destination {
            IpAddr::V4(address) => self
                .ipv4
                .iter()
                .find_map(|(len, routes)| routes.get(&mask4(address, *len))),
            IpAddr::V6(address) => self
                .ipv6
                .iter()
                .find_map(|(len, routes)| routes.get(&mask6(address, *len))),
        }?;
        Some((route.port, route.gateway.unwrap_or(destination)))
    }
}

fn insert<A: std::hash::Hash + Eq>(
    levels: &mut Vec<(u8, Map<A, Route>)>,
    prefix: A,
    len: u8,
    route: Route,
) {
    // Longest first.
    let at = levels.partition_point(|(other, _)| *other > len);
    if levels.get(at).is_none_or(|(other, _)| *other != len) {
        levels.insert(at, (len, Map::default()));
    }
    levels[at].1.entry(prefix).or_insert(route);
}

/// Whether `a` and `b` are of one family and agree in their first `len` bits.
#[must_use]
pub fn same_subnet(a: IpAddr, b: IpAddr, len: u8) -> bool {
    mask(a, len) == mask(b, len)
}

/// `address` with all but its first `len` bits cleared.
#[must_use]
pub fn mask(address: IpAddr, len: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => IpAddr::V4(mask4(address, len)),
        IpAddr::V6(address) => IpAddr::V6(mask6(address, len)),
    }
}

fn mask4(address: Ipv4Addr, len: u8) -> Ipv4Addr {
    let mask = u32::MAX
        .checked_shl(32u32.saturating_sub(u32::from(len)))
        .unwrap_or(0);
    Ipv4Addr::from_bits(address.to_bits() & mask)
}

fn mask6(address: Ipv6Addr, len: u8) -> Ipv6Addr {
    let mask = u128::MAX
        .checked_shl(128u32.saturating_sub(u32::from(len)))
        .unwrap_or(0);
    Ipv6Addr::from_bits(address.to_bits() & mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_longest_prefix_wins_whatever_the_order_of_adding() {
        let mut routes = Routes::default();
        let gateway = Some(address("10.1.0.254"));
        routes.insert(
            address("0.0.0.0"),
            0,
            Route {
                port: PortId(0),
                gateway,
            },
        );
        routes.insert(
            address("10.2.3.4"),
            32,
            Route {
                port: PortId(2),
                gateway: None,
            },
        );
        routes.insert(
            address("10.2.0.0"),
            16,
            Route {
                port: PortId(1),
                gateway: None,
            },
        );
        routes.insert(
            address("fd00::"),
            8,
            Route {
                port: PortId(3),
                gateway: None,
            },
        );
        assert_eq!(
            routes.lookup(address("192.0.2.1")),
            Some((PortId(0), address("10.1.0.254")))
        );
        assert_eq!(
            routes.lookup(address("10.2.3.5")),
            Some((PortId(1), address("10.2.3.5")))
        );
        assert_eq!(
            routes.lookup(address("10.2.3.4")),
            Some((PortId(2), address("10.2.3.4")))
        );
        assert_eq!(
            routes.lookup(address("fd12::1")),
            Some((PortId(3), address("fd12::1")))
        );
        assert_eq!(routes.lookup(address("2001:db8::1")), None);
    }

    #[test]
    fn the_first_of_two_equal_prefixes_stays() {
        let mut routes = Routes::default();
        routes.insert(
            address("10.0.0.0"),
            8,
            Route {
                port: PortId(0),
                gateway: None,
            },
        );
        routes.insert(
            address("10.9.9.9"),
            8,
            Route {
                port: PortId(1),
                gateway: None,
            },
        );
        assert_eq!(
            routes.lookup(address("10.1.1.1")),
            Some((PortId(0), address("10.1.1.1")))
        );
    }

    #[test]
    fn subnets_do_not_mix_families() {
        assert!(same_subnet(
            address("10.0.0.1"),
            address("10.0.255.255"),
            16
        ));
        assert!(!same_subnet(address("10.0.0.1"), address("10.1.0.1"), 16));
        assert!(!same_subnet(address("0.0.0.0"), address("::"), 0));
    }
}
