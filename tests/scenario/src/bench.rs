//! The director under test: the real worker between two memory ports, with a clock that nobody waits for.

use crate::topology::{self, ROUTES, Side, mac_of};
use conntrack::Ticks;
use control::config::{
    AccessSettings, AnsweredBy, Configuration, DirectorSettings, DpdkSettings, Driver,
    PortSettings, Prefix, Route, TimeoutSettings,
};
use control::{ApplyError, Director, StartError};
use dataplane::port::PortInfo;
use dataplane::port::memory::{MemoryPort, MemoryWire};
use dataplane::snapshot::Ipvs;
use dataplane::worker::{Tables, Worker};
use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};

/// Time passes in steps of this many milliseconds: one slot of the timer wheel.
const STEP_MS: u64 = 160;
/// Rounds of the worker in each step: there is time for far more, and some work is spread over rounds.
const ROUNDS: usize = 20;
const MTU: u32 = 1500;
const BUFFERS: u32 = 256;
/// Bytes of a buffer: the largest IP packet fits.
const BUFFER_LEN: u32 = 65_600;
const CONNECTIONS: u32 = 65_536;
/// When the clock starts. Not at zero, which nothing should depend on.
const START_MS: u64 = 10_000;

/// See the module's text.
pub struct Bench {
    director: Director,
    worker: Worker<MemoryPort>,
    tables: Tables,
    wires: Vec<MemoryWire>,
    neighbours: BTreeSet<IpAddr>,
    /// The servers of all configurations by their numbers.
    servers: HashMap<u32, SocketAddr>,
    now_ms: u64,
}

impl Bench {
    /// A director without services in the network of the recordings. `neighbours` are the hosts that it knows.
    ///
    /// # Errors
    /// When there is no memory for its tables.
    pub fn new(neighbours: BTreeSet<IpAddr>) -> Result<Bench, StartError> {
        let infos = Side::ALL.map(|side| PortInfo {
            name: side.name().to_owned(),
            mac: side.mac(),
            mtu: MTU,
            driver: "memory",
        });
        let director = Director::assemble(configuration(), infos.to_vec())?;
        let (ports, wires) = Side::ALL
            .into_iter()
            .zip(infos)
            .map(|(side, info)| MemoryPort::new(side.port(), info, BUFFERS, BUFFER_LEN))
            .unzip();
        let parts = director.worker_parts(0, ports);
        let tables = parts.tables.clone();
        let mut bench = Bench {
            director,
            worker: Worker::new(parts, ticks(START_MS)),
            tables,
            wires,
            neighbours,
            servers: HashMap::new(),
            now_ms: START_MS,
        };
        bench.know_neighbours();
        bench.round();
        Ok(bench)
    }

    /// The director.
    #[must_use]
    pub fn director(&self) -> &Director {
        &self.director
    }

    /// The connections.
    #[must_use]
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// The servers by their numbers, removed ones with them.
    #[must_use]
    pub fn servers(&self) -> &HashMap<u32, SocketAddr> {
        &self.servers
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Ticks {
        ticks(self.now_ms)
    }

    /// Changes the configuration, and lets the worker take it over.
    ///
    /// # Errors
    /// When uvs does not accept it; nothing has changed then.
    pub fn apply(&mut self, change: impl FnOnce(&mut Configuration)) -> Result<(), ApplyError> {
        let mut configuration = self.director.configuration();
        change(&mut configuration);
        self.director.apply(configuration)?;
        self.know_neighbours();
        self.round();
        self.director.tidy();
        let services = self.director.services().into_iter();
        let servers = services.flat_map(|service| service.servers);
        self.servers
            .extend(servers.map(|server| (server.id.0, server.address)));
        Ok(())
    }

    /// Changes the MTU of a port, as the interface behind it would.
    pub fn set_mtu(&mut self, side: Side, mtu: u32) {
        self.director.port_mtu_changed(side.port(), mtu);
        self.apply(|_| {})
            .expect("the configuration that holds is accepted again");
    }

    /// Lets a frame in; what comes out of it.
    pub fn exchange(&mut self, side: Side, frame: &[u8]) -> Vec<(Side, Vec<u8>)> {
        self.know_neighbours();
        self.wire(side).inject(frame);
        while self.round() > 0 {}
        self.take()
    }

    /// What has come out by itself.
    pub fn take(&mut self) -> Vec<(Side, Vec<u8>)> {
        let mut frames = Vec::new();
        for side in Side::ALL {
            frames.extend(
                self.wire(side)
                    .take()
                    .into_iter()
                    .map(|(bytes, _)| (side, bytes)),
            );
        }
        frames
    }

    /// Lets time pass, timers firing on the way.
    pub fn pass_ms(&mut self, span_ms: u64) {
        let end = self.now_ms + span_ms;
        while self.now_ms < end {
            self.now_ms = end.min(self.now_ms + STEP_MS);
            self.know_neighbours();
            for _ in 0..ROUNDS {
                self.round();
            }
        }
    }

    fn round(&mut self) -> usize {
        self.worker.run_once(ticks(self.now_ms))
    }

    fn wire(&self, side: Side) -> &MemoryWire {
        &self.wires[usize::from(side.port().0)]
    }

    /// The recordings' neighbour entries are permanent; these are confirmed before they could age.
    fn know_neighbours(&self) {
        let table = self.director.neighbours();
        for address in &self.neighbours {
            let side = topology::link_of(*address).expect("neighbours are on a link");
            table
                .intern(side.port(), *address, self.now())
                .expect("the neighbour table is larger than any scenario");
            table.learn(side.port(), *address, mac_of(*address), self.now());
        }
    }
}

fn ticks(ms: u64) -> Ticks {
    Ticks(u32::try_from(ms / 10).expect("a scenario lasts less than 497 days"))
}

fn configuration() -> Configuration {
    let ports = Side::ALL.map(|side| PortSettings {
        name: side.name().to_owned(),
        driver: Driver::Memory,
        addresses: side
            .addresses()
            .map(|(address, len)| Prefix { address, len })
            .to_vec(),
        answered_by: AnsweredBy::Uvs,
    });
    let routes = ROUTES.map(|(to, side)| {
        let to: Prefix = to.parse().expect("the routes are prefixes");
        Route {
            to,
            via: Some(side.router(to.address.is_ipv6())),
            port: None,
        }
    });
    Configuration {
        director: DirectorSettings {
            connections: CONNECTIONS,
            half_open_percent: 100,
            ..DirectorSettings::default()
        },
        dpdk: DpdkSettings::default(),
        ports: ports.to_vec(),
        routes: routes.to_vec(),
        lip_pools: Vec::new(),
        marks: Vec::new(),
        services: Vec::new(),
        timeouts: TimeoutSettings::default(),
        ipvs: Ipvs::default(),
        access: AccessSettings::default(),
        metrics: None,
    }
}
