//! What a worker keeps for each service and each server between packets: the scheduler's state, the neighbour in use.

use super::egress::Way;
use super::lookup::Asked;
use super::lookup::FTP;
use crate::Map;
use crate::helper::Helper;
use crate::neighbour::NeighbourId;
use crate::path_mtu::PathMtu;
use crate::rewrite::tunnel::Tunnel;
use crate::snapshot::{LocalAddress, Server, Service, ServiceId, ServiceKey, Snapshot};
use conntrack::{Method, State, Ticks};
use scheduler::{Activity, Flow, Options, RealServerId, Scheduler};
use std::net::IpAddr;
use std::sync::Arc;

/// A service's scheduler with this worker's state of it.
struct ServiceState {
    scheduler: Box<dyn Scheduler>,
    name: String,
    options: Options,
    service: Arc<Service>,
    /// Where the next FULLNAT connection begins to look for a local address.
    next_lip: usize,
}

/// What the packet path wants of a server: small, dense, indexed by id.
pub(super) struct ServerState {
    /// The next hop as last resolved.
    pub(super) neighbour: NeighbourId,
    /// False once it was removed from its service.
    pub(super) present: bool,
    /// Its weight is 0: no new flows.
    pub(super) drained: bool,
    /// How packets get there.
    pub(super) method: Method,
    /// For its connections by TUN: the outer header.
    pub(super) tunnel: Option<Tunnel>,
    /// Its counts, and the path MTU of its tunnel.
    server: Option<Arc<Server>>,
}

const _: () = assert!(size_of::<ServerState>() <= 64);

/// A server for a new flow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Picked {
    pub(super) id: RealServerId,
    pub(super) address: IpAddr,
    /// Host byte order.
    pub(super) port: u16,
    pub(super) method: Method,
}

/// All services and servers as one worker has them.
pub(super) struct Services {
    worker: usize,
    services: Vec<Option<ServiceState>>,
    /// Whether there is a service of IPv4, and one of IPv6.
    families: [bool; 2],
    servers: Vec<ServerState>,
    /// Where NAT servers speak from; only filled for `nat_icmp_send`.
    nat_ends: Map<ServiceKey, ()>,
    /// Where NAT servers speak from whose service looks into their messages.
    speakers: Map<ServiceKey, (Asked, RealServerId)>,
}

impl Services {
    pub(super) fn new(worker: u16) -> Services {
        Services {
            worker: usize::from(worker),
            services: Vec::new(),
            families: [false; 2],
            servers: Vec::new(),
            nat_ends: Map::default(),
            speakers: Map::default(),
        }
    }

    /// Brings the schedulers up to date. Those whose service did not change are left alone. Returns whether a server
    /// that was there is gone.
    pub(super) fn adopt(&mut self, snapshot: &Snapshot) -> bool {
        let mut old: Vec<_> = std::mem::take(&mut self.services);
        self.families = [false, true].map(|ipv6| {
            let mut keys = snapshot.services.keys();
            keys.any(|key| key.address.is_ipv6() == ipv6)
        });
        for service in snapshot.services.values() {
            let index = service.id.0 as usize;
            if self.services.len() <= index {
                self.services.resize_with(index + 1, || None);
            }
            let before = old.get_mut(index).and_then(Option::take);
            self.services[index] = Some(self.updated(before, service));
        }
        let is_there = |id: usize| {
            let server = snapshot.servers.get(id).and_then(Option::as_ref);
            server.is_some_and(|server| server.present)
        };
        let mut before = self.servers.iter().enumerate();
        let some_are_gone = before.any(|(id, state)| state.present && !is_there(id));
        self.servers
            .resize_with(snapshot.servers.len(), ServerState::nobody);
        for (state, server) in self.servers.iter_mut().zip(&snapshot.servers) {
            *state = server
                .as_ref()
                .map_or_else(ServerState::nobody, ServerState::of);
        }
        self.adopt_lists(snapshot);
        some_are_gone
    }

    /// What follows from the services' lists of servers.
    fn adopt_lists(&mut self, snapshot: &Snapshot) {
        self.nat_ends.clear();
        self.speakers.clear();
        for service in snapshot.services.values() {
            for server in &service.servers {
                let Some(state) = self.servers.get_mut(server.id.0 as usize) else {
                    continue;
                };
                state.drained = server.weight.0 == 0;
                if state.method != Method::Nat {
                    continue;
                }
                let end = ServiceKey {
                    protocol: service.key.protocol,
                    address: server.address,
                    port: server.port,
                };
                if snapshot.ipvs.nat_icmp_send {
                    self.nat_ends.insert(end, ());
                }
                let engine = service.persistence.and_then(|found| found.engine);
                if engine.is_some() && !service.key.is_mark() {
                    self.speakers.insert(end, (Asked::of(service), server.id));
                }
            }
        }
    }

    /// Whether there is any service of a family. Where there is none, the packets of connections that remain are the
    /// kernel's, too.
    ///
    /// Source: Linux net/netfilter/ipvs/ip_vs_ctl.c (`ip_vs_add_service`: the first of a family has the hooks set).
    #[inline]
    pub(super) fn has_family(&self, ipv6: bool) -> bool {
        self.families[usize::from(ipv6)]
    }

    /// The NAT server that speaks from there, and its service, if that looks into its messages.
    pub(super) fn speaker(&self, end: &ServiceKey) -> Option<(Asked, RealServerId)> {
        self.speakers.get(end).copied()
    }

    /// Whether a NAT server speaks from there.
    pub(super) fn is_nat_end(&self, end: &ServiceKey) -> bool {
        self.nat_ends.contains_key(end)
    }

    fn updated(&self, before: Option<ServiceState>, service: &Arc<Service>) -> ServiceState {
        let is_new = before.is_none();
        let kept = before.filter(|state| {
            state.service.key == service.key
                && state.name == service.scheduler
                && state.options.slow_start == service.scheduler_options.slow_start
        });
        match kept {
            Some(mut state) => {
                // As in the kernel: what is told of the service itself does not disturb its scheduler's round.
                if state.options != service.scheduler_options {
                    state.options = service.scheduler_options;
                    state.scheduler.set_options(&state.options);
                }
                if state.service.edits != service.edits {
                    state.scheduler.servers_changed(&service.servers);
                }
                state.service = Arc::clone(service);
                state
            }
            None => {
                let options = Options {
                    stagger: self.worker,
                    ..service.scheduler_options
                };
                let mut scheduler = scheduler::create(&service.scheduler, &options).expect(
                    "control checks a scheduler's name and options before it publishes them",
                );
                if is_new {
                    // A service begins empty and has its servers added; a new scheduler on a live one finds them there.
                    scheduler.servers_changed(&[]);
                }
                scheduler.servers_changed(&service.servers);
                ServiceState {
                    scheduler,
                    name: service.scheduler.clone(),
                    options: service.scheduler_options,
                    service: Arc::clone(service),
                    next_lip: self.worker,
                }
            }
        }
    }

    /// The server for a new flow of `service`.
    pub(super) fn pick(&mut self, service: ServiceId, flow: &Flow) -> Option<Picked> {
        let state = self.services.get_mut(service.0 as usize)?.as_mut()?;
        let index = state.scheduler.pick(flow, &state.service.servers)?;
        let server = state.service.servers.get(index)?;
        Some(Picked {
            id: server.id,
            address: server.address,
            port: server.port,
            method: self.servers.get(server.id.0 as usize)?.method,
        })
    }

    /// What looks into connections of `service` to a virtual port: the service's own, or FTP's of those to all ports.
    pub(super) fn helper(&self, service: ServiceId, port: u16) -> Option<Helper> {
        let service = &self.services.get(service.0 as usize)?.as_ref()?.service;
        let own = match service.key.port {
            0 => FTP,
            own => own,
        };
        service.helper.filter(|_| port == own)
    }

    /// The local addresses of `service`, and the index of the one to try first: another one for each connection.
    pub(super) fn local_addresses(&mut self, service: ServiceId) -> (&[LocalAddress], usize) {
        let state = self.services.get_mut(service.0 as usize);
        let Some(state) = state.and_then(Option::as_mut) else {
            return (&[], 0);
        };
        let addresses = &state.service.local_addresses;
        state.next_lip = if state.next_lip + 1 < addresses.len() {
            state.next_lip + 1
        } else {
            0
        };
        (addresses, state.next_lip)
    }

    /// What is kept of a server; `None` for an id that no snapshot had.
    #[inline]
    pub(super) fn server(&mut self, id: RealServerId) -> Option<&mut ServerState> {
        self.servers.get_mut(id.0 as usize)
    }

    /// Whether a server is one of the snapshot's, also one that was removed.
    #[inline]
    pub(super) fn knows(&self, id: RealServerId) -> bool {
        self.servers
            .get(id.0 as usize)
            .is_some_and(|state| state.server.is_some())
    }

    /// Whether a server is one of its service's.
    #[inline]
    pub(super) fn is_present(&self, id: RealServerId) -> bool {
        self.servers
            .get(id.0 as usize)
            .is_some_and(|state| state.present)
    }

    /// Whether a server gets no new flows: its weight is 0.
    pub(super) fn is_drained(&self, id: RealServerId) -> bool {
        self.servers
            .get(id.0 as usize)
            .is_some_and(|state| state.drained)
    }

    /// Counts a new connection.
    pub(super) fn connection_began(&self, server: RealServerId, state: State) {
        self.shift(server, None, Some(activity(state)));
    }

    /// Counts a change of state.
    pub(super) fn connection_moved(&self, server: RealServerId, from: State, to: State) {
        self.shift(server, Some(activity(from)), Some(activity(to)));
    }

    /// Counts a connection off.
    pub(super) fn connection_ended(&self, server: RealServerId, state: State) {
        self.shift(server, Some(activity(state)), None);
    }

    /// Counts a new persistence template.
    pub(super) fn template_began(&self, server: RealServerId) {
        self.shift(server, None, Some(Activity::Persistent));
    }

    /// Counts a persistence template off.
    pub(super) fn template_ended(&self, server: RealServerId) {
        self.shift(server, Some(Activity::Persistent), None);
    }

    fn shift(&self, server: RealServerId, from: Option<Activity>, to: Option<Activity>) {
        if let Some(server) = self
            .servers
            .get(server.0 as usize)
            .and_then(|server| server.server.as_ref())
        {
            server.load.shift(from, to);
        }
    }

    /// Lets schedulers know that so many seconds passed.
    pub(super) fn tick(&mut self, seconds: u32) {
        for state in self.services.iter_mut().flatten() {
            state.scheduler.tick(seconds);
        }
    }
}

impl ServerState {
    /// Of an id that no server has.
    fn nobody() -> ServerState {
        ServerState {
            neighbour: NeighbourId::NONE,
            present: false,
            drained: false,
            method: Method::Local,
            tunnel: None,
            server: None,
        }
    }

    fn of(server: &Arc<Server>) -> ServerState {
        ServerState {
            neighbour: server.next_hop.neighbour,
            present: server.present,
            drained: false,
            method: server.method,
            tunnel: server.tunnel,
            server: Some(Arc::clone(server)),
        }
    }

    /// What the way through the server's tunnel, if it has one, takes.
    #[inline]
    pub(super) fn way(&self, now: Ticks) -> Way {
        let Some(tunnel) = &self.tunnel else {
            return Way::PLAIN;
        };
        Way {
            overhead: tunnel.overhead(),
            path_mtu: self.path_mtu().map_or(u32::MAX, |path| path.limit(now)),
        }
    }

    /// What routers said of the way through the server's tunnel.
    #[inline]
    pub(super) fn path_mtu(&self) -> Option<&PathMtu> {
        self.server.as_ref().map(|server| &*server.path_mtu)
    }
}

fn activity(state: State) -> Activity {
    if state.is_active() {
        Activity::Active
    } else {
        Activity::Inactive
    }
}
