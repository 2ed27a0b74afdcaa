//! Counters: one set per worker, written by it alone, summed by whoever reads. All `Relaxed`; a reader may see one
//! counter of a packet before another.

use crate::reason::Reason;
use conntrack::Direction;
use scheduler::RealServerId;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Adds to a counter that only the calling thread writes: a load and a store, no LOCK prefix.
#[inline]
pub fn add(counter: &AtomicU64, count: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(count), Relaxed);
}

/// Takes from a gauge that only the calling thread writes.
#[inline]
pub(crate) fn subtract(gauge: &AtomicU64, count: u64) {
    gauge.store(gauge.load(Relaxed).wrapping_sub(count), Relaxed);
}

/// What one worker sent to and got from one real server. Bytes are those of the IP packets.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct ServerStats {
    /// Connections scheduled to it.
    pub connections: AtomicU64,
    /// Packets from clients.
    pub in_packets: AtomicU64,
    /// Bytes from clients.
    pub in_bytes: AtomicU64,
    /// Packets to clients that passed through here (NAT, FULLNAT).
    pub out_packets: AtomicU64,
    /// Bytes to clients.
    pub out_bytes: AtomicU64,
}

/// Counts a packet of a connection with `server`: `len` bytes of IP.
#[inline]
pub(crate) fn count_bytes(
    stats: &WorkerStats,
    server: RealServerId,
    direction: Direction,
    len: u32,
) {
    if let Some(stats) = stats.server(server) {
        let (packets, bytes) = match direction {
            Direction::Request => (&stats.in_packets, &stats.in_bytes),
            Direction::Reply => (&stats.out_packets, &stats.out_bytes),
        };
        add(packets, 1);
        add(bytes, u64::from(len));
    }
}

/// Counts more bytes of a packet that was counted before: what later fragments of a datagram carry.
#[inline]
pub(crate) fn count_more_bytes(
    stats: &WorkerStats,
    server: RealServerId,
    direction: Direction,
    len: u32,
) {
    if let Some(stats) = stats.server(server) {
        let bytes = match direction {
            Direction::Request => &stats.in_bytes,
            Direction::Reply => &stats.out_bytes,
        };
        add(bytes, u64::from(len));
    }
}

/// Where frames come from, and the verdicts other than a drop. The books balance between bursts:
///
/// ```text
///   received + originated == forwarded + replied + exceptions + waiting_now + drops of all reasons
/// ```
#[derive(Debug, Default)]
pub struct VerdictStats {
    /// Frames received.
    pub received: AtomicU64,
    /// Frames made here that answer no question: ICMP errors, ARP requests and neighbour solicitations, announcements;
    /// those that were dropped included.
    pub originated: AtomicU64,
    /// Frames forwarded by a connection (one received GSO frame counts once).
    pub forwarded: AtomicU64,
    /// Frames of our own making that were sent: answers to ARP, ND and echo requests, and what was originated.
    pub replied: AtomicU64,
    /// Frames that are not ours, left to the kernel.
    pub exceptions: AtomicU64,
    /// Frames put aside until a neighbour answered or the first fragment of their datagram came, in all. Each is
    /// forwarded or dropped later.
    pub waiting: AtomicU64,
    /// Frames that wait now, for the one or the other. A gauge.
    pub waiting_now: AtomicU64,
}

/// What one port lost of one worker's frames. Told once a second.
#[derive(Debug, Default)]
pub struct PortLosses {
    /// Frames that it lost before the worker saw them.
    pub receive_missed: AtomicU64,
    /// Frames that it took and could not send.
    pub transmit_errors: AtomicU64,
}

/// Ports whose losses are told one by one; those of more ports count in the sums alone.
pub const PORTS_TOLD: usize = 16;

/// All counters of a worker.
#[derive(Debug)]
#[repr(align(128))]
pub struct WorkerStats {
    /// Verdicts.
    pub verdicts: VerdictStats,
    drops: [AtomicU64; Reason::ALL.len()],
    /// Connections made.
    pub connections: AtomicU64,
    /// Bursts that held at least one frame.
    pub bursts: AtomicU64,
    /// Times the worker found nothing to do and slept.
    pub sleeps: AtomicU64,
    /// When it last counted a tick, as [`Ticks`](conntrack::Ticks): one that stands still is known by it. A gauge.
    pub ticked: AtomicU32,
    /// Frames that its ports lost before it saw them. Told once a second, as the next one.
    pub receive_missed: AtomicU64,
    /// Frames that its ports took and could not send.
    pub transmit_errors: AtomicU64,
    /// First fragments forgotten before their time, because newer ones needed the room.
    pub fragments_forgotten: AtomicU64,
    /// Connections that `drop_entry` ended before their time.
    pub entries_dropped: AtomicU64,
    /// Half-open connections that ended in favour of clients that came again, because they filled their share.
    pub half_open_replaced: AtomicU64,
    /// Connections that go without their service's helper, because all its records were taken.
    pub helpers_refused: AtomicU64,
    /// LIP ports this worker may use, all pools together. A gauge.
    pub lip_ports: AtomicU64,
    /// LIP ports in use. A gauge.
    pub lip_ports_in_use: AtomicU64,
    /// By [`PortId`](crate::port::PortId): the two sums `receive_missed` and `transmit_errors`, taken apart.
    pub ports: [PortLosses; PORTS_TOLD],
    servers: Box<[ServerStats]>,
}

impl WorkerStats {
    /// With room for servers of ids below `servers`.
    #[must_use]
    pub fn new(servers: usize) -> WorkerStats {
        WorkerStats {
            verdicts: VerdictStats::default(),
            drops: [const { AtomicU64::new(0) }; Reason::ALL.len()],
            connections: AtomicU64::new(0),
            bursts: AtomicU64::new(0),
            sleeps: AtomicU64::new(0),
            ticked: AtomicU32::new(0),
            receive_missed: AtomicU64::new(0),
            transmit_errors: AtomicU64::new(0),
            fragments_forgotten: AtomicU64::new(0),
            entries_dropped: AtomicU64::new(0),
            half_open_replaced: AtomicU64::new(0),
            helpers_refused: AtomicU64::new(0),
            lip_ports: AtomicU64::new(0),
            lip_ports_in_use: AtomicU64::new(0),
            ports: Default::default(),
            servers: (0..servers).map(|_| ServerStats::default()).collect(),
        }
    }

    /// Counts a drop. The worker alone.
    #[inline]
    pub fn count_drop(&self, reason: Reason) {
        add(&self.drops[reason as usize], 1);
    }

    /// How often `reason` was met.
    #[must_use]
    pub fn drops(&self, reason: Reason) -> u64 {
        self.drops[reason as usize].load(Relaxed)
    }

    /// A server's counters; `None` for an id beyond the limit given to [`new`](Self::new).
    #[inline]
    #[must_use]
    pub fn server(&self, id: RealServerId) -> Option<&ServerStats> {
        self.servers.get(id.0 as usize)
    }
}
