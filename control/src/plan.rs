//! What a new configuration changes, worked out before anything is changed.

use crate::config::{Configuration, Listen, Server, Service};
use scheduler::{Load, RealServer, RealServerId, Weight, share_moved};
use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

/// What becomes of a service or a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It comes.
    Add,
    /// It stays, with other settings.
    Edit,
    /// It goes.
    Remove,
}

/// A server that changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedServer {
    /// RIP and port.
    pub address: SocketAddr,
    /// How.
    pub action: Action,
    /// Its connections, at the time of planning.
    pub connections: u64,
}

/// A service that changes, or some of whose servers do.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedService {
    /// What clients address.
    pub listen: Listen,
    /// How; `None` where only servers change.
    pub action: Option<Action>,
    /// Those of its servers that change.
    pub servers: Vec<PlannedServer>,
    /// Its connections whose servers stay.
    pub connections_kept: u64,
    /// Its connections whose servers go.
    pub connections_cut: u64,
    /// With a scheduler that hashes: the share of flows, 0 to 1, for which it picks another server from then on. Only in
    /// plans that are asked for (see [`Director::plan`](crate::Director::plan)).
    pub slots_moved: Option<f64>,
}

/// The differences between two configurations.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "answers to independent questions"
)]
pub struct Plan {
    /// Those that change; added and edited ones in the order of the new configuration, then those that go.
    pub services: Vec<PlannedService>,
    /// Routes or the ports' addresses change.
    pub ways_changed: bool,
    /// Pools of local addresses change.
    pub lip_pools_changed: bool,
    /// Marks change.
    pub marks_changed: bool,
    /// Timeouts change.
    pub timeouts_changed: bool,
    /// Behaviour by the kernel's names changes.
    pub ipvs_changed: bool,
}

impl Plan {
    /// The way from `old` to `new`; `connections` tells how many connections a server has.
    pub(crate) fn new(
        old: &Configuration,
        new: &Configuration,
        connections: impl Fn(&(Listen, SocketAddr)) -> u64,
    ) -> Plan {
        let by_listen = |configuration: &'_ Configuration| -> HashMap<Listen, usize> {
            let services = configuration.services.iter().enumerate();
            services
                .map(|(place, service)| (service.listen, place))
                .collect()
        };
        let (before, after) = (by_listen(old), by_listen(new));
        let mut services = Vec::new();
        for service in &new.services {
            let was = before
                .get(&service.listen)
                .map(|place| &old.services[*place]);
            services.extend(planned(was, Some(service), &connections));
        }
        for service in &old.services {
            if !after.contains_key(&service.listen) {
                services.extend(planned(Some(service), None, &connections));
            }
        }
        Plan {
            services,
            ways_changed: old.routes != new.routes || old.ports != new.ports,
            lip_pools_changed: old.lip_pools != new.lip_pools,
            marks_changed: old.marks != new.marks,
            timeouts_changed: old.timeouts != new.timeouts,
            ipvs_changed: old.ipvs != new.ipvs,
        }
    }

    /// Works out which share of flows gets another server.
    pub(crate) fn find_moved(&mut self, old: &Configuration, new: &Configuration) {
        let find = |configuration: &Configuration, listen: Listen| {
            let mut services = configuration.services.iter();
            services
                .find(|service| service.listen == listen)
                .map(|service| (service.scheduler, service.flags, scheduled(service)))
        };
        for planned in &mut self.services {
            let (Some(before), Some(after)) =
                (find(old, planned.listen), find(new, planned.listen))
            else {
                continue;
            };
            // With another scheduler there is nothing to compare.
            if (before.0, before.1) == (after.0, after.1) {
                let unspecified = if planned.listen.is_ipv4() {
                    IpAddr::V4(Ipv4Addr::UNSPECIFIED)
                } else {
                    IpAddr::V6(Ipv6Addr::UNSPECIFIED)
                };
                let to = planned.listen.ip().unwrap_or(unspecified);
                let servers = [&before.2[..], &after.2[..]];
                planned.slots_moved = share_moved(after.0, &after.1, to, servers);
            }
        }
    }

    /// Services of which this becomes.
    #[must_use]
    pub fn services_to(&self, action: Action) -> usize {
        let services = self.services.iter();
        services
            .filter(|service| service.action == Some(action))
            .count()
    }

    /// Servers of which this becomes, those of services that come and go included.
    #[must_use]
    pub fn servers_to(&self, action: Action) -> usize {
        let servers = self.services.iter().flat_map(|service| &service.servers);
        servers.filter(|server| server.action == action).count()
    }

    /// Connections to servers that go.
    #[must_use]
    pub fn connections_cut(&self) -> u64 {
        let services = self.services.iter();
        services.map(|service| service.connections_cut).sum()
    }
}

/// The servers of a service as its scheduler sees them: the newest first, none of them busy.
fn scheduled(service: &Service) -> Vec<RealServer> {
    let servers = (0..)
        .zip(&service.servers)
        .map(|(number, server)| RealServer {
            id: RealServerId(number),
            address: server.address.ip(),
            port: server.address.port(),
            weight: Weight(server.weight),
            load: Arc::new(Load::default()),
        });
    let mut servers: Vec<_> = servers.collect();
    servers.reverse();
    servers
}

/// What becomes of one service, if anything.
fn planned(
    old: Option<&Service>,
    new: Option<&Service>,
    connections: impl Fn(&(Listen, SocketAddr)) -> u64,
) -> Option<PlannedService> {
    let action = match (old, new) {
        (None, _) => Some(Action::Add),
        (_, None) => Some(Action::Remove),
        (Some(old), Some(new)) => is_edited(old, new).then_some(Action::Edit),
    };
    let servers_of = |service: Option<&Service>| -> Vec<Server> {
        service
            .map(|service| service.servers.clone())
            .unwrap_or_default()
    };
    let is_same = old.map(|old| &old.servers) == new.map(|new| &new.servers);
    if action.is_none() && is_same {
        return None;
    }
    let listen = old.or(new)?.listen;
    let (before, after) = (servers_of(old), servers_of(new));
    let was: HashMap<_, _> = before
        .iter()
        .map(|server| (server.address, server))
        .collect();
    let is: HashMap<_, _> = after
        .iter()
        .map(|server| (server.address, server))
        .collect();
    let mut servers = Vec::new();
    let mut push = |address, action| {
        servers.push(PlannedServer {
            address,
            action,
            connections: connections(&(listen, address)),
        });
    };
    for server in &after {
        match was.get(&server.address) {
            None => push(server.address, Action::Add),
            Some(old) if *old != server => push(server.address, Action::Edit),
            Some(_) => {}
        }
    }
    let (mut kept, mut cut) = (0, 0);
    for server in &before {
        let own = connections(&(listen, server.address));
        if is.contains_key(&server.address) {
            kept += own;
        } else {
            push(server.address, Action::Remove);
            cut += own;
        }
    }
    Some(PlannedService {
        listen,
        action,
        servers,
        connections_kept: kept,
        connections_cut: cut,
        slots_moved: None,
    })
}

/// Whether anything but servers differs.
fn is_edited(old: &Service, new: &Service) -> bool {
    let Service {
        listen: _,
        scheduler,
        flags,
        method: _,
        lip_pool,
        one_packet,
        helper,
        persistence,
        addresses,
        servers: _,
        idle_edits: _,
    } = old;
    (*scheduler, flags) != (new.scheduler, &new.flags)
        || (lip_pool, addresses) != (&new.lip_pool, &new.addresses)
        || (one_packet, helper, persistence) != (&new.one_packet, &new.helper, &new.persistence)
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        for (count, what) in [
            (self.services_to(Action::Add), "services added"),
            (self.services_to(Action::Edit), "services edited"),
            (self.services_to(Action::Remove), "services removed"),
            (self.servers_to(Action::Add), "servers added"),
            (self.servers_to(Action::Edit), "servers edited"),
            (self.servers_to(Action::Remove), "servers removed"),
        ] {
            if count > 0 {
                parts.push(format!("{count} {what}"));
            }
        }
        let cut = self.connections_cut();
        if cut > 0 {
            parts.push(format!("{cut} connections to removed servers"));
        }
        for (changed, what) in [
            (self.ways_changed, "addresses or routes changed"),
            (self.lip_pools_changed, "local addresses changed"),
            (self.marks_changed, "marks changed"),
            (self.timeouts_changed, "timeouts changed"),
            (self.ipvs_changed, "ipvs settings changed"),
        ] {
            if changed {
                parts.push(what.to_owned());
            }
        }
        f.write_str(&if parts.is_empty() {
            "nothing changes".to_owned()
        } else {
            parts.join(", ")
        })
    }
}
