//! Whichever port the configuration names, for the daemon: one branch for each call.

use super::af_packet::AfPacketPort;
use super::memory::MemoryPort;
use super::pcap::PcapPort;
use super::{Burst, Port, PortCounters, PortInfo, Sent};
use crate::frame::{Frame, Offload};
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
}

impl Port for AnyPort {
    fn info(&self) -> &PortInfo {
        match self {
            AnyPort::Memory(port) => port.info(),
            AnyPort::Pcap(port) => port.info(),
            AnyPort::AfPacket(port) => port.info(),
        }
    }

    #[inline]
    fn receive(&mut self, burst: &mut Burst) -> usize {
        match self {
            AnyPort::Memory(port) => port.receive(burst),
            AnyPort::Pcap(port) => port.receive(burst),
            AnyPort::AfPacket(port) => port.receive(burst),
        }
    }

    #[inline]
    fn transmit(&mut self, frame: Frame) -> Sent {
        match self {
            AnyPort::Memory(port) => port.transmit(frame),
            AnyPort::Pcap(port) => port.transmit(frame),
            AnyPort::AfPacket(port) => port.transmit(frame),
        }
    }

    fn send(&mut self, bytes: &[u8], offload: &Offload) -> bool {
        match self {
            AnyPort::Memory(port) => port.send(bytes, offload),
            AnyPort::Pcap(port) => port.send(bytes, offload),
            AnyPort::AfPacket(port) => port.send(bytes, offload),
        }
    }

    #[inline]
    fn flush(&mut self) {
        match self {
            AnyPort::Memory(port) => port.flush(),
            AnyPort::Pcap(port) => port.flush(),
            AnyPort::AfPacket(port) => port.flush(),
        }
    }

    #[inline]
    fn release(&mut self, frame: Frame) {
        match self {
            AnyPort::Memory(port) => port.release(frame),
            AnyPort::Pcap(port) => port.release(frame),
            AnyPort::AfPacket(port) => port.release(frame),
        }
    }

    fn wait_on(&self) -> Option<BorrowedFd<'_>> {
        match self {
            AnyPort::Memory(port) => port.wait_on(),
            AnyPort::Pcap(port) => port.wait_on(),
            AnyPort::AfPacket(port) => port.wait_on(),
        }
    }

    fn counters(&mut self) -> PortCounters {
        match self {
            AnyPort::Memory(port) => port.counters(),
            AnyPort::Pcap(port) => port.counters(),
            AnyPort::AfPacket(port) => port.counters(),
        }
    }
}
