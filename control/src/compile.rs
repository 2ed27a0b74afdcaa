//! Turns a configuration into a [`Snapshot`]: gives services and servers their numbers (`numbers.rs`), turns settings
//! into what the workers read (`settings.rs`), and finds each server's way. What does not change is kept (`kept.rs`).

mod kept;
mod numbers;
mod settings;

pub use numbers::NoRoom;
pub(crate) use numbers::ServerKey;

use crate::config::{Configuration, Listen, Server as ServerSettings, Service as ServiceSettings};
use crate::traffic::Ledger;
use conntrack::{Ticks, Timeouts};
use dataplane::neighbour::{NeighbourId, NeighbourTable};
use dataplane::port::{Mac, PortId, PortInfo};
use dataplane::route::Routes;
use dataplane::snapshot::{NextHop, PortView, Server, Service, ServiceId, Snapshot};
use dataplane::stats::WorkerStats;
use kept::Kept;
use numbers::{Known, Numbers};
use scheduler::{RealServer, Weight};
use settings::{
    local_addresses, mark_rule, owned, persistence, port_view, removed, service_key, tunnel,
    unknown,
};
use std::collections::HashMap;
use std::sync::Arc;

/// Compiles one configuration after the other.
pub(crate) struct Compiler {
    ports: Vec<PortInfo>,
    /// Of the ports: [`Snapshot::links`].
    links: Vec<u32>,
    neighbours: Arc<NeighbourTable>,
    stats: Vec<Arc<WorkerStats>>,
    server_limit: usize,
    servers: HashMap<ServerKey, Known>,
    server_ids: Numbers,
    /// Counts numberings.
    round: u64,
    /// The version of the snapshot that the last compilation followed.
    compiled_on: Option<u64>,
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
            links: vec![0; ports.len()],
            ports,
            neighbours,
            stats,
            server_limit,
            servers: HashMap::new(),
            server_ids: Numbers::default(),
            round: 0,
            compiled_on: None,
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
        let ports = self.ports.iter().zip(&configuration.ports);
        let ports: Vec<PortView> = ports.map(port_view).collect();
        let mut servers = vec![None; self.server_ids.next as usize];
        let mut services = Vec::with_capacity(configuration.services.len());
        let mut kept = Kept::new(configuration, before);
        // After a compilation that was not published, all of it.
        kept.rest &=
            self.compiled_on.replace(before.snapshot.version) != Some(before.snapshot.version);
        for service in &configuration.services {
            let id = self.services[&service.listen];
            if let Some(compiled) = kept.service(service, id) {
                for server in &compiled.servers {
                    let index = server.id.0 as usize;
                    servers[index].clone_from(&before.snapshot.servers[index]);
                }
                services.push((compiled.key, Arc::clone(compiled)));
                continue;
            }
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
            let old = kept.configured(service);
            let compiled = self.service(service, old, configuration, before);
            services.push((compiled.key, compiled));
        }
        self.place_removed(&mut servers, before.snapshot);
        let mut timeouts = Timeouts::default();
        let seconds = configuration.timeouts;
        timeouts.set(seconds.tcp, seconds.tcp_fin, seconds.udp);
        Ok(Snapshot {
            version: 0,
            ports,
            links: self.links.clone(),
            owned: owned(configuration).into_iter().collect(),
            routes,
            route_generation: before
                .snapshot
                .route_generation
                .wrapping_add(u16::from(!kept.ways)),
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

    /// The servers that are no longer configured, as connections may refer to them.
    fn place_removed(&self, servers: &mut [Option<Arc<Server>>], before: &Snapshot) {
        let gone = self.servers.iter();
        for (key, known) in gone.filter(|(_, known)| known.removed_in != 0) {
            let index = known.id.0 as usize;
            let old = before.servers.get(index);
            let old = old.and_then(Option::as_deref).map(removed);
            servers[index] = Some(old.unwrap_or_else(|| unknown(key.1, known)));
        }
    }

    /// The MTU of a port in the snapshots to come; a port that does not exist has none.
    pub(crate) fn set_mtu(&mut self, port: PortId, mtu: u32) {
        if let Some(info) = self.ports.get_mut(usize::from(port.0)) {
            info.mtu = mtu;
        }
    }

    /// The hardware address of a port in the snapshots to come.
    pub(crate) fn set_mac(&mut self, port: PortId, mac: Mac) {
        if let Some(info) = self.ports.get_mut(usize::from(port.0)) {
            info.mac = mac;
        }
    }

    /// A port's link came back, or its hardware address is another: the next snapshot has its addresses announced again.
    pub(crate) fn link_is_back(&mut self, port: PortId) {
        if let Some(times) = self.links.get_mut(usize::from(port.0)) {
            *times = times.wrapping_add(1);
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
        before_settings: Option<&ServiceSettings>,
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
            let edited = is_edited(service, before_settings)
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
fn is_edited(service: &ServiceSettings, before: Option<&ServiceSettings>) -> bool {
    before.is_none_or(|old| old.servers != service.servers || old.idle_edits != service.idle_edits)
}

#[cfg(test)]
mod tests;
