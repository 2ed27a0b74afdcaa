//! A running director: its ports, its tables, its workers, and the configuration they work with.
//!
//! ```text
//!   start: check ─▶ open ports ─▶ tables ─▶ publish ─▶ a thread for each worker
//!   apply: check ─▶ what cannot change? ─▶ plan ─▶ compile ─▶ publish           whole, or not at all
//!   stop:  the flag ─▶ join
//! ```

mod automatic;
mod dpdk;
mod errors;
mod fixed;
mod kept;
mod links;
mod nodes;
mod ports;
mod threads;

pub use errors::{ApplyError, Findings, StartError, TellError};
pub use kept::Takeover;

use crate::compile::{Before, Compiler};
use crate::config::{self, Configuration, DirectorSettings, Listen};
use crate::plan::Plan;
use crate::rates::Accounts;
use conntrack::{Table, TableConfig, random_seeds};
use dataplane::neighbour::NeighbourTable;
use dataplane::port::handle::{Opened, PortHandle};
use dataplane::port::{Port, PortId, PortInfo};
use dataplane::snapshot::{Publisher, Snapshot};
use dataplane::stats::WorkerStats;
use dataplane::worker::{self, Tables, WorkerParts};
use fixed::fixed_keys;
use kept::Kept;
use links::Watch;
use parking_lot::Mutex;
use ports::{infos, open};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Hosts on the links that a director can know at once, at least; twice as many as its servers otherwise.
const NEIGHBOURS: usize = 16_384;

/// See the module's text. Dropping it stops it.
pub struct Director {
    pub(crate) settings: DirectorSettings,
    pub(crate) started: Instant,
    /// When tick 0 was: before `started` where the tables are of a process before.
    pub(crate) epoch: Instant,
    pub(crate) ports: Vec<PortInfo>,
    /// Of the ports, in their order; none where somebody else runs the workers.
    pub(crate) handles: Vec<Arc<dyn PortHandle>>,
    watch: Mutex<Watch>,
    pub(crate) tables: Tables,
    pub(crate) neighbours: Arc<NeighbourTable>,
    pub(crate) publisher: Arc<Publisher>,
    pub(crate) stats: Vec<Arc<WorkerStats>>,
    pub(crate) current: Mutex<Current>,
    /// Taken after `current`, if both are.
    pub(crate) accounts: Mutex<Accounts>,
    pub(crate) threads: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    /// The file of the tables. It stays locked until the threads have ended.
    pub(crate) kept: Option<Kept>,
}

/// What changes while a director runs.
pub(crate) struct Current {
    pub(crate) configuration: Configuration,
    pub(crate) compiler: Compiler,
    snapshot: Arc<Snapshot>,
    /// Snapshots that a worker may still be using, until all have seen the version beside.
    retired: Vec<(u64, Arc<Snapshot>)>,
}

impl Director {
    /// Opens the ports and starts the workers, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// When the configuration or the machine does not allow it; nothing is left behind then.
    pub fn start(configuration: Configuration) -> Result<Director, StartError> {
        valid(&configuration).map_err(StartError::Invalid)?;
        let numbered = (0u16..).map(PortId).zip(&configuration.ports);
        let ports: Result<Vec<_>, _> = numbered
            .map(|(id, port)| open(id, port, &configuration))
            .collect();
        Director::start_opened(configuration, ports?)
    }

    /// As [`start`](Self::start), with ports that are open already: for each port of the configuration, in its order,
    /// a queue for each worker.
    ///
    /// # Errors
    /// As [`start`](Self::start), and when ports and configuration do not fit each other.
    pub fn start_with<P: Port + 'static>(
        configuration: Configuration,
        ports: Vec<Vec<P>>,
    ) -> Result<Director, StartError> {
        let ports = ports.into_iter().map(ports::fixed);
        Director::start_opened(configuration, ports.collect())
    }

    /// As [`start_with`](Self::start_with), with what tells of each port beside its queues.
    ///
    /// # Errors
    /// As `start_with`, and when a driver cannot be told what is forwarded.
    pub fn start_opened<P: Port + 'static>(
        configuration: Configuration,
        ports: Vec<Opened<P>>,
    ) -> Result<Director, StartError> {
        let infos = infos(&configuration, &ports)?;
        let mut director = Director::assemble(configuration, infos)?;
        director.handles = ports.iter().map(|port| Arc::clone(&port.handle)).collect();
        director.watch = Mutex::new(Watch::new(&director.ports, &director.handles));
        director.tell_ports(&director.publisher.current())?;
        // Whatever fails from here on, dropping the director stops the threads that run already.
        director.start_workers(ports.into_iter().map(|port| port.queues).collect())?;
        Ok(director)
    }

    /// Tells the drivers what is forwarded from now on.
    fn tell_ports(&self, snapshot: &Snapshot) -> Result<(), TellError> {
        for (handle, info) in self.handles.iter().zip(&self.ports) {
            handle.adopt(snapshot).map_err(|error| TellError {
                port: info.name.clone(),
                error,
            })?;
        }
        Ok(())
    }

    /// A director without threads: whoever wants to run its workers himself, with time of his own making, makes them of
    /// [`worker_parts`](Self::worker_parts). `infos` describes the ports of the configuration, in its order.
    ///
    /// # Errors
    /// When the configuration cannot work, or there is no memory for the tables.
    pub fn assemble(
        configuration: Configuration,
        infos: Vec<PortInfo>,
    ) -> Result<Director, StartError> {
        valid(&configuration).map_err(StartError::Invalid)?;
        let settings = configuration.director.clone();
        let servers = usize::try_from(settings.servers).expect("a usize holds 32 bits");
        let nodes = nodes::nodes(&settings);
        let (tables, kept, left) = match &settings.table {
            None => (own_tables(&settings, &nodes)?, None, Vec::new()),
            Some(path) => {
                let (tables, kept, left) = Kept::open(path, &configuration, nodes)?;
                (tables, Some(kept), left)
            }
        };
        let neighbours = Arc::new(NeighbourTable::new(NEIGHBOURS.max(2 * servers)));
        let publisher = Publisher::new(usize::from(settings.workers));
        let stats: Vec<_> = (0..settings.workers)
            .map(|_| Arc::new(WorkerStats::new(servers)))
            .collect();
        let mut compiler = Compiler::new(
            infos.clone(),
            Arc::clone(&neighbours),
            stats.clone(),
            servers,
        );
        for (number, key, burden) in left {
            compiler.restore(number, key, burden);
        }
        let started = Instant::now();
        let epoch = kept.as_ref().map_or(started, Kept::epoch);
        let before = Before {
            configuration: None,
            snapshot: &publisher.current(),
            seen_by_all: 0,
        };
        let snapshot = compiler.compile(&configuration, &before, worker::ticks_since(epoch))?;
        prepare_calls(&tables, &snapshot);
        if let Some(kept) = &kept {
            kept.write(&compiler);
        }
        let (snapshot, _) = publisher.publish(snapshot);
        Ok(Director {
            settings,
            started,
            epoch,
            kept,
            ports: infos,
            tables,
            neighbours,
            publisher,
            stats,
            current: Mutex::new(Current {
                configuration,
                compiler,
                snapshot,
                retired: Vec::new(),
            }),
            accounts: Mutex::default(),
            handles: Vec::new(),
            watch: Mutex::default(),
            threads: Vec::new(),
            stop: Arc::default(),
        })
    }

    /// What worker `index` is made of, with its queue of each port.
    ///
    /// # Panics
    /// When the configuration has no such worker.
    pub fn worker_parts<P>(&self, index: u16, ports: Vec<P>) -> WorkerParts<P> {
        WorkerParts {
            index,
            workers: self.settings.workers,
            ports,
            tables: self.tables.clone(),
            neighbours: Arc::clone(&self.neighbours),
            publisher: Arc::clone(&self.publisher),
            stats: Arc::clone(&self.stats[usize::from(index)]),
        }
    }

    /// The hosts on the links, as the workers share them.
    #[must_use]
    pub fn neighbours(&self) -> &NeighbourTable {
        &self.neighbours
    }

    /// What a new configuration would change.
    ///
    /// # Errors
    /// When it could not be taken over, as far as that can be told without doing it.
    pub fn plan(&self, configuration: &Configuration) -> Result<Plan, ApplyError> {
        valid(configuration).map_err(ApplyError::Invalid)?;
        let current = self.current.lock();
        let keys = fixed_keys(&current.configuration, configuration);
        if !keys.is_empty() {
            return Err(ApplyError::NeedsRestart { keys });
        }
        let mut plan = Plan::new(&current.configuration, configuration, |server| {
            connections(&current.compiler, server)
        });
        plan.find_moved(&current.configuration, configuration);
        Ok(plan)
    }

    /// Takes a new configuration over, whole or not at all. Servers that stay keep their connections and counters.
    ///
    /// # Errors
    /// The old configuration goes on, untouched.
    pub fn apply(&self, configuration: Configuration) -> Result<Plan, ApplyError> {
        valid(&configuration).map_err(ApplyError::Invalid)?;
        let mut current = self.current.lock();
        let current = &mut *current;
        let keys = fixed_keys(&current.configuration, &configuration);
        if !keys.is_empty() {
            return Err(ApplyError::NeedsRestart { keys });
        }
        let compiler = &mut current.compiler;
        let plan = Plan::new(&current.configuration, &configuration, |server| {
            connections(compiler, server)
        });
        let before = Before {
            configuration: Some(&current.configuration),
            snapshot: &current.snapshot,
            seen_by_all: self.publisher.seen_by_all(),
        };
        let snapshot =
            compiler.compile(&configuration, &before, worker::ticks_since(self.epoch))?;
        prepare_calls(&self.tables, &snapshot);
        self.tell_ports(&snapshot)?;
        if let Some(kept) = &self.kept {
            kept.write(compiler);
        }
        current.configuration = configuration;
        self.publish(current, snapshot);
        Ok(plan)
    }

    fn publish(&self, current: &mut Current, snapshot: Snapshot) {
        let (new, old) = self.publisher.publish(snapshot);
        current.retired.push((new.version, old));
        current.snapshot = new;
        current.free_retired(self.publisher.seen_by_all());
    }

    /// Takes note that a port's MTU is another now, bytes of an IP packet. The workers learn it with the configuration that
    /// is applied next.
    pub fn port_mtu_changed(&self, port: PortId, mtu: u32) {
        self.current.lock().compiler.set_mtu(port, mtu);
    }

    /// Looks how the ports are, estimates rates, and frees what the workers have let go: old snapshots, the numbers of removed
    /// servers. To be called now and then.
    pub fn tidy(&self) {
        self.watch_ports();
        self.estimate(Instant::now());
        let seen = self.publisher.seen_by_all();
        let mut current = self.current.lock();
        current.free_retired(seen);
        current.compiler.forget(seen);
    }

    /// The configuration that holds.
    #[must_use]
    pub fn configuration(&self) -> Configuration {
        self.current.lock().configuration.clone()
    }

    /// The numbers of workers whose threads have ended on their own: a fault.
    #[must_use]
    pub fn ended_workers(&self) -> Vec<usize> {
        let ended = self
            .threads
            .iter()
            .enumerate()
            .filter(|(_, thread)| thread.is_finished());
        ended.map(|(worker, _)| worker).collect()
    }

    /// The numbers of workers that have not come round for longer than `limit`: they forward nothing.
    #[must_use]
    pub fn standing_workers(&self, limit: Duration) -> Vec<usize> {
        let now = worker::ticks_since(self.epoch);
        // A tick that came after the clock was read is no age.
        let stands = |stats: &WorkerStats| {
            let age = now.0.wrapping_sub(stats.ticked.load(Relaxed));
            Duration::from_millis(u64::from(age) * 10) > limit && age.cast_signed() > 0
        };
        let stats = self.stats.iter().enumerate();
        let standing = stats.filter(|(_, stats)| stands(stats));
        standing.map(|(worker, _)| worker).collect()
    }

    /// Stops the workers and waits for them.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Director {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            // A worker that panicked has said so already.
            let _ = thread.join();
        }
    }
}

impl Current {
    fn free_retired(&mut self, seen_by_all: u64) {
        self.retired.retain(|(version, _)| *version > seen_by_all);
    }
}

/// Takes the memory for calls once a service wants to tell them apart.
fn prepare_calls(tables: &Tables, snapshot: &Snapshot) {
    let mut persistent = snapshot
        .services
        .values()
        .filter_map(|service| service.persistence);
    if persistent.any(|persistence| persistence.engine.is_some()) {
        tables.calls.prepare();
    }
}

fn valid(configuration: &Configuration) -> Result<(), Findings> {
    let (wrong, _) = config::check(configuration);
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(Findings(wrong))
    }
}

/// Tables in memory of the process alone.
fn own_tables(settings: &DirectorSettings, nodes: &[u16]) -> Result<Tables, StartError> {
    Ok(Tables {
        ipv4: Table::on_nodes(&table_config(settings), nodes)?,
        ipv6: Table::on_nodes(&table_config(settings), nodes)?,
        helpers: Arc::default(),
        calls: Arc::default(),
    })
}

fn table_config(settings: &DirectorSettings) -> TableConfig {
    TableConfig {
        capacity: settings.connections,
        half_open_percent: settings.half_open_percent,
        workers: settings.workers,
        seeds: random_seeds(),
    }
}

fn connections(compiler: &Compiler, server: &(Listen, SocketAddr)) -> u64 {
    let load = compiler.server_facts(server).map(|(_, load, _)| load);
    load.map_or(0, |load| {
        u64::from(load.active()) + u64::from(load.inactive())
    })
}
