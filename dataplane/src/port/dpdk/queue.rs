//! A queue pair: mbufs as frames, and frames as mbufs.
#![allow(unsafe_code, reason = "frames in mbufs of DPDK")]

use super::device::{Device, Pool};
use super::eal;
use crate::frame::Frame;
use crate::port::{BURST, Burst, PortId};
use crate::rewrite::tunnel::LARGEST_OVERHEAD;
use arrayvec::ArrayVec;
use dpdk_sys as dpdk;
use dpdk_sys::uvs_frame;
use std::ptr::NonNull;
use std::sync::Arc;

const _: () = assert!(dpdk::RTE_PKTMBUF_HEADROOM as usize >= LARGEST_OVERHEAD);
const _: () = assert!(BURST == dpdk::UVS_BURST_MAX as usize);

/// What is sent together.
type Waiting = ArrayVec<uvs_frame, BURST>;

/// One worker's queue pair of a device, and the pool that its frames are of.
///
/// ```text
///   rx ring ─▶ mbuf ─▶ Frame (a window into the mbuf's buffer) ─▶ mbuf ─▶ waiting ─▶ tx ring of any device
/// ```
pub(super) struct Queue {
    port: u16,
    index: u16,
    pool: Pool,
    waiting: Waiting,
    is_registered: bool,
    /// Frames that no mbuf could hold, and that the device did not take.
    pub(super) lost: u64,
    pub(super) refused: u64,
    /// Outlives the queue.
    _device: Arc<Device>,
}

// SAFETY: what `waiting` points to is the queue's alone, and a queue may be used by any thread, one at a time.
unsafe impl Send for Queue {}

impl Queue {
    pub(super) fn new(device: Arc<Device>, port: u16, index: u16, pool: Pool) -> Queue {
        Queue {
            port,
            index,
            pool,
            waiting: Waiting::new(),
            is_registered: false,
            lost: 0,
            refused: 0,
            _device: device,
        }
    }

    /// Appends frames to `burst`, at most to its capacity, that say they are of port `id`.
    #[inline]
    pub(super) fn receive(&mut self, burst: &mut Burst, id: PortId) -> usize {
        if !self.is_registered {
            self.is_registered = true;
            eal::register_thread();
        }
        let mut frames = [const { std::mem::MaybeUninit::<uvs_frame>::uninit() }; BURST];
        #[allow(clippy::cast_possible_truncation, reason = "at most BURST")]
        let room = (burst.capacity() - burst.len()) as u16;
        // SAFETY: the device runs as long as `self` has a reference to it, and nobody else has this queue; there is room
        // for as many frames as it is told.
        let count = unsafe {
            dpdk::uvs_receive(
                self.port,
                self.index,
                self.pool.0.as_ptr(),
                frames.as_mut_ptr().cast(),
                room,
                &raw mut self.lost,
            )
        };
        for frame in &frames[..usize::from(count)] {
            // SAFETY: the first `count` frames were written.
            let frame = unsafe { frame.assume_init_ref() };
            let buffer = NonNull::new(frame.buffer).expect("an mbuf has a buffer");
            // SAFETY: by `struct uvs_frame` the buffer has `capacity` bytes, the frame lies within, and its mbuf is in
            // front of it; DPDK has handed it to us alone.
            burst.push(unsafe { Frame::in_mbuf(buffer, frame.start, frame.len, id) });
        }
        usize::from(count)
    }

    /// Queues a frame for sending, and sends what is queued when a burst is full. `None` if it lies in an mbuf;
    /// otherwise a copy was queued, or nothing for want of an mbuf, and the frame is the caller's.
    #[inline]
    pub(super) fn transmit(&mut self, frame: Frame) -> Option<(Frame, bool)> {
        let Some((buffer, start)) = frame.mbuf_buffer() else {
            let is_queued = self.copy(frame.bytes());
            return Some((frame, is_queued));
        };
        #[allow(
            clippy::cast_possible_truncation,
            reason = "a frame is shorter than 4 GiB"
        )]
        self.push(uvs_frame {
            buffer: buffer.as_ptr(),
            len: frame.bytes().len() as u32,
            start,
            capacity: 0,
        });
        None
    }

    /// Queues a copy. False when there is no mbuf, or none that is large enough.
    pub(super) fn copy(&mut self, bytes: &[u8]) -> bool {
        self.copy_with(bytes, |_| {})
    }

    /// Queues a copy whose TCP or UDP checksum the device completes: the transport header is `l4` bytes into it.
    pub(super) fn copy_for_checksum(
        &mut self,
        bytes: &[u8],
        l4: u16,
        is_udp: bool,
        is_ipv6: bool,
    ) -> bool {
        self.copy_with(bytes, |frame| {
            // SAFETY: an mbuf of ours, which is not sent yet.
            unsafe {
                dpdk::uvs_leave_checksum(frame.buffer, l4, is_udp.into(), is_ipv6.into());
            }
        })
    }

    fn copy_with(&mut self, bytes: &[u8], finish: impl FnOnce(&uvs_frame)) -> bool {
        let Ok(len) = u32::try_from(bytes.len()) else {
            return false;
        };
        let mut frame = uvs_frame {
            buffer: std::ptr::null_mut(),
            len: 0,
            start: 0,
            capacity: 0,
        };
        // SAFETY: the pool lives as long as the device.
        if unsafe { dpdk::uvs_alloc(self.pool.0.as_ptr(), len, &raw mut frame) } == 0 {
            return false;
        }
        // SAFETY: within the buffer.
        let to = unsafe { frame.buffer.add(usize::from(frame.start)) };
        // SAFETY: `len` bytes fit behind `start`, which `uvs_alloc` has seen to; the mbuf is new, so they cannot overlap.
        unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        finish(&frame);
        self.push(frame);
        true
    }

    #[inline]
    fn push(&mut self, frame: uvs_frame) {
        if self.waiting.is_full() {
            self.flush();
        }
        self.waiting.push(frame);
    }

    /// Hands what is queued to the device.
    #[inline]
    pub(super) fn flush(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        #[allow(clippy::cast_possible_truncation, reason = "at most BURST")]
        let count = self.waiting.len() as u16;
        // SAFETY: the device runs and the queue is ours, as in `receive`; each frame lies in an mbuf that is ours, and is
        // not any more.
        let sent =
            unsafe { dpdk::uvs_transmit(self.port, self.index, self.waiting.as_ptr(), count) };
        self.refused += u64::from(count - sent);
        self.waiting.clear();
    }

    /// Frees a frame's mbuf.
    ///
    /// # Panics
    /// When it is in none: it is not of a DPDK port.
    #[inline]
    pub(super) fn free(frame: Frame) {
        let (buffer, _) = frame
            .mbuf_buffer()
            .unwrap_or_else(|| panic!("a frame of {:?} that is in no mbuf", frame.port));
        // SAFETY: the mbuf is the frame's alone (see `Frame::in_mbuf`).
        unsafe { dpdk::uvs_free(buffer.as_ptr()) };
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.flush();
    }
}
