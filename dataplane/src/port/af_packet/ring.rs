//! The two rings that a packet socket shares with the kernel (TPACKET_V2): memory, slots, and whose turn it is.
//!
//! Source: Linux Documentation/networking/packet_mmap.rst, net/packet/af_packet.c.
#![allow(unsafe_code, reason = "the rings are memory shared with the kernel")]

use super::vnet;
use crate::frame::{Frame, Offload};
use crate::port::PortId;
use crate::rewrite::tunnel::LARGEST_OVERHEAD;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Bytes of one slot of either ring: a GSO frame of 64 KiB (IPv6: 40 bytes more), two VLAN tags, and the headroom.
pub(super) const SLOT_LEN: u32 = 65_824;
/// The kernel allocates a ring by blocks, each contiguous.
const BLOCK_LEN: u32 = 1 << 20;
/// Slots that a block has room for.
pub(super) const SLOTS_PER_BLOCK: u32 = BLOCK_LEN / SLOT_LEN;
/// PACKET_RESERVE: with it the network header begins on a cache line, and 146 bytes in front of the frame are free.
pub(super) const RESERVE: u32 = 102;
const _: () = assert!(RESERVE as usize >= LARGEST_OVERHEAD);

/// Where a slot's contents begin: behind its `struct tpacket2_hdr`.
const HEADER_LEN: u32 = 32;
/// Where the kernel puts `sll_pkttype`: in the sockaddr_ll behind the header.
const PACKET_TYPE_AT: usize =
    HEADER_LEN as usize + std::mem::offset_of!(libc::sockaddr_ll, sll_pkttype);
/// The longest frame that a transmit slot holds.
pub(super) const TRANSMIT_LEN_MAX: usize = SLOT_LEN as usize - HEADER_LEN as usize - vnet::LEN;

const _: () = assert!(HEADER_LEN as usize == size_of::<libc::tpacket2_hdr>());
const _: () = assert!((SLOT_LEN as usize).is_multiple_of(libc::TPACKET_ALIGNMENT));

/// A received slot whose frame the worker holds: neither the kernel's (0) nor to be received (TP_STATUS_USER). The
/// kernel waits for 0 alone; of the bits, TPACKET_V2 does not use this one.
const HELD: u32 = libc::TP_STATUS_BLK_TMO;

/// Both rings in one mapping: the receive ring's blocks, then the transmit ring's.
struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: plain memory that the process shares with the kernel; no thread is special to it.
unsafe impl Send for Mapping {}
// SAFETY: as above; all access is through the rings, whose methods need `&mut self`.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: base and length are those that mmap was called with, and no ring and no frame is left (a ring with
        // frames out keeps its share of the mapping forever).
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// The slots of one ring.
struct Slots {
    mapping: Arc<Mapping>,
    /// Where each begins in the mapping; a table, because a block's end is not a slot's end.
    offsets: Box<[u32]>,
}

/// How many blocks a ring of at least `slots` slots has.
pub(super) fn blocks(slots: u32) -> u32 {
    slots.div_ceil(SLOTS_PER_BLOCK).max(1)
}

/// `struct tpacket_req`, for PACKET_RX_RING and PACKET_TX_RING.
pub(super) fn request(blocks: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (chunk, word) in
        bytes
            .chunks_exact_mut(4)
            .zip([BLOCK_LEN, blocks, SLOT_LEN, blocks * SLOTS_PER_BLOCK])
    {
        chunk.copy_from_slice(&word.to_ne_bytes());
    }
    bytes
}

/// Maps the rings of a socket that has asked for them with [`request`].
pub(super) fn map(
    socket: &impl AsFd,
    receive_blocks: u32,
    transmit_blocks: u32,
    port: PortId,
) -> io::Result<(ReceiveRing, TransmitRing)> {
    let len = (receive_blocks + transmit_blocks) as usize * BLOCK_LEN as usize;
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
    let receive = ReceiveRing {
        slots: Slots::new(&mapping, 0, receive_blocks),
        port,
        next: 0,
        held: 0,
    };
    let slots = Slots::new(&mapping, receive_blocks, transmit_blocks);
    let transmit = TransmitRing {
        slots,
        next: 0,
        unsent: 0,
        queued: 0,
    };
    Ok((receive, transmit))
}

impl Slots {
    fn new(mapping: &Arc<Mapping>, first_block: u32, blocks: u32) -> Slots {
        let offset = |slot: u32| {
            (first_block + slot / SLOTS_PER_BLOCK) * BLOCK_LEN + slot % SLOTS_PER_BLOCK * SLOT_LEN
        };
        let offsets: Box<[u32]> = (0..blocks * SLOTS_PER_BLOCK).map(offset).collect();
        assert!(
            offsets
                .iter()
                .all(|&offset| offset as usize + SLOT_LEN as usize <= mapping.len)
        );
        Slots {
            mapping: Arc::clone(mapping),
            offsets,
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

    /// The slot before `slot`, around the ring.
    fn before(&self, slot: u32) -> u32 {
        if slot == 0 {
            self.count() - 1
        } else {
            slot - 1
        }
    }

    /// The address `within` bytes behind the slot's begin.
    ///
    /// # Panics
    /// When there is no such slot or it ends before.
    #[inline]
    fn at(&self, slot: u32, within: usize) -> NonNull<u8> {
        assert!(within <= SLOT_LEN as usize);
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
        assert!(within + N <= SLOT_LEN as usize);
        // SAFETY: within the slot, as asserted; bytes have no alignment; it is not the kernel's turn.
        unsafe { self.at(slot, within).cast().read() }
    }

    /// Writes into the slot. To be called when it is not the kernel's turn.
    #[inline]
    fn write(&mut self, slot: u32, within: usize, bytes: &[u8]) {
        assert!(within + bytes.len() <= SLOT_LEN as usize);
        let to = self.at(slot, within);
        // SAFETY: within the slot, as asserted; `bytes` cannot lie in this slot, because slots are lent as frames in
        // the receive ring alone and this is called for the transmit ring's; it is not the kernel's turn.
        unsafe { to.copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len()) };
    }

    /// Copies the first `len` bytes behind the status word from one slot to another. Both must not be the kernel's.
    fn copy(&mut self, from: u32, to: u32, len: usize) {
        assert!(from != to && 4 + len <= SLOT_LEN as usize);
        let (from, to) = (self.at(from, 4), self.at(to, 4));
        // SAFETY: within the slots, which are two; it is not the kernel's turn.
        unsafe { to.copy_from_nonoverlapping(from, len) };
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

/// The ring that the kernel fills, slot by slot. A slot goes back to it when its frame is released, in any order: the
/// kernel stops at a slot that is not its own, and loses frames until it is.
pub(super) struct ReceiveRing {
    slots: Slots,
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
            start as usize > first && end <= SLOT_LEN,
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
        let (capacity, start) = (SLOT_LEN - HEADER_LEN, waiting.start - HEADER_LEN);
        // SAFETY: the slot stays mapped until the frame is back (see `drop`). Its status was that of a frame to be
        // received and is HELD now, so that neither the kernel nor a second frame touches it. `peek` has checked that
        // start + len are within the slot.
        unsafe { Frame::from_raw(base, capacity, start, waiting.len, slot, self.port, offload) }
    }

    /// Gives the slot of a frame back to the kernel.
    ///
    /// # Panics
    /// When the frame is not one of this ring's.
    #[inline]
    pub(super) fn give_back(&mut self, frame: Frame) {
        let slot = frame.token;
        let ours = slot < self.slots.count()
            && frame.is_window_of(self.slots.at(slot, HEADER_LEN as usize));
        assert!(ours, "{frame:?} is not of this port's ring");
        self.held -= 1;
        // Pairs with the kernel's load before it writes.
        self.slots
            .status(slot)
            .store(libc::TP_STATUS_KERNEL, Ordering::Release);
    }

    /// How many frames are out.
    pub(super) fn held(&self) -> u32 {
        self.held
    }

    /// Gives back whatever waits.
    pub(super) fn discard(&mut self) {
        let mut limit = self.slots.count();
        while limit > 0 && self.peek().is_some() {
            self.skip();
            limit -= 1;
        }
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

/// How the transmit ring stands after the kernel was asked to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// Nothing waits.
    Sent,
    /// The kernel has stopped before the end.
    Waiting,
    /// The kernel has refused a frame; it is taken out, and those behind it wait.
    Malformed,
}

/// The ring that the kernel empties, slot by slot, at each sendto(2).
/// ```text
///        unsent                next
///          ▼                    ▼
///  ┌──────┬────────────────────┬──────────────┐
///  │ sent │ queued             │ free         │  a slot is free when its status is AVAILABLE: a sent one when
///  └──────┴────────────────────┴──────────────┘  the NIC is done with it
/// ```
pub(super) struct TransmitRing {
    slots: Slots,
    next: u32,
    unsent: u32,
    queued: u32,
}

impl TransmitRing {
    /// Queues a frame. False when the ring is full or the frame too long.
    #[inline]
    pub(super) fn push(&mut self, bytes: &[u8], offload: &Offload) -> bool {
        let slot = self.next;
        // Pairs with the kernel's barrier when it is done with a slot.
        let free = self.slots.status(slot).load(Ordering::Acquire) == libc::TP_STATUS_AVAILABLE;
        if !free || bytes.len() > TRANSMIT_LEN_MAX {
            return false;
        }
        #[allow(clippy::cast_possible_truncation, reason = "at most SLOT_LEN")]
        let len = (bytes.len() + vnet::LEN) as u32;
        self.slots.write(
            slot,
            std::mem::offset_of!(libc::tpacket2_hdr, tp_len),
            &len.to_ne_bytes(),
        );
        self.slots.write(
            slot,
            HEADER_LEN as usize,
            &vnet::encode(offload, bytes.len()),
        );
        self.slots
            .write(slot, HEADER_LEN as usize + vnet::LEN, bytes);
        // Pairs with the kernel's load before it reads.
        self.slots
            .status(slot)
            .store(libc::TP_STATUS_SEND_REQUEST, Ordering::Release);
        self.next = self.slots.after(slot);
        self.queued += 1;
        true
    }

    /// Frames that wait to be sent.
    #[inline]
    pub(super) fn queued(&self) -> u32 {
        self.queued
    }

    /// Looks at what the kernel has done with what was queued; to be called after each sendto(2).
    #[inline]
    pub(super) fn settle(&mut self) -> Settled {
        while self.queued > 0 {
            match self.slots.status(self.unsent).load(Ordering::Acquire) {
                libc::TP_STATUS_SEND_REQUEST => return Settled::Waiting,
                libc::TP_STATUS_WRONG_FORMAT => {
                    self.remove_malformed();
                    return Settled::Malformed;
                }
                _ => {
                    self.unsent = self.slots.after(self.unsent);
                    self.queued -= 1;
                }
            }
        }
        Settled::Sent
    }

    /// The kernel stays at the slot that it has refused and sends nothing before there is a frame that it likes: the
    /// ones behind it move up.
    #[cold]
    fn remove_malformed(&mut self) {
        let mut hole = self.unsent;
        for _ in 1..self.queued {
            let behind = self.slots.after(hole);
            let len = self.slots.header(behind).tp_len;
            self.slots
                .copy(behind, hole, HEADER_LEN as usize - 4 + len as usize);
            self.slots
                .status(hole)
                .store(libc::TP_STATUS_SEND_REQUEST, Ordering::Release);
            hole = behind;
        }
        self.slots
            .status(hole)
            .store(libc::TP_STATUS_AVAILABLE, Ordering::Release);
        self.next = self.slots.before(self.next);
        self.queued -= 1;
    }

    /// Forgets what was queued and returns how many frames that were.
    pub(super) fn abandon(&mut self) -> u32 {
        let abandoned = self.queued;
        while self.queued > 0 {
            self.next = self.slots.before(self.next);
            self.slots
                .status(self.next)
                .store(libc::TP_STATUS_AVAILABLE, Ordering::Release);
            self.queued -= 1;
        }
        abandoned
    }
}
