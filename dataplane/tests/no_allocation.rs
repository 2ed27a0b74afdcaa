//! A worker that has warmed up allocates nothing, whatever packets come.
#![allow(
    unsafe_code,
    reason = "a global allocator that counts is an unsafe trait"
)]
#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

use conntrack::{Method, Table, TableConfig, Ticks, V4, V6};
use dataplane::capture::{self, Filter, LARGEST_SNAP};
use dataplane::frame::{Gso, Offload};
use dataplane::helper::Helper;
use dataplane::neighbour::NeighbourTable;
use dataplane::packet::wire::{IPV6_LEN, TCP, UDP, write_ipv4_checksum};
use dataplane::packet::{arp, checksum, ndp};
use dataplane::port::memory::LoopPort;
use dataplane::port::{Mac, PortId, PortInfo};
use dataplane::reason::Reason;
use dataplane::rewrite::{Encapsulation, Outer, Tunnel};
use dataplane::route::Route;
use dataplane::snapshot::{
    LocalAddress, NextHop, Owned, PortView, Publisher, Server, Service, ServiceId, ServiceKey,
    Snapshot,
};
use dataplane::stats::WorkerStats;
use dataplane::worker::{Tables, Worker, WorkerParts};
use scheduler::{Load, RealServer, RealServerId, Weight};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

fn count() {
    // A thread that is ending has nothing to count.
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: every call goes on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // Freeing is an allocator's call as well.
        count();
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, len: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promise.
        unsafe { System.realloc(memory, layout, len) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const PACKETS: usize = 100_000;
const START: Ticks = Ticks(1000);
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const RST: u8 = 0x04;
const METHODS: [Method; 4] = [Method::Nat, Method::Dr, Method::Tun, Method::FullNat];
const DIRECTOR: Mac = Mac([2, 0, 0, 0, 0, 1]);
const HOST: Mac = Mac([2, 0, 0, 0, 0, 2]);

type Frames = Vec<(Vec<u8>, Offload)>;

/// A TCP or UDP frame with right checksums.
fn frame(
    protocol: u8,
    source: SocketAddr,
    destination: SocketAddr,
    flags: u8,
    len: usize,
) -> Vec<u8> {
    let mut transport = [
        source.port().to_be_bytes(),
        destination.port().to_be_bytes(),
    ]
    .concat();
    let field = if protocol == TCP {
        transport.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0xfa, 0xf0, 0, 0, 0, 0]);
        16
    } else {
        let len = u16::try_from(8 + len).unwrap();
        transport.extend(len.to_be_bytes());
        transport.extend([0, 0]);
        6
    };
    transport.resize(transport.len() + len, 0x5a);
    let sum = match (source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => checksum::l4::<V4>(from, to, protocol, &transport),
        (IpAddr::V6(from), IpAddr::V6(to)) => checksum::l4::<V6>(from, to, protocol, &transport),
        _ => unreachable!("one family"),
    };
    transport[field..field + 2].copy_from_slice(&sum.to_be_bytes());
    packet(protocol, source.ip(), destination.ip(), &transport)
}

fn packet(protocol: u8, source: IpAddr, destination: IpAddr, transport: &[u8]) -> Vec<u8> {
    let mut frame = [DIRECTOR.0, HOST.0].concat();
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            frame.extend([8, 0, 0x45, 0]);
            frame.extend(u16::try_from(20 + transport.len()).unwrap().to_be_bytes());
            frame.extend([0, 1, 0x40, 0, 64, protocol, 0, 0]);
            frame.extend([source.octets(), destination.octets()].concat());
            write_ipv4_checksum(&mut frame, 14);
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend(u16::try_from(transport.len()).unwrap().to_be_bytes());
            frame.extend([protocol, 64]);
            frame.extend([source.octets(), destination.octets()].concat());
        }
        _ => unreachable!("one family"),
    }
    frame.extend(transport);
    frame
}

fn vip(ipv6: bool) -> IpAddr {
    if ipv6 {
        "fd00:a::100".parse().unwrap()
    } else {
        IpAddr::from([10, 0, 0, 100])
    }
}

/// Client number `number`, of its family.
fn client(ipv6: bool, number: usize) -> SocketAddr {
    let port = u16::try_from(1024 + number % 60_000).unwrap();
    let host = u32::try_from(number / 60_000).unwrap();
    let address: IpAddr = if ipv6 {
        Ipv6Addr::from_bits(0xfd00_0064 << 96 | u128::from(host + 1)).into()
    } else {
        Ipv4Addr::from_bits(Ipv4Addr::new(10, 64, 0, 1).to_bits() + host).into()
    };
    SocketAddr::new(address, port)
}

struct Director {
    tables: Tables,
    neighbours: Arc<NeighbourTable>,
    publisher: Arc<Publisher>,
    stats: Arc<WorkerStats>,
}

impl Director {
    /// TCP and UDP services at port 80 of both families' VIPs, and one without a usable server at port 81.
    fn new(method: Method, scheduler: &str) -> Director {
        let table = TableConfig {
            capacity: 500_000,
            half_open_percent: 100,
            workers: 2,
            seeds: [1, 2, 3, 4],
        };
        let neighbours = Arc::new(NeighbourTable::new(256));
        let publisher = Publisher::new(2);
        publisher.publish(snapshot(method, scheduler, &neighbours));
        Director {
            tables: Tables {
                ipv4: Table::new(&table).unwrap(),
                ipv6: Table::new(&table).unwrap(),
                helpers: Arc::default(),
                calls: Arc::default(),
            },
            neighbours,
            publisher,
            stats: Arc::new(WorkerStats::new(64)),
        }
    }

    /// The worker, with frames that come in over and over from clients and from servers.
    fn worker(&self, index: u16, clients: &Frames, servers: &Frames) -> Worker<LoopPort> {
        let port = |id: u16, frames: &Frames| {
            let info = PortInfo {
                name: format!("port{id}"),
                mac: DIRECTOR,
                mtu: 1500,
                driver: "memory",
            };
            LoopPort::new(PortId(id), info, frames)
        };
        let parts = WorkerParts {
            index,
            workers: 2,
            ports: vec![port(0, clients), port(1, servers)],
            tables: self.tables.clone(),
            neighbours: Arc::clone(&self.neighbours),
            publisher: Arc::clone(&self.publisher),
            stats: Arc::clone(&self.stats),
        };
        Worker::new(parts, START)
    }

    fn drops(&self) -> Vec<(Reason, u64)> {
        let all = Reason::ALL
            .iter()
            .map(|&reason| (reason, self.stats.drops(reason)));
        all.filter(|(_, count)| *count > 0).collect()
    }

    /// The hosts confirm their addresses.
    fn hear_all_neighbours(&self, now: Ticks) {
        for (port, address, mac, _) in self.neighbours.list() {
            if let Some(mac) = mac {
                self.neighbours.learn(port, address, mac, now);
            }
        }
    }

    /// Replies to all the connections there are.
    fn replies(&self) -> Frames {
        let mut replies = Vec::new();
        self.tables.ipv4.for_each(|_, view| {
            let (address, port) = view.local.unwrap_or(view.client);
            let (server, server_port) = view.real_server;
            replies.push((
                view.protocol,
                (server, server_port).into(),
                (address, port).into(),
            ));
        });
        self.tables.ipv6.for_each(|_, view| {
            let (address, port) = view.local.unwrap_or(view.client);
            let (server, server_port) = view.real_server;
            replies.push((
                view.protocol,
                (server, server_port).into(),
                (address, port).into(),
            ));
        });
        let frame = |(protocol, from, to)| (frame(protocol, from, to, 0x10, 10), Offload::NONE);
        replies.into_iter().map(frame).collect()
    }
}

fn snapshot(method: Method, scheduler: &str, neighbours: &NeighbourTable) -> Snapshot {
    let mut snapshot = Snapshot::default();
    // The defence goes through the tables all the while.
    snapshot.ipvs.drop_entry = 3;
    for (port, addresses) in [
        (0, ["10.1.0.1", "fd00:1::1"]),
        (1, ["10.2.0.1", "fd00:2::1"]),
    ] {
        let addresses = addresses.map(|address| address.parse::<IpAddr>().unwrap());
        snapshot
            .owned
            .extend(addresses.map(|address| (address, Owned::Director)));
        snapshot.ports.push(PortView {
            name: format!("port{port}"),
            mac: DIRECTOR,
            mtu: 1500,
            addresses: addresses.into_iter().zip([16, 64]).collect(),
        });
    }
    for (prefix, gateway) in [("0.0.0.0", "10.1.0.254"), ("::", "fd00:1::fe")] {
        let gateway = gateway.parse().unwrap();
        let route = Route {
            port: PortId(0),
            gateway: Some(gateway),
        };
        snapshot.routes.insert(prefix.parse().unwrap(), 0, route);
        neighbours.intern(PortId(0), gateway, START).unwrap();
        neighbours.learn(PortId(0), gateway, HOST, START);
    }
    for ipv6 in [false, true] {
        for (protocol, port, weight) in [
            (TCP, 80, 30_000),
            (UDP, 80, 30_000),
            (TCP, 81, 0),
            (UDP, 82, 1),
            (TCP, 21, 1),
        ] {
            let wanted = Wanted {
                ipv6,
                protocol,
                port,
                weight,
                method,
                scheduler,
                helper: (port == 21).then_some(Helper::Ftp),
            };
            add_service(&mut snapshot, neighbours, &wanted);
        }
    }
    snapshot
}

struct Wanted<'a> {
    ipv6: bool,
    protocol: u8,
    /// At 82, no server has a hardware address.
    port: u16,
    weight: u16,
    method: Method,
    scheduler: &'a str,
    helper: Option<Helper>,
}

fn add_service(snapshot: &mut Snapshot, neighbours: &NeighbourTable, wanted: &Wanted<'_>) {
    let first = u32::try_from(snapshot.servers.len()).unwrap();
    let id = ServiceId(u32::try_from(snapshot.services.len()).unwrap());
    let mut listed = Vec::new();
    for id_of_server in first..first + 4 {
        let host = if wanted.port == 82 {
            0x50 + id_of_server
        } else {
            11 + id_of_server % 4
        };
        let (address, tunnel): (IpAddr, Outer) = if wanted.ipv6 {
            let destination = Ipv6Addr::from_bits(0xfd00_0002 << 96 | u128::from(host));
            let source = "fd00:2::1".parse().unwrap();
            (
                destination.into(),
                Outer::V6 {
                    source,
                    destination,
                },
            )
        } else {
            let destination = Ipv4Addr::from_bits(Ipv4Addr::new(10, 2, 0, 0).to_bits() + host);
            let source = Ipv4Addr::new(10, 2, 0, 1);
            (
                destination.into(),
                Outer::V4 {
                    source,
                    destination,
                },
            )
        };
        let neighbour = neighbours.intern(PortId(1), address, START).unwrap();
        if wanted.port != 82 {
            neighbours.learn(PortId(1), address, HOST, START);
        }
        let server = Server {
            id: RealServerId(id_of_server),
            service: id,
            address,
            port: 80,
            method: wanted.method,
            load: Arc::default(),
            path_mtu: Arc::default(),
            next_hop: NextHop {
                port: PortId(1),
                address,
                neighbour,
            },
            tunnel: (wanted.method == Method::Tun).then_some(Tunnel {
                outer: tunnel,
                copy_dont_fragment: true,
                encapsulation: Encapsulation::Ipip,
            }),
            present: true,
        };
        listed.push(RealServer {
            id: server.id,
            address,
            port: 80,
            weight: Weight(wanted.weight),
            load: Arc::<Load>::clone(&server.load),
        });
        snapshot.servers.push(Some(Arc::new(server)));
    }
    let key = ServiceKey {
        protocol: wanted.protocol,
        address: vip(wanted.ipv6),
        port: wanted.port,
    };
    let lip = if wanted.ipv6 {
        "fd00:2::200"
    } else {
        "10.2.0.200"
    };
    let service = Service {
        id,
        key,
        scheduler: wanted.scheduler.into(),
        scheduler_options: scheduler::Options::default(),
        servers: listed,
        edits: 0,
        local_addresses: vec![LocalAddress {
            address: lip.parse().unwrap(),
            first_port: 1024,
            last_port: 65535,
        }],
        one_packet: false,
        helper: wanted.helper,
        persistence: None,
    };
    snapshot.owned.insert(key.address, Owned::Virtual);
    snapshot.services.insert(key, Arc::new(service));
}

/// Requests of so many clients to the services at `port`, of every family and protocol in turn.
fn requests(clients: std::ops::Range<usize>, port: u16, flags: u8) -> Frames {
    let request = |number: usize| {
        let ipv6 = number % 2 == 1;
        let protocol = if number % 4 < 2 { TCP } else { UDP };
        let to = SocketAddr::new(vip(ipv6), port);
        (
            frame(protocol, client(ipv6, number), to, flags, 10),
            Offload::NONE,
        )
    };
    clients.map(request).collect()
}

/// Something that ends with the exception path.
fn nothing() -> Frames {
    let mut frame = vec![0; 60];
    frame[12..14].copy_from_slice(&[0x88, 0xcc]);
    vec![(frame, Offload::NONE)]
}

/// Receives at least `count` frames; returns how often the allocator was called.
fn allocations(worker: &mut Worker<LoopPort>, now: &mut Ticks, count: usize) -> u64 {
    let before = ALLOCATIONS.get();
    let mut received = 0;
    while received < count {
        received += worker.run_once(*now);
        *now = now.after(Ticks(u32::from(received % 1024 < 64)));
    }
    ALLOCATIONS.get() - before
}

#[test]
fn the_counter_counts() {
    let before = ALLOCATIONS.get();
    drop(std::hint::black_box(Box::new(7)));
    assert_eq!(ALLOCATIONS.get() - before, 2);
}

#[test]
fn packets_of_established_connections_allocate_nothing() {
    for method in METHODS {
        let director = Director::new(method, "rr");
        let mut now = START;
        let mut maker = director.worker(0, &requests(0..400, 80, SYN), &nothing());
        allocations(&mut maker, &mut now, 1000);
        drop(maker);
        let replies = if method.sees_replies() {
            director.replies()
        } else {
            nothing()
        };
        let mut worker = director.worker(1, &requests(0..400, 80, ACK), &replies);
        allocations(&mut worker, &mut now, 1000);
        assert_eq!(allocations(&mut worker, &mut now, PACKETS), 0, "{method:?}");
        assert_eq!(director.drops(), []);
        assert_eq!(director.stats.connections.load(Relaxed), 400);
        let forwarded = director.stats.verdicts.forwarded.load(Relaxed);
        let share = if method.sees_replies() { 1 } else { 2 };
        assert!(forwarded >= (PACKETS / share) as u64, "{forwarded}");
    }
}

#[test]
fn new_connections_allocate_nothing_whatever_the_scheduler() {
    let cases = METHODS
        .map(|method| (method, "wlc", PACKETS))
        .into_iter()
        .chain(
            scheduler::NAMES
                .iter()
                .map(|&name| (Method::FullNat, name, 10_000)),
        );
    for (method, scheduler, count) in cases {
        let director = Director::new(method, scheduler);
        let mut now = START;
        let mut worker = director.worker(0, &requests(0..count + 2000, 80, SYN), &nothing());
        // Half of what comes in is nothing.
        allocations(&mut worker, &mut now, 2000);
        let allocated = allocations(&mut worker, &mut now, 2 * count);
        assert_eq!(allocated, 0, "{method:?} {scheduler}");
        assert_eq!(director.drops(), [], "{method:?} {scheduler}");
        let made = director.stats.connections.load(Relaxed);
        assert!(made >= count as u64, "{made} by {method:?} {scheduler}");
    }
}

#[test]
fn connections_that_end_allocate_nothing() {
    for method in METHODS {
        let director = Director::new(method, "rr");
        let mut now = START;
        let frames: Frames = (0..20_000)
            .flat_map(|number| {
                let to = SocketAddr::new(vip(number % 2 == 1), 80);
                let from = client(number % 2 == 1, number);
                [SYN, ACK, RST].map(|flags| (frame(TCP, from, to, flags, 0), Offload::NONE))
            })
            .collect();
        let mut worker = director.worker(0, &frames, &nothing());
        allocations(&mut worker, &mut now, 2000);
        let mut allocated = 0;
        for _ in 0..10 {
            director.hear_all_neighbours(now);
            allocated += allocations(&mut worker, &mut now, PACKETS / 10);
            // Those that were reset time out.
            now = now.after(Ticks::from_seconds(8));
        }
        assert_eq!(allocated, 0, "{method:?}");
        assert_eq!(director.drops(), []);
        let left = director.tables.ipv4.statistics().entries;
        let made = director.stats.connections.load(Relaxed);
        assert!(left < made / 4, "{left} of {made}");
    }
}

/// A client asks for a port, is told one, connects to it, and asks the server to connect.
#[test]
fn a_helper_allocates_nothing() {
    let director = Director::new(Method::Nat, "rr");
    let mut now = START;
    let said = |text: &[u8], mut frame: Vec<u8>| {
        let (from, to): ([u8; 4], [u8; 4]) = (
            frame[26..30].try_into().unwrap(),
            frame[30..34].try_into().unwrap(),
        );
        frame[54..].copy_from_slice(text);
        frame[50..52].fill(0);
        let sum = checksum::l4::<V4>(from.into(), to.into(), TCP, &frame[34..]);
        frame[50..52].copy_from_slice(&sum.to_be_bytes());
        (frame, Offload::NONE)
    };
    let control = SocketAddr::new(vip(false), 21);
    let data = SocketAddr::new(vip(false), 51210);
    let mut clients = Frames::new();
    let mut servers = Frames::new();
    for number in 0..1000 {
        let from = client(false, number);
        for flags in [SYN, ACK] {
            clients.push((frame(TCP, from, control, flags, 0), Offload::NONE));
        }
        for text in [&b"PASV\r\n"[..], b"PORT 10,64,0,1,9,9\r\n", b"PASV\r\n"] {
            let frame = frame(TCP, from, control, ACK, text.len());
            clients.push(said(text, frame));
        }
        let from_data = SocketAddr::new(from.ip(), from.port() + 1000);
        clients.push((frame(TCP, from_data, data, SYN, 0), Offload::NONE));
        for host in 11..15 {
            let server = SocketAddr::from(([10, 2, 0, host], 80));
            let text = b"227 (10,2,0,11,200,10)\r\n";
            let frame = frame(TCP, server, from, ACK, text.len());
            servers.push(said(text, frame));
        }
    }
    let mut worker = director.worker(0, &clients, &servers);
    allocations(&mut worker, &mut now, 20_000);
    let mut allocated = 0;
    for _ in 0..10 {
        director.hear_all_neighbours(now);
        allocated += allocations(&mut worker, &mut now, PACKETS / 10);
        now = now.after(Ticks::from_seconds(30));
    }
    assert_eq!(allocated, 0);
    // The control connections, and data connections that were expected.
    let connections = director.tables.ipv4.statistics().entries;
    assert!(connections > 1100, "{connections}");
}

#[test]
fn the_directors_own_packets_allocate_nothing() {
    let director = Director::new(Method::Nat, "rr");
    let mut now = START;
    let host = Ipv4Addr::new(10, 1, 0, 9);
    let host6: Ipv6Addr = "fd00:1::9".parse().unwrap();
    let (IpAddr::V4(vip4), IpAddr::V6(vip6)) = (vip(false), vip(true)) else {
        unreachable!("one of each");
    };
    let mut echo = vec![8, 0, 0, 0, 0, 1, 0, 1];
    let sum = checksum::icmp::<V4>(host, vip4, &echo);
    echo[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut echo6 = vec![128, 0, 0, 0, 0, 1, 0, 1];
    let sum = checksum::icmp::<V6>(host6, vip6, &echo6);
    echo6[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut frames: Frames = [
        arp::request(HOST, host, vip4, None).to_vec(),
        ndp::solicitation(HOST, host6, vip6, None).to_vec(),
        packet(1, host.into(), vip4.into(), &echo),
        packet(58, host6.into(), vip6.into(), &echo6),
    ]
    .map(|frame| (frame, Offload::NONE))
    .to_vec();
    // Nobody serves, and nobody answers.
    frames.extend(requests(0..32, 81, SYN));
    frames.extend(requests(0..80, 82, SYN));
    let mut worker = director.worker(0, &frames, &nothing());
    allocations(&mut worker, &mut now, 10_000);
    let replied = director.stats.verdicts.replied.load(Relaxed);
    for _ in 0..4 {
        now = now.after(Ticks::from_seconds(2));
        assert_eq!(allocations(&mut worker, &mut now, PACKETS / 4), 0);
    }
    let replied = director.stats.verdicts.replied.load(Relaxed) - replied;
    assert!(replied > 2000, "{replied}");
    let drops: Vec<Reason> = director.drops().iter().map(|(reason, _)| *reason).collect();
    assert_eq!(
        drops,
        [
            Reason::NoServer,
            Reason::NeighbourQueueFull,
            Reason::NeighbourUnreachable,
            Reason::IcmpRateLimited
        ]
    );
}

#[test]
fn frames_that_are_cut_allocate_nothing() {
    let director = Director::new(Method::Tun, "rr");
    let mut now = START;
    let frames: Frames = (0..64)
        .map(|number| {
            let ipv6 = number % 2 == 1;
            let to = SocketAddr::new(vip(ipv6), 80);
            let frame = frame(TCP, client(ipv6, number), to, SYN, 4000);
            let l4 = 14 + if ipv6 { IPV6_LEN } else { 20 };
            let offload = Offload {
                partial_checksum: false,
                gso: if ipv6 {
                    Gso::Tcp6 { ecn: false }
                } else {
                    Gso::Tcp4 { ecn: false }
                },
                segment_len: 1000,
                header_len: u16::try_from(l4 + 20).unwrap(),
                ..Offload::NONE
            };
            (frame, offload)
        })
        .collect();
    let mut worker = director.worker(0, &frames, &nothing());
    allocations(&mut worker, &mut now, 1000);
    let before = worker.ports_mut()[1].sent().frames;
    assert_eq!(allocations(&mut worker, &mut now, 20_000), 0);
    let sent = worker.ports_mut()[1].sent().frames - before;
    assert!(sent >= 40_000, "{sent}");
    assert_eq!(director.drops(), []);
}

/// A frame in three fragments.
fn fragments(frame: &[u8], id: u16) -> Vec<Vec<u8>> {
    let ipv4 = frame[12..14] == [8, 0];
    let header_end = if ipv4 { 34 } else { 54 };
    let payload = &frame[header_end..];
    let cut = |(index, part): (usize, &[u8])| {
        let mut fragment = frame[..header_end].to_vec();
        let offset = u16::try_from(index * 40).unwrap();
        let more = u16::from(index * 40 + part.len() < payload.len());
        if ipv4 {
            let len = u16::try_from(20 + part.len()).unwrap();
            fragment[16..18].copy_from_slice(&len.to_be_bytes());
            fragment[18..20].copy_from_slice(&id.to_be_bytes());
            fragment[20..22].copy_from_slice(&(more << 13 | (offset / 8)).to_be_bytes());
            write_ipv4_checksum(&mut fragment, 14);
        } else {
            let len = u16::try_from(8 + part.len()).unwrap();
            fragment[18..20].copy_from_slice(&len.to_be_bytes());
            let next = std::mem::replace(&mut fragment[20], 44);
            fragment.extend([next, 0]);
            fragment.extend((offset | more).to_be_bytes());
            fragment.extend(u32::from(id).to_be_bytes());
        }
        fragment.extend(part);
        fragment
    };
    payload.chunks(40).enumerate().map(cut).collect()
}

#[test]
fn fragments_allocate_nothing_in_whatever_order() {
    for method in METHODS {
        let director = Director::new(method, "rr");
        let mut now = START;
        // More datagrams than are remembered, so that those in reverse order wait each time anew; of some, the first
        // never comes.
        let datagram = |number: usize| {
            let ipv6 = number % 2 == 1;
            let to = SocketAddr::new(vip(ipv6), 80);
            let whole = frame(UDP, client(ipv6, number), to, 0, 90);
            let mut parts = fragments(&whole, u16::try_from(number).unwrap());
            assert_eq!(parts.len(), 3);
            if number % 4 > 1 {
                parts.reverse();
            }
            if number.is_multiple_of(400) {
                parts.remove(0);
            }
            parts
        };
        let all = (0..20_000).flat_map(datagram);
        let frames: Frames = all.map(|part| (part, Offload::NONE)).collect();
        let count = frames.len();
        let mut worker = director.worker(0, &frames, &nothing());
        allocations(&mut worker, &mut now, 1000);
        assert_eq!(
            allocations(&mut worker, &mut now, 3 * count),
            0,
            "{method:?}"
        );
        let drops: Vec<Reason> = director.drops().iter().map(|(reason, _)| *reason).collect();
        assert_eq!(drops, [Reason::FragmentWaitedTooLong], "{method:?}");
        assert!(director.stats.fragments_forgotten.load(Relaxed) > 10_000);
        let forwarded = director.stats.verdicts.forwarded.load(Relaxed);
        assert!(forwarded > count as u64, "{forwarded}");
    }
}

/// Connections, refused packets and answers, while somebody looks on and is too slow.
#[test]
fn a_capture_allocates_nothing() {
    let director = Director::new(Method::Nat, "rr");
    let wanted = capture::Wanted {
        filter: Filter::default(),
        before: true,
        after: true,
        snap_len: LARGEST_SNAP,
    };
    let capture = director.publisher.captures().begin(wanted).unwrap();
    let mut now = START;
    let mut frames = requests(0..200, 80, SYN);
    frames.extend(requests(0..200, 80, ACK));
    frames.extend(requests(0..32, 81, SYN));
    let mut worker = director.worker(0, &frames, &nothing());
    allocations(&mut worker, &mut now, 10_000);
    let mut told = 0;
    let mut allocated = 0;
    for _ in 0..10 {
        director.hear_all_neighbours(now);
        while capture.next(|record| told += record.bytes().len()) {}
        allocated += allocations(&mut worker, &mut now, PACKETS / 10);
    }
    assert_eq!(allocated, 0);
    assert!(told > 100_000 && capture.missed() > 1000, "{told}");
}
