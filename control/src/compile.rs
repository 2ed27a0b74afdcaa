//! Turns a configuration into a [`Snapshot`]: gives services and servers their numbers, which they keep from one
//! configuration to the next, and finds each server's way.

use crate::config::{
    AnsweredBy, Configuration, Granularity, GueChecksum, LipPool, Listen, Mark,
    Persistence as PersistenceSettings, PortSettings, Prefix, Protocol, Server as ServerSettings,
    Service as ServiceSettings, TunnelKind,
};
use crate::traffic::{Ledger, Traffic};
use conntrack::{Ticks, Timeouts};
use dataplane::mark::{MarkRule, Network};
use dataplane::neighbour::{NeighbourId, NeighbourTable};
use dataplane::path_mtu::PathMtu;
use dataplane::port::{PortId, PortInfo};
use dataplane::rewrite::tunnel::{Encapsulation, Outer, Tunnel};
use dataplane::route::Routes;
use dataplane::snapshot::{
    LocalAddress, NextHop, Owned, Persistence, PortView, Server, Service, ServiceId, ServiceKey,
    Snapshot,
};
use dataplane::stats::WorkerStats;
use scheduler::{Load, RealServer, RealServerId, Weight};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// What a server is known by from one configuration to the next.
pub(crate) type ServerKey = (Listen, SocketAddr);

/// There is no number left for a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{wanted} servers and {lingering} removed ones that connections still refer to are too many; accepted: {limit} in \
     all (director.servers), or wait for those connections to end"
)]
pub struct NoRoom {
    /// Servers of the new configuration.
    pub wanted: usize,
    /// Removed servers that connections refer to.
    pub lingering: usize,
    /// Numbers there are.
    pub limit: usize,
}

/// A server that has a number.
struct Known {
    id: RealServerId,
    load: Arc<Load>,
    path_mtu: Arc<PathMtu>,
    /// What had been counted under the number before the server got it.
    before: Traffic,
    /// The version of the first snapshot that has it no more; 0 while it is configured.
    removed_in: u64,
}

impl Known {
    fn is_in_use(&self) -> bool {
        self.load.active() > 0 || self.load.inactive() > 0 || self.load.persistent() > 0
    }
}

/// Numbers, the lowest free one first.
#[derive(Default)]
struct Numbers {
    free: BTreeSet<u32>,
    next: u32,
}

impl Numbers {
    fn take(&mut self) -> u32 {
        self.free.pop_first().unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        })
    }

    fn give_back(&mut self, number: u32) {
        self.free.insert(number);
    }
}

/// Compiles one configuration after the other.
pub(crate) struct Compiler {
    ports: Vec<PortInfo>,
    neighbours: Arc<NeighbourTable>,
    stats: Vec<Arc<WorkerStats>>,
    server_limit: usize,
    servers: HashMap<ServerKey, Known>,
    server_ids: Numbers,
    services: HashMap<Listen, ServiceId>,
    service_ids: Numbers,
    ledger: Ledger,
}

/// What was current before a compilation.
pub(crate) struct Before<'b> {
    /// None at the start.
    pub(crate) configuration: Option<&'b Configuration>,
    pub(crate) snapshot: &'b Snapshot,
    /// The oldest version that a worker may still be using.
    pub(crate) seen_by_all: u64,
}

impl Compiler {
    pub(crate) fn new(
        ports: Vec<PortInfo>,
        neighbours: Arc<NeighbourTable>,
        stats: Vec<Arc<WorkerStats>>,
        server_limit: usize,
    ) -> Compiler {
        Compiler {
            ports,
            neighbours,
            stats,
            server_limit,
            servers: HashMap::new(),
            server_ids: Numbers::default(),
            services: HashMap::new(),
            service_ids: Numbers::default(),
            ledger: Ledger::default(),
        }
    }

    /// The snapshot of a configuration that [`check`](crate::config::check) found nothing wrong with. Where there is no
    /// room nothing has changed.
    pub(crate) fn compile(
        &mut self,
        configuration: &Configuration,
        before: &Before<'_>,
        now: Ticks,
    ) -> Result<Snapshot, NoRoom> {
        self.forget(before.seen_by_all);
        self.renumber(configuration, before.snapshot.version + 1)?;
        let routes = configuration.routing();
        let ports: Vec<PortView> = self
            .ports
            .iter()
            .zip(&configuration.ports)
            .map(port_view)
            .collect();
        let mut servers = vec![None; self.server_ids.next as usize];
        let mut services = Vec::new();
        for service in &configuration.services {
            let id = self.services[&service.listen];
            for server in &service.servers {
                let known = &self.servers[&(service.listen, server.address)];
                let mut compiled = self.server(id, server, known, &routes, &ports, now);
                if let Some(tunnel) = &mut compiled.tunnel {
                    tunnel.copy_dont_fragment = configuration.ipvs.pmtu_disc;
                }
                servers[known.id.0 as usize] = Some(Arc::new(compiled));
                known.load.set_thresholds(server.upper, server.lower);
                if server.weight > 0 {
                    known.load.set_last_weight(Weight(server.weight));
                }
            }
            let compiled = self.service(service, configuration, before);
            services.push((compiled.key, compiled));
        }
        for known in self.servers.values().filter(|known| known.removed_in != 0) {
            let index = known.id.0 as usize;
            servers[index] = before
                .snapshot
                .servers
                .get(index)
                .and_then(Option::as_deref)
                .map(removed);
        }
        let same_ways = before.configuration.is_some_and(|old| {
            old.routes == configuration.routes && old.ports == configuration.ports
        });
        let mut timeouts = Timeouts::default();
        let seconds = configuration.timeouts;
        timeouts.set(seconds.tcp, seconds.tcp_fin, seconds.udp);
        Ok(Snapshot {
            version: 0,
            ports,
            owned: owned(configuration).into_iter().collect(),
            routes,
            route_generation: before
                .snapshot
                .route_generation
                .wrapping_add(u16::from(!same_ways)),
            marks: configuration
                .marks
                .iter()
                .map(|mark| mark_rule(mark, &configuration.ports))
                .collect(),
            services: services.into_iter().collect(),
            servers,
            timeouts,
            ipvs: configuration.ipvs,
        })
    }

    /// The MTU of a port in the snapshots to come; a port that does not exist has none.
    pub(crate) fn set_mtu(&mut self, port: PortId, mtu: u32) {
        if let Some(info) = self.ports.get_mut(usize::from(port.0)) {
            info.mtu = mtu;
        }
    }

    /// The number and load of a configured server, and its traffic so far.
    pub(crate) fn server_facts(
        &self,
        key: &ServerKey,
    ) -> Option<(RealServerId, Arc<Load>, Traffic)> {
        let known = self.servers.get(key)?;
        Some((known.id, Arc::clone(&known.load), self.traffic(known)))
    }

    /// What each service counted since it was added.
    pub(crate) fn services_traffic(&self) -> HashMap<Listen, Traffic> {
        let services = self.services.keys();
        let mut sums: HashMap<_, _> = services
            .map(|listen| (*listen, self.ledger.of(listen)))
            .collect();
        for ((listen, _), known) in &self.servers {
            if let Some(sum) = sums.get_mut(listen) {
                *sum = sum.and(self.traffic(known));
            }
        }
        sums
    }

    fn traffic(&self, known: &Known) -> Traffic {
        Traffic::of(&self.stats, known.id).since(known.before)
    }

    /// Frees the numbers of removed servers that no connection refers to, nor can any more: every worker has seen that
    /// they are gone.
    pub(crate) fn forget(&mut self, seen_by_all: u64) {
        let Compiler {
            servers,
            server_ids,
            ledger,
            stats,
            ..
        } = self;
        servers.retain(|key, known| {
            let stays =
                known.removed_in == 0 || known.removed_in > seen_by_all || known.is_in_use();
            if !stays {
                ledger.part(*key, Traffic::of(stats, known.id).since(known.before));
                server_ids.give_back(known.id.0);
            }
            stays
        });
    }

    /// Gives numbers to what is new, and marks what is no longer configured.
    fn renumber(&mut self, configuration: &Configuration, version: u64) -> Result<(), NoRoom> {
        let wanted: HashSet<ServerKey> = keys(configuration).collect();
        let lingering = self
            .servers
            .keys()
            .filter(|key| !wanted.contains(key))
            .count();
        if wanted.len() + lingering > self.server_limit {
            return Err(NoRoom {
                wanted: wanted.len(),
                lingering,
                limit: self.server_limit,
            });
        }
        for (key, known) in &mut self.servers {
            match wanted.contains(key) {
                true => {
                    if known.removed_in != 0 {
                        known.load.set_last_weight(Weight(0));
                    }
                    known.removed_in = 0;
                }
                false if known.removed_in == 0 => known.removed_in = version,
                false => {}
            }
        }
        self.renumber_services(configuration);
        for key in keys(configuration) {
            self.servers.entry(key).or_insert_with(|| {
                let id = RealServerId(self.server_ids.take());
                Known {
                    id,
                    load: Arc::default(),
                    path_mtu: Arc::default(),
                    before: Traffic::of(&self.stats, id).since(self.ledger.rejoin(&key)),
                    removed_in: 0,
                }
            });
        }
        Ok(())
    }

    /// The same for services. One that comes counts from now on, also where connections stay of one before it.
    fn renumber_services(&mut self, configuration: &Configuration) {
        let services = configuration.services.iter();
        let listens: HashSet<Listen> = services.map(|service| service.listen).collect();
        let (ids, ledger) = (&mut self.service_ids, &mut self.ledger);
        self.services.retain(|listen, id| {
            let stays = listens.contains(listen);
            if !stays {
                ids.give_back(id.0);
                ledger.close(listen);
            }
            stays
        });
        let mut new = HashSet::new();
        for listen in listens {
            self.services.entry(listen).or_insert_with(|| {
                new.insert(listen);
                ledger.open(listen);
                ServiceId(ids.take())
            });
        }
        for ((listen, _), known) in &mut self.servers {
            if new.contains(listen) {
                known.before = Traffic::of(&self.stats, known.id);
            }
        }
    }

    fn server(
        &self,
        service: ServiceId,
        server: &ServerSettings,
        known: &Known,
        routes: &Routes,
        ports: &[PortView],
        now: Ticks,
    ) -> Server {
        let address = server.address.ip();
        let (port, next) = routes
            .lookup(address)
            .expect("a checked configuration has a way to every server");
        // Without room the worker looks for a place itself, when a packet comes.
        let neighbour = self
            .neighbours
            .intern(port, next, now)
            .unwrap_or(NeighbourId::NONE);
        let source = ports[usize::from(port.0)].source_for(address);
        Server {
            id: known.id,
            service,
            address,
            port: server.address.port(),
            method: server.method,
            load: Arc::clone(&known.load),
            next_hop: NextHop {
                port,
                address: next,
                neighbour,
            },
            tunnel: source.and_then(|source| tunnel(source, address, server.tunnel)),
            path_mtu: Arc::clone(&known.path_mtu),
            present: true,
        }
    }

    /// The same service as before where nothing of it changed, so that the schedulers' state stays.
    fn service(
        &self,
        service: &ServiceSettings,
        configuration: &Configuration,
        before: &Before<'_>,
    ) -> Arc<Service> {
        let key = service_key(&service.listen);
        let local_addresses = local_addresses(service, &configuration.lip_pools);
        let options = service.scheduler_options(&configuration.ipvs);
        let id = self.services[&service.listen];
        let servers: Vec<RealServer> = service
            .servers
            .iter()
            .rev()
            .map(|server| self.real_server(service, server))
            .collect();
        let old = before
            .snapshot
            .services
            .get(&key)
            .filter(|old| old.id == id);
        let edits = old.map_or(0, |old| {
            let edited = is_edited(service, before.configuration)
                || !old
                    .servers
                    .iter()
                    .map(|old| old.id)
                    .eq(servers.iter().map(|new| new.id));
            old.edits + u64::from(edited)
        });
        let unchanged = old.filter(|old| {
            old.edits == edits
                && old.scheduler == service.scheduler
                && old.scheduler_options == options
                && old.local_addresses == local_addresses
                && (old.one_packet, old.helper) == (service.one_packet, service.helper)
                && old.persistence == service.persistence.as_ref().map(persistence)
        });
        unchanged.map(Arc::clone).unwrap_or_else(|| {
            Arc::new(Service {
                id,
                key,
                scheduler: service.scheduler.to_owned(),
                scheduler_options: options,
                servers,
                edits,
                local_addresses,
                one_packet: service.one_packet,
                helper: service.helper,
                persistence: service.persistence.as_ref().map(persistence),
            })
        })
    }

    fn real_server(&self, service: &ServiceSettings, server: &ServerSettings) -> RealServer {
        let known = &self.servers[&(service.listen, server.address)];
        RealServer {
            id: known.id,
            address: server.address.ip(),
            port: server.address.port(),
            weight: Weight(server.weight),
            load: Arc::clone(&known.load),
        }
    }
}

/// Whether a service's servers are others than before, in whatever.
fn is_edited(service: &ServiceSettings, before: Option<&Configuration>) -> bool {
    let mut services = before.iter().flat_map(|before| &before.services);
    services
        .find(|old| old.listen == service.listen)
        .is_none_or(|old| old.servers != service.servers || old.idle_edits != service.idle_edits)
}

fn keys(configuration: &Configuration) -> impl Iterator<Item = ServerKey> {
    configuration.services.iter().flat_map(|service| {
        service
            .servers
            .iter()
            .map(|server| (service.listen, server.address))
    })
}

fn service_key(listen: &Listen) -> ServiceKey {
    match *listen {
        Listen::Address { protocol, address } => ServiceKey {
            protocol: protocol.number(),
            address: address.ip(),
            port: address.port(),
        },
        Listen::Mark { mark, ipv6 } => ServiceKey::of_mark(mark, ipv6),
    }
}

fn persistence(settings: &PersistenceSettings) -> Persistence {
    Persistence {
        timeout: Ticks::from_seconds(settings.timeout),
        mask: match settings.granularity {
            Granularity::Address => u128::MAX,
            Granularity::Netmask(mask) => mask.to_bits().into(),
            Granularity::Prefix(len) => u128::MAX
                .checked_shl(128 - u32::from(len.min(128)))
                .unwrap_or(0),
        },
        engine: settings.engine,
    }
}

fn mark_rule(mark: &Mark, ports: &[PortSettings]) -> MarkRule {
    let named = |name: &String| {
        let mut numbered = (0u16..).map(PortId).zip(ports);
        numbered.find(|(_, port)| port.name == *name)
    };
    let network = |prefix: Prefix| Network::new(prefix.address, prefix.len);
    let range = |ports: Option<(u16, u16)>| ports.map_or(0..=u16::MAX, |(low, high)| low..=high);
    let port = mark.port.as_ref().map(|name| {
        named(name)
            .expect("a checked configuration has every port that it names")
            .0
    });
    MarkRule {
        mark: mark.mark,
        port,
        source: mark.source.map(network),
        destination: mark.destination.map(network),
        protocol: mark.protocol.map(Protocol::number),
        source_ports: range(mark.source_ports),
        destination_ports: range(mark.destination_ports),
        ipv6: mark
            .source
            .or(mark.destination)
            .map(|prefix| prefix.address.is_ipv6()),
    }
}

fn port_view((info, settings): (&PortInfo, &PortSettings)) -> PortView {
    PortView {
        name: info.name.clone(),
        mac: info.mac,
        mtu: info.mtu,
        addresses: settings
            .addresses
            .iter()
            .map(|prefix| (prefix.address, prefix.len))
            .collect(),
    }
}

/// The addresses that the director answers for. What the kernel answers for stays with it, even where it is a VIP.
fn owned(configuration: &Configuration) -> HashMap<IpAddr, Owned> {
    let mut owned: HashMap<IpAddr, Owned> = configuration
        .services
        .iter()
        .flat_map(|service| {
            service
                .listen
                .ip()
                .into_iter()
                .chain(service.addresses.clone())
        })
        .map(|address| (address, Owned::Virtual))
        .collect();
    for pool in &configuration.lip_pools {
        owned.extend(
            pool.addresses
                .iter()
                .map(|address| (*address, Owned::Local)),
        );
    }
    for port in &configuration.ports {
        let why = match port.answered_by {
            AnsweredBy::Uvs => Owned::Director,
            AnsweredBy::Kernel => Owned::Kernel,
        };
        owned.extend(port.addresses.iter().map(|prefix| (prefix.address, why)));
    }
    owned
}

/// The FULLNAT sources of a service: those of its pool that are of its family.
fn local_addresses(service: &ServiceSettings, pools: &[LipPool]) -> Vec<LocalAddress> {
    let pool = service
        .lip_pool
        .as_ref()
        .and_then(|name| pools.iter().find(|pool| pool.name == *name));
    let addresses = pool
        .into_iter()
        .flat_map(|pool| pool.addresses.iter().map(move |address| (pool, *address)));
    addresses
        .filter(|(_, address)| address.is_ipv4() == service.listen.is_ipv4())
        .map(|(pool, address)| LocalAddress {
            address,
            first_port: pool.first_port,
            last_port: pool.last_port,
        })
        .collect()
}

fn tunnel(source: IpAddr, destination: IpAddr, kind: TunnelKind) -> Option<Tunnel> {
    let outer = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => Outer::V4 {
            source,
            destination,
        },
        (IpAddr::V6(source), IpAddr::V6(destination)) => Outer::V6 {
            source,
            destination,
        },
        _ => return None,
    };
    Some(Tunnel {
        outer,
        copy_dont_fragment: true,
        encapsulation: encapsulation(kind),
    })
}

fn encapsulation(kind: TunnelKind) -> Encapsulation {
    match kind {
        TunnelKind::Ipip => Encapsulation::Ipip,
        TunnelKind::Gre { checksum } => Encapsulation::Gre { checksum },
        TunnelKind::Gue { port, checksum } => Encapsulation::Gue {
            port,
            checksum: checksum != GueChecksum::None,
        },
    }
}

/// A server as it was, but gone.
fn removed(server: &Server) -> Arc<Server> {
    Arc::new(Server {
        id: server.id,
        service: server.service,
        address: server.address,
        port: server.port,
        method: server.method,
        load: Arc::clone(&server.load),
        next_hop: server.next_hop,
        tunnel: server.tunnel,
        path_mtu: Arc::clone(&server.path_mtu),
        present: false,
    })
}
