//! A port whose frames are written where they are received, for benches over more flows than there is room for frames.

use crate::frame::{Frame, Offload};
use crate::port::pool::Buffers;
use crate::port::{Burst, Port, PortCounters, PortId, PortInfo, Sent};
use std::os::fd::BorrowedFd;

/// Buffers that frames are received into, in turn, as a NIC does with its ring.
const RING_LEN: u32 = 512;

/// Whoever writes the frames of a [`SourcePort`].
pub trait Source: Send {
    /// Writes the next frame into a buffer and returns its length, or `None` where there is no frame (now). The buffer
    /// holds zeroes, or what is left of an earlier frame: what is not rewritten on the way, a payload, is there already.
    fn next_frame(&mut self, buffer: &mut [u8]) -> Option<usize>;
}

/// A port that receives what its source writes, and only counts what is sent. Nothing is allocated, locked or asked of
/// the system after `new`, unless the source does.
pub struct SourcePort<S> {
    info: PortInfo,
    id: PortId,
    buffers: Buffers,
    next_buffer: u32,
    sent: u64,
    source: S,
}

impl<S: Source> SourcePort<S> {
    /// A port with buffers for frames of at least `frame_len_max` bytes.
    ///
    /// # Panics
    /// When `frame_len_max` is 16 MiB or more.
    #[must_use]
    pub fn new(id: PortId, info: PortInfo, source: S, frame_len_max: u32) -> SourcePort<S> {
        SourcePort {
            info,
            id,
            buffers: Buffers::new(id, RING_LEN, frame_len_max),
            next_buffer: 0,
            sent: 0,
            source,
        }
    }

    /// Who writes its frames.
    pub fn source_mut(&mut self) -> &mut S {
        &mut self.source
    }

    /// Frames sent since the port was made.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent
    }
}

impl<S: Source> Port for SourcePort<S> {
    fn info(&self) -> &PortInfo {
        &self.info
    }

    /// Ends early at a buffer that is still out, and where the source has no frame.
    #[inline]
    fn receive(&mut self, burst: &mut Burst) -> usize {
        let before = burst.len();
        let room = self.buffers.frame_len_max();
        while !burst.is_full() {
            let Some(mut frame) = self.buffers.lend(self.next_buffer, room, Offload::NONE) else {
                break;
            };
            let Some(len) = self.source.next_frame(frame.bytes_mut()) else {
                self.buffers.give_back(frame);
                break;
            };
            frame.truncate(len);
            burst.push(frame);
            self.next_buffer = (self.next_buffer + 1) % RING_LEN;
        }
        burst.len() - before
    }

    #[inline]
    fn transmit(&mut self, frame: Frame) -> Sent {
        self.sent += 1;
        if frame.port != self.id {
            return Sent::Copied(frame);
        }
        self.buffers.give_back(frame);
        Sent::Taken
    }

    fn send(&mut self, _bytes: &[u8], _offload: &Offload) -> bool {
        self.sent += 1;
        true
    }

    #[inline]
    fn flush(&mut self) {}

    #[inline]
    fn release(&mut self, frame: Frame) {
        self.buffers.give_back(frame);
    }

    fn wait_on(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn counters(&mut self) -> PortCounters {
        PortCounters::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::{BURST, Mac};

    /// Frames of 60, 61, … bytes, `left` of them, whose first byte is their number.
    struct Numbered {
        next: u8,
        left: usize,
    }

    impl Source for Numbered {
        fn next_frame(&mut self, buffer: &mut [u8]) -> Option<usize> {
            self.left = self.left.checked_sub(1)?;
            buffer[0] = self.next;
            self.next += 1;
            Some(59 + usize::from(self.next))
        }
    }

    fn port(left: usize) -> SourcePort<Numbered> {
        let info = PortInfo {
            name: "source".into(),
            mac: Mac([2, 0, 0, 0, 0, 1]),
            mtu: 1500,
            driver: "memory",
        };
        SourcePort::new(PortId(0), info, Numbered { next: 0, left }, 200)
    }

    #[test]
    fn frames_are_received_as_they_are_written_and_end_with_the_source() {
        let mut port = port(40);
        let mut burst = Burst::new();
        let mut number = 0u8;
        for expected in [BURST, 40 - BURST, 0] {
            assert_eq!(port.receive(&mut burst), expected);
            for frame in burst.drain(..) {
                assert_eq!(frame.bytes()[0], number);
                assert_eq!(frame.bytes().len(), 60 + usize::from(number));
                assert!(matches!(port.transmit(frame), Sent::Taken));
                number += 1;
            }
        }
        assert_eq!(port.sent(), 40);
        port.source_mut().left = 1;
        assert_eq!(port.receive(&mut burst), 1);
        port.release(burst.remove(0));
    }

    #[test]
    fn a_buffer_that_is_out_is_not_written_again() {
        let mut port = port(200);
        let mut held = Burst::new();
        assert_eq!(port.receive(&mut held), BURST);
        let first = held.remove(0);
        held.drain(..).for_each(|frame| port.release(frame));
        port.next_buffer = 0;
        let mut burst = Burst::new();
        assert_eq!(port.receive(&mut burst), 0);
        assert_eq!(first.bytes()[0], 0);
        port.release(first);
    }
}
