//! Packets that wait for a neighbour's hardware address: a bounded queue per worker.

use crate::frame::Offload;
use crate::neighbour::NeighbourId;
use conntrack::Ticks;
use std::collections::VecDeque;

/// Packets that may wait at a worker.
pub(super) const WAITING: usize = 512;
/// Packets that may wait for one neighbour.
pub(super) const WAITING_FOR_ONE: usize = 64;
/// How long a packet waits at most.
pub(super) const PATIENCE: Ticks = Ticks::from_seconds(3);
/// What a buffer holds from the start. One that had to grow for a larger frame shrinks again afterwards.
const BUFFER_LEN: usize = 2048;

/// A copy of a packet, complete but for its MAC addresses.
pub(super) struct Waiting {
    /// Of the pieces of a frame that was cut, the last alone stands for the frame in the counters.
    pub(super) counts: bool,
    pub(super) bytes: Vec<u8>,
    pub(super) offload: Offload,
    pub(super) neighbour: NeighbourId,
    pub(super) since: Ticks,
}

/// See the module's text.
pub(super) struct WaitingQueue {
    packets: VecDeque<Waiting>,
    spare: Vec<Vec<u8>>,
}

impl WaitingQueue {
    pub(super) fn new() -> WaitingQueue {
        WaitingQueue {
            packets: VecDeque::with_capacity(WAITING),
            spare: (0..WAITING)
                .map(|_| Vec::with_capacity(BUFFER_LEN))
                .collect(),
        }
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Copies a frame to the end of the queue. False when the queue, or the neighbour's share of it, is full.
    pub(super) fn push(
        &mut self,
        frame: &[u8],
        offload: Offload,
        neighbour: NeighbourId,
        now: Ticks,
        counts: bool,
    ) -> bool {
        let already = self
            .packets
            .iter()
            .filter(|packet| packet.neighbour == neighbour)
            .count();
        if self.packets.len() >= WAITING || already >= WAITING_FOR_ONE {
            return false;
        }
        let mut bytes = self.spare.pop().expect("a buffer for each place");
        bytes.extend_from_slice(frame);
        self.packets.push_back(Waiting {
            counts,
            bytes,
            offload,
            neighbour,
            since: now,
        });
        true
    }

    /// The newest packet stands for a frame from now on.
    pub(super) fn count_newest(&mut self) {
        if let Some(newest) = self.packets.back_mut() {
            newest.counts = true;
        }
    }

    /// Forgets the newest `count` packets.
    pub(super) fn forget_newest(&mut self, count: usize) {
        for _ in 0..count {
            if let Some(packet) = self.packets.pop_back() {
                self.keep(packet.bytes);
            }
        }
    }

    /// Shows each packet to `keep`, oldest first; those it answers with false leave the queue.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&mut Waiting) -> bool) {
        for _ in 0..self.packets.len() {
            let Some(mut packet) = self.packets.pop_front() else {
                break;
            };
            if keep(&mut packet) {
                self.packets.push_back(packet);
            } else {
                self.keep(packet.bytes);
            }
        }
    }

    fn keep(&mut self, mut bytes: Vec<u8>) {
        bytes.clear();
        bytes.shrink_to(BUFFER_LEN);
        self.spare.push(bytes);
    }
}
