//! Frames that wait to be sent, one behind the other in the process's own memory. The kernel copies them when they are sent,
//! so that all of it is free again then: no ring that frames of 64 KiB must fit into, slot by slot.

use super::vnet;
use crate::frame::Offload;

/// Bytes that may wait: more than a burst of the longest frames. Memory that was never needed is never touched.
const BYTES: usize = 4 << 20;
/// The longest frame: a GSO frame of 64 KiB (IPv6: 40 bytes more) and two VLAN tags.
pub(super) const FRAME_LEN_MAX: usize = 65_600;
const _: () = assert!(BYTES > (crate::port::BURST + 1) * (FRAME_LEN_MAX + vnet::LEN));

/// See the module's text.
/// ```text
///   bytes: │ vnet │ frame │ vnet │ frame │ …   free │       ends: where each frame ends; `first`: those before are sent
/// ```
pub(super) struct TransmitQueue {
    bytes: Box<[u8]>,
    /// Its room is reserved once, for all frames that may wait.
    ends: Vec<usize>,
    first: usize,
}

impl TransmitQueue {
    /// For at most `frames` that wait at once.
    pub(super) fn new(frames: u32) -> TransmitQueue {
        TransmitQueue {
            bytes: vec![0; BYTES].into_boxed_slice(),
            ends: Vec::with_capacity(frames as usize),
            first: 0,
        }
    }

    /// Queues a frame. False when there is no room or the frame is too long.
    #[inline]
    pub(super) fn push(&mut self, bytes: &[u8], offload: &Offload) -> bool {
        let start = self.ends.last().copied().unwrap_or(0);
        let end = start + vnet::LEN + bytes.len();
        if bytes.len() > FRAME_LEN_MAX
            || end > self.bytes.len()
            || self.ends.len() == self.ends.capacity()
        {
            return false;
        }
        let (header, frame) = self.bytes[start..end].split_at_mut(vnet::LEN);
        header.copy_from_slice(&vnet::encode(offload, bytes.len()));
        frame.copy_from_slice(bytes);
        self.ends.push(end);
        true
    }

    /// Frames that wait to be sent.
    #[inline]
    pub(super) fn queued(&self) -> usize {
        self.ends.len() - self.first
    }

    /// The frame that is `place` behind the first that waits, with its header in front; `None` behind the last.
    #[inline]
    pub(super) fn waiting(&self, place: usize) -> Option<&[u8]> {
        let place = self.first + place;
        let end = *self.ends.get(place)?;
        let start = place.checked_sub(1).map_or(0, |before| self.ends[before]);
        Some(&self.bytes[start..end])
    }

    /// The first `count` frames that wait are sent, or given up.
    ///
    /// # Panics
    /// When there are not so many.
    #[inline]
    pub(super) fn advance(&mut self, count: usize) {
        assert!(
            count <= self.queued(),
            "{count} of {} frames",
            self.queued()
        );
        self.first += count;
        if self.first == self.ends.len() {
            self.first = 0;
            self.ends.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_in_order_and_leave_room_when_all_are_sent() {
        let mut queue = TransmitQueue::new(3);
        for fill in 1..=3u8 {
            assert!(queue.push(&[fill; 60], &Offload::NONE));
        }
        assert!(!queue.push(&[4; 60], &Offload::NONE), "three may wait");
        queue.advance(1);
        assert_eq!(queue.queued(), 2);
        assert_eq!(
            queue.waiting(0).map(|frame| &frame[vnet::LEN..]),
            Some(&[2; 60][..])
        );
        assert_eq!(
            queue.waiting(1).map(|frame| frame.len()),
            Some(60 + vnet::LEN)
        );
        assert_eq!(queue.waiting(2), None);
        queue.advance(2);
        assert!(queue.push(&[5; 60], &Offload::NONE));
        assert_eq!(queue.waiting(0).map(|frame| frame[vnet::LEN]), Some(5));
    }

    #[test]
    fn a_burst_of_the_longest_frames_fits_and_no_more_than_there_is_room_for() {
        let mut queue = TransmitQueue::new(1024);
        let frame = vec![1; FRAME_LEN_MAX];
        let fitting = (0..1024)
            .take_while(|_| queue.push(&frame, &Offload::NONE))
            .count();
        assert_eq!(fitting, BYTES / (FRAME_LEN_MAX + vnet::LEN));
        assert!(!queue.push(&vec![1; FRAME_LEN_MAX + 1], &Offload::NONE));
    }
}
