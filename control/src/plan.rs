//! What a new configuration changes, worked out before anything is changed.

use crate::config::{Configuration, Listen, Server, Service};
use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;

/// The differences between two configurations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Services that come.
    pub services_added: Vec<Listen>,
    /// Services that stay, with another scheduler, flags or pool.
    pub services_edited: Vec<Listen>,
    /// Services that go.
    pub services_removed: Vec<Listen>,
    /// Servers that come, those of new services included.
    pub servers_added: Vec<(Listen, SocketAddr)>,
    /// Servers that stay, with another weight, method or threshold.
    pub servers_edited: Vec<(Listen, SocketAddr)>,
    /// Servers that go, those of removed services included.
    pub servers_removed: Vec<(Listen, SocketAddr)>,
    /// Connections to servers that go.
    pub connections_cut: u64,
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
        let mut plan = Plan {
            ways_changed: old.routes != new.routes || old.ports != new.ports,
            lip_pools_changed: old.lip_pools != new.lip_pools,
            marks_changed: old.marks != new.marks,
            timeouts_changed: old.timeouts != new.timeouts,
            ipvs_changed: old.ipvs != new.ipvs,
            ..Plan::default()
        };
        let old_services: HashMap<_, _> = old
            .services
            .iter()
            .map(|service| (service.listen, service))
            .collect();
        let new_services: HashMap<_, _> = new
            .services
            .iter()
            .map(|service| (service.listen, service))
            .collect();
        for service in &new.services {
            match old_services.get(&service.listen) {
                None => plan.services_added.push(service.listen),
                Some(old) => {
                    let words = |service: &Service| {
                        let Service {
                            scheduler,
                            flags,
                            one_packet,
                            helper,
                            persistence,
                            ..
                        } = *service;
                        (scheduler, flags, one_packet, helper, persistence)
                    };
                    let places =
                        |service: &Service| (service.lip_pool.clone(), service.addresses.clone());
                    if words(old) != words(service) || places(old) != places(service) {
                        plan.services_edited.push(service.listen);
                    }
                }
            }
            let before = old_services
                .get(&service.listen)
                .map(|service| service.servers.as_slice());
            plan.servers(service.listen, before.unwrap_or_default(), &service.servers);
        }
        for service in old
            .services
            .iter()
            .filter(|service| !new_services.contains_key(&service.listen))
        {
            plan.services_removed.push(service.listen);
            plan.servers(service.listen, &service.servers, &[]);
        }
        plan.connections_cut = plan.servers_removed.iter().map(connections).sum();
        plan
    }

    fn servers(&mut self, listen: Listen, old: &[Server], new: &[Server]) {
        let old_servers: HashMap<_, _> =
            old.iter().map(|server| (server.address, server)).collect();
        let new_servers: HashMap<_, _> =
            new.iter().map(|server| (server.address, server)).collect();
        for server in new {
            match old_servers.get(&server.address) {
                None => self.servers_added.push((listen, server.address)),
                Some(old) if *old != server => self.servers_edited.push((listen, server.address)),
                Some(_) => {}
            }
        }
        let gone = old
            .iter()
            .filter(|server| !new_servers.contains_key(&server.address));
        self.servers_removed
            .extend(gone.map(|server| (listen, server.address)));
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        for (count, what) in [
            (self.services_added.len(), "services added"),
            (self.services_edited.len(), "services edited"),
            (self.services_removed.len(), "services removed"),
            (self.servers_added.len(), "servers added"),
            (self.servers_edited.len(), "servers edited"),
            (self.servers_removed.len(), "servers removed"),
        ] {
            if count > 0 {
                parts.push(format!("{count} {what}"));
            }
        }
        if self.connections_cut > 0 {
            parts.push(format!(
                "{} connections to removed servers",
                self.connections_cut
            ));
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
