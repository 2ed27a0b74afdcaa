//! How scenarios write addresses, protocols and TCP flags.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// IP protocols that have a name.
pub const PROTOCOLS: [(&str, u8); 8] = [
    ("icmp", 1),
    ("ipip", 4),
    ("tcp", 6),
    ("udp", 17),
    ("ip6", 41),
    ("gre", 47),
    ("icmp6", 58),
    ("sctp", 132),
];

/// The letters of TCP's flags, the lowest bit first.
pub const TCP_FLAGS: &str = "FSRPAUEC";

/// An address, perhaps with a port: `10.1.0.7:80`, `[fd00::1]:80`, `fd00::1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The address.
    pub address: IpAddr,
    /// The port.
    pub port: Option<u16>,
}

/// Not of this form.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an address, nor one with a port")]
pub struct NotAnEndpoint;

impl FromStr for Endpoint {
    type Err = NotAnEndpoint;

    fn from_str(text: &str) -> Result<Endpoint, NotAnEndpoint> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Endpoint {
                address: address.ip(),
                port: Some(address.port()),
            });
        }
        let address = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(text);
        let address = address.parse().map_err(|_| NotAnEndpoint)?;
        Ok(Endpoint {
            address,
            port: None,
        })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => SocketAddr::new(self.address, port).fmt(f),
            None => self.address.fmt(f),
        }
    }
}
