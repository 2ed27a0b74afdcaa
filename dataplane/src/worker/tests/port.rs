//! A memory port that can leave less room in front of its frames than it has, and take few frames between two flushes.

use crate::frame::{Frame, Offload};
use crate::port::memory::MemoryPort;
use crate::port::{Burst, Port, PortCounters, PortInfo, Sent};
use std::os::fd::BorrowedFd;

pub(super) struct TestPort {
    pub(super) inner: MemoryPort,
    /// Bytes of headroom to leave, if not all.
    pub(super) headroom: Option<usize>,
    /// Frames that it takes between two flushes, if not all.
    pub(super) ring: Option<usize>,
    pub(super) queued: usize,
}

impl TestPort {
    fn is_full(&mut self) -> bool {
        let is_full = self.ring.is_some_and(|ring| self.queued >= ring);
        self.queued += usize::from(!is_full);
        is_full
    }
}

impl Port for TestPort {
    fn info(&self) -> &PortInfo {
        self.inner.info()
    }

    fn receive(&mut self, burst: &mut Burst) -> usize {
        let count = self.inner.receive(burst);
        if let Some(headroom) = self.headroom {
            let first = burst.len() - count;
            for frame in &mut burst[first..] {
                let (len, shift) = (frame.bytes().len(), frame.headroom() - headroom);
                assert!(frame.prepend(shift));
                frame.bytes_mut().copy_within(shift.., 0);
                frame.truncate(len);
            }
        }
        count
    }

    fn transmit(&mut self, frame: Frame) -> Sent {
        if self.is_full() {
            return Sent::Refused(frame);
        }
        self.inner.transmit(frame)
    }

    fn send(&mut self, bytes: &[u8], offload: &Offload) -> bool {
        !self.is_full() && self.inner.send(bytes, offload)
    }

    fn flush(&mut self) {
        self.queued = 0;
        self.inner.flush();
    }

    fn release(&mut self, frame: Frame) {
        self.inner.release(frame);
    }

    fn wait_on(&self) -> Option<BorrowedFd<'_>> {
        self.inner.wait_on()
    }

    fn counters(&mut self) -> PortCounters {
        self.inner.counters()
    }
}
