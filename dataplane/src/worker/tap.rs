//! What a worker does for a capture while one is on: each frame is decided by itself, copied before, and told with what
//! became of it; frames that leave are copied where they do.

use super::egress::Egress;
use super::family::Ip;
use super::{Flows, Worker};
use crate::capture::{AnyTuple, Capture, Fate, Record, Subject, Towards};
use crate::frame::{Frame, Offload};
use crate::port::{Burst, Port, PortId};
use crate::reason::Reason;
use crate::stats::WorkerStats;
use arrayvec::ArrayVec;
use conntrack::{Direction, Tuple};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

/// Frames that may leave because of one that came; of more, the first are told before it.
const AFTER: usize = 64;

/// A worker's part in a capture.
pub(super) struct Tap {
    capture: Arc<Capture>,
    worker: u16,
    time_ns: u64,
    /// Of the frame that is decided now: whether it is one of those that are wanted. `None` between frames.
    is_wanted: Option<bool>,
    before: Option<Box<Record>>,
    /// What left because of it.
    after: ArrayVec<Box<Record>, AFTER>,
    /// Frames that had waited and were forwarded meanwhile.
    others_forwarded: u64,
}

impl Tap {
    pub(super) fn new(capture: Arc<Capture>, worker: u16) -> Tap {
        Tap {
            capture,
            worker,
            time_ns: 0,
            is_wanted: None,
            before: None,
            after: ArrayVec::new(),
            others_forwarded: 0,
        }
    }

    /// Reads the clock: once a round, and only while a capture is on.
    pub(super) fn tell_time(&mut self) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let elapsed = since.unwrap_or_default().as_nanos();
        self.time_ns = u64::try_from(elapsed).unwrap_or(u64::MAX);
    }

    /// A copy of a frame, if there is room for it.
    fn record(&self, frame: &[u8], port: PortId, is_leaving: bool) -> Option<Box<Record>> {
        let mut record = self.capture.take()?;
        record.copy(frame);
        record.port = port;
        record.is_leaving = is_leaving;
        record.time_ns = self.time_ns;
        record.worker = self.worker;
        Some(record)
    }

    /// A frame came, and is decided next.
    fn begin(&mut self, frame: &Frame, subject: &Subject) {
        let filter = &self.capture.wanted.filter;
        let is_wanted = filter.matches(subject);
        self.is_wanted = Some(is_wanted);
        self.others_forwarded = 0;
        // Of dropped ones their sight before is the only one there is.
        let before = self.capture.wanted.before || filter.dropped.is_some();
        if is_wanted && before && filter.takes(frame.port) {
            self.before = self.record(frame.bytes(), frame.port, false);
        }
    }

    /// A frame leaves.
    #[cold]
    pub(super) fn leaves(&mut self, frame: &[u8], offload: &Offload, port: PortId, fate: Fate) {
        let wanted = &self.capture.wanted;
        if !wanted.after || wanted.filter.dropped.is_some() || !wanted.filter.takes(port) {
            return;
        }
        // What is translated is wanted by either side; frames of the director's own making, and those that had waited, by
        // themselves.
        let by_the_other = fate == Fate::Forwarded(None) && self.is_wanted == Some(true);
        if !by_the_other && !wanted.filter.matches(&Subject::of(frame, offload)) {
            return;
        }
        let Some(mut record) = self.record(frame, port, true) else {
            return;
        };
        record.fate = fate;
        if self.is_wanted.is_none() {
            return self.capture.tell(record);
        }
        if let Err(full) = self.after.try_push(record) {
            self.capture.tell(full.element());
        }
    }

    /// A frame that had waited was forwarded.
    pub(super) fn count_other(&mut self) {
        self.others_forwarded += 1;
    }

    /// The frame that came was decided.
    fn end(&mut self, fate: Fate) {
        self.is_wanted = None;
        if let Some(mut record) = self.before.take() {
            record.fate = fate;
            if self.capture.wanted.filter.wants(fate) {
                self.capture.tell(record);
            } else {
                self.capture.give_back(record);
            }
        }
        for mut record in self.after.drain(..) {
            if record.fate != Fate::Forwarded(None) {
                self.capture.tell(record);
            } else if matches!(fate, Fate::Dropped(_)) {
                // The port did not take it after all.
                self.capture.give_back(record);
            } else {
                record.fate = fate;
                self.capture.tell(record);
            }
        }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        for record in self.before.take().into_iter().chain(self.after.drain(..)) {
            self.capture.give_back(record);
        }
    }
}

/// A worker's verdicts so far.
struct Books {
    verdicts: [u64; 5],
    drops: [u64; Reason::ALL.len()],
}

impl Books {
    fn of(stats: &WorkerStats) -> Books {
        let verdicts = &stats.verdicts;
        let get = |counter: &AtomicU64| counter.load(Relaxed);
        let mut drops = [0; Reason::ALL.len()];
        for (count, reason) in drops.iter_mut().zip(Reason::ALL) {
            *count = stats.drops(*reason);
        }
        Books {
            verdicts: [
                get(&verdicts.forwarded),
                get(&verdicts.exceptions),
                get(&verdicts.waiting),
                get(&verdicts.replied),
                get(&verdicts.originated),
            ],
            drops,
        }
    }

    /// What became of the one frame that was decided since.
    fn fate(&self, now: &Books, others_forwarded: u64) -> Fate {
        let [forwarded, left, waiting, replied, originated] =
            std::array::from_fn(|at| now.verdicts[at].wrapping_sub(self.verdicts[at]));
        let mut drops = now.drops.iter().zip(&self.drops).zip(Reason::ALL);
        // A report that may not be sent is not what the packet itself is dropped for.
        let reason = drops
            .by_ref()
            .filter(|((now, before), _)| now != before)
            .map(|(_, reason)| *reason)
            .find(|reason| *reason != Reason::IcmpRateLimited);
        match reason {
            _ if forwarded > others_forwarded => Fate::Forwarded(None),
            _ if left > 0 => Fate::Left,
            _ if waiting > 0 => Fate::Waits,
            Some(reason) => Fate::Dropped(reason),
            None if replied > originated => Fate::Replied,
            None => Fate::Left,
        }
    }
}

impl<P: Port> Worker<P> {
    /// As [`handle`](Self::handle), while a capture is on.
    #[cold]
    #[inline(never)]
    pub(super) fn handle_tapped(&mut self, burst: &mut Burst) {
        for frame in burst.drain(..) {
            let subject = Subject::of(frame.bytes(), &frame.offload);
            if let Some(tap) = &mut self.egress.tap {
                tap.begin(&frame, &subject);
            }
            let before = Books::of(&self.egress.stats);
            let mut one = Burst::new();
            one.push(frame);
            self.handle(&mut one);
            let (services, egress) = (&mut self.services, &mut self.egress);
            self.ipv4.decide_newcomers(services, egress);
            self.ipv6.decide_newcomers(services, egress);
            let after = Books::of(&self.egress.stats);
            let Some(tap) = &mut self.egress.tap else {
                continue;
            };
            let fate = match before.fate(&after, tap.others_forwarded) {
                Fate::Forwarded(_) => Fate::Forwarded(match subject.tuple {
                    Some(AnyTuple::V4(tuple)) => self.ipv4.towards(&tuple),
                    Some(AnyTuple::V6(tuple)) => self.ipv6.towards(&tuple),
                    None => None,
                }),
                fate => fate,
            };
            tap.end(fate);
        }
    }

    /// Takes part in the capture that is on now, if one is.
    #[cold]
    pub(super) fn adopt_capture(&mut self, (version, capture): (u64, Option<Arc<Capture>>)) {
        self.egress.captures_seen = version;
        let worker = self.egress.worker;
        self.egress.tap = capture.map(|capture| Box::new(Tap::new(capture, worker)));
    }
}

impl<F: Ip> Flows<F> {
    /// Where the connection of a packet sends it.
    fn towards(&self, tuple: &Tuple<F>) -> Option<Towards> {
        let (id, direction) = self.connection_of(tuple)?;
        let entry = self.table.entry(id);
        let is_reply = direction == Direction::Reply;
        let to: (IpAddr, u16) = if is_reply {
            (entry.client().into(), entry.client_port())
        } else {
            (entry.real_address().into(), entry.real_port())
        };
        Some(Towards {
            to: SocketAddr::from(to),
            is_reply,
            method: entry.method(),
        })
    }
}

impl<P: Port> Egress<P> {
    /// Shows a frame that leaves to the capture that is on.
    #[inline]
    pub(super) fn show(&mut self, frame: &[u8], offload: &Offload, port: PortId, fate: Fate) {
        if let Some(tap) = &mut self.tap {
            tap.leaves(frame, offload, port, fate);
        }
    }
}
