//! Whichever port the configuration names, for the daemon: one branch for each call.

use super::af_packet::AfPacketPort;
use super::af_xdp::AfXdpPort;
use super::memory::MemoryPort;
use super::pcap::PcapPort;
use super::{BURST, Burst, Port, PortCounters, PortInfo, Sent};
use crate::frame::{Frame, Offload};
use arrayvec::ArrayVec;
use std::os::fd::BorrowedFd;

/// A port of any driver.
#[allow(
    clippy::large_enum_variant,
    reason = "a worker has a handful of ports, and an indirection would be paid at each call"
)]
pub enum AnyPort {
    /// For tests.
    Memory(MemoryPort),
    /// For replay.
    Pcap(PcapPort),
    /// For a network interface.
    AfPacket(AfPacketPort),
    /// For a network interface that is shared with the kernel.
    AfXdp(AfXdpPort),
    /// For a device of DPDK.
    #[cfg(feature = "dpdk")]
    Dpdk(super::dpdk::DpdkPort),
}

/// The same call for the port of whichever driver it is.
macro_rules! of_driver {
    ($any:expr, $port:ident => $call:expr) => {
        match $any {
            AnyPort::Memory($port) => $call,
            AnyPort::Pcap($port) => $call,
            AnyPort::AfPacket($port) => $call,
            AnyPort::AfXdp($port) => $call,
            #[cfg(feature = "dpdk")]
            AnyPort::Dpdk($port) => $call,
        }
    };
}

impl Port for AnyPort {
    fn info(&self) -> &PortInfo {
        of_driver!(self, port => port.info())
    }

    #[inline]
    fn receive(&mut self, burst: &mut Burst) -> usize {
        of_driver!(self, port => port.receive(burst))
    }

    #[inline]
    fn transmit(&mut self, frame: Frame) -> Sent {
        of_driver!(self, port => port.transmit(frame))
    }

    #[inline]
    fn transmit_run(
        &mut self,
        frames: impl Iterator<Item = Frame>,
        rest: &mut ArrayVec<Sent, BURST>,
    ) -> u64 {
        of_driver!(self, port => port.transmit_run(frames, rest))
    }

    fn send(&mut self, bytes: &[u8], offload: &Offload) -> bool {
        of_driver!(self, port => port.send(bytes, offload))
    }

    #[inline]
    fn flush(&mut self) {
        of_driver!(self, port => port.flush());
    }

    #[inline]
    fn release(&mut self, frame: Frame) {
        of_driver!(self, port => port.release(frame));
    }

    #[inline]
    fn leave(&mut self, frame: Frame) {
        of_driver!(self, port => port.leave(frame));
    }

    fn wait_on(&self) -> Option<BorrowedFd<'_>> {
        of_driver!(self, port => port.wait_on())
    }

    fn counters(&mut self) -> PortCounters {
        of_driver!(self, port => port.counters())
    }
}
