//! `--laddr`: the local addresses (LIP) of a service's FULLNAT servers.
//!
//! Differs from IPVS: it has no FULLNAT. DPVS, which has, adds local addresses to a service one by one; here they are said
//! with the service, all at once, so that there is never a service whose servers lack them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The ports that are used where none are said.
const PORTS: (u16, u16) = (1024, 65535);
/// Addresses of one service, at most: as many as a `[[lip_pool]]` takes.
const ADDRESSES: usize = 1024;

/// Local addresses with the range of their ports: `ADDRESS[,ADDRESS...][:FIRST-LAST]`, an IPv6 address before a range in
/// brackets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LocalAddresses {
    /// At least one, each once, all of one family.
    pub addresses: Vec<IpAddr>,
    /// First and last port, the same for all of them.
    pub ports: (u16, u16),
}

impl LocalAddresses {
    /// Reads them.
    pub(super) fn parse(text: &str) -> Option<LocalAddresses> {
        let (addresses, ports) = split_range(text)?;
        let addresses: Vec<IpAddr> = addresses.split(',').map(host).collect::<Option<_>>()?;
        let is_new = |(place, address): (usize, &IpAddr)| !addresses[..place].contains(address);
        let ipv6 = addresses[0].is_ipv6();
        let is_sound = addresses.len() <= ADDRESSES
            && addresses.iter().enumerate().all(is_new)
            && addresses.iter().all(|address| address.is_ipv6() == ipv6);
        is_sound.then_some(LocalAddresses { addresses, ports })
    }

    /// Whether they can be those of a service of this family.
    #[must_use]
    pub fn are_of_family(&self, ipv6: bool) -> bool {
        self.addresses[0].is_ipv6() == ipv6
    }
}

impl fmt::Display for LocalAddresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has_range = self.ports != PORTS;
        for (place, address) in self.addresses.iter().enumerate() {
            if place > 0 {
                f.write_str(",")?;
            }
            match address {
                IpAddr::V6(address) if has_range => write!(f, "[{address}]")?,
                address => write!(f, "{address}")?,
            }
        }
        if has_range {
            write!(f, ":{}-{}", self.ports.0, self.ports.1)?;
        }
        Ok(())
    }
}

/// Takes the range of ports off the end.
fn split_range(text: &str) -> Option<(&str, (u16, u16))> {
    let Some((addresses, range)) = text.rsplit_once(':') else {
        return Some((text, PORTS));
    };
    let Some((first, last)) = range.split_once('-') else {
        return Some((text, PORTS));
    };
    let is_open = addresses
        .rsplit(',')
        .next()
        .is_some_and(|last| last.contains(':') && !last.ends_with(']'));
    let ports = (port(first)?, port(last)?);
    (!is_open && ports.0 <= ports.1).then_some((addresses, ports))
}

fn port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port > 0)
}

/// An address that a packet can come from.
fn host(text: &str) -> Option<IpAddr> {
    let address = match text.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?.into(),
        None => text
            .parse::<Ipv4Addr>()
            .map(IpAddr::from)
            .or_else(|_| text.parse::<Ipv6Addr>().map(IpAddr::from))
            .ok()?,
    };
    let is_host = !address.is_multicast() && !address.is_unspecified() && !address.is_loopback();
    is_host.then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written_in_the_same_form() {
        for text in [
            "10.2.0.200",
            "10.2.0.200,10.2.0.201",
            "10.2.0.200:5000-5003",
            "10.2.0.200,10.2.0.201:7-7",
            "fd00:2::200",
            "fd00:2::200,fd00:2::201",
            "[fd00:2::200]:5000-5003",
            "[fd00:2::200],[fd00:2::201]:5000-5003",
        ] {
            let local = LocalAddresses::parse(text).unwrap();
            assert_eq!(local.to_string(), text);
        }
        let whole = LocalAddresses::parse("[fd00:2::200]:1024-65535").unwrap();
        assert_eq!(whole.to_string(), "fd00:2::200");
        assert!(whole.are_of_family(true) && !whole.are_of_family(false));
    }

    #[test]
    fn what_no_packet_can_come_from_is_refused() {
        for text in [
            "",
            "x",
            "10.2.0.200,",
            ",10.2.0.200",
            "10.2.0.256",
            "10.2.0.200:5000",
            "10.2.0.200:0-5",
            "10.2.0.200:9-5",
            "10.2.0.200:5-65536",
            "10.2.0.200:5-9,10.2.0.201",
            "fd00::200:5-9",
            "[fd00::200",
            "10.2.0.200,fd00::200",
            "10.2.0.200,10.2.0.200",
            "0.0.0.0",
            "::",
            "224.0.0.1",
            "127.0.0.1",
        ] {
            assert_eq!(LocalAddresses::parse(text), None, "{text}");
        }
        let all: Vec<String> = (0..1025_u16)
            .map(|n| Ipv4Addr::from_bits(0x0a02_0001 + u32::from(n)).to_string())
            .collect();
        assert!(LocalAddresses::parse(&all[..1024].join(",")).is_some());
        assert_eq!(LocalAddresses::parse(&all.join(",")), None);
    }
}
