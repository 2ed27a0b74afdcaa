//! What control keeps of an interface, and what the workers' sockets and it tell each other.

use super::socket;
use crate::port::handle::{Link, PortHandle, PortState};
use crate::port::{Mac, PortInfo};
use crate::stats::add;
use parking_lot::Mutex;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

/// The interface's counters, in the order of /proc/net/dev; what no interface of today counts is left out.
const COLUMNS: [(&str, usize); 10] = [
    ("rx_bytes", 0),
    ("rx_packets", 1),
    ("rx_errors", 2),
    ("rx_dropped", 3),
    ("rx_fifo_errors", 4),
    ("tx_bytes", 8),
    ("tx_packets", 9),
    ("tx_errors", 10),
    ("tx_dropped", 11),
    ("tx_fifo_errors", 12),
];

/// What one worker's socket tells of itself: written by its worker alone, read by control.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct QueueState {
    /// Whether the socket receives from the interface that has the name now.
    is_bound: AtomicBool,
    /// Frames that found the receive ring full.
    ring_full: AtomicU64,
    /// Frames longer than a slot of the ring, and without room beside it.
    too_long: AtomicU64,
    /// Frames whose offload the director cannot pass on.
    offload_unknown: AtomicU64,
    /// Frames to be sent that the kernel refused.
    refused: AtomicU64,
    /// Frames to be sent that the interface's queueing discipline, or the kernel's memory, had no room for.
    queue_full: AtomicU64,
    /// Frames to be sent while the link was down or gone.
    link_down: AtomicU64,
    /// Times that the socket was made anew.
    reopened: AtomicU64,
}

/// Why a frame is lost in the driver.
#[derive(Clone, Copy, Debug)]
pub(super) enum Loss {
    /// It found the receive ring full.
    RingFull,
    /// It is longer than a slot.
    TooLong,
    /// Its offload cannot be passed on.
    OffloadUnknown,
    /// The kernel refused to send it.
    Refused,
    /// There was no room behind the socket.
    QueueFull,
    /// The link was down, or gone.
    LinkDown,
}

impl QueueState {
    pub(super) fn count(&self, loss: Loss, frames: u64) {
        let counter = match loss {
            Loss::RingFull => &self.ring_full,
            Loss::TooLong => &self.too_long,
            Loss::OffloadUnknown => &self.offload_unknown,
            Loss::Refused => &self.refused,
            Loss::QueueFull => &self.queue_full,
            Loss::LinkDown => &self.link_down,
        };
        add(counter, frames);
    }

    pub(super) fn set_bound(&self, is_bound: bool) {
        self.is_bound.store(is_bound, Relaxed);
    }

    pub(super) fn count_reopened(&self) {
        add(&self.reopened, 1);
    }

    /// Frames lost on their way in.
    pub(super) fn receive_missed(&self) -> u64 {
        let lost = [&self.ring_full, &self.too_long, &self.offload_unknown];
        lost.map(|counter| counter.load(Relaxed)).iter().sum()
    }

    /// Frames lost on their way out.
    pub(super) fn transmit_errors(&self) -> u64 {
        let lost = [&self.refused, &self.queue_full, &self.link_down];
        lost.map(|counter| counter.load(Relaxed)).iter().sum()
    }
}

/// Of a port, shared by its workers' sockets and control.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// By worker.
    pub(super) queues: Vec<QueueState>,
    /// Changes when the sockets should look at their interface again: control has seen another one, or one of them could
    /// not be made anew. Read at each `receive`, on a line of its own.
    look: Look,
    /// Why a socket cannot be made anew.
    problem: Mutex<Option<String>>,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Look(AtomicU32);

impl Shared {
    pub(super) fn new(workers: u16) -> Shared {
        Shared {
            queues: (0..workers).map(|_| QueueState::default()).collect(),
            ..Shared::default()
        }
    }

    #[inline]
    pub(super) fn look(&self) -> u32 {
        self.look.0.load(Relaxed)
    }

    /// A socket could not be made anew, or could after all.
    pub(super) fn set_problem(&self, problem: Option<String>) {
        *self.problem.lock() = problem;
    }

    fn is_bound(&self) -> bool {
        let mut queues = self.queues.iter();
        queues.all(|queue| queue.is_bound.load(Relaxed))
    }
}

/// See the module's text.
pub(super) struct Handle {
    interface: String,
    /// How the rings are laid out.
    mode: String,
    /// To ask with: it belongs to the network namespace that the port was opened in, whoever asks.
    socket: UnixDatagram,
    shared: Arc<Shared>,
    seen: Mutex<Seen>,
}

/// What was seen last.
struct Seen {
    /// Index and flags of the interface; `None` while there is none.
    interface: Option<(i32, bool, bool)>,
    mac: Mac,
    mtu: u32,
    totals: Totals,
}

impl Handle {
    pub(super) fn new(
        info: &PortInfo,
        interface: &str,
        mode: String,
        shared: Arc<Shared>,
    ) -> io::Result<Handle> {
        let socket = UnixDatagram::unbound()?;
        let now = socket::interface(socket.as_fd(), interface)?;
        let mut totals = Totals::open(interface);
        totals.look();
        totals.sums = [0; COLUMNS.len()];
        let seen = Seen {
            interface: Some((now.index, now.up, now.running)),
            mac: info.mac,
            mtu: info.mtu,
            totals,
        };
        Ok(Handle {
            interface: interface.to_owned(),
            mode,
            socket,
            shared,
            seen: Mutex::new(seen),
        })
    }
}

impl PortHandle for Handle {
    /// A link is up once all workers' sockets are at the interface that has the name now.
    fn state(&self) -> PortState {
        let mut seen = self.seen.lock();
        seen.totals.look();
        let interface = socket::interface(self.socket.as_fd(), &self.interface).ok();
        if let Some(interface) = &interface {
            (seen.mac, seen.mtu) = (interface.mac, interface.mtu);
        }
        let now = interface.map(|found| (found.index, found.up, found.running));
        let is_bound = self.shared.is_bound();
        if now != seen.interface || (now.is_some() && !is_bound) {
            // Only control writes; a worker that misses one sees the next.
            let next = self.shared.look().wrapping_add(1);
            self.shared.look.0.store(next, Relaxed);
        }
        seen.interface = now;
        let link = match now {
            None => Link::Gone,
            Some((_, true, true)) if is_bound => Link::Up,
            Some(_) => Link::Down,
        };
        let problem = self.shared.problem.lock().clone();
        PortState {
            mac: seen.mac,
            mtu: seen.mtu,
            link,
            mode: problem.unwrap_or_else(|| self.mode.clone()),
        }
    }

    fn statistics(&self) -> Vec<(String, u64)> {
        let mut seen = self.seen.lock();
        seen.totals.look();
        let interface = COLUMNS.iter().zip(seen.totals.sums);
        let interface = interface.map(|((name, _), sum)| ((*name).to_owned(), sum));
        type Counter = fn(&QueueState) -> &AtomicU64;
        let queues: [(&str, Counter); 7] = [
            ("ring_full", |queue| &queue.ring_full),
            ("longer_than_slot", |queue| &queue.too_long),
            ("offload_unknown", |queue| &queue.offload_unknown),
            ("transmit_refused", |queue| &queue.refused),
            ("transmit_queue_full", |queue| &queue.queue_full),
            ("transmit_link_down", |queue| &queue.link_down),
            ("sockets_reopened", |queue| &queue.reopened),
        ];
        let of_queues = queues.iter().map(|(name, counter)| {
            let counts = self.shared.queues.iter().map(counter);
            let sum = counts.map(|count| count.load(Relaxed)).sum();
            ((*name).to_owned(), sum)
        });
        interface.chain(of_queues).collect()
    }
}

/// An interface's own counters since the port was opened, over all interfaces that had the name: one that comes back
/// begins at 0.
struct Totals {
    interface: String,
    /// /proc/net/dev of the namespace that it was opened in; `None` where there is no such file.
    file: Option<File>,
    last: [u64; COLUMNS.len()],
    sums: [u64; COLUMNS.len()],
}

impl Totals {
    fn open(interface: &str) -> Totals {
        Totals {
            interface: interface.to_owned(),
            file: File::open("/proc/thread-self/net/dev").ok(),
            last: [0; COLUMNS.len()],
            sums: [0; COLUMNS.len()],
        }
    }

    fn look(&mut self) {
        let mut text = String::new();
        let Some(file) = &mut self.file else { return };
        let read = file.rewind().and_then(|()| file.read_to_string(&mut text));
        if read.is_ok()
            && let Some(now) = counters_of(&self.interface, &text)
        {
            self.add(now);
        }
    }

    fn add(&mut self, now: [u64; COLUMNS.len()]) {
        // Bytes and packets grow as long as it is the same interface.
        let is_another = now.iter().zip(self.last).any(|(now, last)| *now < last);
        let last = if is_another {
            [0; COLUMNS.len()]
        } else {
            self.last
        };
        for ((sum, now), last) in self.sums.iter_mut().zip(now).zip(last) {
            *sum = sum.saturating_add(now - last);
        }
        self.last = now;
    }
}

/// The counters of an interface in the text of /proc/net/dev.
fn counters_of(interface: &str, text: &str) -> Option<[u64; COLUMNS.len()]> {
    let line = text.lines().find_map(|line| {
        let (name, numbers) = line.split_once(':')?;
        (name.trim() == interface).then_some(numbers)
    })?;
    let numbers: Vec<u64> = line
        .split_ascii_whitespace()
        .map_while(|number| number.parse().ok())
        .collect();
    let mut counters = [0; COLUMNS.len()];
    for (counter, (_, column)) in counters.iter_mut().zip(COLUMNS) {
        *counter = *numbers.get(column)?;
    }
    Some(counters)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Inter-|   Receive                            |  Transmit\n \
        face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n \
           lo: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n \
         eth0: 100 2 30 40 50 60 70 80 900 10 110 120 130 140 150 160\n";

    #[test]
    fn the_columns_of_proc_net_dev_are_those_of_the_interface() {
        let found = counters_of("eth0", TEXT);
        assert_eq!(found, Some([100, 2, 30, 40, 50, 900, 10, 110, 120, 130]));
        assert_eq!(counters_of("eth", TEXT), None);
        assert_eq!(counters_of("eth0", "eth0: 1 2 3\n"), None);
    }

    #[test]
    fn counters_go_on_when_an_interface_comes_back_at_zero() {
        let mut totals = Totals {
            file: None,
            ..Totals::open("eth0")
        };
        totals.add([5; COLUMNS.len()]);
        totals.add([7; COLUMNS.len()]);
        totals.add([1; COLUMNS.len()]);
        assert_eq!(totals.sums, [8; COLUMNS.len()]);
    }
}
