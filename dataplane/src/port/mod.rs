//! A port: one NIC (or what stands for it) and, per worker, one of its queue pairs.

use crate::frame::{Frame, Offload};
use arrayvec::ArrayVec;
use std::os::fd::BorrowedFd;

pub mod af_packet;
pub mod af_xdp;
pub mod any;
#[cfg(feature = "dpdk")]
pub mod dpdk;
pub mod dpdk_settings;
pub mod exception;
pub mod handle;
pub mod interface;
pub mod memory;
pub mod pcap;
pub mod pool;

/// Frames received or decided together.
pub const BURST: usize = 32;

/// The frames of one call of [`Port::receive`].
pub type Burst = ArrayVec<Frame, BURST>;

/// Which port, as an index into the worker's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortId(pub u16);

/// A hardware address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

impl std::fmt::Display for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// What a port says of itself when it is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortInfo {
    /// The name the configuration gives it.
    pub name: String,
    /// Its hardware address.
    pub mac: Mac,
    /// Largest IP packet it sends, bytes.
    pub mtu: u32,
    /// The driver, as configured ("af_packet").
    pub driver: &'static str,
}

/// What became of a frame handed to [`Port::transmit`].
#[derive(Debug)]
pub enum Sent {
    /// The port took the buffer and gives it back to its owner itself.
    Taken,
    /// The port took a copy; the caller releases the frame where it came from.
    Copied(Frame),
    /// The ring is full; the caller counts it and releases the frame where it came from.
    Refused(Frame),
}

/// What a driver counts that the worker cannot see. Totals since opening.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortCounters {
    /// Frames that the driver lost before the worker saw them.
    pub receive_missed: u64,
    /// Frames that the driver took and could not send.
    pub transmit_errors: u64,
}

/// One queue pair of a port, owned by one worker. Calls never block.
pub trait Port: Send {
    /// What the port is.
    fn info(&self) -> &PortInfo;

    /// Appends waiting frames to `burst`, at most to its capacity, and returns how many.
    fn receive(&mut self, burst: &mut Burst) -> usize;

    /// Queues a frame of this or another port for sending.
    fn transmit(&mut self, frame: Frame) -> Sent;

    /// Queues frames of this or other ports, one after the other, and returns how many it took. What became of the others
    /// is pushed to `rest`, which has room for all; behind one that was refused all are refused, so that none overtakes it.
    #[inline]
    fn transmit_run(
        &mut self,
        frames: impl Iterator<Item = Frame>,
        rest: &mut ArrayVec<Sent, BURST>,
    ) -> u64
    where
        Self: Sized,
    {
        let mut taken = 0;
        let mut is_full = false;
        for frame in frames {
            let sent = if is_full {
                Sent::Refused(frame)
            } else {
                self.transmit(frame)
            };
            match sent {
                Sent::Taken => taken += 1,
                sent => {
                    is_full |= matches!(sent, Sent::Refused(_));
                    rest.push(sent);
                }
            }
        }
        taken
    }

    /// Queues a copy of a frame made by the director. False when the ring is full or the frame is larger than a slot.
    fn send(&mut self, bytes: &[u8], offload: &Offload) -> bool;

    /// Hands what was queued to the NIC.
    fn flush(&mut self);

    /// Takes back a frame that came from this port.
    fn release(&mut self, frame: Frame);

    /// Takes back a frame that came from this port and is not for the director: it is the kernel's, if there is one behind
    /// this port that has no copy of it.
    fn leave(&mut self, frame: Frame) {
        self.release(frame);
    }

    /// What to wait on for frames to receive; `None` where only polling helps.
    fn wait_on(&self) -> Option<BorrowedFd<'_>>;

    /// The driver's own counters.
    fn counters(&mut self) -> PortCounters;
}
