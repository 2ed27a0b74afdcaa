//! Looks at the parts of a configuration together.

use super::mistake::{Finding, KeyPath, Problem};
use super::model::{Configuration, Driver, Granularity, Listen, Protocol, Route, Service};
use super::{Prefix, SERVERS};
use conntrack::Method;
use dataplane::port::PortId;
use dataplane::route::{self, Routes};
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

    /// The subnets of all ports' addresses, and the port of each.
    pub(crate) fn subnets(&self) -> impl Iterator<Item = (PortId, Prefix)> + Clone {
        let numbered = (0u16..).map(PortId).zip(&self.ports);
        numbered.flat_map(|(port, settings)| {
            settings.addresses.iter().map(move |prefix| (port, *prefix))
        })
    }

    /// The port that a route leaves by, if it can be told.
    pub(crate) fn port_of(&self, route: &Route) -> Option<PortId> {
        match (&route.port, route.via) {
            (Some(name), _) => (0u16..)
                .map(PortId)
                .zip(&self.ports)
                .find(|(_, port)| port.name == *name)
                .map(|(id, _)| id),
            (None, Some(via)) => {
                let of_via = self.subnets().filter(|(_, subnet)| subnet.contains(via));
                of_via
                    .max_by_key(|(_, subnet)| subnet.len)
                    .map(|(port, _)| port)
            }
            (None, None) => None,
        }
    }

    /// The way to every destination: the subnets on the ports' links and the routes.
    pub(crate) fn routing(&self) -> Routes {
        let mut routes = Routes::default();
        for (port, subnet) in self.subnets() {
            routes.insert(
                subnet.address,
                subnet.len,
                route::Route {
                    port,
                    gateway: None,
                },
            );
        }
        for route in &self.routes {
            if let Some(port) = self.port_of(route) {
                routes.insert(
                    route.to.address,
                    route.to.len,
                    route::Route {
                        port,
                        gateway: route.via,
                    },
                );
            }
        }
        routes
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
    fn ports(&mut self) {
        let ports = &self.configuration.ports;
        if ports.is_empty() {
            let accepted = "one [port.NAME] or more".to_owned();
            self.wrong(
                KeyPath::top("port"),
                Problem::Missing {
                    what: "a port",
                    accepted,
                },
            );
        }
        let mut interfaces = HashMap::new();
        for port in ports {
            let path = KeyPath::top("port").key(&port.name);
            if let Driver::AfPacket { interface } = &port.driver
                && !interface.is_empty()
            {
                self.once(&mut interfaces, interface, path.key("interface"));
            }
            for (place, prefix) in port.addresses.iter().enumerate() {
                self.own(prefix.address, path.key("addresses").index(place));
            }
        }
    }

    fn routes(&mut self) {
        let mut destinations = HashMap::new();
        for (place, route) in self.configuration.routes.iter().enumerate() {
            let path = KeyPath::top("route").index(place);
            self.once(&mut destinations, &route.to, path.key("to"));
            if let Some(name) = &route.port
                && self.configuration.port_of(route).is_none()
            {
                let names = self
                    .configuration
                    .ports
                    .iter()
                    .map(|port| port.name.as_str())
                    .collect::<Vec<_>>();
                self.not_a(
                    path.key("port"),
                    name,
                    "the name of a port",
                    names.join(", "),
                );
                continue;
            }
            let Some(via) = route.via else { continue };
            if via.is_ipv4() != route.to.address.is_ipv4() {
                self.not_a(
                    path.key("via"),
                    &via,
                    "a gateway for this destination",
                    format!("an {} address", family(route.to.address.is_ipv4())),
                );
            } else if self.is_sound("port") && !self.on_link(via, route) {
                self.not_a(
                    path.key("via"),
                    &via,
                    "an address in a port's subnet",
                    self.subnets_in_words(),
                );
            }
        }
    }

    /// Whether the gateway of a route is a neighbour. Link-local ones are, on the port that is named.
    fn on_link(&self, via: IpAddr, route: &Route) -> bool {
        let link_local = matches!(via, IpAddr::V6(v6) if v6.is_unicast_link_local());
        let port = self.configuration.port_of(route);
        (link_local && route.port.is_some())
            || self
                .configuration
                .subnets()
                .any(|(of, subnet)| Some(of) == port && subnet.contains(via))
    }

    fn lip_pools(&mut self) {
        let mut names = HashMap::new();
        for (place, pool) in self.configuration.lip_pools.iter().enumerate() {
            let path = KeyPath::top("lip_pool").index(place);
            self.once(&mut names, &pool.name, path.key("name"));
            for (place, address) in pool.addresses.iter().enumerate() {
                self.own(*address, path.key("addresses").index(place));
            }
        }
    }

    /// Whether nothing was found in the part of the configuration below `key`.
    fn is_sound(&self, key: &str) -> bool {
        !self
            .known
            .iter()
            .chain(&self.wrong)
            .any(|finding| finding.path.is_below(key))
    }

    fn services(&mut self) {
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
            self.once(&mut listens, &service.listen, path.key("listen"));
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

    /// A mark's service that nothing can reach is doubtful: rules or addresses may be about to follow.
    fn reaches(&mut self, service: &Service, path: &KeyPath) {
        let Listen::Mark { mark, .. } = service.listen else {
            return;
        };
        let value = service.listen.to_string();
        let mut marks = self.configuration.marks.iter();
        if !marks.any(|rule| rule.mark == mark) {
            let consequence = "is given by no [[mark]]: the service gets no packet".to_owned();
            self.doubtful.push(Finding {
                path: path.key("listen"),
                problem: Problem::Changed { value, consequence },
            });
        } else if service.addresses.is_empty() {
            let consequence =
                "has no addresses: packets to addresses of other services alone are looked at"
                    .to_owned();
            self.doubtful.push(Finding {
                path: path.key("listen"),
                problem: Problem::Changed { value, consequence },
            });
        }
    }

    fn addresses(&mut self, service: &Service, path: &KeyPath) {
        if service.addresses.is_empty() {
            return;
        }
        let path = path.key("addresses");
        if service.listen.ip().is_some() {
            let why = "only a mark's service has addresses beside `listen`";
            return self.wrong(path, Problem::Misplaced(why));
        }
        let mut seen = HashMap::new();
        for (place, address) in service.addresses.iter().enumerate() {
            self.once(&mut seen, address, path.index(place));
            if address.is_ipv4() != service.listen.is_ipv4() {
                let accepted = format!("an {} address", family(service.listen.is_ipv4()));
                let path = path.index(place);
                self.not_a(path, address, "of the service's family", accepted);
            }
        }
    }

    fn marks(&mut self) {
        for (place, mark) in self.configuration.marks.iter().enumerate() {
            let path = KeyPath::top("mark").index(place);
            let mut ports = self.configuration.ports.iter();
            if let Some(name) = &mark.port
                && !ports.any(|port| port.name == *name)
            {
                let names = self
                    .configuration
                    .ports
                    .iter()
                    .map(|port| port.name.as_str());
                let names = names.collect::<Vec<_>>().join(", ");
                self.not_a(path.key("port"), name, "the name of a port", names);
            }
            if let (Some(source), Some(destination)) = (mark.source, mark.destination)
                && source.address.is_ipv4() != destination.address.is_ipv4()
            {
                let accepted = format!("an {} network", family(source.address.is_ipv4()));
                let path = path.key("destination");
                self.not_a(path, &destination, "of the source's family", accepted);
            }
        }
    }

    fn one_packet(&mut self, service: &Service, path: &KeyPath) {
        let path = path.key("one_packet");
        if service.one_packet && service.listen.protocol() == Some(Protocol::Tcp) {
            self.wrong(
                path,
                Problem::Misplaced("only udp services schedule each packet alone"),
            );
        } else if service.one_packet && uses_fullnat(service) {
            self.wrong(
                path,
                Problem::Misplaced("method \"fullnat\" needs connections for its replies"),
            );
        }
    }

    fn helper(&mut self, service: &Service, path: &KeyPath) {
        let path = path.key("helper");
        if service.helper.is_some() && service.listen.protocol() != Some(Protocol::Tcp) {
            self.wrong(path, Problem::Misplaced("only tcp services have a helper"));
        } else if service.helper.is_some() && uses_fullnat(service) {
            self.wrong(
                path,
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
        let path = path.key("lip_pool");
        let mut names = self
            .configuration
            .lip_pools
            .iter()
            .map(|pool| pool.name.as_str())
            .collect::<Vec<_>>()
            .join(", ");
        if names.is_empty() {
            names = "the name of a [[lip_pool]], to be added".to_owned();
        }
        match (&service.lip_pool, fullnat) {
            (None, false) => {}
            (None, true) => {
                self.wrong(
                    path,
                    Problem::Missing {
                        what: "the pool of method \"fullnat\"",
                        accepted: names,
                    },
                );
            }
            (Some(_), false) => self.wrong(
                path,
                Problem::Misplaced("only method \"fullnat\" takes local addresses"),
            ),
            (Some(_), true) if !self.is_sound("lip_pool") => {}
            (Some(name), true) => {
                let ipv4 = service.listen.is_ipv4();
                match self
                    .configuration
                    .lip_pools
                    .iter()
                    .find(|pool| pool.name == *name)
                {
                    None => self.not_a(path, name, "the name of a pool", names),
                    Some(pool) if !pool.addresses.iter().any(|lip| lip.is_ipv4() == ipv4) => {
                        let accepted = format!("a pool with an {} address", family(ipv4));
                        self.not_a(path, name, "a pool of the service's family", accepted);
                    }
                    Some(_) => {}
                }
            }
        }
    }

    fn servers(&mut self, place: usize, service: &Service, routing: Option<&Routes>) {
        let mut addresses = HashMap::new();
        let virtual_address = service.listen.ip();
        for (server_place, server) in service.servers.iter().enumerate() {
            let path = server_path(place, server_place).key("address");
            let address = server.address.ip();
            self.once(&mut addresses, &server.address, path.clone());
            if address.is_ipv4() != service.listen.is_ipv4() && server.method != Method::Tun {
                let family = family(service.listen.is_ipv4());
                let accepted = format!("an {family} address, or method \"tun\"");
                self.not_a(path, &address, "of the service's family", accepted);
                continue;
            }
            let is_virtual =
                Some(address) == virtual_address || service.addresses.contains(&address);
            if is_virtual || self.owned.contains_key(&address) {
                let accepted = "the address of another host".to_owned();
                let conflict = "is the director's own address";
                self.wrong(
                    path,
                    Problem::Conflict {
                        value: address.to_string(),
                        conflict,
                        accepted,
                    },
                );
                continue;
            }
            match routing.and_then(|routing| routing.lookup(address)) {
                None if routing.is_none() => {}
                None => {
                    let accepted = format!(
                        "an address in {}, or a [[route]] to it",
                        self.subnets_in_words()
                    );
                    self.not_a(path, &address, "an address with a way to it", accepted);
                }
                Some((port, _)) if !self.speaks(port, address) => {
                    let name = &self.configuration.ports[usize::from(port.0)].name;
                    let accepted = format!(
                        "an {} address in port.{name}.addresses",
                        family(address.is_ipv4())
                    );
                    let conflict = "is reached by a port without an address of this family";
                    self.wrong(
                        path,
                        Problem::Conflict {
                            value: address.to_string(),
                            conflict,
                            accepted,
                        },
                    );
                }
                Some((_, next)) if next != address && server.method == Method::Dr => {
                    let consequence = format!(
                        "is behind the gateway {next}: DR sends it packets for {}, which a router would send back",
                        service.listen
                    );
                    let problem = Problem::Changed {
                        value: address.to_string(),
                        consequence,
                    };
                    self.doubtful.push(Finding { path, problem });
                }
                Some(_) => {}
            }
        }
    }

    /// Whether the director has an address on the port to ask its neighbours from, and to tunnel from.
    fn speaks(&self, port: PortId, to: IpAddr) -> bool {
        let port = &self.configuration.ports[usize::from(port.0)];
        port.addresses
            .iter()
            .any(|prefix| prefix.address.is_ipv4() == to.is_ipv4())
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

    fn once<'v, T: Hash + Eq + Display>(
        &mut self,
        seen: &mut HashMap<&'v T, KeyPath>,
        value: &'v T,
        path: KeyPath,
    ) {
        match seen.entry(value) {
            Entry::Vacant(entry) => {
                entry.insert(path);
            }
            Entry::Occupied(entry) => {
                let problem = Problem::Duplicate {
                    value: value.to_string(),
                    first: entry.get().clone(),
                };
                self.wrong(path, problem);
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

fn uses_fullnat(service: &Service) -> bool {
    let mut methods = service.servers.iter().map(|server| server.method);
    service.method == Method::FullNat || methods.any(|method| method == Method::FullNat)
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
