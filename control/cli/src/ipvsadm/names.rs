//! Names of hosts and services in place of numbers, where `-n` is not said.

use super::Protocol;
use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

/// Shows addresses, as numbers or by their names.
#[derive(Debug, Default)]
pub struct Names {
    /// Unset where only numbers are shown.
    looked_up: Option<LookedUp>,
}

/// What was looked up: each once, since an answer may take seconds.
#[derive(Debug, Default)]
struct LookedUp {
    hosts: RefCell<HashMap<IpAddr, Option<String>>>,
    /// The text of services(5).
    services: String,
}

impl Names {
    /// Numbers alone.
    #[must_use]
    pub fn numeric() -> Names {
        Names::default()
    }

    /// Names, from the system's sources, where there are any.
    #[must_use]
    pub fn looked_up() -> Names {
        Names {
            looked_up: Some(LookedUp {
                hosts: RefCell::default(),
                services: std::fs::read_to_string(super::address::SERVICES).unwrap_or_default(),
            }),
        }
    }

    /// Names or numbers.
    #[must_use]
    pub fn new(numeric: bool) -> Names {
        if numeric {
            Names::numeric()
        } else {
            Names::looked_up()
        }
    }

    /// Address and port; without a protocol, as for a mark's servers, the port has no name.
    pub(super) fn of(&self, address: SocketAddr, protocol: Option<Protocol>) -> String {
        let Some(known) = &self.looked_up else {
            return address.to_string();
        };
        let port = protocol.and_then(|protocol| {
            super::address::port_name(&known.services, address.port(), protocol)
        });
        let port = port.unwrap_or_else(|| address.port().to_string());
        let host = known.host(address.ip());
        let host = host.unwrap_or_else(|| address.ip().to_string());
        match address.ip() {
            IpAddr::V4(_) => format!("{host}:{port}"),
            IpAddr::V6(_) => format!("[{host}]:{port}"),
        }
    }
}

impl LookedUp {
    fn host(&self, address: IpAddr) -> Option<String> {
        let mut hosts = self.hosts.borrow_mut();
        let known = hosts.entry(address).or_insert_with(|| {
            let name = dns_lookup::lookup_addr(&address).ok()?;
            (name != address.to_string()).then_some(name)
        });
        known.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_where_there_are_any() {
        let known = LookedUp {
            services: "http 80/tcp www\ndomain 53/udp\n".to_owned(),
            ..LookedUp::default()
        };
        for (address, name) in [
            ("10.0.0.1", None),
            ("10.0.0.2", Some("two")),
            ("fd00::1", None),
        ] {
            let name = name.map(str::to_owned);
            known
                .hosts
                .borrow_mut()
                .insert(address.parse().unwrap(), name);
        }
        let names = Names {
            looked_up: Some(known),
        };
        let shown = |address: &str, protocol| names.of(address.parse().unwrap(), protocol);
        for (address, protocol, expected) in [
            ("10.0.0.1:80", Some(Protocol::Tcp), "10.0.0.1:http"),
            ("10.0.0.2:53", Some(Protocol::Udp), "two:domain"),
            ("10.0.0.2:53", Some(Protocol::Tcp), "two:53"),
            ("10.0.0.2:0", Some(Protocol::Tcp), "two:0"),
            ("[fd00::1]:80", Some(Protocol::Tcp), "[fd00::1]:http"),
            ("10.0.0.1:80", None, "10.0.0.1:80"),
        ] {
            assert_eq!(shown(address, protocol), expected);
            let numbers = Names::numeric().of(address.parse().unwrap(), protocol);
            assert_eq!(numbers, address);
        }
    }
}
