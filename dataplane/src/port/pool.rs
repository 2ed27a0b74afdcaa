//! Buffers of one size in one allocation, lent out as frames: what the ports without a NIC receive into.
#![allow(unsafe_code, reason = "frames are windows into one allocation")]

use super::PortId;
use crate::frame::{Frame, Offload};
use crate::rewrite::tunnel::LARGEST_OVERHEAD;
use std::ptr::NonNull;

/// Bytes in front of every received frame: room for the outer headers of any tunnel.
pub(super) const HEADROOM: u32 = START as u32;
/// The same, as where a frame starts.
const START: u16 = 128;
const _: () = assert!(HEADROOM as usize >= LARGEST_OVERHEAD);

/// Longer than any frame (Linux takes GSO frames up to 512 KiB).
const FRAME_LEN_LIMIT: u32 = 1 << 24;

/// Buffers of which any free one will do.
pub struct Pool {
    buffers: Buffers,
    /// The buffers that are at home; its room is reserved once, for all of them.
    free: Vec<u32>,
}

impl Pool {
    /// `count` buffers for frames of at most `frame_len_max` bytes, behind 128 bytes of headroom.
    ///
    /// # Panics
    /// When frames were to be of 16 MiB or more: none is.
    #[must_use]
    pub fn new(port: PortId, count: u32, frame_len_max: u32) -> Pool {
        Pool {
            buffers: Buffers::new(port, count, frame_len_max),
            free: (0..count).rev().collect(),
        }
    }

    /// The port that its frames name.
    #[inline]
    #[must_use]
    pub fn port(&self) -> PortId {
        self.buffers.port
    }

    /// The longest frame a buffer holds, bytes.
    #[inline]
    #[must_use]
    pub fn frame_len_max(&self) -> usize {
        self.buffers.frame_len_max()
    }

    /// A copy of `bytes` in a free buffer; `None` when all are lent or the frame is longer than a buffer.
    #[inline]
    pub fn lend_copy(&mut self, bytes: &[u8], offload: Offload) -> Option<Frame> {
        if bytes.len() > self.frame_len_max() {
            return None;
        }
        let mut frame = self
            .buffers
            .lend(self.free.pop()?, bytes.len(), offload)
            .expect("listed as free");
        frame.bytes_mut().copy_from_slice(bytes);
        Some(frame)
    }

    /// A free buffer as a frame of its whole length, whatever it holds; `None` when all are lent.
    pub fn lend(&mut self, offload: Offload) -> Option<Frame> {
        let len = self.frame_len_max();
        self.buffers.lend(self.free.pop()?, len, offload)
    }

    /// Whether every buffer is lent out.
    #[inline]
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        self.free.is_empty()
    }

    /// How many buffers are lent out.
    #[cfg(test)]
    pub(super) fn lent(&self) -> usize {
        self.buffers.lent.len() - self.free.len()
    }

    /// Takes a frame back.
    ///
    /// # Panics
    /// When the frame is not one of this pool's.
    #[inline]
    pub fn give_back(&mut self, frame: Frame) {
        self.free.push(self.buffers.give_back(frame));
    }
}

/// Buffers that are lent by their index.
/// ```text
///  buffer 0                            buffer 1
/// ┌──────────┬────────────────────────┬──────────┬──────────────
/// │ HEADROOM │ at most frame_len_max  │ HEADROOM │ …
/// └──────────┴────────────────────────┴──────────┴──────────────
/// ◀────────────── stride ────────────▶
/// ```
pub(super) struct Buffers {
    port: PortId,
    base: NonNull<Line>,
    lines: usize,
    stride: u32,
    lent: Box<[bool]>,
}

/// Buffers begin on a cache line, as a NIC's do.
#[derive(Clone)]
#[repr(align(64))]
struct Line {
    _bytes: [u8; LINE_LEN as usize],
}

const LINE_LEN: u32 = 64;
const _: () = assert!(size_of::<Line>() == LINE_LEN as usize && HEADROOM.is_multiple_of(LINE_LEN));

// SAFETY: it is the only owner of its allocation, and whatever touches the allocation needs `&mut self` or a frame.
unsafe impl Send for Buffers {}

impl Buffers {
    /// # Panics
    /// When frames were to be of 16 MiB or more: none is.
    pub(super) fn new(port: PortId, count: u32, frame_len_max: u32) -> Buffers {
        assert!(
            frame_len_max < FRAME_LEN_LIMIT,
            "buffers for frames of {frame_len_max} bytes: none is so long"
        );
        let stride = (HEADROOM + frame_len_max).next_multiple_of(LINE_LEN);
        let lines = count as usize * (stride / LINE_LEN) as usize;
        let memory = vec![
            Line {
                _bytes: [0; LINE_LEN as usize]
            };
            lines
        ]
        .into_boxed_slice();
        let base = NonNull::from(Box::leak(memory)).cast();
        Buffers {
            port,
            base,
            lines,
            stride,
            lent: vec![false; count as usize].into_boxed_slice(),
        }
    }

    /// The longest frame a buffer holds, bytes.
    #[inline]
    pub(super) fn frame_len_max(&self) -> usize {
        (self.stride - HEADROOM) as usize
    }

    /// The buffer as a frame of `len` bytes, whatever it holds; `None` while it is lent.
    ///
    /// # Panics
    /// When there is no such buffer or the frame is longer than it.
    #[inline]
    pub(super) fn lend(&mut self, index: u32, len: usize, offload: Offload) -> Option<Frame> {
        assert!(
            len <= self.frame_len_max(),
            "a frame of {len} bytes in a buffer for {}",
            self.frame_len_max()
        );
        if std::mem::replace(&mut self.lent[index as usize], true) {
            return None;
        }
        #[allow(
            clippy::cast_possible_truncation,
            reason = "len <= frame_len_max < 16 MiB"
        )]
        let len = len as u32;
        let base = self.buffer(index);
        // SAFETY: the buffer's `stride` bytes lie within the allocation, which stays until every frame is back (see
        // `drop`). It was not lent, so no other frame is a window into it. HEADROOM + len <= stride: asserted above.
        Some(unsafe { Frame::from_raw(base, self.stride, START, len, index, self.port, offload) })
    }

    /// Takes a frame back and returns the buffer's index.
    ///
    /// # Panics
    /// When the frame is not one of these.
    #[inline]
    pub(super) fn give_back(&mut self, frame: Frame) -> u32 {
        let index = frame.token();
        let ours = (index as usize) < self.lent.len() && frame.is_window_of(self.buffer(index));
        if !ours {
            foreign(self.port, frame.port, index);
        }
        self.lent[index as usize] = false;
        index
    }

    /// The first byte of a buffer that exists.
    #[inline]
    fn buffer(&self, index: u32) -> NonNull<u8> {
        debug_assert!((index as usize) < self.lent.len());
        // SAFETY: both callers have looked `index` up in `lent`, which has one element for each buffer.
        unsafe {
            self.base
                .cast::<u8>()
                .add(index as usize * self.stride as usize)
        }
    }
}

/// Out of the way, and of what it is told: the frame need not be in memory for it.
#[cold]
#[inline(never)]
fn foreign(port: PortId, claimed: PortId, index: u32) -> ! {
    panic!("buffer {index} of {claimed:?} is not of this port's buffers: those of {port:?}");
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // Frames carry no lifetime: better to leak the buffers than to leave a frame dangling.
        if !self.lent.contains(&true) {
            let memory = NonNull::slice_from_raw_parts(self.base, self.lines);
            // SAFETY: base and length are those of the box that `new` leaked, and no frame looks into it any more.
            drop(unsafe { Box::from_raw(memory.as_ptr()) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exhausted_pool_lends_nothing_until_a_frame_is_back() {
        let mut pool = Pool::new(PortId(0), 2, 100);
        let first = pool
            .lend_copy(&[1; 60], Offload::NONE)
            .expect("two are free");
        let second = pool
            .lend_copy(&[2; 60], Offload::NONE)
            .expect("one is free");
        assert!(pool.is_exhausted());
        assert!(pool.lend_copy(&[3; 60], Offload::NONE).is_none());
        pool.give_back(first);
        let third = pool
            .lend_copy(&[3; 60], Offload::NONE)
            .expect("one is back");
        assert_eq!(
            (second.bytes(), third.bytes()),
            ([2; 60].as_slice(), [3; 60].as_slice())
        );
        pool.give_back(second);
        pool.give_back(third);
        assert!(!pool.is_exhausted());
    }

    #[test]
    fn a_frame_longer_than_a_buffer_costs_no_buffer() {
        let mut pool = Pool::new(PortId(0), 1, 100);
        assert!(
            pool.lend_copy(&vec![0; pool.frame_len_max() + 1], Offload::NONE)
                .is_none()
        );
        let longest = pool
            .lend_copy(&vec![0; pool.frame_len_max()], Offload::NONE)
            .expect("free");
        pool.give_back(longest);
    }

    #[test]
    fn buffers_do_not_overlap_and_frames_begin_behind_the_headroom() {
        let mut buffers = Buffers::new(PortId(3), 3, 1514);
        let mut frames: Vec<Frame> = (0..3)
            .map(|index| buffers.lend(index, 1514, Offload::NONE).expect("free"))
            .collect();
        for (fill, frame) in (1u8..).zip(&mut frames) {
            assert_eq!(
                (frame.headroom(), frame.port),
                (HEADROOM as usize, PortId(3))
            );
            assert!(frame.prepend(HEADROOM as usize));
            frame.bytes_mut().fill(fill);
        }
        for (fill, frame) in (1u8..).zip(&frames) {
            assert!(frame.bytes().iter().all(|&byte| byte == fill));
        }
        assert!(
            frames
                .into_iter()
                .map(|frame| buffers.give_back(frame))
                .eq(0..3)
        );
    }

    #[test]
    fn a_lent_buffer_is_not_lent_again() {
        let mut buffers = Buffers::new(PortId(0), 1, 64);
        let frame = buffers.lend(0, 64, Offload::NONE).expect("free");
        assert!(buffers.lend(0, 64, Offload::NONE).is_none());
        buffers.give_back(frame);
    }

    #[test]
    fn a_frame_outlives_its_pool() {
        let mut buffers = Buffers::new(PortId(0), 1, 64);
        let mut frame = buffers.lend(0, 64, Offload::NONE).expect("free");
        drop(buffers);
        frame.bytes_mut().fill(7);
        assert_eq!(frame.bytes(), [7; 64]);
    }

    #[test]
    #[should_panic(expected = "not of this port's buffers")]
    fn a_foreign_frame_is_refused() {
        let mut buffers = Buffers::new(PortId(0), 1, 64);
        let frame = Buffers::new(PortId(0), 1, 64)
            .lend(0, 64, Offload::NONE)
            .expect("free");
        buffers.give_back(frame);
    }
}
