//! The floor under every throughput measurement: receives the same frames over and over, and only counts what is sent.

use crate::frame::{Frame, Offload};
use crate::port::pool::Buffers;
use crate::port::{Burst, Port, PortCounters, PortId, PortInfo, Sent};
use std::os::fd::BorrowedFd;

/// Buffers that frames are received into, in turn, as a NIC does with its ring: they stay in the second-level cache.
const RING_LEN: u32 = 512;

/// Frames are kept, and copied, by whole cache lines.
const LINE_LEN: usize = 64;

/// A port that receives a prepared set of frames over and over, each time a fresh copy.
///
/// Nothing is allocated, locked or asked of the system after `new`. Frames of up to 64 bytes cost one cache line to
/// read from the set and one to write.
pub struct LoopPort {
    info: PortInfo,
    id: PortId,
    buffers: Buffers,
    next_buffer: u32,
    frames: Box<[Prepared]>,
    next_frame: usize,
    /// The frames, each from a line's begin on.
    lines: Box<[[u8; LINE_LEN]]>,
    sent: LoopCounters,
}

#[derive(Clone, Copy)]
struct Prepared {
    first_line: usize,
    len: usize,
    offload: Offload,
}

/// What a [`LoopPort`] has sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoopCounters {
    /// Frames.
    pub frames: u64,
    /// Bytes, from the Ethernet header on, without a checksum sequence.
    pub bytes: u64,
}

impl LoopPort {
    /// A port that receives `frames` in turn.
    ///
    /// # Panics
    /// When there is no frame, or one of 16 MiB or more.
    #[must_use]
    pub fn new(id: PortId, info: PortInfo, frames: &[(Vec<u8>, Offload)]) -> LoopPort {
        let longest = frames
            .iter()
            .map(|(bytes, _)| bytes.len())
            .max()
            .expect("frames to receive");
        let longest = u32::try_from(longest).expect("a frame is shorter than 16 MiB");
        let mut lines = Vec::new();
        let prepare = |(bytes, offload): &(Vec<u8>, Offload)| {
            let first_line = lines.len();
            lines.extend(bytes.chunks(LINE_LEN).map(|chunk| {
                let mut line = [0; LINE_LEN];
                line[..chunk.len()].copy_from_slice(chunk);
                line
            }));
            Prepared {
                first_line,
                len: bytes.len(),
                offload: *offload,
            }
        };
        LoopPort {
            info,
            id,
            frames: frames.iter().map(prepare).collect(),
            next_frame: 0,
            lines: lines.into_boxed_slice(),
            buffers: Buffers::new(id, RING_LEN, longest),
            next_buffer: 0,
            sent: LoopCounters::default(),
        }
    }

    /// What was sent since the port was made.
    #[must_use]
    pub fn sent(&self) -> LoopCounters {
        self.sent
    }

    #[inline]
    fn count(&mut self, len: usize) {
        self.sent.frames += 1;
        self.sent.bytes += len as u64;
    }
}

impl Port for LoopPort {
    fn info(&self) -> &PortInfo {
        &self.info
    }

    /// Ends early at a buffer that is still out.
    #[inline]
    fn receive(&mut self, burst: &mut Burst) -> usize {
        let before = burst.len();
        while !burst.is_full() {
            let Prepared {
                first_line,
                len,
                offload,
            } = self.frames[self.next_frame];
            let lines = &self.lines[first_line..first_line + len.div_ceil(LINE_LEN)];
            // Buffers are of whole lines, too.
            let padded_len = lines.len() * LINE_LEN;
            let Some(mut frame) = self.buffers.lend(self.next_buffer, padded_len, offload) else {
                break;
            };
            // The first line apart, because a copy of constant length is a few instructions, not a call.
            if let ([to, more_to @ ..], [from, more_from @ ..]) =
                (frame.bytes_mut().as_chunks_mut().0, lines)
            {
                *to = *from;
                if !more_from.is_empty() {
                    more_to.copy_from_slice(more_from);
                }
            }
            frame.truncate(len);
            burst.push(frame);
            self.next_buffer = (self.next_buffer + 1) % RING_LEN;
            self.next_frame = if self.next_frame + 1 == self.frames.len() {
                0
            } else {
                self.next_frame + 1
            };
        }
        burst.len() - before
    }

    #[inline]
    fn transmit(&mut self, frame: Frame) -> Sent {
        self.count(frame.bytes().len());
        if frame.port != self.id {
            return Sent::Copied(frame);
        }
        self.buffers.give_back(frame);
        Sent::Taken
    }

    fn send(&mut self, bytes: &[u8], _offload: &Offload) -> bool {
        self.count(bytes.len());
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

    fn port(frames: &[(Vec<u8>, Offload)]) -> LoopPort {
        let info = PortInfo {
            name: "loop".into(),
            mac: Mac([2, 0, 0, 0, 0, 1]),
            mtu: 1500,
            driver: "memory",
        };
        LoopPort::new(PortId(0), info, frames)
    }

    #[test]
    fn frames_come_back_as_they_were_however_they_were_rewritten() {
        let frames: Vec<_> = (0..5u8)
            .map(|fill| (vec![fill; 60 + usize::from(fill) * 100], Offload::NONE))
            .collect();
        let mut port = port(&frames);
        let mut expected = frames.iter().cycle();
        let mut burst = Burst::new();
        for round in 0..10 {
            assert_eq!(port.receive(&mut burst), BURST);
            for mut frame in burst.drain(..) {
                assert_eq!(frame.bytes(), expected.next().expect("endless").0);
                assert!(frame.prepend(40));
                frame.bytes_mut()[..100].fill(0xee);
                if round % 2 == 0 {
                    port.release(frame);
                } else {
                    assert!(matches!(port.transmit(frame), Sent::Taken));
                }
            }
        }
        assert_eq!(port.sent().frames, 5 * BURST as u64);
    }

    #[test]
    fn a_buffer_that_is_out_is_not_received_into_again() {
        let mut port = port(&[(vec![1; 60], Offload::NONE)]);
        let mut held = Burst::new();
        assert_eq!(port.receive(&mut held), BURST);
        let first = held.remove(0);
        held.drain(..).for_each(|frame| port.release(frame));
        let mut burst = Burst::new();
        for _ in 1..RING_LEN as usize / BURST {
            assert_eq!(port.receive(&mut burst), BURST);
            burst.drain(..).for_each(|frame| port.release(frame));
        }
        assert_eq!(port.receive(&mut burst), 0, "all around the ring");
        port.release(first);
        assert_eq!(port.receive(&mut burst), BURST);
        burst.drain(..).for_each(|frame| port.release(frame));
    }

    #[test]
    fn what_is_sent_is_counted() {
        let mut port = port(&[(vec![1; 1514], Offload::NONE)]);
        let mut burst = Burst::new();
        port.receive(&mut burst);
        assert!(matches!(port.transmit(burst.remove(0)), Sent::Taken));
        assert!(port.send(&[0; 42], &Offload::NONE));
        assert_eq!(
            port.sent(),
            LoopCounters {
                frames: 2,
                bytes: 1556
            }
        );
        burst.drain(..).for_each(|frame| port.release(frame));
    }
}
