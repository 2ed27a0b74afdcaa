//! A memory port that can leave less room in front of its frames than it has.

use crate::frame::{Frame, Offload};
use crate::port::memory::MemoryPort;
use crate::port::{Burst, Port, PortCounters, PortInfo, Sent};
use std::os::fd::BorrowedFd;

pub(super) struct TestPort {
    pub(super) inner: MemoryPort,
    /// Bytes of headroom to leave, if not all.
    pub(super) headroom: Option<usize>,
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
        self.inner.transmit(frame)
    }

    fn send(&mut self, bytes: &[u8], offload: &Offload) -> bool {
        self.inner.send(bytes, offload)
    }

    fn flush(&mut self) {
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
