//! The ring that a packet socket shares with the kernel to receive (TPACKET_V2): memory, slots, and whose turn it is.
//!
//! Source: Linux Documentation/networking/packet_mmap.rst, net/packet/af_packet.c.
#![allow(unsafe_code, reason = "the ring is memory shared with the kernel")]

use super::vnet;
use crate::frame::{Frame, Offload};
use crate::port::PortId;
use crate::rewrite::tunnel::LARGEST_OVERHEAD;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Bytes of a slot that any frame fits into: a GSO frame of 64 KiB (IPv6: 40 bytes more), two VLAN tags, and the headroom.
const LARGEST_SLOT_LEN: u32 = 65_824;
/// Bytes of the smallest slot.
const SMALLEST_SLOT_LEN: u32 = 2048;
/// The kernel allocates a ring by blocks, each contiguous; at most this long.
const BLOCK_LEN_MAX: u32 = 1 << 20;
/// What no page is shorter than.
const BLOCK_LEN_MIN: u32 = 1 << 12;
/// PACKET_RESERVE: with it the network header begins on a cache line, and 146 bytes in front of the frame are free.
pub(super) const RESERVE: u32 = 102;
const _: () = assert!(RESERVE as usize >= LARGEST_OVERHEAD);

/// Where a slot's contents begin: behind its `struct tpacket2_hdr`.
const HEADER_LEN: u32 = 32;
/// Where the kernel puts `sll_pkttype`: in the sockaddr_ll behind the header.
const PACKET_TYPE_AT: usize =
    HEADER_LEN as usize + std::mem::offset_of!(libc::sockaddr_ll, sll_pkttype);
const _: () = assert!(HEADER_LEN as usize == size_of::<libc::tpacket2_hdr>());
const _: () = assert!((LARGEST_SLOT_LEN as usize).is_multiple_of(libc::TPACKET_ALIGNMENT));
/// What a slot holds beside an IP packet: all that is in front of the frame, its Ethernet header and two VLAN tags.
const BESIDE_PACKET: u32 = HEADER_LEN + 146 + 14 + 8;

/// How a ring is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Geometry {
    slot_len: u32,
    block_len: u32,
    blocks: u32,
}

impl Geometry {
    /// Of at least `slots` slots for frames with IP packets of at most `mtu` bytes. Longer ones come another way.
    pub(super) fn for_mtu(slots: u32, mtu: u32) -> Geometry {
        let needed = BESIDE_PACKET.saturating_add(mtu);
        if needed > LARGEST_SLOT_LEN / 2 {
            return Geometry::for_any_frame(slots);
        }
        Geometry::new(slots, needed.next_power_of_two().max(SMALLEST_SLOT_LEN))
    }

    /// Of at least `slots` slots, each for a GSO frame.
    pub(super) fn for_any_frame(slots: u32) -> Geometry {
        Geometry::new(slots, LARGEST_SLOT_LEN)
    }

    fn new(slots: u32, slot_len: u32) -> Geometry {
        let all = u64::from(slots) * u64::from(slot_len);
        let block_len = u32::try_from(all.next_power_of_two()).unwrap_or(BLOCK_LEN_MAX);
        let block_len = block_len.clamp(
            BLOCK_LEN_MIN.max(slot_len.next_power_of_two()),
            BLOCK_LEN_MAX,
        );
        Geometry {
            slot_len,
            block_len,
            blocks: slots.div_ceil(block_len / slot_len).max(1),
        }
    }

    /// How many slots there are.
    pub(super) fn slots(self) -> u32 {
        self.blocks * (self.block_len / self.slot_len)
    }

    /// Bytes of a slot.
    pub(super) fn slot_len(self) -> u32 {
        self.slot_len
    }

    /// Bytes of the whole ring.
    pub(super) fn len(self) -> usize {
        self.blocks as usize * self.block_len as usize
    }

    /// `struct tpacket_req`, for PACKET_RX_RING.
    pub(super) fn request(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        let words = [self.block_len, self.blocks, self.slot_len, self.slots()];
        for (chunk, word) in bytes.chunks_exact_mut(4).zip(words) {
            chunk.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }
}

/// A received slot whose frame the worker holds: neither the kernel's (0) nor to be received (TP_STATUS_USER). The
/// kernel waits for 0 alone; of the bits, TPACKET_V2 does not use this one.
const HELD: u32 = libc::TP_STATUS_BLK_TMO;

/// The ring's blocks, one behind the other.
struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: plain memory that the process shares with the kernel; no thread is special to it.
unsafe impl Send for Mapping {}
// SAFETY: as above; all access is through the ring, whose methods need `&mut self`.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: base and length are those that mmap was called with, and neither the ring nor a frame is left (a ring with
        // frames out keeps its share of the mapping forever).
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// The slots of one ring.
struct Slots {
    mapping: Arc<Mapping>,
    /// Where each begins in the mapping; a table, because a block's end is not a slot's end.
    offsets: Box<[u32]>,
    /// Bytes of each.
    len: u32,
}

/// Maps the ring of a socket that has asked for it with [`Geometry::request`].
pub(super) fn map(socket: &impl AsFd, geometry: Geometry, port: PortId) -> io::Result<ReceiveRing> {
    let len = geometry.len();
    let fd = socket.as_fd().as_raw_fd();
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping wherever the kernel likes; it takes no memory away from anyone.
    let base = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            len,
            protection,
            libc::MAP_SHARED,
            fd,
            0,
        )
    };
    if base == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let base = NonNull::new(base.cast()).expect("mmap does not succeed with null");
    let mapping = Arc::new(Mapping { base, len });
    Ok(ReceiveRing {
        slots: Slots::new(mapping, geometry),
        geometry,
        port,
        next: 0,
        held: 0,
    })
}

impl Slots {
    fn new(mapping: Arc<Mapping>, geometry: Geometry) -> Slots {
        let Geometry {
            slot_len,
            block_len,
            ..
        } = geometry;
        let per_block = block_len / slot_len;
        let offset = |slot: u32| slot / per_block * block_len + slot % per_block * slot_len;
        let offsets: Box<[u32]> = (0..geometry.slots()).map(offset).collect();
        assert!(
            offsets
                .iter()
                .all(|&offset| offset as usize + slot_len as usize <= mapping.len)
        );
        Slots {
            mapping,
            offsets,
            len: slot_len,
        }
    }

    fn count(&self) -> u32 {
        #[allow(clippy::cast_possible_truncation, reason = "made from a range of u32")]
        let count = self.offsets.len() as u32;
        count
    }

    /// The slot behind `slot`, around the ring.
    #[inline]
    fn after(&self, slot: u32) -> u32 {
        if slot + 1 == self.count() {
            0
        } else {
            slot + 1
        }
    }

    /// The address `within` bytes behind the slot's begin.
    ///
    /// # Panics
    /// When there is no such slot or it ends before.
    #[inline]
    fn at(&self, slot: u32, within: usize) -> NonNull<u8> {
        assert!(within <= self.len as usize);
        // SAFETY: `new` has asserted that each slot lies in the mapping as a whole.
        unsafe {
            self.mapping
                .base
                .add(self.offsets[slot as usize] as usize + within)
        }
    }

    #[inline]
    fn status(&self, slot: u32) -> &AtomicU32 {
        // SAFETY: a slot begins with its status word (tpacket2_hdr::tp_status), aligned to 16, in memory that stays
        // mapped as long as `self`; from now on it is only used as an atomic, as the kernel uses it.
        unsafe { AtomicU32::from_ptr(self.at(slot, 0).as_ptr().cast()) }
    }

    /// The header, but its status word. To be called when it is not the kernel's turn.
    #[inline]
    fn header(&self, slot: u32) -> libc::tpacket2_hdr {
        // SAFETY: the slot is longer than the header, aligned to 16, and any bytes are a valid header. The kernel does
        // not write while it is not its turn; what a broken one wrote is checked where it is used.
        unsafe { self.at(slot, 0).cast().read() }
    }

    /// `N` bytes of the slot. To be called when it is not the kernel's turn.
    #[inline]
    fn bytes<const N: usize>(&self, slot: u32, within: usize) -> [u8; N] {
        assert!(within + N <= self.len as usize);
        // SAFETY: within the slot, as asserted; bytes have no alignment; it is not the kernel's turn.
        unsafe { self.at(slot, within).cast().read() }
    }
}

/// A frame that waits at the head of the receive ring.
pub(super) struct Waiting {
    /// TP_STATUS_* bits.
    pub(super) status: u32,
    /// Bytes of the frame in the slot, and that it had.
    pub(super) len: u32,
    pub(super) original_len: u32,
    /// PACKET_HOST and so on.
    pub(super) packet_type: u8,
    pub(super) vlan_tci: u16,
    pub(super) vlan_tpid: u16,
    pub(super) vnet: [u8; vnet::LEN],
    start: u32,
}

impl Waiting {
    /// Whether all of the frame is in the slot.
    pub(super) fn is_whole(&self) -> bool {
        self.len == self.original_len
    }

    /// Whether the frame was too long for the slot and stands in the socket's queue, as a whole.
    pub(super) fn is_beside(&self) -> bool {
        self.status & libc::TP_STATUS_COPY != 0
    }
}

/// The ring that the kernel fills, slot by slot. A slot goes back to it when its frame is released, in any order: the
/// kernel stops at a slot that is not its own, and loses frames until it is.
pub(super) struct ReceiveRing {
    slots: Slots,
    geometry: Geometry,
    port: PortId,
    next: u32,
    held: u32,
}

impl ReceiveRing {
    /// The frame at the head, if there is one.
    #[inline]
    pub(super) fn peek(&self) -> Option<Waiting> {
        // Pairs with the kernel's barrier between a frame's bytes and its status.
        let status = self.slots.status(self.next).load(Ordering::Acquire);
        if status & libc::TP_STATUS_USER == 0 {
            return None;
        }
        let header = self.slots.header(self.next);
        let start = u32::from(header.tp_mac);
        let end = start.saturating_add(header.tp_snaplen);
        let first = PACKET_TYPE_AT + vnet::LEN;
        assert!(
            start as usize > first && end <= self.slots.len,
            "the kernel put a frame at {start}..{end} of its slot"
        );
        Some(Waiting {
            status,
            len: header.tp_snaplen,
            original_len: header.tp_len,
            packet_type: self.slots.bytes::<1>(self.next, PACKET_TYPE_AT)[0],
            vlan_tci: header.tp_vlan_tci,
            vlan_tpid: header.tp_vlan_tpid,
            vnet: self.slots.bytes(self.next, start as usize - vnet::LEN),
            start,
        })
    }

    /// Gives the head back to the kernel unseen.
    #[inline]
    pub(super) fn skip(&mut self) {
        // Pairs with the kernel's load before it writes.
        self.slots
            .status(self.next)
            .store(libc::TP_STATUS_KERNEL, Ordering::Release);
        self.next = self.slots.after(self.next);
    }

    /// Takes the frame at the head, which `peek` has just returned.
    #[inline]
    pub(super) fn take(&mut self, waiting: &Waiting, offload: Offload) -> Frame {
        let slot = self.next;
        let status = self.slots.status(slot);
        assert!(
            status.load(Ordering::Relaxed) == waiting.status,
            "the head has changed"
        );
        status.store(HELD, Ordering::Relaxed);
        self.next = self.slots.after(slot);
        self.held += 1;
        let base = self.slots.at(slot, HEADER_LEN as usize);
        let (capacity, start) = (self.slots.len - HEADER_LEN, waiting.start - HEADER_LEN);
        let start = u16::try_from(start).expect("it is behind a header");
        // SAFETY: the slot stays mapped until the frame is back (see `drop`). Its status was that of a frame to be
        // received and is HELD now, so that neither the kernel nor a second frame touches it. `peek` has checked that
        // start + len are within the slot.
        unsafe { Frame::from_raw(base, capacity, start, waiting.len, slot, self.port, offload) }
    }

    /// Whether a frame is a slot of this ring.
    #[inline]
    pub(super) fn owns(&self, frame: &Frame) -> bool {
        frame.token() < self.slots.count()
            && frame.is_window_of(self.slots.at(frame.token(), HEADER_LEN as usize))
    }

    /// Gives the slot of a frame back to the kernel.
    ///
    /// # Panics
    /// When the frame is not one of this ring's.
    #[inline]
    pub(super) fn give_back(&mut self, frame: Frame) {
        assert!(self.owns(&frame), "{frame:?} is not of this port's ring");
        self.held -= 1;
        // Pairs with the kernel's load before it writes.
        self.slots
            .status(frame.token())
            .store(libc::TP_STATUS_KERNEL, Ordering::Release);
    }

    /// How many frames are out.
    pub(super) fn held(&self) -> u32 {
        self.held
    }

    /// How many slots there are.
    pub(super) fn count(&self) -> u32 {
        self.slots.count()
    }

    /// How they are laid out.
    pub(super) fn geometry(&self) -> Geometry {
        self.geometry
    }
}

impl Drop for ReceiveRing {
    fn drop(&mut self) {
        if self.held > 0 {
            // Frames carry no lifetime: better to leave the ring mapped than to leave a frame dangling.
            std::mem::forget(Arc::clone(&self.slots.mapping));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_as_long_as_the_mtu_needs_and_blocks_no_longer_than_the_ring() {
        let cases = [
            ((1024, 1500), (2048, 1 << 20, 2)),
            ((1024, 1848), (2048, 1 << 20, 2)),
            ((1024, 1849), (4096, 1 << 20, 4)),
            ((1024, 9000), (16_384, 1 << 20, 16)),
            ((30, 1500), (2048, 1 << 16, 1)),
            ((1, 68), (2048, 4096, 1)),
            ((1024, 65_535), (65_824, 1 << 20, 69)),
            ((1, 65_535), (65_824, 1 << 17, 1)),
        ];
        for ((slots, mtu), (slot_len, block_len, blocks)) in cases {
            let expected = Geometry {
                slot_len,
                block_len,
                blocks,
            };
            let geometry = Geometry::for_mtu(slots, mtu);
            assert_eq!(geometry, expected, "{slots} slots, MTU {mtu}");
            assert!(geometry.slots() >= slots);
        }
    }

    #[test]
    fn the_largest_ring_can_be_addressed() {
        let geometry = Geometry::for_any_frame(16_384);
        assert!(u32::try_from(geometry.len()).is_ok());
    }
}
