//! A port without a NIC, for tests: a [`MemoryWire`] puts frames in and takes what was sent. For benches: [`LoopPort`]
//! and [`SourcePort`].

mod looping;
mod sourced;

use super::pool::Pool;
use super::{Burst, Port, PortCounters, PortId, PortInfo, Sent};
use crate::frame::{Frame, Offload};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

pub use looping::{LoopCounters, LoopPort};
pub use sourced::{Source, SourcePort};

/// Frames that the wire holds in each direction.
pub const WIRE_LEN: usize = 65_536;

/// The worker's end. It locks and allocates: a test's port. [`LoopPort`] does neither.
pub struct MemoryPort {
    info: PortInfo,
    pool: Pool,
    wire: Arc<Mutex<Queues>>,
}

/// The test's end of a [`MemoryPort`].
#[derive(Clone)]
pub struct MemoryWire {
    queues: Arc<Mutex<Queues>>,
}

struct Queues {
    inbound: VecDeque<(Vec<u8>, Offload)>,
    /// Queued by the worker, not flushed yet.
    queued: Vec<(Vec<u8>, Offload)>,
    outbound: Vec<(Vec<u8>, Offload)>,
    transmit_limit: usize,
    counters: PortCounters,
}

impl MemoryPort {
    /// A port with `buffers` buffers for frames of at least `buffer_len` bytes, behind 128 bytes of headroom.
    ///
    /// # Panics
    /// When `buffer_len` is 16 MiB or more.
    #[must_use]
    pub fn new(
        id: PortId,
        info: PortInfo,
        buffers: u32,
        buffer_len: u32,
    ) -> (MemoryPort, MemoryWire) {
        let queues = Arc::new(Mutex::new(Queues {
            inbound: VecDeque::new(),
            queued: Vec::new(),
            outbound: Vec::new(),
            transmit_limit: WIRE_LEN,
            counters: PortCounters::default(),
        }));
        let port = MemoryPort {
            info,
            pool: Pool::new(id, buffers, buffer_len),
            wire: Arc::clone(&queues),
        };
        (port, MemoryWire { queues })
    }

    /// How many of its buffers nobody has given back yet.
    #[cfg(test)]
    pub(crate) fn lent(&self) -> usize {
        self.pool.lent()
    }
}

impl MemoryWire {
    /// Lets the port receive a complete frame. False when [`WIRE_LEN`] frames wait already.
    pub fn inject(&self, bytes: &[u8]) -> bool {
        self.inject_with(bytes, Offload::NONE)
    }

    /// Lets the port receive a frame. False when [`WIRE_LEN`] frames wait already.
    pub fn inject_with(&self, bytes: &[u8], offload: Offload) -> bool {
        let inbound = &mut self.queues.lock().inbound;
        let room = inbound.len() < WIRE_LEN;
        if room {
            inbound.push_back((bytes.to_vec(), offload));
        }
        room
    }

    /// Takes what the port has sent and flushed, in order.
    #[must_use]
    pub fn take(&self) -> Vec<(Vec<u8>, Offload)> {
        std::mem::take(&mut self.queues.lock().outbound)
    }

    /// Lets the port refuse to send while `frames` frames wait to be taken (at most [`WIRE_LEN`], as from the start).
    pub fn limit_transmit(&self, frames: usize) {
        self.queues.lock().transmit_limit = frames.min(WIRE_LEN);
    }

    /// How many frames the port has still to receive.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queues.lock().inbound.len()
    }
}

impl Queues {
    fn send(&mut self, bytes: &[u8], offload: Offload) -> bool {
        let room = self.queued.len() + self.outbound.len() < self.transmit_limit;
        if room {
            self.queued.push((bytes.to_vec(), offload));
        }
        room
    }
}

impl Port for MemoryPort {
    fn info(&self) -> &PortInfo {
        &self.info
    }

    /// Without a free buffer the frames wait; one that is longer than a buffer is lost and counted.
    fn receive(&mut self, burst: &mut Burst) -> usize {
        let before = burst.len();
        let mut wire = self.wire.lock();
        while !burst.is_full() && !self.pool.is_exhausted() {
            let Some((bytes, offload)) = wire.inbound.pop_front() else {
                break;
            };
            match self.pool.lend_copy(&bytes, offload) {
                Some(frame) => burst.push(frame),
                None => wire.counters.receive_missed += 1,
            }
        }
        burst.len() - before
    }

    fn transmit(&mut self, frame: Frame) -> Sent {
        if !self.wire.lock().send(frame.bytes(), frame.offload) {
            return Sent::Refused(frame);
        }
        if frame.port != self.pool.port() {
            return Sent::Copied(frame);
        }
        self.pool.give_back(frame);
        Sent::Taken
    }

    fn send(&mut self, bytes: &[u8], offload: &Offload) -> bool {
        self.wire.lock().send(bytes, *offload)
    }

    fn flush(&mut self) {
        let wire = &mut *self.wire.lock();
        wire.outbound.append(&mut wire.queued);
    }

    fn release(&mut self, frame: Frame) {
        self.pool.give_back(frame);
    }

    fn wait_on(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn counters(&mut self) -> PortCounters {
        self.wire.lock().counters
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Gso;
    use crate::port::{BURST, Mac};

    fn info() -> PortInfo {
        PortInfo {
            name: "test".into(),
            mac: Mac([2, 0, 0, 0, 0, 1]),
            mtu: 1500,
            driver: "memory",
        }
    }

    fn port(id: u16, buffers: u32) -> (MemoryPort, MemoryWire) {
        MemoryPort::new(PortId(id), info(), buffers, 2048)
    }

    #[test]
    fn frames_arrive_in_order_with_their_offload() {
        let (mut port, wire) = port(4, 64);
        let offload = Offload {
            gso: Gso::Tcp6 { ecn: true },
            segment_len: 1440,
            ..Offload::NONE
        };
        assert!(wire.inject(&[1; 60]));
        assert!(wire.inject_with(&[2; 1514], offload));
        let mut burst = Burst::new();
        assert_eq!(port.receive(&mut burst), 2);
        assert_eq!(
            (burst[0].bytes(), burst[0].offload, burst[0].port),
            ([1; 60].as_slice(), Offload::NONE, PortId(4))
        );
        assert_eq!(
            (burst[1].bytes(), burst[1].offload),
            ([2; 1514].as_slice(), offload)
        );
        assert_eq!(burst[1].headroom(), 128);
        burst.drain(..).for_each(|frame| port.release(frame));
    }

    #[test]
    fn what_was_sent_is_taken_after_the_flush() {
        let (mut port, wire) = port(0, 8);
        assert!(port.send(&[1; 42], &Offload::NONE));
        assert!(wire.take().is_empty());
        port.flush();
        assert_eq!(wire.take(), [(vec![1; 42], Offload::NONE)]);
        assert!(wire.take().is_empty());
    }

    #[test]
    fn an_own_frame_is_taken_and_a_foreign_one_is_copied() {
        let ((mut left, left_wire), (mut right, right_wire)) = (port(0, 1), port(1, 1));
        let mut burst = Burst::new();
        for to_itself in [true, false, true, false] {
            left_wire.inject(&[9; 64]);
            assert_eq!(left.receive(&mut burst), 1, "the one buffer is free again");
            let frame = burst.pop().expect("received");
            match (
                to_itself,
                if to_itself {
                    left.transmit(frame)
                } else {
                    right.transmit(frame)
                },
            ) {
                (true, Sent::Taken) => {}
                (false, Sent::Copied(frame)) => left.release(frame),
                (_, other) => panic!("{other:?}"),
            }
        }
        left.flush();
        right.flush();
        assert_eq!((left_wire.take().len(), right_wire.take().len()), (2, 2));
    }

    #[test]
    fn a_full_ring_refuses_and_gives_the_frame_back() {
        let (mut port, wire) = port(0, 4);
        wire.limit_transmit(1);
        wire.inject(&[1; 60]);
        assert!(port.send(&[0; 60], &Offload::NONE));
        assert!(!port.send(&[0; 60], &Offload::NONE));
        let mut burst = Burst::new();
        port.receive(&mut burst);
        let Sent::Refused(frame) = port.transmit(burst.pop().expect("received")) else {
            panic!("the ring is full")
        };
        assert_eq!(frame.bytes(), [1; 60]);
        port.release(frame);
        port.flush();
        assert!(!port.send(&[0; 60], &Offload::NONE), "flushed is not taken");
        assert_eq!(wire.take().len(), 1);
        assert!(port.send(&[0; 60], &Offload::NONE));
    }

    #[test]
    fn frames_wait_for_buffers_and_oversize_ones_are_counted() {
        let (mut port, wire) = port(0, 2);
        wire.inject(&[0; 9000]);
        (1..=3u8).for_each(|fill| assert!(wire.inject(&[fill; 60])));
        let mut burst = Burst::new();
        assert_eq!(port.receive(&mut burst), 2);
        assert_eq!((port.receive(&mut burst), wire.waiting()), (0, 1));
        assert_eq!(port.counters().receive_missed, 1);
        port.release(burst.remove(0));
        assert_eq!(port.receive(&mut burst), 1);
        assert_eq!(burst[1].bytes(), [3; 60]);
    }

    #[test]
    fn a_burst_is_never_overfilled() {
        let (mut port, wire) = port(0, 100);
        (0..40).for_each(|_| assert!(wire.inject(&[0; 60])));
        let mut burst = Burst::new();
        assert_eq!(
            (port.receive(&mut burst), port.receive(&mut burst)),
            (BURST, 0)
        );
        burst.drain(..).for_each(|frame| port.release(frame));
        assert_eq!(port.receive(&mut burst), 40 - BURST);
    }

    #[test]
    fn the_wire_has_a_limit_in_both_directions() {
        let (mut port, wire) = port(0, 1);
        assert!(
            (0..WIRE_LEN).all(|_| wire.inject(&[0; 14]) && port.send(&[0; 14], &Offload::NONE))
        );
        assert!(!wire.inject(&[0; 14]));
        assert!(!port.send(&[0; 14], &Offload::NONE));
    }
}
