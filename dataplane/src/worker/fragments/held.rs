//! Fragments that overtook the first one of their datagram: copies in a bounded queue, in order of arrival.

use super::firsts::Datagram;
use crate::packet::Packet;
use crate::worker::family::Ip;
use conntrack::Ticks;
use std::collections::VecDeque;

/// Fragments of one family that may wait at a worker.
pub(in crate::worker) const HELD: usize = 256;
/// Fragments of one datagram that may wait: the largest datagram in packets of 1500 bytes has 45.
pub(in crate::worker) const HELD_OF_ONE: usize = 64;
/// How long a fragment waits at most.
pub(in crate::worker) const PATIENCE: Ticks = Ticks::from_seconds(1);
/// What a buffer holds from the start. One that had to grow for a larger frame shrinks again afterwards.
const BUFFER_LEN: usize = 2048;

/// A copy of a later fragment.
pub(super) struct Held<F: Ip> {
    datagram: Datagram<F>,
    pub(super) packet: Packet<F>,
    pub(super) bytes: Vec<u8>,
    until: Ticks,
}

/// What became of a fragment that was to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Push {
    /// It waits.
    Taken,
    /// It waits in place of the oldest, which is gone.
    OldestGone,
    /// Enough of its datagram wait already.
    Refused,
}

/// See the module's text.
pub(super) struct HeldQueue<F: Ip> {
    fragments: VecDeque<Held<F>>,
    spare: Vec<Vec<u8>>,
}

impl<F: Ip> HeldQueue<F> {
    pub(super) fn new() -> HeldQueue<F> {
        HeldQueue {
            fragments: VecDeque::with_capacity(HELD),
            spare: (0..HELD).map(|_| Vec::with_capacity(BUFFER_LEN)).collect(),
        }
    }

    /// Copies a fragment to the end of the queue. In a full queue the oldest makes room: its first fragment is the
    /// least likely to come.
    pub(super) fn push(&mut self, frame: &[u8], packet: &Packet<F>, now: Ticks) -> Push {
        let datagram = Datagram::of(packet);
        let already = self
            .fragments
            .iter()
            .filter(|held| held.datagram == datagram)
            .count();
        if already >= HELD_OF_ONE {
            return Push::Refused;
        }
        let is_full = self.fragments.len() >= HELD;
        if is_full && let Some(oldest) = self.fragments.pop_front() {
            self.keep(oldest.bytes);
        }
        let mut bytes = self.spare.pop().expect("a buffer for each place");
        bytes.extend_from_slice(&frame[..packet.end()]);
        self.fragments.push_back(Held {
            datagram,
            packet: *packet,
            bytes,
            until: now.after(PATIENCE),
        });
        if is_full {
            Push::OldestGone
        } else {
            Push::Taken
        }
    }

    /// Shows `serve` the fragments of a datagram, oldest first; they leave the queue.
    pub(super) fn take(&mut self, datagram: &Datagram<F>, serve: &mut dyn FnMut(&mut Held<F>)) {
        for _ in 0..self.fragments.len() {
            let Some(mut held) = self.fragments.pop_front() else {
                return;
            };
            if held.datagram == *datagram {
                serve(&mut held);
                self.keep(held.bytes);
            } else {
                self.fragments.push_back(held);
            }
        }
    }

    /// Drops those that waited too long; returns how many.
    pub(super) fn expire(&mut self, now: Ticks) -> u64 {
        let mut count = 0;
        while let Some(held) = self
            .fragments
            .pop_front_if(|held| held.until.has_passed(now))
        {
            self.keep(held.bytes);
            count += 1;
        }
        count
    }

    fn keep(&mut self, mut bytes: Vec<u8>) {
        bytes.clear();
        bytes.shrink_to(BUFFER_LEN);
        self.spare.push(bytes);
    }
}
