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
/// A buffer that held a larger frame is not kept.
const KEPT_BUFFER: usize = 4096;

/// A copy of a packet, complete but for its MAC addresses.
pub(super) struct Waiting {
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
            spare: (0..WAITING).map(|_| Vec::with_capacity(2048)).collect(),
        }
    }

    /// A queue without buffers, to stand in while the real one is being walked through.
    pub(super) fn none() -> WaitingQueue {
        WaitingQueue {
            packets: VecDeque::new(),
            spare: Vec::new(),
        }
    }

    /// Copies a frame to the end of the queue. False when the queue, or the neighbour's share of it, is full.
    pub(super) fn push(
        &mut self,
        frame: &[u8],
        offload: Offload,
        neighbour: NeighbourId,
        now: Ticks,
    ) -> bool {
        let already = self
            .packets
            .iter()
            .filter(|packet| packet.neighbour == neighbour)
            .count();
        if self.packets.len() >= WAITING || already >= WAITING_FOR_ONE {
            return false;
        }
        let mut bytes = self.spare.pop().unwrap_or_default();
        bytes.clear();
        bytes.extend_from_slice(frame);
        self.packets.push_back(Waiting {
            bytes,
            offload,
            neighbour,
            since: now,
        });
        true
    }

    pub(super) fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Shows each packet to `keep`, oldest first; those it answers with false leave the queue.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&mut Waiting) -> bool) {
        for _ in 0..self.packets.len() {
            let Some(mut packet) = self.packets.pop_front() else {
                break;
            };
            if keep(&mut packet) {
                self.packets.push_back(packet);
            } else if packet.bytes.capacity() <= KEPT_BUFFER {
                self.spare.push(packet.bytes);
            }
        }
    }
}
