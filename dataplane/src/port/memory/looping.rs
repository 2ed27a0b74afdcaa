//! The floor under every throughput measurement: receives the same frames over and over, and only counts what is sent.

use crate::frame::{Frame, Offload};
use crate::port::pool::Buffers;
use crate::port::{BURST, Burst, Port, PortCounters, PortId, PortInfo, Sent};
use std::os::fd::BorrowedFd;

/// Bytes at a frame's front that are as new each time it is received: more than the headers a director rewrites.
const RESTORED_LEN: usize = 128;

/// A port that receives a prepared set of frames over and over, each in a buffer of its own.
///
/// A director changes headers alone, so that only the first 128 bytes are restored from a copy; the payload behind
/// them must stay as it is. Nothing is allocated, locked or asked of the system after `new`.
pub struct LoopPort {
    info: PortInfo,
    id: PortId,
    buffers: Buffers,
    frames: Box<[Prepared]>,
    /// The fronts, `front_stride` bytes apart.
    fronts: Box<[u8]>,
    front_stride: usize,
    next: usize,
    sent: LoopCounters,
}

struct Prepared {
    len: u32,
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
    /// A port that receives `frames` in turn; they are repeated until there are enough for two bursts.
    ///
    /// # Panics
    /// When there is no frame, or one of 16 MiB or more.
    #[must_use]
    pub fn new(id: PortId, info: PortInfo, frames: &[(Vec<u8>, Offload)]) -> LoopPort {
        assert!(!frames.is_empty(), "nothing to receive");
        let longest = frames
            .iter()
            .map(|(bytes, _)| bytes.len())
            .max()
            .unwrap_or(0);
        let rounds = (2 * BURST).div_ceil(frames.len());
        let count = u32::try_from(frames.len() * rounds).expect("fewer than 2^32 frames");
        let mut buffers = Buffers::new(
            id,
            count,
            u32::try_from(longest).expect("frames are shorter than 4 GiB"),
        );
        let front_stride = longest.clamp(1, RESTORED_LEN).next_multiple_of(16);
        let mut fronts = vec![0; front_stride * count as usize].into_boxed_slice();
        let all = (0..count).zip(frames.iter().cycle());
        let frames = all
            .zip(fronts.chunks_exact_mut(front_stride))
            .map(|((index, (bytes, offload)), front)| {
                let mut frame = buffers
                    .lend(index, bytes.len(), *offload)
                    .expect("none is lent yet");
                frame.bytes_mut().copy_from_slice(bytes);
                buffers.give_back(frame);
                let kept = bytes.len().min(front_stride);
                front[..kept].copy_from_slice(&bytes[..kept]);
                Prepared {
                    len: u32::try_from(bytes.len()).expect("checked above"),
                    offload: *offload,
                }
            })
            .collect();
        LoopPort {
            info,
            id,
            buffers,
            frames,
            fronts,
            front_stride,
            next: 0,
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

    /// Ends early at a frame that is still out.
    #[inline]
    fn receive(&mut self, burst: &mut Burst) -> usize {
        let before = burst.len();
        while !burst.is_full() {
            let prepared = &self.frames[self.next];
            #[allow(
                clippy::cast_possible_truncation,
                reason = "new made fewer than 2^32 frames"
            )]
            let index = self.next as u32;
            let Some(mut frame) = self
                .buffers
                .lend(index, prepared.len as usize, prepared.offload)
            else {
                break;
            };
            let kept = (prepared.len as usize).min(self.front_stride);
            let front = self.next * self.front_stride;
            frame.bytes_mut()[..kept].copy_from_slice(&self.fronts[front..front + kept]);
            burst.push(frame);
            self.next = if self.next + 1 == self.frames.len() {
                0
            } else {
                self.next + 1
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
    use crate::port::Mac;

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
    fn a_frame_that_is_out_is_not_received_again() {
        let mut port = port(&[(vec![1; 60], Offload::NONE)]);
        let mut held = Burst::new();
        assert_eq!(port.receive(&mut held), BURST);
        let first = held.remove(0);
        held.drain(..).for_each(|frame| port.release(frame));
        let mut burst = Burst::new();
        assert_eq!(
            port.receive(&mut burst),
            BURST,
            "the second half of the ring"
        );
        burst.drain(..).for_each(|frame| port.release(frame));
        assert_eq!(port.receive(&mut burst), 0);
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
