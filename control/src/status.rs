//! What a director tells of itself, as plain values.

use crate::config::{
    Listen, Persistence, Server as ServerSettings, Service as ServiceSettings, TunnelKind,
};
use crate::director::{Director, Takeover};
use crate::rates::Rates;
use crate::traffic::Traffic;
use conntrack::{Method, Placement, TableStatistics};
use dataplane::helper::Helper;
use dataplane::port::handle::{Fixed, PortHandle, PortState};
use dataplane::port::{Mac, PortInfo};
use dataplane::reason::Reason;
use dataplane::stats::PortLosses;
use scheduler::{Load, Options, RealServerId};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// How a director does.
#[derive(Clone, Debug)]
pub struct Status {
    /// Since the start.
    pub uptime: Duration,
    /// Configurations published so far.
    pub version: u64,
    /// By number.
    pub workers: Vec<WorkerStatus>,
    /// By their place in the configuration.
    pub ports: Vec<PortStatus>,
    /// The connections of IPv4 and of IPv6 clients.
    pub tables: [TableStatistics; 2],
    /// Every reason, all workers together.
    pub drops: Vec<(Reason, u64)>,
    /// Ports of local addresses, and how many of them are in use: summed over workers and servers.
    pub lip_ports: (u64, u64),
    /// The hosts on the links.
    pub neighbours: Vec<NeighbourStatus>,
    /// What an operator should see to.
    pub warnings: Vec<String>,
    /// What was found in the file that the tables lie in, if they do.
    pub takeover: Option<Takeover>,
}

/// How a worker does. Counters since the start.
#[derive(Clone, Debug)]
pub struct WorkerStatus {
    /// False when its thread has ended on its own.
    pub running: bool,
    /// Frames received.
    pub received: u64,
    /// Frames forwarded.
    pub forwarded: u64,
    /// Answers made here.
    pub replied: u64,
    /// Frames left to the kernel.
    pub exceptions: u64,
    /// Frames put aside until a neighbour answered.
    pub waiting: u64,
    /// Frames dropped.
    pub dropped: u64,
    /// Connections made.
    pub connections: u64,
    /// Bursts of at least one frame.
    pub bursts: u64,
    /// Times it slept.
    pub sleeps: u64,
    /// Connections that go without their service's helper, because as many as may have one.
    pub helpers_refused: u64,
    /// Half-open connections that ended in favour of clients that came again.
    pub half_open_replaced: u64,
    /// Frames that its ports lost before it saw them.
    pub receive_missed: u64,
    /// Frames that its ports took and could not send.
    pub transmit_errors: u64,
    /// First fragments forgotten before their time, because newer ones needed the room.
    pub fragments_forgotten: u64,
}

/// A port.
#[derive(Clone, Debug)]
pub struct PortStatus {
    /// What it said of itself when it was opened.
    pub info: PortInfo,
    /// How it is now.
    pub state: PortState,
    /// Frames that it lost before the workers saw them. Up to a second old, as the next one.
    pub receive_missed: u64,
    /// Frames that it took and could not send.
    pub transmit_errors: u64,
    /// What its driver and its device count, by their names for it.
    pub statistics: Vec<(String, u64)>,
    /// The director's addresses there, with prefix lengths.
    pub addresses: Vec<String>,
}

/// A host on a port's link.
#[derive(Clone, Debug)]
pub struct NeighbourStatus {
    /// The port's name.
    pub port: String,
    /// Its address.
    pub address: IpAddr,
    /// Its hardware address, if known.
    pub mac: Option<Mac>,
    /// "incomplete", "reachable", "stale" or "failed".
    pub state: &'static str,
}

/// A virtual service.
#[derive(Clone, Debug)]
pub struct ServiceStatus {
    /// What clients address.
    pub listen: Listen,
    /// The scheduler's name.
    pub scheduler: &'static str,
    /// Its flags.
    pub flags: Options,
    /// Each UDP packet is scheduled alone.
    pub one_packet: bool,
    /// Clients stay with their server.
    pub persistence: Option<Persistence>,
    /// What listens to its connections.
    pub helper: Option<Helper>,
    /// Since it was added or zeroed, with all servers that it had.
    pub traffic: Traffic,
    /// In the last seconds.
    pub rates: Rates,
    /// In the order of adding, the newest last.
    pub servers: Vec<ServerStatus>,
}

/// A real server.
#[derive(Clone, Debug)]
pub struct ServerStatus {
    /// Its number, kept as long as it is configured or referred to.
    pub id: RealServerId,
    /// RIP and port.
    pub address: SocketAddr,
    /// How packets reach it.
    pub method: Method,
    /// How they are wrapped, with TUN.
    pub tunnel: TunnelKind,
    /// Share of new flows.
    pub weight: u16,
    /// ActiveConn.
    pub active: u32,
    /// InActConn.
    pub inactive: u32,
    /// PersistConn.
    pub persistent: u32,
    /// At so many connections it gets no new ones; 0: no limit.
    pub upper: u32,
    /// Below so many it gets new ones again; 0: below three quarters of `upper`.
    pub lower: u32,
    /// Since it was added or zeroed.
    pub traffic: Traffic,
    /// In the last seconds.
    pub rates: Rates,
}

impl Director {
    /// How the director does, at this moment.
    #[must_use]
    pub fn status(&self) -> Status {
        let workers: Vec<_> = (0..self.stats.len())
            .map(|worker| self.worker(worker))
            .collect();
        let drops = |reason: Reason| self.stats.iter().map(|stats| stats.drops(reason)).sum();
        let lip_ports = |gauge: fn(&dataplane::stats::WorkerStats) -> &AtomicU64| {
            self.stats
                .iter()
                .map(|stats| gauge(stats).load(Relaxed))
                .sum()
        };
        Status {
            uptime: self.started.elapsed(),
            version: self.publisher.current().version,
            workers,
            ports: self.port_statuses(),
            tables: [self.tables.ipv4.statistics(), self.tables.ipv6.statistics()],
            drops: Reason::ALL
                .iter()
                .map(|reason| (*reason, drops(*reason)))
                .collect(),
            lip_ports: (
                lip_ports(|stats| &stats.lip_ports),
                lip_ports(|stats| &stats.lip_ports_in_use),
            ),
            neighbours: self.neighbour_statuses(),
            warnings: self.warnings(),
            takeover: self.takeover().cloned(),
        }
    }

    /// What was found in the file that the tables lie in, if they do.
    #[must_use]
    pub fn takeover(&self) -> Option<&Takeover> {
        self.kept.as_ref().map(|kept| &kept.takeover)
    }

    /// What an operator should see to, each a sentence.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let tables = [
            ("IPv4", self.tables.ipv4.statistics()),
            ("IPv6", self.tables.ipv6.statistics()),
        ];
        let tables = tables
            .iter()
            .map(|(family, table)| warn(family, table, self.kept.is_some()));
        tables.flatten().flatten().collect()
    }

    /// The services with their servers, by protocol, address and port.
    #[must_use]
    pub fn services(&self) -> Vec<ServiceStatus> {
        let current = self.current.lock();
        let accounts = self.accounts.lock();
        let traffic = current.compiler.services_traffic();
        let mut services: Vec<_> = current.configuration.services.iter().collect();
        services.sort_by_key(|service| service.listen);
        let server = |service: &ServiceSettings, server: &ServerSettings| {
            let key = (service.listen, server.address);
            let facts = current.compiler.server_facts(&key);
            let facts = facts.expect("every configured server has a number");
            server_status(server, facts, |counted| accounts.server(&key, counted))
        };
        let services = services.into_iter().map(|service| {
            let counted = traffic.get(&service.listen).copied().unwrap_or_default();
            let (traffic, rates) = accounts.service(&service.listen, counted);
            ServiceStatus {
                listen: service.listen,
                scheduler: service.scheduler,
                flags: service.flags,
                one_packet: service.one_packet,
                persistence: service.persistence,
                helper: service.helper,
                traffic,
                rates,
                servers: service
                    .servers
                    .iter()
                    .map(|one| server(service, one))
                    .collect(),
            }
        });
        services.collect()
    }

    /// A configured server of a service.
    #[must_use]
    pub fn server(&self, listen: Listen, address: SocketAddr) -> Option<ServerStatus> {
        let current = self.current.lock();
        let accounts = self.accounts.lock();
        let mut services = current.configuration.services.iter();
        let service = services.find(|service| service.listen == listen)?;
        let server = service.servers.iter().find(|one| one.address == address)?;
        let key = (listen, address);
        let facts = current.compiler.server_facts(&key)?;
        Some(server_status(server, facts, |counted| {
            accounts.server(&key, counted)
        }))
    }

    fn worker(&self, worker: usize) -> WorkerStatus {
        let stats = &self.stats[worker];
        let get = |counter: &AtomicU64| counter.load(Relaxed);
        WorkerStatus {
            running: self
                .threads
                .get(worker)
                .is_some_and(|thread| !thread.is_finished()),
            received: get(&stats.verdicts.received),
            forwarded: get(&stats.verdicts.forwarded),
            replied: get(&stats.verdicts.replied),
            exceptions: get(&stats.verdicts.exceptions),
            waiting: get(&stats.verdicts.waiting),
            dropped: Reason::ALL.iter().map(|reason| stats.drops(*reason)).sum(),
            connections: get(&stats.connections),
            bursts: get(&stats.bursts),
            sleeps: get(&stats.sleeps),
            helpers_refused: get(&stats.helpers_refused),
            half_open_replaced: get(&stats.half_open_replaced),
            receive_missed: get(&stats.receive_missed),
            transmit_errors: get(&stats.transmit_errors),
            fragments_forgotten: get(&stats.fragments_forgotten),
        }
    }

    /// How the ports were when they were looked at last: the workers know the same.
    fn port_statuses(&self) -> Vec<PortStatus> {
        let states = self.port_states();
        let current = self.current.lock();
        let ports = self.ports.iter().zip(&current.configuration.ports);
        let ports = ports
            .enumerate()
            .map(|(index, (info, settings))| PortStatus {
                info: info.clone(),
                state: states
                    .get(index)
                    .cloned()
                    .unwrap_or_else(|| Fixed(info.clone()).state()),
                receive_missed: self.port_losses(index, |losses| &losses.receive_missed),
                transmit_errors: self.port_losses(index, |losses| &losses.transmit_errors),
                statistics: self
                    .handles
                    .get(index)
                    .map(|handle| handle.statistics())
                    .unwrap_or_default(),
                addresses: settings.addresses.iter().map(ToString::to_string).collect(),
            });
        ports.collect()
    }

    /// What one port lost, all workers together.
    fn port_losses(&self, index: usize, counter: fn(&PortLosses) -> &AtomicU64) -> u64 {
        let ports = self.stats.iter().filter_map(|stats| stats.ports.get(index));
        ports.map(|losses| counter(losses).load(Relaxed)).sum()
    }

    fn neighbour_statuses(&self) -> Vec<NeighbourStatus> {
        let name = |index: u16| {
            self.ports
                .get(usize::from(index))
                .map(|port| port.name.clone())
                .unwrap_or_default()
        };
        let neighbours = self.neighbours.list().into_iter();
        let mut neighbours: Vec<_> = neighbours
            .map(|(port, address, mac, state)| NeighbourStatus {
                port: name(port.0),
                address,
                mac,
                state,
            })
            .collect();
        neighbours.sort_by(|a, b| (&a.port, a.address).cmp(&(&b.port, b.address)));
        neighbours
    }
}

fn server_status(
    server: &ServerSettings,
    (id, load, counted): (RealServerId, Arc<Load>, Traffic),
    shown: impl FnOnce(Traffic) -> (Traffic, Rates),
) -> ServerStatus {
    let (traffic, rates) = shown(counted);
    ServerStatus {
        id,
        address: server.address,
        method: server.method,
        tunnel: server.tunnel,
        weight: server.weight,
        active: load.active(),
        inactive: load.inactive(),
        persistent: load.persistent(),
        upper: server.upper,
        lower: server.lower,
        traffic,
        rates,
    }
}

/// What is wrong with a table's memory.
fn warn(family: &str, table: &TableStatistics, is_in_file: bool) -> [Option<String>; 2] {
    let remedy = if is_in_file {
        "lay director.table on hugetlbfs, or on a tmpfs with huge=advise"
    } else {
        "set huge pages aside (vm.nr_hugepages), or allow transparent ones"
    };
    let pages = table.pages.are_poor().then(|| {
        format!(
            "{family} connections: {} of {} MiB lie in ordinary pages, which makes packets slower; \
             {remedy}",
            table.pages.ordinary >> 20,
            table.bytes >> 20
        )
    });
    let placement = (table.placement == Placement::Refused).then(|| {
        format!(
            "{family} connections: the system does not let their memory be placed (mbind), which may lie on another \
             NUMA node than the workers"
        )
    });
    [pages, placement]
}

#[cfg(test)]
mod tests {
    use super::*;
    use conntrack::Pages;

    #[test]
    fn ordinary_pages_and_memory_that_cannot_be_placed_are_told() {
        let mut table = TableStatistics {
            bytes: 100 << 20,
            pages: Pages {
                ordinary: 90 << 20,
                transparent: 10 << 20,
                ..Pages::default()
            },
            placement: Placement::Refused,
            ..TableStatistics::default()
        };
        let told = warn("IPv4", &table, false).map(|warning| warning.unwrap_or_default());
        assert!(
            told[0].contains("90 of 100 MiB lie in ordinary pages"),
            "{told:?}"
        );
        assert!(told[1].contains("mbind"), "{told:?}");
        let [in_file, _] = warn("IPv4", &table, true);
        assert!(in_file.is_some_and(|told| told.contains("hugetlbfs")));
        table.pages.huge = 100 << 20;
        table.placement = Placement::OnNodes;
        assert_eq!(warn("IPv4", &table, false), [None, None]);
    }
}
