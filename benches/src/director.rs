//! A director without a network: one service, eight real servers, and whatever ports its workers are given.

use crate::frames::{DIRECTOR, OTHERS};
use crate::place::{Host, Ip, ip};
use conntrack::{Method, Table, TableConfig, TableError, TableStatistics, Ticks, Timeouts, V4, V6};
use dataplane::neighbour::NeighbourTable;
use dataplane::packet::wire::TCP;
use dataplane::port::{Mac, Port, PortId, PortInfo};
use dataplane::reason::Reason;
use dataplane::rewrite::{Encapsulation, Outer, Tunnel};
use dataplane::route::{Route, Routes};
use dataplane::snapshot::{
    LocalAddress, NextHop, Owned, PortView, Publisher, Server, Service, ServiceId, ServiceKey,
    Snapshot,
};
use dataplane::stats::WorkerStats;
use dataplane::worker::{Tables, Worker, WorkerParts};
use scheduler::{Load, Options, RealServer, RealServerId, Weight};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Real servers behind the service.
const SERVERS: u32 = 8;
/// Ports of a local address that FULLNAT may use towards each server.
const LOCAL_PORTS: (u16, u16) = (1024, 65535);
/// The service's port, and its servers'.
const SERVICE_PORT: u16 = 80;
/// So large that no frame which is measured must be fragmented for its tunnel.
const MTU: u32 = 9216;
/// The one port of all workers.
pub(crate) const PORT: PortId = PortId(0);

pub(crate) struct Director {
    pub(crate) tables: Tables,
    neighbours: Arc<NeighbourTable>,
    publisher: Arc<Publisher>,
    pub(crate) stats: Vec<Arc<WorkerStats>>,
    workers: u16,
    /// Who answers when asked for its hardware address.
    known: Vec<IpAddr>,
}

impl Director {
    /// A director with room for `capacity` connections of clients of one family.
    pub(crate) fn new<F: Ip>(
        method: Method,
        capacity: u32,
        workers: u16,
        now: Ticks,
    ) -> Result<Director, TableError> {
        let config = |ours| TableConfig {
            capacity: if ours { capacity } else { 1024 },
            half_open_percent: 100,
            workers,
            seeds: conntrack::random_seeds(),
        };
        let is_ipv4 = ip::<F>(Host::Vip).is_ipv4();
        let tables = Tables {
            ipv4: Table::<V4>::new(&config(is_ipv4))?,
            ipv6: Table::<V6>::new(&config(!is_ipv4))?,
            helpers: Arc::default(),
            calls: Arc::default(),
        };
        let neighbours = Arc::new(NeighbourTable::new(256));
        let publisher = Publisher::new(usize::from(workers));
        let known = (0..SERVERS).map(Host::Server).chain([Host::Router]);
        let director = Director {
            tables,
            neighbours,
            publisher,
            stats: (0..workers)
                .map(|_| Arc::new(WorkerStats::new(SERVERS as usize)))
                .collect(),
            workers,
            known: known.map(ip::<F>).collect(),
        };
        director.confirm(now);
        let snapshot = snapshot::<F>(method, local_addresses(capacity), &director.neighbours, now);
        director.publisher.publish(snapshot);
        Ok(director)
    }

    /// Lets the router and the servers say that they are still there, as they do on a network.
    pub(crate) fn confirm(&self, now: Ticks) {
        for &address in &self.known {
            let interned = self.neighbours.intern(PORT, address, now);
            interned.expect("the table has room for a dozen");
            self.neighbours.learn(PORT, address, Mac(OTHERS), now);
        }
    }

    /// What the workers go by.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.publisher.current()
    }

    pub(crate) fn worker<P: Port>(&self, index: u16, port: P, now: Ticks) -> Worker<P> {
        let parts = WorkerParts {
            index,
            workers: self.workers,
            ports: vec![port],
            tables: self.tables.clone(),
            neighbours: Arc::clone(&self.neighbours),
            publisher: Arc::clone(&self.publisher),
            stats: Arc::clone(&self.stats[usize::from(index)]),
        };
        Worker::new(parts, now)
    }

    pub(crate) fn statistics<F: Ip>(&self) -> TableStatistics {
        F::table(&self.tables).statistics()
    }

    /// Connections made by all workers.
    pub(crate) fn connections(&self) -> u64 {
        let counts = self.stats.iter();
        counts.map(|stats| stats.connections.load(Relaxed)).sum()
    }

    /// Frames received by all workers, and those of them that were forwarded.
    pub(crate) fn received_and_forwarded(&self) -> (u64, u64) {
        let verdicts = self.stats.iter().map(|stats| &stats.verdicts);
        let each = verdicts.map(|counts| (&counts.received, &counts.forwarded));
        each.fold((0, 0), |(all, on), (received, forwarded)| {
            (all + received.load(Relaxed), on + forwarded.load(Relaxed))
        })
    }

    /// The drop reasons that were met, and how often.
    pub(crate) fn drops(&self) -> Vec<(&'static str, u64)> {
        let count = |reason| self.stats.iter().map(|stats| stats.drops(reason)).sum();
        let all = Reason::ALL
            .iter()
            .map(|&reason| (reason.name(), count(reason)));
        all.filter(|(_, count): &(_, u64)| *count > 0).collect()
    }
}

/// What the port of every worker says of itself.
pub(crate) fn port_info() -> PortInfo {
    PortInfo {
        name: "wan".into(),
        mac: Mac(DIRECTOR),
        mtu: MTU,
        driver: "memory",
    }
}

/// How many local addresses FULLNAT needs for so many connections: twice as many as would just do, since servers get
/// whole numbers of them and ended ones rest.
fn local_addresses(capacity: u32) -> u32 {
    let ports_of_each = u32::from(LOCAL_PORTS.1 - LOCAL_PORTS.0) + 1;
    8 + capacity / (SERVERS * ports_of_each / 2)
}

fn snapshot<F: Ip>(
    method: Method,
    local_addresses: u32,
    neighbours: &NeighbourTable,
    now: Ticks,
) -> Snapshot {
    let info = port_info();
    let ports = vec![PortView {
        name: info.name,
        mac: info.mac,
        mtu: info.mtu,
        addresses: vec![(ip::<F>(Host::Director), 16)],
    }];
    let mut routes = Routes::default();
    let to_clients = Route {
        port: PORT,
        gateway: Some(ip::<F>(Host::Router)),
    };
    routes.insert(F::UNSPECIFIED.into(), 0, to_clients);
    let servers: Vec<_> = (0..SERVERS)
        .map(|id| Arc::new(server::<F>(id, method, neighbours, now)))
        .collect();
    let seen = |server: &Arc<Server>| RealServer {
        id: server.id,
        address: server.address,
        port: server.port,
        weight: Weight(1),
        load: Arc::clone(&server.load),
    };
    let local = |number| LocalAddress {
        address: ip::<F>(Host::Local(number)),
        first_port: LOCAL_PORTS.0,
        last_port: LOCAL_PORTS.1,
    };
    let key = ServiceKey {
        protocol: TCP,
        address: ip::<F>(Host::Vip),
        port: SERVICE_PORT,
    };
    let service = Service {
        id: ServiceId(0),
        key,
        scheduler: "rr".into(),
        scheduler_options: Options::default(),
        servers: servers.iter().rev().map(seen).collect(),
        edits: 0,
        local_addresses: (0..local_addresses).map(local).collect(),
        one_packet: false,
        helper: None,
        persistence: None,
    };
    let mut snapshot = Snapshot {
        ports,
        routes,
        servers: servers.into_iter().map(Some).collect(),
        timeouts: Timeouts::default(),
        ..Snapshot::default()
    };
    snapshot.owned.insert(key.address, Owned::Virtual);
    for local in &service.local_addresses {
        snapshot.owned.insert(local.address, Owned::Local);
    }
    snapshot.services.insert(key, Arc::new(service));
    snapshot
}

fn server<F: Ip>(id: u32, method: Method, neighbours: &NeighbourTable, now: Ticks) -> Server {
    let address = ip::<F>(Host::Server(id));
    let neighbour = neighbours.intern(PORT, address, now);
    let outer = match (ip::<F>(Host::Director), address) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => Outer::V4 {
            source,
            destination,
        },
        (IpAddr::V6(source), IpAddr::V6(destination)) => Outer::V6 {
            source,
            destination,
        },
        _ => unreachable!("both are of one family"),
    };
    Server {
        id: RealServerId(id),
        service: ServiceId(0),
        address,
        port: SERVICE_PORT,
        method,
        load: Arc::new(Load::default()),
        next_hop: NextHop {
            port: PORT,
            address,
            neighbour: neighbour.expect("the table has room for a dozen"),
        },
        tunnel: (method == Method::Tun).then_some(Tunnel {
            outer,
            copy_dont_fragment: true,
            encapsulation: Encapsulation::Ipip,
        }),
        path_mtu: Arc::default(),
        present: true,
    }
}

/// So many servers of a service, of weights 1 to 10.
#[must_use]
pub fn servers(count: u32) -> Vec<RealServer> {
    let server = |id: u32| RealServer {
        id: RealServerId(id),
        address: Ipv4Addr::from_bits(Ipv4Addr::new(10, 2, 0, 0).to_bits() + id).into(),
        port: 80,
        weight: Weight(u16::try_from(id % 10).expect("below 10") + 1),
        load: Arc::default(),
    };
    (0..count).map(server).collect()
}
