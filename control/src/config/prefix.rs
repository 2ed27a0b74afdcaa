//! An address with the length of its network's prefix: `10.1.0.1/24`.

use dataplane::route;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// An address and a prefix length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Prefix {
    /// The address; its host bits may be set.
    pub address: IpAddr,
    /// Bits of the network part, at most 32 or 128.
    pub len: u8,
}

impl Prefix {
    /// Whether `address` lies in the network. Never for an address of the other family.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        route::same_subnet(self.address, address, self.len)
    }

    /// The network's own address: host bits zero.
    #[must_use]
    pub fn network(&self) -> IpAddr {
        route::mask(self.address, self.len)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.len)
    }
}

/// Not an address, a slash and a prefix length.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a prefix; accepted: an address, a slash and a length of at most 32 (IPv4) or 128 (IPv6)"
)]
pub struct NotAPrefix;

impl FromStr for Prefix {
    type Err = NotAPrefix;

    fn from_str(text: &str) -> Result<Prefix, NotAPrefix> {
        let (address, len) = text.split_once('/').ok_or(NotAPrefix)?;
        let address: IpAddr = address.parse().map_err(|_| NotAPrefix)?;
        let len: u8 = len.parse().map_err(|_| NotAPrefix)?;
        let limit = if address.is_ipv4() { 32 } else { 128 };
        if len > limit {
            return Err(NotAPrefix);
        }
        Ok(Prefix { address, len })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_contains_its_own_network_and_nothing_of_the_other_family() {
        for (prefix, address, contained) in [
            ("10.1.0.1/24", "10.1.0.254", true),
            ("10.1.0.1/24", "10.1.1.1", false),
            ("10.1.0.1/32", "10.1.0.1", true),
            ("10.1.0.1/32", "10.1.0.0", false),
            ("0.0.0.0/0", "255.1.2.3", true),
            ("0.0.0.0/0", "::1", false),
            ("fd00::1/64", "fd00::ffff", true),
            ("fd00::1/64", "fd00:0:0:1::1", false),
            ("fd00::1/128", "fd00::1", true),
            ("::/0", "fd00::1", true),
        ] {
            let parsed: Prefix = prefix.parse().unwrap();
            assert_eq!(
                parsed.contains(address.parse().unwrap()),
                contained,
                "{prefix} {address}"
            );
        }
    }

    #[test]
    fn the_network_of_a_prefix_has_no_host_bits() {
        for (prefix, network) in [
            ("10.1.2.3/20", "10.1.0.0"),
            ("0.0.0.0/0", "0.0.0.0"),
            ("fd00::1:1/112", "fd00::1:0"),
            ("::1/128", "::1"),
        ] {
            assert_eq!(
                prefix.parse::<Prefix>().unwrap().network().to_string(),
                network
            );
        }
    }

    #[test]
    fn what_is_no_prefix_is_refused() {
        for text in [
            "",
            "/",
            "10.0.0.1",
            "10.0.0.1/33",
            "10.0.0.1/-1",
            "fd00::/129",
            "10.0.0/8",
            "10.0.0.1/24/1",
        ] {
            assert_eq!(text.parse::<Prefix>(), Err(NotAPrefix), "{text}");
        }
    }
}
