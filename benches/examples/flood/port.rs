//! A port whose frames come over and over, and that can be switched off.

use crate::frames::{Sources, sequence};
use dataplane::frame::{Frame, Offload};
use dataplane::port::memory::LoopPort;
use dataplane::port::{Burst, Mac, Port, PortCounters, PortId, PortInfo, Sent};
use std::collections::{HashMap, VecDeque};
use std::os::fd::BorrowedFd;

/// Sequence numbers from here on are those of single clients; below there are established flows, and 0 is the flood.
pub(crate) const FIRST_CLIENT: u32 = 1 << 31;
/// The sequence number of established flows.
pub(crate) const FLOW: u32 = 1;

pub(crate) struct SidePort {
    inner: LoopPort,
    pub(crate) is_on: bool,
    /// Where frames come from, if not from where they say.
    sources: Option<Sources>,
    /// Frames of single clients, each of which comes in place of another frame.
    pub(crate) clients: VecDeque<Vec<u8>>,
    /// SYNs of the flood that were received, and those that are to have come by now.
    pub(crate) flooded: u64,
    pub(crate) due: u64,
    /// Frames of established flows that were received.
    pub(crate) received: u64,
    /// Of those, how many were sent on.
    pub(crate) sent: u64,
    /// Frames of single clients that were sent on, by sequence number.
    pub(crate) sent_of: HashMap<u32, u32>,
}

impl SidePort {
    pub(crate) fn new(id: u16, frames: Vec<Vec<u8>>, sources: Option<Sources>) -> SidePort {
        let frames: Vec<_> = frames
            .into_iter()
            .map(|frame| (frame, Offload::NONE))
            .collect();
        SidePort {
            inner: LoopPort::new(PortId(id), info(id), &frames),
            is_on: true,
            sources,
            clients: VecDeque::new(),
            flooded: 0,
            due: 0,
            received: 0,
            sent: 0,
            sent_of: HashMap::new(),
        }
    }
}

/// What a port says of itself.
pub(crate) fn info(id: u16) -> PortInfo {
    PortInfo {
        name: ["wan", "flood"][usize::from(id)].into(),
        mac: Mac(crate::frames::DIRECTOR),
        mtu: 1500,
        driver: "memory",
    }
}

impl Port for SidePort {
    fn info(&self) -> &PortInfo {
        self.inner.info()
    }

    fn receive(&mut self, burst: &mut Burst) -> usize {
        if !self.is_on || (self.sources.is_some() && self.flooded >= self.due) {
            return 0;
        }
        let count = self.inner.receive(burst);
        if let Some(sources) = &mut self.sources {
            for frame in burst.iter_mut() {
                sources.write_next(frame.bytes_mut());
            }
            self.flooded += count as u64;
            return count;
        }
        self.received += count as u64;
        for frame in burst.iter_mut() {
            let Some(client) = self.clients.pop_front() else {
                break;
            };
            frame.bytes_mut().copy_from_slice(&client);
            self.received -= 1;
        }
        count
    }

    fn transmit(&mut self, frame: Frame) -> Sent {
        match sequence(frame.bytes()) {
            Some(FLOW) => self.sent += 1,
            Some(client @ FIRST_CLIENT..) => *self.sent_of.entry(client).or_default() += 1,
            _ => {}
        }
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
        None
    }

    fn counters(&mut self) -> PortCounters {
        self.inner.counters()
    }
}
