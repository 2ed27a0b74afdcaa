//! A director without a network: one worker makes the connections, another one is measured with them.

use conntrack::{Method, Table, TableConfig, Ticks, Timeouts, V4, V6};
use dataplane::frame::Offload;
use dataplane::neighbour::NeighbourTable;
use dataplane::packet::checksum;
use dataplane::packet::wire::write_ipv4_checksum;
use dataplane::port::memory::LoopPort;
use dataplane::port::{Mac, PortId, PortInfo};
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

/// Real servers behind the service.
const SERVERS: u32 = 8;
/// The time at which everything happens.
const NOW: Ticks = Ticks(1000);
const MTU: u32 = 1500;
const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 100);
const TCP: u8 = 6;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// A worker over established connections, with frames of them coming in for ever.
#[must_use]
pub fn established(method: Method, flows: u32) -> Worker<LoopPort> {
    let director = Director::new(method, flows);
    let mut maker = director.worker(0, (0..flows).map(|flow| request(flow, SYN)).collect());
    let mut made = 0;
    while made < flows as usize {
        made += maker.run_once(NOW);
    }
    let counted = director.stats[0]
        .connections
        .load(std::sync::atomic::Ordering::Relaxed);
    let drops: Vec<_> = dataplane::reason::Reason::ALL
        .iter()
        .map(|&reason| (reason.name(), director.stats[0].drops(reason)))
        .filter(|(_, count)| *count > 0)
        .collect();
    assert_eq!(
        counted,
        u64::from(flows),
        "every flow has a connection; dropped: {drops:?}"
    );
    // In an order that no prefetcher of the CPU foresees.
    let frames = (0..flows)
        .map(|flow| request(scatter(flow, flows), ACK))
        .collect();
    director.worker(1, frames)
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

struct Director {
    tables: Tables,
    neighbours: Arc<NeighbourTable>,
    publisher: Arc<Publisher>,
    stats: [Arc<WorkerStats>; 2],
}

impl Director {
    fn new(method: Method, flows: u32) -> Director {
        let config = |capacity| TableConfig {
            capacity,
            half_open_percent: 100,
            workers: 2,
            seeds: conntrack::random_seeds(),
        };
        let tables = Tables {
            ipv4: Table::<V4>::new(&config(flows + flows / 8 + 2048))
                .expect("memory for the table"),
            ipv6: Table::<V6>::new(&config(1024)).expect("memory for the table"),
            helpers: Arc::default(),
            calls: Arc::default(),
        };
        let neighbours = Arc::new(NeighbourTable::new(256));
        let publisher = Publisher::new(2);
        publisher.publish(snapshot(method, &neighbours));
        let stats = [0, 1].map(|_| Arc::new(WorkerStats::new(SERVERS as usize)));
        Director {
            tables,
            neighbours,
            publisher,
            stats,
        }
    }

    fn worker(&self, index: u16, frames: Vec<(Vec<u8>, Offload)>) -> Worker<LoopPort> {
        let info = PortInfo {
            name: "wan".into(),
            mac: Mac([2, 0, 0, 0, 0, 1]),
            mtu: MTU,
            driver: "memory",
        };
        let parts = WorkerParts {
            index,
            workers: 2,
            ports: vec![LoopPort::new(PortId(0), info, &frames)],
            tables: self.tables.clone(),
            neighbours: Arc::clone(&self.neighbours),
            publisher: Arc::clone(&self.publisher),
            stats: Arc::clone(&self.stats[usize::from(index)]),
        };
        Worker::new(parts, NOW)
    }
}

fn snapshot(method: Method, neighbours: &NeighbourTable) -> Snapshot {
    let port = PortId(0);
    let mac = Mac([2, 0, 0, 0, 0, 1]);
    let addresses = vec![(IpAddr::from([10, 1, 0, 1]), 16)];
    let ports = vec![PortView {
        name: "wan".into(),
        mac,
        mtu: MTU,
        addresses,
    }];
    let mut routes = Routes::default();
    let router = IpAddr::from([10, 1, 0, 254]);
    routes.insert(
        Ipv4Addr::UNSPECIFIED.into(),
        0,
        Route {
            port,
            gateway: Some(router),
        },
    );
    let known = |address| {
        let neighbour = neighbours.intern(port, address, NOW).expect("room");
        neighbours.learn(port, address, Mac([2, 0, 0, 0, 0, 2]), NOW);
        NextHop {
            port,
            address,
            neighbour,
        }
    };
    known(router);
    let key = ServiceKey {
        protocol: TCP,
        address: VIP.into(),
        port: 80,
    };
    let server = |id: u32| {
        let address = Ipv4Addr::from_bits(Ipv4Addr::new(10, 1, 1, 0).to_bits() + id);
        Arc::new(Server {
            id: RealServerId(id),
            service: ServiceId(0),
            address: address.into(),
            port: 80,
            method,
            load: Arc::new(Load::default()),
            next_hop: known(address.into()),
            tunnel: (method == Method::Tun).then_some(Tunnel {
                outer: Outer::V4 {
                    source: Ipv4Addr::new(10, 1, 0, 1),
                    destination: address,
                },
                copy_dont_fragment: true,
                encapsulation: Encapsulation::Ipip,
            }),
            path_mtu: Arc::default(),
            present: true,
        })
    };
    let servers: Vec<_> = (0..SERVERS).map(server).collect();
    let seen = |server: &Arc<Server>| RealServer {
        id: server.id,
        address: server.address,
        port: server.port,
        weight: Weight(1),
        load: Arc::clone(&server.load),
    };
    let lip = |host| LocalAddress {
        address: IpAddr::from([10, 1, 2, host]),
        first_port: 1024,
        last_port: 65535,
    };
    let service = Service {
        id: ServiceId(0),
        key,
        scheduler: "rr".into(),
        scheduler_options: Options::default(),
        servers: servers.iter().rev().map(seen).collect(),
        edits: 0,
        local_addresses: (1..=8).map(lip).collect(),
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
    snapshot.owned.insert(VIP.into(), Owned::Virtual);
    snapshot.services.insert(key, Arc::new(service));
    snapshot
}

/// A 64-byte frame (with its checksum sequence, which is not there) of a client's flow.
fn request(flow: u32, flags: u8) -> (Vec<u8>, Offload) {
    let client = Ipv4Addr::from_bits(Ipv4Addr::new(100, 64, 0, 0).to_bits() + flow / 32768);
    let port = u16::try_from(1024 + flow % 32768).expect("below 65536");
    let mut frame = vec![0; 60];
    frame[..6].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 2]);
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    frame[14..24].copy_from_slice(&[0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, TCP]);
    frame[26..30].copy_from_slice(&client.octets());
    frame[30..34].copy_from_slice(&VIP.octets());
    write_ipv4_checksum(&mut frame, 14);
    frame[34..36].copy_from_slice(&port.to_be_bytes());
    frame[36..38].copy_from_slice(&80u16.to_be_bytes());
    frame[46] = 5 << 4;
    frame[47] = flags;
    frame[48..50].copy_from_slice(&64240u16.to_be_bytes());
    let sum = checksum::l4::<V4>(client, VIP, TCP, &frame[34..54]);
    frame[50..52].copy_from_slice(&sum.to_be_bytes());
    (frame, Offload::NONE)
}

/// A permutation of the flows: an odd multiplier modulo the next power of two, walked until it is below `flows`.
fn scatter(flow: u32, flows: u32) -> u32 {
    let mask = flows.next_power_of_two() - 1;
    let mut flow = flow;
    loop {
        flow = flow.wrapping_mul(0x9e37_79b1) & mask;
        flow = (flow ^ (flow >> 7)) & mask;
        if flow < flows {
            return flow;
        }
    }
}
