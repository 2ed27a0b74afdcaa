//! Looks at the parts of a configuration together.

mod marks;
mod metrics;
mod ports;
mod servers;
mod services;

use super::mistake::{Finding, KeyPath, Problem};
use super::model::Configuration;
use conntrack::Method;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::Display;
use std::hash::Hash;
use std::net::IpAddr;

/// Checks what no single key can tell. The first list holds what cannot work, the second what will hardly work.
#[must_use]
pub fn check(configuration: &Configuration) -> (Vec<Finding>, Vec<Finding>) {
    check_beside(configuration, &[])
}

/// [`check`] beside what was already found: what follows from that is not told again.
pub(super) fn check_beside(
    configuration: &Configuration,
    known: &[Finding],
) -> (Vec<Finding>, Vec<Finding>) {
    let mut checks = Checks {
        configuration,
        known,
        wrong: Vec::new(),
        doubtful: Vec::new(),
        owned: HashMap::new(),
    };
    checks.ports();
    checks.routes();
    checks.lip_pools();
    checks.marks();
    checks.services();
    checks.metrics();
    (checks.wrong, checks.doubtful)
}

impl Configuration {
    /// Gives DR and TUN servers the port of their service, as the kernel does, and tells which ones had another.
    ///
    /// Source: Linux net/netfilter/ipvs/ip_vs_ctl.c.
    pub fn force_server_ports(&mut self) -> Vec<Finding> {
        let mut changed = Vec::new();
        for (place, service) in self.services.iter_mut().enumerate() {
            let port = service.listen.port();
            for (server_place, server) in service.servers.iter_mut().enumerate() {
                if matches!(server.method, Method::Dr | Method::Tun)
                    && server.address.port() != port
                {
                    changed.push(Finding {
                        path: server_path(place, server_place).key("address"),
                        problem: Problem::Changed {
                            value: server.address.to_string(),
                            consequence: format!("is used with port {port}: DR and TUN leave the service's port as it is"),
                        },
                    });
                    server.address.set_port(port);
                }
            }
        }
        changed
    }
}

struct Checks<'c> {
    configuration: &'c Configuration,
    known: &'c [Finding],
    wrong: Vec<Finding>,
    doubtful: Vec<Finding>,
    /// The addresses of ports and pools, and where each is said.
    owned: HashMap<IpAddr, KeyPath>,
}

impl Checks<'_> {
    /// Whether nothing was found in the part of the configuration below `key`.
    fn is_sound(&self, key: &str) -> bool {
        !self
            .known
            .iter()
            .chain(&self.wrong)
            .any(|finding| finding.path.is_below(key))
    }

    /// Notes an address of the director, or that it is said twice.
    fn own(&mut self, address: IpAddr, path: KeyPath) {
        match self.owned.entry(address) {
            Entry::Vacant(entry) => {
                entry.insert(path);
            }
            Entry::Occupied(entry) => {
                let problem = Problem::Duplicate {
                    value: address.to_string(),
                    first: entry.get().clone(),
                };
                self.wrong(path, problem);
            }
        }
    }

    /// Notes a value that is there twice. Only then `path` is asked what the path of a place is.
    fn once<'v, T: Hash + Eq + Display + ?Sized, P>(
        &mut self,
        seen: &mut HashMap<&'v T, P>,
        value: &'v T,
        place: P,
        path: impl Fn(&P) -> KeyPath,
    ) {
        match seen.entry(value) {
            Entry::Vacant(entry) => {
                entry.insert(place);
            }
            Entry::Occupied(entry) => {
                let problem = Problem::Duplicate {
                    value: value.to_string(),
                    first: path(entry.get()),
                };
                self.wrong(path(&place), problem);
            }
        }
    }

    fn not_a(&mut self, path: KeyPath, value: &dyn Display, what: &'static str, accepted: String) {
        let value = value.to_string();
        self.wrong(
            path,
            Problem::NotA {
                value,
                what,
                accepted,
            },
        );
    }

    fn wrong(&mut self, path: KeyPath, problem: Problem) {
        self.wrong.push(Finding { path, problem });
    }

    fn subnets_in_words(&self) -> String {
        let subnets = self.configuration.subnets().take(8);
        let words = subnets
            .map(|(_, subnet)| format!("{}/{}", subnet.network(), subnet.len))
            .collect::<Vec<_>>();
        if words.is_empty() {
            "no subnet yet: give a port `addresses`".to_owned()
        } else {
            words.join(", ")
        }
    }
}

fn server_path(service: usize, server: usize) -> KeyPath {
    KeyPath::top("service")
        .index(service)
        .key("server")
        .index(server)
}

fn family(ipv4: bool) -> &'static str {
    if ipv4 { "IPv4" } else { "IPv6" }
}
