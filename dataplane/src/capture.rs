//! Captures: copies of packets, as the workers see and send them, for whoever looks on.
//!
//! ```text
//!   begin ─▶ Captures { version, current } ◀─ once a round: has it changed? ─ worker
//!            Capture: free records ─▶ a worker fills one ─▶ full records ─▶ whoever began the capture reads them
//! ```
//! While none is on, a worker pays for it with one comparison in a round and two branches in a burst. While one is on it
//! decides each packet by itself and reads the clock once a round; it never waits: without a free record a packet is counted
//! as missed.

use crate::mark::Network;
use crate::packet::{Parsed, arp, parse};
use crate::port::PortId;
use crate::reason::Reason;
use crate::{frame::Offload, packet::wire};
use conntrack::{Method, Tuple, V4, V6};
use crossbeam::queue::ArrayQueue;
use parking_lot::Mutex;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The largest frame there is: an Ethernet header and a packet that a NIC would cut.
pub const LARGEST_SNAP: usize = 14 + 65_535;
/// Bytes that a capture's records may take together.
const MEMORY: usize = 64 << 20;
/// Records of a capture whose packets are kept whole; more where they are not.
const FEWEST: usize = MEMORY / LARGEST_SNAP;
/// Records of a capture at most.
const MOST: usize = 16_384;

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Sent on, by a connection where that is known.
    Forwarded(Option<Towards>),
    /// Answered here.
    Replied,
    /// Left to the kernel.
    Left,
    /// Put aside until its neighbour, or the first fragment of its datagram, is there.
    Waits,
    /// Dropped.
    Dropped(Reason),
    /// A frame that was put aside, and leaves now.
    Waited,
    /// A frame of the director's own making.
    Originated,
}

/// Where a connection sends a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Towards {
    /// The server, or the client of a reply.
    pub to: SocketAddr,
    /// Whether it is the client.
    pub is_reply: bool,
    /// How.
    pub method: Method,
}

/// A copy of a packet.
#[derive(Debug)]
pub struct Record {
    bytes: Box<[u8]>,
    len: usize,
    /// Bytes that the frame has, of which fewer may be kept.
    pub whole_len: usize,
    /// The port that it came in by or leaves by.
    pub port: PortId,
    /// As it leaves, not as it came.
    pub is_leaving: bool,
    /// When the worker's round began, in nanoseconds since 1970.
    pub time_ns: u64,
    /// What became of it.
    pub fate: Fate,
    /// The number of the worker, from 0.
    pub worker: u16,
}

impl Record {
    fn new(snap_len: usize) -> Record {
        Record {
            bytes: vec![0; snap_len].into(),
            len: 0,
            whole_len: 0,
            port: PortId(0),
            is_leaving: false,
            time_ns: 0,
            fate: Fate::Left,
            worker: 0,
        }
    }

    /// The packet, as much of it as is kept.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Takes a copy.
    pub(crate) fn copy(&mut self, frame: &[u8]) {
        self.len = frame.len().min(self.bytes.len());
        self.whole_len = frame.len();
        self.bytes[..self.len].copy_from_slice(&frame[..self.len]);
    }
}

/// Lets packets through that are all of it; what it does not say, they may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// IP protocol number.
    pub protocol: Option<u8>,
    /// Source or destination.
    pub host: Option<Network>,
    /// The other end.
    pub other_host: Option<Network>,
    /// Source or destination, host byte order; not 0.
    pub transport_port: Option<u16>,
    /// The port that it comes in by, or leaves by.
    pub port: Option<PortId>,
    /// Only dropped ones, or only those of one reason.
    pub dropped: Option<Dropped>,
}

/// Which dropped packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// All.
    All,
    /// Of this reason.
    For(Reason),
}

/// What a filter looks at in a frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject {
    pub(crate) tuple: Option<AnyTuple>,
    ends: Option<[IpAddr; 2]>,
    protocol: Option<u8>,
    ports: [u16; 2],
}

/// The tuple of a packet of either family.
#[derive(Clone, Copy, Debug)]
pub(crate) enum AnyTuple {
    V4(Tuple<V4>),
    V6(Tuple<V6>),
}

impl Subject {
    pub(crate) fn of(frame: &[u8], offload: &Offload) -> Subject {
        let nothing = Subject {
            tuple: None,
            ends: None,
            protocol: None,
            ports: [0; 2],
        };
        match parse(frame, offload) {
            Parsed::Ipv4(packet) => Subject {
                tuple: Some(AnyTuple::V4(packet.tuple)),
                ends: Some([packet.tuple.source.into(), packet.tuple.destination.into()]),
                protocol: Some(packet.tuple.protocol),
                ports: [packet.tuple.source_port, packet.tuple.destination_port],
            },
            Parsed::Ipv6(packet) => Subject {
                tuple: Some(AnyTuple::V6(packet.tuple)),
                ends: Some([packet.tuple.source.into(), packet.tuple.destination.into()]),
                protocol: Some(packet.tuple.protocol),
                ports: [packet.tuple.source_port, packet.tuple.destination_port],
            },
            Parsed::Arp => Subject {
                ends: arp::parse(frame)
                    .ok()
                    .map(|message| [message.sender.into(), message.target.into()]),
                ..nothing
            },
            Parsed::Other | Parsed::Drop(_) => nothing,
        }
    }
}

impl Filter {
    /// Whether a packet's addresses, ports and protocol are those that are wanted.
    pub(crate) fn matches(&self, subject: &Subject) -> bool {
        let has = |end: usize, host: Option<Network>| {
            host.is_none_or(|host| subject.ends.is_some_and(|ends| host.contains(ends[end])))
        };
        (self.protocol.is_none() || self.protocol == subject.protocol)
            && self
                .transport_port
                .is_none_or(|port| subject.ports.contains(&port))
            && ((has(0, self.host) && has(1, self.other_host))
                || (has(1, self.host) && has(0, self.other_host)))
    }

    /// Whether what became of a packet is what is wanted.
    pub(crate) fn wants(&self, fate: Fate) -> bool {
        match (self.dropped, fate) {
            (None, _) | (Some(Dropped::All), Fate::Dropped(_)) => true,
            (Some(Dropped::For(wanted)), Fate::Dropped(reason)) => wanted == reason,
            _ => false,
        }
    }

    /// Whether packets by this port are wanted.
    pub(crate) fn takes(&self, port: PortId) -> bool {
        self.port.is_none_or(|wanted| wanted == port)
    }
}

/// What a capture is to be.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Which packets.
    pub filter: Filter,
    /// As they came.
    pub before: bool,
    /// As they leave.
    pub after: bool,
    /// Bytes that are kept of each.
    pub snap_len: usize,
}

/// A capture that is on, or was.
#[derive(Debug)]
pub struct Capture {
    pub(crate) wanted: Wanted,
    free: ArrayQueue<Box<Record>>,
    full: ArrayQueue<Box<Record>>,
    missed: AtomicU64,
}

impl Capture {
    fn new(wanted: Wanted) -> Capture {
        let wanted = Wanted {
            snap_len: wanted.snap_len.clamp(wire::ETHERNET_LEN, LARGEST_SNAP),
            ..wanted
        };
        let count = (MEMORY / wanted.snap_len).clamp(FEWEST, MOST);
        let free = ArrayQueue::new(count);
        for _ in 0..count {
            // There is room for each.
            let _ = free.push(Box::new(Record::new(wanted.snap_len)));
        }
        Capture {
            wanted,
            free,
            full: ArrayQueue::new(count),
            missed: AtomicU64::new(0),
        }
    }

    /// Shows the oldest packet that was not shown yet; false where there is none.
    pub fn next(&self, show: impl FnOnce(&Record)) -> bool {
        let Some(record) = self.full.pop() else {
            return false;
        };
        show(&record);
        self.give_back(record);
        true
    }

    /// Packets that there was no room for.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }

    /// A record to be filled; without one, a packet is missed.
    pub(crate) fn take(&self) -> Option<Box<Record>> {
        let record = self.free.pop();
        if record.is_none() {
            self.miss();
        }
        record
    }

    /// Counts a packet that is missed.
    pub(crate) fn miss(&self) {
        self.missed.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn tell(&self, record: Box<Record>) {
        // There is room for each record.
        let _ = self.full.push(record);
    }

    pub(crate) fn give_back(&self, record: Box<Record>) {
        // There is room for each record.
        let _ = self.free.push(record);
    }
}

/// The capture that is on, for all workers of a director.
#[derive(Debug, Default)]
pub struct Captures {
    version: AtomicU64,
    current: Mutex<Option<Arc<Capture>>>,
}

impl Captures {
    /// Begins a capture; `None` where one is on. The workers heed it with their next round.
    #[must_use]
    pub fn begin(&self, wanted: Wanted) -> Option<Arc<Capture>> {
        let mut current = self.current.lock();
        if current.is_some() {
            return None;
        }
        let capture = Arc::new(Capture::new(wanted));
        *current = Some(Arc::clone(&capture));
        // Release pairs with the Acquire in `newer_than`; the lock alone would do for the contents.
        self.version.fetch_add(1, Ordering::Release);
        Some(capture)
    }

    /// Ends the capture that is on. A worker that has not looked yet goes on with it until its next round.
    pub fn end(&self) {
        let ended = self.current.lock().take();
        self.version.fetch_add(1, Ordering::Release);
        drop(ended);
    }

    /// Ends this capture, if it is on.
    pub fn end_of(&self, capture: &Arc<Capture>) {
        let is_on = |current: &mut Arc<Capture>| Arc::ptr_eq(current, capture);
        let ended = self.current.lock().take_if(is_on);
        if ended.is_some() {
            self.version.fetch_add(1, Ordering::Release);
        }
    }

    /// The version that holds and its capture, if it is not `version` and control does not hold it at this moment.
    #[inline]
    pub(crate) fn newer_than(&self, version: u64) -> Option<(u64, Option<Arc<Capture>>)> {
        // Acquire pairs with the Release in `begin` and `end`.
        let newest = self.version.load(Ordering::Acquire);
        if newest == version {
            return None;
        }
        self.current
            .try_lock()
            .map(|current| (newest, current.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(snap_len: usize) -> Wanted {
        Wanted {
            filter: Filter::default(),
            before: true,
            after: true,
            snap_len,
        }
    }

    #[test]
    fn there_is_one_capture_at_a_time() {
        let captures = Captures::default();
        let first = captures.begin(wanted(64)).unwrap();
        assert!(captures.begin(wanted(64)).is_none());
        captures.end();
        assert!(captures.begin(wanted(64)).is_some());
        drop(first);
    }

    #[test]
    fn a_capture_without_a_free_record_counts_what_it_misses() {
        let captures = Captures::default();
        for (snap_len, records) in [(64, MOST), (1 << 20, FEWEST), (LARGEST_SNAP, FEWEST)] {
            let capture = captures.begin(wanted(snap_len)).unwrap();
            for number in 0..records {
                let mut record = capture.take().unwrap();
                record.copy(&[7; 100]);
                record.time_ns = number as u64;
                capture.tell(record);
            }
            assert_eq!(capture.missed(), 0);
            assert!(capture.take().is_none());
            assert_eq!(capture.missed(), 1);
            let mut seen = None;
            assert!(capture.next(|record| {
                seen = Some((record.time_ns, record.bytes().len(), record.whole_len));
            }));
            assert_eq!(seen, Some((0, snap_len.min(100), 100)));
            assert!(capture.take().is_some());
            captures.end();
        }
    }

    #[test]
    fn a_filter_is_about_either_end() {
        let network = |text: &str| Some(Network::new(text.parse().unwrap(), 32));
        let subject = Subject {
            tuple: None,
            ends: Some(["10.0.0.9", "10.0.0.100"].map(|text| text.parse().unwrap())),
            protocol: Some(wire::TCP),
            ports: [40_000, 80],
        };
        let any = Filter::default();
        for (filter, matches) in [
            (any, true),
            (
                Filter {
                    host: network("10.0.0.9"),
                    ..any
                },
                true,
            ),
            (
                Filter {
                    host: network("10.0.0.100"),
                    ..any
                },
                true,
            ),
            (
                Filter {
                    host: network("10.0.0.8"),
                    ..any
                },
                false,
            ),
            (
                Filter {
                    host: network("10.0.0.100"),
                    other_host: network("10.0.0.9"),
                    ..any
                },
                true,
            ),
            (
                Filter {
                    host: network("10.0.0.9"),
                    other_host: network("10.0.0.9"),
                    ..any
                },
                false,
            ),
            (
                Filter {
                    transport_port: Some(80),
                    ..any
                },
                true,
            ),
            (
                Filter {
                    transport_port: Some(40_000),
                    ..any
                },
                true,
            ),
            (
                Filter {
                    transport_port: Some(81),
                    ..any
                },
                false,
            ),
            (
                Filter {
                    protocol: Some(wire::UDP),
                    ..any
                },
                false,
            ),
            (
                Filter {
                    protocol: Some(wire::TCP),
                    ..any
                },
                true,
            ),
        ] {
            assert_eq!(filter.matches(&subject), matches, "{filter:?}");
        }
    }
}
