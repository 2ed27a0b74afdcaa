//! The memory that frames of a socket are in (UMEM): chunks of one size, each of them somebody's.
#![allow(unsafe_code, reason = "frames are windows into one mapping")]

use crate::frame::{Frame, Offload};
use crate::port::PortId;
use crate::rewrite::tunnel::LARGEST_OVERHEAD;
use std::io;
use std::ptr::NonNull;

/// Bytes in front of each frame that the kernel leaves free (XDP_PACKET_HEADROOM): enough for any tunnel.
pub(super) const HEADROOM: u32 = 256;
const _: () = assert!(HEADROOM as usize >= LARGEST_OVERHEAD);

/// Whose a chunk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    /// Nobody's: it is in the list of free ones.
    Free,
    /// In a ring, or on its way there.
    Kernel,
    /// The worker has it as a frame.
    Worker,
    /// The same, and the kernel's stack has the frame, too.
    WorkersCopy,
}

/// See the module's text.
/// ```text
///  chunk 0                                    chunk 1
/// ┌──────────┬───────────────────────────────┬──────────┬──────────
/// │ HEADROOM │ at most frame_len_max         │ HEADROOM │ …
/// └──────────┴───────────────────────────────┴──────────┴──────────
/// ◀────────────── chunk_len ────────────────▶
/// ```
pub(super) struct Umem {
    port: PortId,
    base: NonNull<u8>,
    chunk_len: u32,
    owners: Box<[Owner]>,
    /// Its room is reserved once, for all chunks.
    free: Vec<u32>,
}

// SAFETY: it is the only owner of its mapping, and whatever touches that needs `&mut self` or a frame.
unsafe impl Send for Umem {}

impl Umem {
    /// `count` chunks of `chunk_len` bytes, all free.
    pub(super) fn new(port: PortId, count: u32, chunk_len: u32) -> io::Result<Umem> {
        assert!((HEADROOM + 1..=1 << 16).contains(&chunk_len) && count > 0);
        let len = count as usize * chunk_len as usize;
        // SAFETY: a new mapping wherever the kernel likes; it takes no memory away from anyone.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Umem {
            port,
            base: NonNull::new(base.cast()).expect("mmap does not succeed with null"),
            chunk_len,
            owners: vec![Owner::Free; count as usize].into_boxed_slice(),
            free: (0..count).rev().collect(),
        })
    }

    /// For the socket that is to have it.
    pub(super) fn registration(&self) -> libc::xdp_umem_reg {
        libc::xdp_umem_reg {
            addr: self.base.as_ptr() as u64,
            len: self.len() as u64,
            chunk_size: self.chunk_len,
            headroom: 0,
            flags: 0,
            tx_metadata_len: 0,
        }
    }

    /// Bytes of all of it.
    pub(super) fn len(&self) -> usize {
        self.owners.len() * self.chunk_len as usize
    }

    /// The longest frame that a chunk has room for, bytes.
    #[inline]
    pub(super) fn frame_len_max(&self) -> usize {
        (self.chunk_len - HEADROOM) as usize
    }

    /// Takes a free chunk for the kernel to receive into; the address is what its rings want.
    #[inline]
    pub(super) fn take(&mut self) -> Option<u64> {
        let chunk = self.free.pop()?;
        self.owners[chunk as usize] = Owner::Kernel;
        Some(u64::from(chunk) * u64::from(self.chunk_len))
    }

    /// Takes a free chunk for a frame of `len` bytes that `write` writes; it returns how many it has written. The
    /// descriptor is for the transmit ring. `None` without a free chunk, or when nothing was written.
    #[inline]
    pub(super) fn compose(
        &mut self,
        write: impl FnOnce(&mut [u8]) -> usize,
    ) -> Option<libc::xdp_desc> {
        let address = self.take()?;
        let chunk = self.chunk_of(address);
        // SAFETY: behind the headroom of a chunk that exists.
        let start = unsafe { self.chunk(chunk).add(HEADROOM as usize) };
        // SAFETY: up to the end of the chunk, which was free: neither the kernel nor a frame uses it, and nobody else can
        // take it while `self` is borrowed.
        let room = unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), self.frame_len_max()) };
        let len = write(room).min(self.frame_len_max());
        if len == 0 {
            self.put_back(chunk);
            return None;
        }
        Some(libc::xdp_desc {
            addr: address + u64::from(HEADROOM),
            len: short(len),
            options: 0,
        })
    }

    /// The frame that the kernel has put there.
    ///
    /// # Panics
    /// When the kernel had no such chunk.
    #[inline]
    pub(super) fn lend(&mut self, descriptor: &libc::xdp_desc) -> Frame {
        self.lend_as(descriptor, Owner::Worker)
    }

    /// A frame that [`compose`](Self::compose) wrote, of which the kernel's stack has the original.
    #[inline]
    pub(super) fn lend_copy(&mut self, descriptor: &libc::xdp_desc) -> Frame {
        self.lend_as(descriptor, Owner::WorkersCopy)
    }

    #[inline]
    fn lend_as(&mut self, descriptor: &libc::xdp_desc, owner: Owner) -> Frame {
        let chunk = self.chunk_of(descriptor.addr);
        let start = descriptor.addr % u64::from(self.chunk_len);
        #[allow(
            clippy::cast_possible_truncation,
            reason = "below chunk_len, 64 KiB at most"
        )]
        let start = start as u16;
        let before = std::mem::replace(&mut self.owners[chunk as usize], owner);
        assert!(
            before == Owner::Kernel
                && u32::from(start)
                    .checked_add(descriptor.len)
                    .is_some_and(|end| end <= self.chunk_len),
            "the kernel put {} bytes at {} of chunk {chunk}, which was {before:?}'s",
            descriptor.len,
            start
        );
        let (base, capacity) = (self.chunk(chunk), self.chunk_len);
        // SAFETY: the chunk lies within the mapping, which stays until every frame is back (see `drop`). It was the kernel's,
        // which has given it up with the descriptor, so that no frame is a window into it; start and length are asserted.
        unsafe {
            Frame::from_raw(
                base,
                capacity,
                start,
                descriptor.len,
                chunk,
                self.port,
                Offload::NONE,
            )
        }
    }

    /// Takes a frame back.
    ///
    /// # Panics
    /// When the frame is not one of these.
    #[inline]
    pub(super) fn give_back(&mut self, frame: Frame) {
        let (chunk, _) = self.check(&frame);
        self.put_back(chunk);
    }

    /// Whether the kernel's stack has a frame, too.
    ///
    /// # Panics
    /// When the frame is not one of these.
    #[inline]
    pub(super) fn is_copy(&self, frame: &Frame) -> bool {
        self.check(frame).1 == Owner::WorkersCopy
    }

    /// Takes a frame back for the transmit ring, without a copy.
    ///
    /// # Panics
    /// When the frame is not one of these.
    #[inline]
    pub(super) fn send(&mut self, frame: Frame) -> libc::xdp_desc {
        let (chunk, _) = self.check(&frame);
        self.owners[chunk as usize] = Owner::Kernel;
        libc::xdp_desc {
            addr: u64::from(chunk) * u64::from(self.chunk_len) + frame.headroom() as u64,
            len: short(frame.bytes().len()),
            options: 0,
        }
    }

    /// Takes back what was sent from `address`.
    ///
    /// # Panics
    /// When the kernel had no such chunk.
    #[inline]
    pub(super) fn sent(&mut self, address: u64) {
        let chunk = self.chunk_of(address);
        assert!(
            self.owners[chunk as usize] == Owner::Kernel,
            "the kernel says that it has sent chunk {chunk}, which it did not have"
        );
        self.put_back(chunk);
    }

    #[inline]
    fn put_back(&mut self, chunk: u32) {
        self.owners[chunk as usize] = Owner::Free;
        self.free.push(chunk);
    }

    #[inline]
    fn check(&self, frame: &Frame) -> (u32, Owner) {
        let chunk = frame.token();
        let owner = self.owners.get(chunk as usize).copied();
        match owner {
            Some(owner @ (Owner::Worker | Owner::WorkersCopy))
                if frame.is_window_of(self.chunk(chunk)) =>
            {
                (chunk, owner)
            }
            _ => panic!(
                "chunk {chunk} of {:?} is not lent by {:?}",
                frame.port, self.port
            ),
        }
    }

    /// The chunk that an address is in.
    #[inline]
    fn chunk_of(&self, address: u64) -> u32 {
        let chunk = address / u64::from(self.chunk_len);
        assert!(
            chunk < self.owners.len() as u64,
            "the kernel names address {address}"
        );
        #[allow(clippy::cast_possible_truncation, reason = "below their number, a u32")]
        let chunk = chunk as u32;
        chunk
    }

    /// The first byte of a chunk that exists.
    #[inline]
    fn chunk(&self, chunk: u32) -> NonNull<u8> {
        debug_assert!((chunk as usize) < self.owners.len());
        // SAFETY: every caller has looked `chunk` up in `owners`, which has one element for each chunk.
        unsafe { self.base.add(chunk as usize * self.chunk_len as usize) }
    }
}

#[inline]
#[allow(clippy::cast_possible_truncation, reason = "at most chunk_len, a u32")]
fn short(len: usize) -> u32 {
    len as u32
}

impl Drop for Umem {
    fn drop(&mut self) {
        // Frames carry no lifetime: better to leak the memory than to leave a frame dangling. The kernel has its own
        // reference to the pages.
        let lent = |owner: &Owner| matches!(owner, Owner::Worker | Owner::WorkersCopy);
        if !self.owners.iter().any(lent) {
            // SAFETY: base and length are those of the mapping, and no frame looks into it any more.
            unsafe { libc::munmap(self.base.as_ptr().cast(), self.len()) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn umem(count: u32) -> Umem {
        Umem::new(PortId(3), count, 2048).unwrap()
    }

    fn received(umem: &mut Umem, len: u32) -> Frame {
        let addr = umem.take().unwrap() + u64::from(HEADROOM);
        umem.lend(&libc::xdp_desc {
            addr,
            len,
            options: 0,
        })
    }

    #[test]
    fn a_frame_is_sent_from_where_its_headers_begin() {
        let mut umem = umem(2);
        let mut frame = received(&mut umem, 60);
        assert_eq!((frame.headroom(), frame.bytes().len()), (256, 60));
        assert!(frame.prepend(24));
        let sent = umem.send(frame);
        assert_eq!((sent.addr % 2048, sent.len), (256 - 24, 84));
        umem.sent(sent.addr);
        assert!(umem.take().is_some() && umem.take().is_some() && umem.take().is_none());
    }

    #[test]
    fn without_a_free_chunk_nothing_is_composed() {
        let mut umem = umem(1);
        let frame = received(&mut umem, 60);
        assert!(umem.compose(|_| 60).is_none());
        assert!(!umem.is_copy(&frame), "the kernel's stack has not seen it");
        umem.give_back(frame);
        let composed = umem.compose(|room| room.len()).unwrap();
        assert_eq!(composed.len, 2048 - HEADROOM);
        let copy = umem.lend_copy(&composed);
        assert!(umem.is_copy(&copy), "the kernel's stack has it");
        umem.give_back(copy);
        assert!(umem.compose(|_| 0).is_none());
        assert!(umem.take().is_some(), "what was not written is free again");
    }

    #[test]
    #[should_panic(expected = "is not lent by")]
    fn a_foreign_frame_is_refused() {
        let mut other = umem(1);
        let frame = received(&mut other, 60);
        umem(1).give_back(frame);
    }

    #[test]
    #[should_panic(expected = "which it did not have")]
    fn what_the_kernel_did_not_have_it_cannot_have_sent() {
        umem(1).sent(0);
    }
}
