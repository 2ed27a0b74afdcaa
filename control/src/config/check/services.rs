//! Services.

use super::{Checks, family};
use crate::config::SERVERS;
use crate::config::mistake::{KeyPath, Problem};
use crate::config::model::{Granularity, Protocol, Service};
use conntrack::Method;
use std::collections::HashMap;
use std::net::IpAddr;

impl Checks<'_> {
    pub(super) fn services(&mut self) {
        let routing =
            (self.is_sound("port") && self.is_sound("route")).then(|| self.configuration.routing());
        let count: usize = self
            .configuration
            .services
            .iter()
            .map(|service| service.servers.len())
            .sum();
        let limit = usize::try_from(self.configuration.director.servers)
            .unwrap_or(SERVERS)
            .min(SERVERS);
        if count > limit {
            self.wrong(
                KeyPath::top("service"),
                Problem::TooMany {
                    count,
                    what: "servers (director.servers)",
                    limit,
                },
            );
        }
        let mut listens = HashMap::new();
        for (place, service) in self.configuration.services.iter().enumerate() {
            let path = KeyPath::top("service").index(place);
            let listen_of = |place: &usize| KeyPath::top("service").index(*place).key("listen");
            self.once(&mut listens, &service.listen, place, listen_of);
            self.virtual_address(service, &path);
            self.lip_pool_of(service, &path);
            self.one_packet(service, &path);
            self.helper(service, &path);
            self.persistence(service, &path);
            self.addresses(service, &path);
            self.reaches(service, &path);
            self.slow_start(service, &path);
            self.servers(place, service, routing.as_ref());
        }
    }

    /// A VIP may be an address of a port, but not a local address of FULLNAT.
    fn virtual_address(&mut self, service: &Service, path: &KeyPath) {
        let addresses = service.listen.ip().into_iter();
        let is_local = |address: IpAddr| {
            let path = self.owned.get(&address);
            path.is_some_and(|path| path.is_below("lip_pool"))
        };
        if addresses
            .chain(service.addresses.iter().copied())
            .any(is_local)
        {
            let value = service.listen.to_string();
            let accepted = "an address that is in no [[lip_pool]]".to_owned();
            self.wrong(
                path.key("listen"),
                Problem::Conflict {
                    value,
                    conflict: "is a local address of FULLNAT",
                    accepted,
                },
            );
        }
    }

    /// A service of all ports is one of all of a client's connections together, and an engine knows one protocol.
    fn persistence(&mut self, service: &Service, path: &KeyPath) {
        let Some(persistence) = &service.persistence else {
            if service.listen.ip().is_some() && service.listen.port() == 0 {
                self.wrong(
                    path.key("persistence_timeout"),
                    Problem::Missing {
                        what: "the persistence of a service of all ports",
                        accepted: "1 to 2678400".to_owned(),
                    },
                );
            }
            return;
        };
        let fits = match persistence.granularity {
            Granularity::Address => true,
            Granularity::Netmask(_) => service.listen.is_ipv4(),
            Granularity::Prefix(_) => !service.listen.is_ipv4(),
        };
        if !fits {
            let accepted = if service.listen.is_ipv4() {
                "an IPv4 netmask such as \"255.255.255.0\""
            } else {
                "\"1\" to \"128\""
            };
            self.wrong(
                path.key("persistence_granularity"),
                Problem::NotA {
                    value: persistence.granularity.to_string(),
                    what: "a granularity of the service's family",
                    accepted: accepted.to_owned(),
                },
            );
        }
        if persistence.engine.is_some() && service.listen.protocol() == Some(Protocol::Tcp) {
            let why = "the engine \"sip\" looks into UDP packets";
            self.wrong(path.key("persistence_engine"), Problem::Misplaced(why));
        }
    }

    fn one_packet(&mut self, service: &Service, path: &KeyPath) {
        let path = || path.key("one_packet");
        if service.one_packet && service.listen.protocol() == Some(Protocol::Tcp) {
            self.wrong(
                path(),
                Problem::Misplaced("only udp services schedule each packet alone"),
            );
        } else if service.one_packet && uses_fullnat(service) {
            self.wrong(
                path(),
                Problem::Misplaced("method \"fullnat\" needs connections for its replies"),
            );
        }
    }

    fn helper(&mut self, service: &Service, path: &KeyPath) {
        let path = || path.key("helper");
        if service.helper.is_some() && service.listen.protocol() != Some(Protocol::Tcp) {
            self.wrong(
                path(),
                Problem::Misplaced("only tcp services have a helper"),
            );
        } else if service.helper.is_some() && uses_fullnat(service) {
            self.wrong(
                path(),
                Problem::Misplaced("with method \"fullnat\" servers cannot connect to clients"),
            );
        }
    }

    fn slow_start(&mut self, service: &Service, path: &KeyPath) {
        if service.flags.slow_start > 0 && !scheduler::has_slow_start(service.scheduler) {
            self.wrong(
                path.key("slow_start"),
                Problem::Misplaced(
                    "only schedulers rr, wrr, lc, wlc, sed, twos and maglev start slowly",
                ),
            );
        }
    }

    fn lip_pool_of(&mut self, service: &Service, path: &KeyPath) {
        let fullnat = uses_fullnat(service);
        let path = || path.key("lip_pool");
        let pools = &self.configuration.lip_pools;
        let names = || match pools.is_empty() {
            true => "the name of a [[lip_pool]], to be added".to_owned(),
            false => {
                let names = pools.iter().map(|pool| pool.name.as_str());
                names.collect::<Vec<_>>().join(", ")
            }
        };
        match (&service.lip_pool, fullnat) {
            (None, false) => {}
            (None, true) => {
                self.wrong(
                    path(),
                    Problem::Missing {
                        what: "the pool of method \"fullnat\"",
                        accepted: names(),
                    },
                );
            }
            (Some(_), false) => self.wrong(
                path(),
                Problem::Misplaced("only method \"fullnat\" takes local addresses"),
            ),
            (Some(_), true) if !self.is_sound("lip_pool") => {}
            (Some(name), true) => {
                let ipv4 = service.listen.is_ipv4();
                match pools.iter().find(|pool| pool.name == *name) {
                    None => self.not_a(path(), name, "the name of a pool", names()),
                    Some(pool) if !pool.addresses.iter().any(|lip| lip.is_ipv4() == ipv4) => {
                        let accepted = format!("a pool with an {} address", family(ipv4));
                        self.not_a(path(), name, "a pool of the service's family", accepted);
                    }
                    Some(_) => {}
                }
            }
        }
    }
}

fn uses_fullnat(service: &Service) -> bool {
    let mut methods = service.servers.iter().map(|server| server.method);
    service.method == Method::FullNat || methods.any(|method| method == Method::FullNat)
}
