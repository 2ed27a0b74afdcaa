//! The four rings that an AF_XDP socket shares with the kernel: one side produces, the other consumes.
//!
//! ```text
//!   fill        we ──▶ kernel   chunks to receive into          receive      kernel ──▶ we   frames
//!   transmit    we ──▶ kernel   frames to send                  completion   kernel ──▶ we   chunks that were sent
//! ```
//! Source: Linux Documentation/networking/af_xdp.rst, net/xdp/xsk_queue.h.
#![allow(unsafe_code, reason = "the rings are memory shared with the kernel")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

/// What rings carry: any bytes are a valid one.
pub(super) trait Entry: Copy {}
/// A place in the UMEM.
impl Entry for u64 {}
/// A frame in the UMEM.
impl Entry for libc::xdp_desc {}

/// A ring that we fill and the kernel empties.
pub(super) struct Producer<T: Entry> {
    ring: Ring<T>,
    /// Where the next entry goes; the kernel knows those before `submitted`.
    next: u32,
    submitted: u32,
    /// The kernel's side, when it was last looked at.
    consumed: u32,
}

/// A ring that the kernel fills and we empty.
pub(super) struct Consumer<T: Entry> {
    ring: Ring<T>,
    next: u32,
    released: u32,
    produced: u32,
}

impl<T: Entry> Producer<T> {
    /// Maps a ring of `len` entries, a power of two.
    pub(super) fn map(
        socket: BorrowedFd<'_>,
        page_offset: i64,
        offsets: &libc::xdp_ring_offset,
        len: u32,
    ) -> io::Result<Producer<T>> {
        let ring = Ring::map(socket, page_offset, offsets, len)?;
        Ok(Producer {
            ring,
            next: 0,
            submitted: 0,
            consumed: 0,
        })
    }

    /// How many entries there is room for.
    #[inline]
    pub(super) fn room(&mut self) -> u32 {
        let len = self.ring.mask + 1;
        if self.next.wrapping_sub(self.consumed) == len {
            self.consumed = self.consumer();
        }
        len - self.next.wrapping_sub(self.consumed)
    }

    /// Adds an entry, which the kernel does not see yet.
    ///
    /// # Panics
    /// Without room.
    #[inline]
    pub(super) fn push(&mut self, entry: T) {
        assert!(self.room() > 0, "a ring is asked for room first");
        self.ring.write(self.next, entry);
        self.next = self.next.wrapping_add(1);
    }

    /// Shows the kernel what was added.
    #[inline]
    pub(super) fn submit(&mut self) {
        if self.submitted != self.next {
            // Release pairs with the kernel's Acquire: entries before their number.
            self.ring.producer().store(self.next, Ordering::Release);
            self.submitted = self.next;
        }
    }

    /// Entries that the kernel has not taken yet.
    #[inline]
    pub(super) fn waiting(&self) -> u32 {
        self.next.wrapping_sub(self.consumer())
    }

    /// Whether the kernel wants to be told of entries (XDP_RING_NEED_WAKEUP).
    #[inline]
    pub(super) fn needs_wakeup(&self) -> bool {
        self.ring.flags().load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }

    fn consumer(&self) -> u32 {
        // Acquire pairs with the kernel's Release: it has read the entries before it says so.
        let consumed = self.ring.consumer().load(Ordering::Acquire);
        assert!(
            self.next.wrapping_sub(consumed) <= self.ring.mask + 1,
            "the kernel has taken more entries than there were"
        );
        consumed
    }
}

impl<T: Entry> Consumer<T> {
    /// As [`Producer::map`].
    pub(super) fn map(
        socket: BorrowedFd<'_>,
        page_offset: i64,
        offsets: &libc::xdp_ring_offset,
        len: u32,
    ) -> io::Result<Consumer<T>> {
        let ring = Ring::map(socket, page_offset, offsets, len)?;
        Ok(Consumer {
            ring,
            next: 0,
            released: 0,
            produced: 0,
        })
    }

    /// The next entry; its place stays taken until [`release`](Self::release).
    #[inline]
    pub(super) fn take(&mut self) -> Option<T> {
        if self.next == self.produced {
            // Acquire pairs with the kernel's Release: entries before their number.
            self.produced = self.ring.producer().load(Ordering::Acquire);
            if self.next == self.produced {
                return None;
            }
        }
        let entry = self.ring.read(self.next);
        self.next = self.next.wrapping_add(1);
        Some(entry)
    }

    /// Gives the places of taken entries back.
    #[inline]
    pub(super) fn release(&mut self) {
        if self.released != self.next {
            // Release pairs with the kernel's Acquire: entries are read before it writes over them.
            self.ring.consumer().store(self.next, Ordering::Release);
            self.released = self.next;
        }
    }
}

/// One ring as it is mapped.
/// ```text
/// ┌──────────┬──────────┬───────┬───────────────────────────────────┐
/// │ producer │ consumer │ flags │ entries: a power of two of them   │   each where the kernel says (XDP_MMAP_OFFSETS)
/// └──────────┴──────────┴───────┴───────────────────────────────────┘
/// ```
struct Ring<T: Entry> {
    base: NonNull<u8>,
    len: usize,
    producer: usize,
    consumer: usize,
    flags: usize,
    entries: usize,
    mask: u32,
    entry: std::marker::PhantomData<T>,
}

// SAFETY: plain memory that the process shares with the kernel; no thread is special to it, and it has one owner.
unsafe impl<T: Entry> Send for Ring<T> {}

impl<T: Entry> Ring<T> {
    fn map(
        socket: BorrowedFd<'_>,
        page_offset: i64,
        offsets: &libc::xdp_ring_offset,
        count: u32,
    ) -> io::Result<Ring<T>> {
        assert!(count.is_power_of_two());
        let [producer, consumer, flags, entries] = [
            offsets.producer,
            offsets.consumer,
            offsets.flags,
            offsets.desc,
        ]
        .map(|offset| usize::try_from(offset).expect("rings are shorter than the address space"));
        let len = entries + count as usize * size_of::<T>();
        assert!(
            [producer, consumer, flags]
                .iter()
                .all(|at| at + 4 <= len && at.is_multiple_of(4))
                && entries.is_multiple_of(align_of::<T>()),
            "the kernel's offsets are those of a ring"
        );
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping wherever the kernel likes; it takes no memory away from anyone.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                protection,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                socket.as_raw_fd(),
                page_offset,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Ring {
            base: NonNull::new(base.cast()).expect("mmap does not succeed with null"),
            len,
            producer,
            consumer,
            flags,
            entries,
            mask: count - 1,
            entry: std::marker::PhantomData,
        })
    }

    #[inline]
    fn producer(&self) -> &AtomicU32 {
        self.word(self.producer)
    }

    #[inline]
    fn consumer(&self) -> &AtomicU32 {
        self.word(self.consumer)
    }

    #[inline]
    fn flags(&self) -> &AtomicU32 {
        self.word(self.flags)
    }

    /// The word at one of the offsets that `map` has checked.
    #[inline]
    fn word(&self, at: usize) -> &AtomicU32 {
        // SAFETY: within the mapping, as `map` has asserted.
        let word = unsafe { self.base.add(at) };
        // SAFETY: aligned to 4 (the mapping to a page, the offset asserted), mapped as long as `self`, and only used as an
        // atomic, as the kernel uses it.
        unsafe { AtomicU32::from_ptr(word.as_ptr().cast()) }
    }

    /// Entry `number`, counted from the first ever.
    #[inline]
    fn entry(&self, number: u32) -> NonNull<T> {
        let at = self.entries + (number & self.mask) as usize * size_of::<T>();
        // SAFETY: `map` has mapped `mask + 1` entries from there on.
        unsafe { self.base.add(at) }.cast()
    }

    #[inline]
    fn read(&self, number: u32) -> T {
        // SAFETY: a place in the mapping, aligned (`map`), with any bytes a valid T; the kernel does not write to a place
        // between its producer's and our consumer's number.
        unsafe { self.entry(number).read() }
    }

    #[inline]
    fn write(&mut self, number: u32, entry: T) {
        // SAFETY: as in `read`; the kernel does not look at a place beyond our producer's number.
        unsafe { self.entry(number).write(entry) };
    }
}

impl<T: Entry> Drop for Ring<T> {
    fn drop(&mut self) {
        // SAFETY: base and length are those of the mapping, to which no reference is left.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}
