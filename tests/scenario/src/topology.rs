//! The network of the recordings: a director with a client side and a server side, and nobody else. Every other host is an
//! address with a hardware address made from it.

use dataplane::port::{Mac, PortId};
use dataplane::route::same_subnet;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One of the director's two ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// Where clients are, and the way to everywhere else.
    Client,
    /// Where real servers are.
    Server,
}

impl Side {
    /// Both, in the order of their ports.
    pub const ALL: [Side; 2] = [Side::Client, Side::Server];

    /// As scenarios name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Side::Client => "client",
            Side::Server => "server",
        }
    }

    /// The side of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Side> {
        Side::ALL.into_iter().find(|side| side.name() == name)
    }

    /// Its port.
    #[must_use]
    pub fn port(self) -> PortId {
        match self {
            Side::Client => PortId(0),
            Side::Server => PortId(1),
        }
    }

    /// The director's hardware address there.
    #[must_use]
    pub fn mac(self) -> Mac {
        let side = match self {
            Side::Client => 1,
            Side::Server => 2,
        };
        Mac([2, 0, 0, 0, side, 1])
    }

    /// The director's addresses there, with prefix lengths.
    #[must_use]
    pub fn addresses(self) -> [(IpAddr, u8); 2] {
        let net = self.number();
        [
            (Ipv4Addr::new(10, net.to_be_bytes()[1], 0, 1).into(), 16),
            (Ipv6Addr::new(0xfd00, net, 0, 0, 0, 0, 0, 1).into(), 64),
        ]
    }

    /// The router there, of the family asked for.
    #[must_use]
    pub fn router(self, ipv6: bool) -> IpAddr {
        let net = self.number();
        if ipv6 {
            Ipv6Addr::new(0xfd00, net, 0, 0, 0, 0, 0, 0xfe).into()
        } else {
            Ipv4Addr::new(10, net.to_be_bytes()[1], 0, 254).into()
        }
    }

    fn number(self) -> u16 {
        match self {
            Side::Client => 1,
            Side::Server => 2,
        }
    }
}

/// Destinations beyond the links, and the side whose router leads there.
pub const ROUTES: [(&str, Side); 4] = [
    ("10.3.0.0/16", Side::Server),
    ("fd00:3::/64", Side::Server),
    ("0.0.0.0/0", Side::Client),
    ("::/0", Side::Client),
];

/// The hardware address that stands for a host's address.
#[must_use]
pub fn mac_of(address: IpAddr) -> Mac {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            Mac([2, 4, a, b, c, d])
        }
        IpAddr::V6(address) => {
            let [.., a, b, c, d] = address.octets();
            Mac([2, 6, a, b, c, d])
        }
    }
}

/// The side whose link an address is on.
#[must_use]
pub fn link_of(address: IpAddr) -> Option<Side> {
    Side::ALL.into_iter().find(|side| {
        let mut networks = side.addresses().into_iter();
        networks.any(|(own, len)| same_subnet(own, address, len))
    })
}

/// Where frames from an address come in, and the hardware address they bear.
#[must_use]
pub fn source_of(address: IpAddr) -> (Side, Mac) {
    if let Some(side) = link_of(address) {
        return (side, mac_of(address));
    }
    let server_side: [(IpAddr, u8); 2] = [
        (Ipv4Addr::new(10, 3, 0, 0).into(), 16),
        (Ipv6Addr::new(0xfd00, 3, 0, 0, 0, 0, 0, 0).into(), 64),
    ];
    let behind_servers = server_side
        .into_iter()
        .any(|(network, len)| same_subnet(network, address, len));
    let side = if behind_servers {
        Side::Server
    } else {
        Side::Client
    };
    (side, mac_of(side.router(address.is_ipv6())))
}

/// Every host on a link that a scenario's text names, and the routers.
#[must_use]
pub fn neighbours(text: &str) -> BTreeSet<IpAddr> {
    let part_of_word = |c: char| c.is_alphanumeric() || "_.:".contains(c);
    let words = text.split(|c| !part_of_word(c));
    let mut found: BTreeSet<IpAddr> = words.filter_map(literal).collect();
    for side in Side::ALL {
        found.extend([side.router(false), side.router(true)]);
    }
    found.retain(|address| link_of(*address).is_some() && !is_own(*address));
    found
}

/// Whether it is an address of one of the director's ports.
#[must_use]
pub fn is_own(address: IpAddr) -> bool {
    let own = Side::ALL.into_iter().flat_map(Side::addresses);
    own.into_iter().any(|(own, _)| own == address)
}

/// An address at the start of a word, a port behind an IPv4 one left out.
fn literal(word: &str) -> Option<IpAddr> {
    if let Ok(address) = word.parse::<Ipv6Addr>() {
        return Some(address.into());
    }
    let host = word.split(':').next()?;
    host.parse::<Ipv4Addr>().ok().map(IpAddr::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_found_in_a_scenarios_text() {
        let text = r#"["-a -t 10.0.0.100:80 -r 10.2.0.11:8080 -m", "[fd00:2::11]:80", "fd00:1::7", "10.1.0.1", "v10.2.0.9"]"#;
        let found: Vec<_> = neighbours(text).iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "10.1.0.254",
                "10.2.0.11",
                "10.2.0.254",
                "fd00:1::7",
                "fd00:1::fe",
                "fd00:2::11",
                "fd00:2::fe"
            ]
        );
    }

    #[test]
    fn frames_of_far_hosts_come_from_their_router() {
        let source = |text: &str| source_of(text.parse().unwrap());
        assert_eq!(
            source("10.2.0.11"),
            (Side::Server, Mac([2, 4, 10, 2, 0, 11]))
        );
        assert_eq!(
            source("10.64.0.7"),
            (Side::Client, Mac([2, 4, 10, 1, 0, 254]))
        );
        assert_eq!(
            source("10.3.0.21"),
            (Side::Server, Mac([2, 4, 10, 2, 0, 254]))
        );
        assert_eq!(
            source("fd00:3::9"),
            (Side::Server, Mac([2, 6, 0, 0, 0, 0xfe]))
        );
        assert_eq!(
            source("2001:db8::1"),
            (Side::Client, Mac([2, 6, 0, 0, 0, 0xfe]))
        );
    }
}
