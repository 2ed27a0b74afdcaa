//! From a configuration to sockets with their rings and a program on the interface, and all that can be wrong on the way.

use super::attributes;
use super::beside::Beside;
use super::bpf::{Link as Attached, Map, Mode, Program};
use super::errors::{OpenError, refused};
use super::handle::{Handle, Queue, QueueCounters};
use super::ours::{KEYS_MAX, Ours};
use super::program::{pass_all, program};
use super::socket::{Channels, Inquiry, Interface, Links, NAME_LEN_MAX, Rings, XdpSocket, either};
use super::umem::{HEADROOM, Umem};
use crate::packet::wire::ETHERNET_LEN;
use crate::port::PortId;
use crate::port::interface::InterfaceError;
use parking_lot::Mutex;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

/// Entries of each ring.
pub(super) const RING_LEN: u32 = 2048;
/// Chunks of a queue's memory: as many as can be in the kernel's hands to receive and to send, and a few bursts.
const CHUNKS: u32 = 2 * RING_LEN + 256;
/// Bytes of a chunk: for ordinary frames, and the most that the kernel takes.
const CHUNK_LENS: [u32; 2] = [2048, 4096];
/// The largest MTU, bytes: a frame is in one chunk, with the headroom and a VLAN tag.
pub(super) const MTU_MAX: u32 = 4096 - HEADROOM - LINK_LEN;
#[allow(clippy::cast_possible_truncation, reason = "18")]
const LINK_LEN: u32 = ETHERNET_LEN as u32 + 4;
/// How often a queue or interface is asked for that a process which has just ended may still have, and how long between.
const BUSY_TRIES: u32 = 40;
const BUSY_PAUSE: Duration = Duration::from_millis(25);

/// Whether transport checksums of received packets are finished where they look unfinished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksums {
    /// They are: for interfaces with senders on the same machine.
    Verify,
    /// They are taken as they come: for packets from a wire.
    Trust,
}

/// How to open an interface. [`Config::new`] has the defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Which port it will be.
    pub id: PortId,
    /// What the configuration calls it.
    pub name: String,
    /// The kernel's name of the interface.
    pub interface: String,
    /// How many workers will use it, each with a queue of its own.
    pub workers: u16,
    /// `None`: as the interface's driver suggests.
    pub checksums: Option<Checksums>,
    /// Whether an interface without native XDP is refused.
    pub native_only: bool,
}

impl Config {
    /// The interface for one worker, under its own name.
    #[must_use]
    pub fn new(id: PortId, interface: &str) -> Config {
        Config {
            id,
            name: interface.to_owned(),
            interface: interface.to_owned(),
            workers: 1,
            checksums: None,
            native_only: false,
        }
    }
}

/// What a worker's port is made of.
pub(super) struct Parts {
    pub(super) socket: Arc<XdpSocket>,
    pub(super) counters: Arc<QueueCounters>,
    pub(super) umem: Umem,
    pub(super) rings: Rings,
    pub(super) zero_copy: bool,
    /// The first worker's, with what to wait on for both.
    pub(super) beside: Option<(Beside, OwnedFd)>,
}

/// An interface that was opened.
pub(super) struct Open {
    pub(super) interface: Interface,
    pub(super) parts: Vec<Parts>,
    pub(super) handle: Handle,
    /// For frames that go back to the kernel.
    pub(super) pass: Program,
    pub(super) verifies: bool,
}

/// Opens an interface with all its queues.
pub(super) fn open(config: &Config) -> Result<Open, OpenError> {
    let name = &config.interface;
    if name.is_empty() || name.len() > NAME_LEN_MAX || name.contains('\0') {
        return Err(OpenError::BadName {
            interface: name.clone(),
        });
    }
    let failed = |action| move |source: io::Error| refused(name, action, source);
    let inquiry = Inquiry::new().map_err(failed("open a socket"))?;
    let interface = usable(&inquiry, name)?;
    let mut links = Links::new().map_err(failed("open a socket"))?;
    check_queues(&inquiry, &mut links, config, interface.index)?;
    let driver = inquiry.driver(name).unwrap_or_default();

    let ours = Ours::new(KEYS_MAX).map_err(failed("make a BPF map"))?;
    let sockets = Map::sockets("uvs_sockets", config.workers.into())
        .map_err(failed("make a map of AF_XDP sockets"))?;
    let code = program(interface.mac, ours.map().fd(), sockets.fd());
    let program = Program::load("uvs", &code).map_err(failed("load its XDP program"))?;
    let pass = Program::load("uvs_pass", &pass_all()).map_err(failed("load an XDP program"))?;
    let (attached, mode, why_not) = attach(&program, &mut links, name, interface.index)?;
    if config.native_only && mode != Mode::Native {
        return Err(OpenError::NotNative {
            interface: name.clone(),
            source: why_not,
        });
    }
    let mut parts = Vec::new();
    for queue in 0..config.workers {
        let opened = open_queue(config, &interface, queue, mode)?;
        sockets
            .insert(
                &u32::from(queue).to_ne_bytes(),
                &opened.socket.fd().to_ne_bytes(),
            )
            .map_err(failed("put an AF_XDP socket into the map"))?;
        parts.push(opened);
    }
    let verifies = config.checksums.map_or_else(
        || mode == Mode::Skb || has_local_senders(&driver),
        |checksums| checksums == Checksums::Verify,
    );
    let zero_copy = parts.iter().all(|parts| parts.zero_copy);
    let handle = Handle {
        id: config.id,
        interface: name.clone(),
        index: interface.index,
        mac: Mutex::new(interface.mac),
        mode: in_words(mode, zero_copy, verifies, config.workers, why_not.as_ref()),
        queues: parts
            .iter()
            .map(|parts| Queue {
                socket: Arc::clone(&parts.socket),
                counters: Arc::clone(&parts.counters),
            })
            .collect(),
        ours: Mutex::new(ours),
        inquiry,
        links: Mutex::new(links),
        attached,
        sockets,
    };
    Ok(Open {
        interface,
        parts,
        handle,
        pass,
        verifies,
    })
}

/// Drivers whose frames may come from a sender on the same machine, with unfinished checksums.
fn has_local_senders(driver: &str) -> bool {
    matches!(
        driver,
        "veth" | "tun" | "bridge" | "macvlan" | "ipvlan" | "vxlan"
    )
}

/// How the port runs.
fn in_words(
    mode: Mode,
    zero_copy: bool,
    verifies: bool,
    queues: u16,
    why_not: Option<&io::Error>,
) -> String {
    let mut words = vec![
        if mode == Mode::Native {
            "native"
        } else {
            "skb"
        }
        .to_owned(),
        if zero_copy { "zero copy" } else { "copy" }.to_owned(),
        if queues == 1 {
            "1 queue".to_owned()
        } else {
            format!("{queues} queues")
        },
    ];
    if verifies {
        words.push("checksums completed".to_owned());
    }
    if let Some(error) = why_not {
        words.push(format!(
            "not native: {error}; frames longer than the MTU are lost: GRO and senders' GSO should be off"
        ));
    }
    words.join(", ")
}

fn usable(inquiry: &Inquiry, name: &str) -> Result<Interface, OpenError> {
    let asked = inquiry.interface(name);
    let interface = asked.map_err(|error| match InterfaceError::no_such(name, error) {
        Ok(error) => error.into(),
        Err(source) => refused(name, "ask about it", source),
    })?;
    InterfaceError::check(name, interface.hardware_type, interface.up)?;
    if interface.mtu > MTU_MAX {
        return Err(OpenError::MtuTooLarge {
            interface: name.to_owned(),
            mtu: interface.mtu,
        });
    }
    Ok(interface)
}

/// Each worker has a queue, and each queue a worker: frames of one without would be the kernel's, which does not forward them.
fn check_queues(
    inquiry: &Inquiry,
    links: &mut Links,
    config: &Config,
    index: u32,
) -> Result<(), OpenError> {
    let name = &config.interface;
    let channels = inquiry.channels(name);
    let queues = match &channels {
        Ok(channels) => channels.receive + channels.combined,
        // A driver that does not say. What it was made with is then what it has.
        Err(_) => {
            let attributes = links.attributes(index).unwrap_or_default();
            attributes::receive_queues(&attributes).unwrap_or(1)
        }
    };
    if queues == u32::from(config.workers) {
        return Ok(());
    }
    Err(OpenError::Queues {
        interface: name.clone(),
        queues,
        workers: config.workers,
        remedy: remedy(name, channels.ok(), queues, config.workers),
    })
}

/// What to do about queues that do not fit the workers.
fn remedy(name: &str, channels: Option<Channels>, queues: u32, workers: u16) -> String {
    let by_workers = format!("`workers = {queues}` in [director]");
    let wanted = u32::from(workers);
    match channels {
        Some(channels) if channels.combined > 0 && wanted <= channels.combined_max => {
            format!("`ethtool -L {name} combined {workers}`, or {by_workers}")
        }
        Some(channels) if channels.combined == 0 && wanted <= channels.receive_max => {
            format!("`ethtool -L {name} rx {workers} tx {workers}`, or {by_workers}")
        }
        _ => by_workers,
    }
}

/// Puts the program on the interface: in the driver, or else behind it, and then why.
fn attach(
    program: &Program,
    links: &mut Links,
    name: &str,
    index: u32,
) -> Result<(Attached, Mode, Option<io::Error>), OpenError> {
    let mut other = |interface: &str| {
        let id = links.attributes(index).ok();
        let id = id.and_then(|attributes| attributes::program_id(&attributes));
        OpenError::OtherProgram {
            interface: interface.to_owned(),
            program: id.map_or_else(|| "of unknown id".to_owned(), |id| format!("id {id}")),
        }
    };
    let mut why_not = None;
    for mode in [Mode::Native, Mode::Skb] {
        match patiently(|| program.attach(index, mode)) {
            Ok(attached) => return Ok((attached, mode, why_not)),
            Err(error) if is_busy(&error) => return Err(other(name)),
            Err(error) if mode == Mode::Native && !is_forbidden(&error) => why_not = Some(error),
            Err(error) => return Err(refused(name, "put its XDP program on it", error)),
        }
    }
    unreachable!("the last mode returns")
}

fn open_queue(
    config: &Config,
    interface: &Interface,
    queue: u16,
    mode: Mode,
) -> Result<Parts, OpenError> {
    let name = &config.interface;
    let failed = |action| move |source: io::Error| refused(name, action, source);
    let fits = |len: &u32| interface.mtu + LINK_LEN + HEADROOM <= *len;
    let chunk_len = CHUNK_LENS.into_iter().find(fits).unwrap_or(CHUNK_LENS[1]);
    let mut umem =
        Umem::new(config.id, CHUNKS, chunk_len).map_err(failed("map memory for frames"))?;
    let socket = XdpSocket::new().map_err(failed("open an AF_XDP socket"))?;
    let mut rings = socket
        .rings(&umem, RING_LEN)
        .map_err(|error| match error.raw_os_error() {
            Some(libc::ENOBUFS) => OpenError::MemoryLocked {
                interface: name.clone(),
                mib: umem.len().div_ceil(1 << 20),
            },
            _ => refused(name, "make its rings", error),
        })?;
    // Some drivers look at the fill ring already when they take the queue.
    while rings.fill.room() > 0
        && let Some(address) = umem.take()
    {
        rings.fill.push(address);
    }
    rings.fill.submit();
    bind(&socket, name, interface.index, queue, mode)?;
    let zero_copy = socket.is_zero_copy();
    let beside = match queue {
        0 => {
            let beside = Beside::open(interface.index).map_err(failed("open a packet socket"))?;
            let either = either(socket.as_fd(), beside.as_fd()).map_err(failed("make an epoll"))?;
            Some((beside, either))
        }
        _ => None,
    };
    Ok(Parts {
        socket: Arc::new(socket),
        counters: Arc::default(),
        umem,
        rings,
        zero_copy,
        beside,
    })
}

/// Takes the queue, without copies where the driver can.
fn bind(
    socket: &XdpSocket,
    name: &str,
    index: u32,
    queue: u16,
    mode: Mode,
) -> Result<(), OpenError> {
    let wakeup = libc::XDP_USE_NEED_WAKEUP;
    let bind = |flags| patiently(|| socket.bind(index, queue.into(), wakeup | flags));
    if mode == Mode::Native && bind(libc::XDP_ZEROCOPY).is_ok() {
        return Ok(());
    }
    bind(libc::XDP_COPY).map_err(|error| {
        if is_busy(&error) {
            return OpenError::QueueTaken {
                interface: name.to_owned(),
                queue,
            };
        }
        refused(name, "bind an AF_XDP socket to it", error)
    })
}

/// Tries again while somebody has it: the kernel takes its time to let go what a process had that was killed.
fn patiently<T>(mut work: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let mut tries = 1;
    loop {
        match work() {
            Err(error) if is_busy(&error) && tries < BUSY_TRIES => sleep(BUSY_PAUSE),
            result => return result,
        }
        tries += 1;
    }
}

fn is_busy(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EEXIST))
}

fn is_forbidden(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES))
}
