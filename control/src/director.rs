//! A running director: its ports, its tables, its workers, and the configuration they work with.
//!
//! ```text
//!   start: check ─▶ open ports ─▶ tables ─▶ publish ─▶ a thread for each worker
//!   apply: check ─▶ what cannot change? ─▶ plan ─▶ compile ─▶ publish           whole, or not at all
//!   stop:  the flag ─▶ join
//! ```

use crate::compile::{Before, Compiler, NoRoom};
use crate::config::{
    self, Configuration, DirectorSettings, Driver, Finding, Idle, Listen, Pin, PortSettings,
};
use crate::plan::Plan;
use conntrack::{Table, TableConfig, TableError, Ticks, random_seeds};
use dataplane::neighbour::NeighbourTable;
use dataplane::port::any::AnyPort;
use dataplane::port::{Mac, Port, PortId, PortInfo, af_packet, memory::MemoryPort};
use dataplane::snapshot::{Publisher, Snapshot};
use dataplane::stats::WorkerStats;
use dataplane::worker::{self, Tables, Worker, WorkerParts};
use parking_lot::Mutex;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Instant;

/// Hosts on the links that a director can know at once, at least; twice as many as its servers otherwise.
const NEIGHBOURS: usize = 16_384;
/// Buffers of a memory port, and bytes of each.
const MEMORY_BUFFERS: (u32, u32) = (256, 2048);
/// Largest IP packet of a memory port.
const MEMORY_MTU: u32 = 1500;

/// See the module's text. Dropping it stops it.
pub struct Director {
    pub(crate) settings: DirectorSettings,
    pub(crate) started: Instant,
    pub(crate) ports: Vec<PortInfo>,
    pub(crate) tables: Tables,
    pub(crate) neighbours: Arc<NeighbourTable>,
    pub(crate) publisher: Arc<Publisher>,
    pub(crate) stats: Vec<Arc<WorkerStats>>,
    pub(crate) current: Mutex<Current>,
    pub(crate) threads: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
}

/// What changes while a director runs.
pub(crate) struct Current {
    pub(crate) configuration: Configuration,
    pub(crate) compiler: Compiler,
    snapshot: Arc<Snapshot>,
    /// Snapshots that a worker may still be using, until all have seen the version beside.
    retired: Vec<(u64, Arc<Snapshot>)>,
}

/// What is wrong with a configuration that was not read from a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Findings(pub Vec<Finding>);

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told: Vec<_> = self
            .0
            .iter()
            .map(|finding| format!("{}: {}", finding.path, finding.problem))
            .collect();
        f.write_str(&told.join("\n"))
    }
}

/// Why a director does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration cannot work.
    #[error("{0}")]
    Invalid(Findings),
    /// A port cannot be opened.
    #[error("port {port}: {error}")]
    Port {
        /// Its name.
        port: String,
        /// Why.
        error: af_packet::OpenError,
    },
    /// The ports handed over are not those of the configuration.
    #[error(
        "{given} ports with {queues} queues were handed over; accepted: {ports} ports with {workers} queues each"
    )]
    Ports {
        /// Ports handed over.
        given: usize,
        /// Queues of the first port that has the wrong number, or of the first at all.
        queues: usize,
        /// Ports of the configuration.
        ports: usize,
        /// Workers of the configuration.
        workers: usize,
    },
    /// The connection table cannot be made.
    #[error("director.connections: {0}")]
    Table(#[from] TableError),
    /// There are more servers than numbers.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// A worker cannot be bound to its CPU.
    #[error(
        "director.pin: worker {worker} cannot run on CPU {cpu}: {error}; accepted: a CPU this process may use"
    )]
    Pin {
        /// Its number.
        worker: u16,
        /// The CPU.
        cpu: usize,
        /// What the system says.
        error: std::io::Error,
    },
    /// A worker's thread cannot be made.
    #[error("worker {worker} has no thread: {error}")]
    Thread {
        /// Its number.
        worker: u16,
        /// What the system says.
        error: std::io::Error,
    },
}

/// Why a configuration is not taken over. The old one goes on.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// It cannot work.
    #[error("{0}")]
    Invalid(Findings),
    /// It changes what is fixed at the start.
    #[error("{}: fixed while the director runs; accepted: as they are, or a restart of uvsd", keys.join(", "))]
    NeedsRestart {
        /// The keys that differ.
        keys: Vec<String>,
    },
    /// There are more servers than numbers.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
}

impl Director {
    /// Opens the ports and starts the workers, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// When the configuration or the machine does not allow it; nothing is left behind then.
    pub fn start(configuration: Configuration) -> Result<Director, StartError> {
        valid(&configuration).map_err(StartError::Invalid)?;
        let workers = configuration.director.workers;
        let numbered = (0u16..).map(PortId).zip(&configuration.ports);
        let ports: Result<Vec<_>, _> = numbered.map(|(id, port)| open(id, port, workers)).collect();
        Director::start_with(configuration, ports?)
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
        let infos = infos(&configuration, &ports)?;
        let mut director = Director::assemble(configuration, infos)?;
        // Whatever fails from here on, dropping the director stops the threads that run already.
        director.start_workers(ports)?;
        Ok(director)
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
        let tables = Tables {
            ipv4: Table::new(&table_config(&settings))?,
            ipv6: Table::new(&table_config(&settings))?,
            helpers: Arc::default(),
            calls: Arc::default(),
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
        let started = Instant::now();
        let before = Before {
            configuration: None,
            snapshot: &publisher.current(),
            seen_by_all: 0,
        };
        let snapshot = compiler.compile(&configuration, &before, Ticks(0))?;
        prepare_calls(&tables, &snapshot);
        let (snapshot, _) = publisher.publish(snapshot);
        Ok(Director {
            settings,
            started,
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

    fn start_workers<P: Port + 'static>(&mut self, ports: Vec<Vec<P>>) -> Result<(), StartError> {
        let mut queues: Vec<_> = ports.into_iter().map(Vec::into_iter).collect();
        for index in 0..self.settings.workers {
            let ports = queues.iter_mut().filter_map(Iterator::next).collect();
            self.start_worker(self.worker_parts(index, ports))?;
        }
        Ok(())
    }

    fn start_worker<P: Port + 'static>(&mut self, parts: WorkerParts<P>) -> Result<(), StartError> {
        let worker = parts.index;
        let cpu = match &self.settings.pin {
            Pin::Nowhere => None,
            Pin::InOrder => Some(usize::from(worker)),
            Pin::To(cpus) => cpus.get(usize::from(worker)).map(|cpu| usize::from(*cpu)),
        };
        let idle = match self.settings.idle {
            Idle::Sleep => worker::Idle::Sleep,
            Idle::Poll => worker::Idle::Poll,
        };
        let (stop, epoch) = (Arc::clone(&self.stop), self.started);
        let (ready, is_ready) = mpsc::channel();
        let run = move || {
            let pinned = cpu.map_or(Ok(()), pin);
            let proceed = pinned.is_ok();
            // The director waits for this, so the receiver is there.
            let _ = ready.send(pinned);
            if proceed {
                Worker::new(parts, worker::ticks_since(epoch)).run(&stop, idle, epoch);
            }
        };
        let thread = std::thread::Builder::new()
            .name(format!("uvs-worker-{worker}"))
            .spawn(run);
        self.threads
            .push(thread.map_err(|error| StartError::Thread { worker, error })?);
        match is_ready.recv() {
            Ok(Err(error)) => Err(StartError::Pin {
                worker,
                cpu: cpu.unwrap_or_default(),
                error,
            }),
            Ok(Ok(())) | Err(mpsc::RecvError) => Ok(()),
        }
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
            compiler.compile(&configuration, &before, worker::ticks_since(self.started))?;
        prepare_calls(&self.tables, &snapshot);
        let (new, old) = self.publisher.publish(snapshot);
        current.retired.push((new.version, old));
        current.snapshot = new;
        current.configuration = configuration;
        current.free_retired(self.publisher.seen_by_all());
        Ok(plan)
    }

    /// Takes note that a port's MTU is another now, bytes of an IP packet. The workers learn it with the configuration that
    /// is applied next.
    pub fn port_mtu_changed(&self, port: PortId, mtu: u32) {
        self.current.lock().compiler.set_mtu(port, mtu);
    }

    /// Frees what the workers have let go: old snapshots, the numbers of removed servers. To be called now and then.
    pub fn tidy(&self) {
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

fn open(id: PortId, port: &PortSettings, workers: u16) -> Result<Vec<AnyPort>, StartError> {
    match &port.driver {
        Driver::AfPacket { interface } => {
            let config = af_packet::Config {
                name: port.name.clone(),
                workers,
                ..af_packet::Config::new(id, interface)
            };
            let queues = af_packet::open(config);
            let queues = queues.map_err(|error| StartError::Port {
                port: port.name.clone(),
                error,
            })?;
            Ok(queues.into_iter().map(AnyPort::AfPacket).collect())
        }
        Driver::Memory => {
            let [high, low] = id.0.to_be_bytes();
            let info = PortInfo {
                name: port.name.clone(),
                mac: Mac([0x02, 0, 0, 0, high, low]),
                mtu: MEMORY_MTU,
                driver: "memory",
            };
            let (buffers, buffer_len) = MEMORY_BUFFERS;
            let queue =
                |_| AnyPort::Memory(MemoryPort::new(id, info.clone(), buffers, buffer_len).0);
            Ok((0..workers).map(queue).collect())
        }
    }
}

/// What the ports say of themselves, if they are as many as the configuration wants.
fn infos<P: Port>(
    configuration: &Configuration,
    ports: &[Vec<P>],
) -> Result<Vec<PortInfo>, StartError> {
    let workers = usize::from(configuration.director.workers);
    let wrong = ports.iter().find(|queues| queues.len() != workers);
    if ports.len() != configuration.ports.len() || wrong.is_some() {
        let queues = wrong.or(ports.first()).map_or(0, Vec::len);
        return Err(StartError::Ports {
            given: ports.len(),
            queues,
            ports: configuration.ports.len(),
            workers,
        });
    }
    Ok(ports
        .iter()
        .filter_map(|queues| queues.first())
        .map(|queue| queue.info().clone())
        .collect())
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

/// The keys in which two configurations differ and must not.
fn fixed_keys(old: &Configuration, new: &Configuration) -> Vec<String> {
    let (from, to) = (&old.director, &new.director);
    let of_director = [
        (from.workers != to.workers, "director.workers"),
        (from.connections != to.connections, "director.connections"),
        (from.servers != to.servers, "director.servers"),
        (
            from.half_open_percent != to.half_open_percent,
            "director.half_open_percent",
        ),
        (from.idle != to.idle, "director.idle"),
        (from.pin != to.pin, "director.pin"),
        (from.control != to.control, "director.control"),
    ];
    let mut keys: Vec<_> = of_director
        .iter()
        .filter(|(differ, _)| *differ)
        .map(|(_, key)| (*key).to_owned())
        .collect();
    let fixed = |ports: &[PortSettings]| -> Vec<_> {
        ports
            .iter()
            .map(|port| (port.name.clone(), port.driver.clone()))
            .collect()
    };
    let (from, to) = (fixed(&old.ports), fixed(&new.ports));
    if from != to {
        let differing = from
            .iter()
            .filter(|port| !to.contains(port))
            .chain(to.iter().filter(|port| !from.contains(port)));
        let mut names: Vec<_> = differing.map(|(name, _)| format!("port.{name}")).collect();
        names.dedup();
        keys.extend(if names.is_empty() {
            vec!["port: the order".to_owned()]
        } else {
            names
        });
    }
    keys
}

/// Binds the calling thread to a CPU.
fn pin(cpu: usize) -> std::io::Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    if cpu >= rustix::thread::CpuSet::MAX_CPU {
        return Err(std::io::ErrorKind::InvalidInput.into());
    }
    set.set(cpu);
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}
