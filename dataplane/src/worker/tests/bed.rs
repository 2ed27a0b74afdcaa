//! The test bed: workers over memory ports, and hosts on both wires that answer for their hardware addresses.

use super::config::{CLIENT_GATEWAYS, CLIENTS, Config, director_mac, ip, mac_of};
use super::packets::Seen;
use super::port::TestPort;
use crate::frame::Offload;
use crate::helper::Records;
use crate::neighbour::NeighbourTable;
use crate::packet::{Parsed, arp, ndp, parse};
use crate::port::memory::{MemoryPort, MemoryWire};
use crate::port::{PortId, PortInfo};
use crate::reason::Reason;
use crate::snapshot::{Publisher, Snapshot};
use crate::stats::WorkerStats;
use crate::worker::{Tables, Worker, WorkerParts};
use conntrack::{Table, TableConfig, Ticks};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What the bed is built with.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    pub(super) workers: u16,
    pub(super) connections: u32,
    pub(super) half_open_percent: u8,
    pub(super) neighbours: usize,
    pub(super) helpers: usize,
    pub(super) buffers: u32,
    pub(super) buffer_len: u32,
    pub(super) headroom: Option<usize>,
    /// Frames that a port takes between two flushes.
    pub(super) ring: Option<usize>,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            workers: 1,
            connections: 4096,
            half_open_percent: 100,
            neighbours: 256,
            helpers: 16,
            buffers: 128,
            buffer_len: 66_000,
            headroom: None,
            ring: None,
        }
    }
}

/// All counters of all workers, by name.
pub(super) type Books = BTreeMap<&'static str, u64>;

pub(super) struct Bed {
    pub(super) workers: Vec<Worker<TestPort>>,
    /// By worker and side.
    pub(super) wires: Vec<[MemoryWire; 2]>,
    pub(super) stats: Vec<Arc<WorkerStats>>,
    pub(super) tables: Tables,
    pub(super) neighbours: Arc<NeighbourTable>,
    pub(super) publisher: Arc<Publisher>,
    pub(super) now: Ticks,
    /// Hosts that do not answer.
    pub(super) silent: BTreeSet<IpAddr>,
    /// Where answers of hosts arrive; where the question came from if `None`.
    pub(super) answers_at: Option<usize>,
    /// ARP and neighbour discovery of the director, since last taken: worker, side, frame.
    pub(super) chatter: Vec<(usize, usize, Vec<u8>)>,
    published: Option<Arc<Snapshot>>,
}

impl Bed {
    pub(super) fn new(config: &Config) -> Bed {
        Bed::with(config, &Limits::default())
    }

    pub(super) fn with_workers(config: &Config, workers: u16) -> Bed {
        Bed::with(
            config,
            &Limits {
                workers,
                ..Limits::default()
            },
        )
    }

    pub(super) fn with(config: &Config, limits: &Limits) -> Bed {
        let table = TableConfig {
            capacity: limits.connections,
            half_open_percent: limits.half_open_percent,
            workers: limits.workers,
            seeds: [1, 2, 3, 4],
        };
        let tables = Tables {
            ipv4: Table::new(&table).unwrap(),
            ipv6: Table::new(&table).unwrap(),
            helpers: Arc::new(Records::with(limits.helpers)),
            calls: Arc::default(),
        };
        Bed::with_tables(config, limits, tables)
    }

    /// With tables that are there already.
    pub(super) fn with_tables(config: &Config, limits: &Limits, tables: Tables) -> Bed {
        let mut bed = Bed {
            workers: Vec::new(),
            wires: Vec::new(),
            stats: Vec::new(),
            tables,
            neighbours: Arc::new(NeighbourTable::new(limits.neighbours)),
            publisher: Publisher::new(usize::from(limits.workers)),
            now: Ticks(10_000),
            silent: BTreeSet::new(),
            answers_at: None,
            chatter: Vec::new(),
            published: None,
        };
        for index in 0..limits.workers {
            bed.add_worker(index, limits);
        }
        bed.publish(config);
        bed.settle();
        bed
    }

    fn add_worker(&mut self, index: u16, limits: &Limits) {
        let [(clients, client_wire), (servers, server_wire)] = [0, 1].map(|side| {
            let info = PortInfo {
                name: format!("port{side}"),
                mac: director_mac(side),
                mtu: 1500,
                driver: "memory",
            };
            let id = PortId(u16::try_from(side).unwrap());
            let (inner, wire) = MemoryPort::new(id, info, limits.buffers, limits.buffer_len);
            let port = TestPort {
                inner,
                headroom: limits.headroom,
                ring: limits.ring,
                queued: 0,
            };
            (port, wire)
        });
        let stats = Arc::new(WorkerStats::new(64));
        let parts = WorkerParts {
            index,
            workers: limits.workers,
            ports: vec![clients, servers],
            tables: self.tables.clone(),
            neighbours: Arc::clone(&self.neighbours),
            publisher: Arc::clone(&self.publisher),
            stats: Arc::clone(&stats),
        };
        self.workers.push(Worker::new(parts, self.now));
        self.wires.push([client_wire, server_wire]);
        self.stats.push(stats);
    }

    pub(super) fn publish(&mut self, config: &Config) {
        let snapshot = config.snapshot(&self.neighbours, self.now);
        let (new, _) = self.publisher.publish(snapshot);
        self.published = Some(new);
    }

    /// Lets a worker receive a frame on one side, from the host that its source address names, and returns what comes
    /// out, ARP and neighbour discovery apart.
    pub(super) fn send(&mut self, worker: usize, side: usize, frame: &[u8]) -> Vec<Seen> {
        self.send_with(worker, side, frame, Offload::NONE)
    }

    pub(super) fn send_with(
        &mut self,
        worker: usize,
        side: usize,
        frame: &[u8],
        offload: Offload,
    ) -> Vec<Seen> {
        let mut frame = frame.to_vec();
        address(&mut frame, side);
        self.send_raw(worker, side, &frame, offload)
    }

    /// As it is.
    pub(super) fn send_raw(
        &mut self,
        worker: usize,
        side: usize,
        frame: &[u8],
        offload: Offload,
    ) -> Vec<Seen> {
        assert!(self.wires[worker][side].inject_with(frame, offload));
        self.settle()
    }

    /// The one frame that comes out.
    pub(super) fn send_one(&mut self, worker: usize, side: usize, frame: &[u8]) -> Seen {
        let mut seen = self.send(worker, side, frame);
        assert_eq!(seen.len(), 1, "{seen:?} {:?}", self.books());
        seen.remove(0)
    }

    /// Nothing comes out, and the frame is dropped for `reason` alone.
    pub(super) fn send_for(&mut self, worker: usize, side: usize, frame: &[u8], reason: Reason) {
        let before = self.books();
        let seen = self.send(worker, side, frame);
        assert!(seen.is_empty(), "{seen:?}");
        assert_eq!(
            self.moved(&before),
            BTreeMap::from([("received", 1), (reason.name(), 1)])
        );
    }

    /// Runs the workers until nothing moves any more; returns what came out.
    pub(super) fn settle(&mut self) -> Vec<Seen> {
        let mut seen = Vec::new();
        for _ in 0..1000 {
            let now = self.now;
            let frames: usize = self
                .workers
                .iter_mut()
                .map(|worker| worker.run_once(now))
                .sum();
            if frames == 0 && self.collect(&mut seen) == 0 {
                self.check();
                return seen;
            }
        }
        panic!("the workers do not come to rest");
    }

    /// Lets time pass in steps of a fifth of a second; returns what came out.
    pub(super) fn pass(&mut self, seconds: u32) -> Vec<Seen> {
        let mut seen = Vec::new();
        for _ in 0..seconds * 5 {
            self.now = self.now.after(Ticks(20));
            seen.append(&mut self.settle());
        }
        seen
    }

    fn collect(&mut self, seen: &mut Vec<Seen>) -> usize {
        let mut count = 0;
        for worker in 0..self.wires.len() {
            for side in 0..2 {
                for (frame, offload) in self.wires[worker][side].take() {
                    count += 1;
                    if self.answer(worker, side, &frame) {
                        self.chatter.push((worker, side, frame));
                    } else {
                        seen.push(Seen {
                            worker,
                            side,
                            frame,
                            offload,
                        });
                    }
                }
            }
        }
        count
    }

    /// Answers as the host that is asked for. False for a frame that is neither ARP nor neighbour discovery.
    fn answer(&mut self, worker: usize, side: usize, frame: &[u8]) -> bool {
        let (asked, reply) = match parse(frame, &Offload::NONE) {
            Parsed::Arp => {
                let request = arp::parse(frame).unwrap();
                let asked = IpAddr::V4(request.target);
                let question = request.operation == arp::Operation::Request;
                let reply = arp::reply(mac_of(asked), &request).to_vec();
                (
                    (question && !request.is_gratuitous()).then_some(asked),
                    reply,
                )
            }
            Parsed::Ipv6(packet)
                if matches!(frame[packet.l4()], 135 | 136) && packet.ttl == 255 =>
            {
                match ndp::parse(frame, &packet).unwrap() {
                    ndp::Message::Solicitation { target, source_mac } => {
                        let to = source_mac.expect("the director has an address");
                        let mac = mac_of(target.into());
                        let reply = ndp::advertisement(mac, target, packet.tuple.source, to);
                        (Some(target.into()), reply.to_vec())
                    }
                    ndp::Message::Advertisement { .. } => (None, Vec::new()),
                }
            }
            _ => return false,
        };
        if let Some(asked) = asked
            && !self.silent.contains(&asked)
        {
            let at = self.answers_at.unwrap_or(worker);
            assert!(self.wires[at][side].inject(&reply));
        }
        true
    }

    /// Every frame is in one book, and every buffer at home.
    fn check(&mut self) {
        for (worker, stats) in self.workers.iter_mut().zip(&self.stats) {
            for port in worker.ports_mut() {
                assert_eq!(port.inner.lent(), 0, "buffers that nobody gave back");
            }
            let verdicts = &stats.verdicts;
            let all = |counters: &[&AtomicU64]| {
                counters
                    .iter()
                    .map(|counter| counter.load(Relaxed))
                    .sum::<u64>()
            };
            let drops: u64 = Reason::ALL.iter().map(|&reason| stats.drops(reason)).sum();
            assert_eq!(
                all(&[&verdicts.received, &verdicts.originated]),
                drops
                    + all(&[
                        &verdicts.forwarded,
                        &verdicts.replied,
                        &verdicts.exceptions,
                        &verdicts.waiting_now
                    ]),
                "{stats:?}"
            );
        }
    }

    /// All counters that are not zero.
    pub(super) fn books(&self) -> Books {
        let mut books = Books::new();
        for stats in &self.stats {
            let verdicts = &stats.verdicts;
            for (name, counter) in [
                ("received", &verdicts.received),
                ("originated", &verdicts.originated),
                ("forwarded", &verdicts.forwarded),
                ("replied", &verdicts.replied),
                ("exceptions", &verdicts.exceptions),
                ("waiting", &verdicts.waiting_now),
                ("connections", &stats.connections),
            ] {
                *books.entry(name).or_default() += counter.load(Relaxed);
            }
            for &reason in Reason::ALL {
                *books.entry(reason.name()).or_default() += stats.drops(reason);
            }
        }
        books.retain(|_, count| *count > 0);
        books
    }

    /// What moved since.
    pub(super) fn moved(&self, before: &Books) -> Books {
        let mut books = self.books();
        for (name, count) in before {
            // The gauge of those that wait may have gone down.
            let now = books.get(name).copied().unwrap_or(0);
            books.insert(name, now.saturating_sub(*count));
        }
        books.retain(|_, count| *count > 0);
        books
    }

    /// Connections in both tables.
    pub(super) fn connections(&self) -> u32 {
        let [ipv4, ipv6] = [self.tables.ipv4.statistics(), self.tables.ipv6.statistics()];
        u32::try_from(ipv4.entries + ipv6.entries).unwrap()
    }
}

/// The Ethernet addresses of a frame that its source's host, or the clients' router, hands to the director.
pub(super) fn address(frame: &mut [u8], side: usize) {
    let (source, gateway) = match parse(frame, &Offload::NONE) {
        Parsed::Ipv4(packet) => (IpAddr::V4(packet.tuple.source), 0),
        Parsed::Ipv6(packet) => (IpAddr::V6(packet.tuple.source), 1),
        _ => return,
    };
    let from = if side == CLIENTS {
        ip(CLIENT_GATEWAYS[gateway])
    } else {
        source
    };
    frame[..6].copy_from_slice(&director_mac(side).0);
    frame[6..12].copy_from_slice(&mac_of(from).0);
}
