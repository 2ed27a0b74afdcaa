//! Memory that is a file's: it outlives the process, and the next one finds in it what this one left.
//!
//! The file lies on tmpfs or hugetlbfs, that is in memory; a disk's would have its pages written again and again.
#![allow(
    unsafe_code,
    reason = "the memory comes from mmap, and what files and clocks tell from system calls"
)]

use crate::memory::{Pages, Placement, advise, place_on, transparent_bytes};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;

/// The kind of file system that a file is on, by the size of its pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileSystem {
    /// Ordinary pages, or transparent huge ones where it is mounted so.
    Tmpfs,
    /// Huge pages of this many bytes that were set aside.
    Hugetlbfs(u64),
    /// On a disk, in the network, or elsewhere.
    Other,
}

impl FileSystem {
    /// That of an open file.
    pub(crate) fn of(file: &File) -> io::Result<FileSystem> {
        let mut told = MaybeUninit::<libc::statfs>::uninit();
        // SAFETY: the descriptor is open, and there is room for what the kernel tells.
        if unsafe { libc::fstatfs(file.as_raw_fd(), told.as_mut_ptr()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call above has succeeded, which fills it.
        let told = unsafe { told.assume_init() };
        let page = u64::try_from(told.f_bsize).map_err(io::Error::other)?;
        Ok(match told.f_type {
            libc::TMPFS_MAGIC => FileSystem::Tmpfs,
            libc::HUGETLBFS_MAGIC => FileSystem::Hugetlbfs(page),
            _ => FileSystem::Other,
        })
    }

    /// What a file's length must be a multiple of, bytes.
    pub(crate) fn page(self) -> u64 {
        match self {
            FileSystem::Hugetlbfs(page) => page,
            FileSystem::Tmpfs | FileSystem::Other => 4096,
        }
    }
}

/// A whole file as memory that others may share.
pub(crate) struct SharedMemory {
    start: NonNull<libc::c_void>,
    len: usize,
    system: FileSystem,
    /// Bytes in transparent huge pages.
    transparent: u64,
    placement: Placement,
}

// SAFETY: it is a range of addresses; who reads and writes there does so through atomics alone.
unsafe impl Send for SharedMemory {}
// SAFETY: as above.
unsafe impl Sync for SharedMemory {}

impl SharedMemory {
    /// Maps the first `len` bytes of a file that is as long, its pages taken and present, those that are not there yet on
    /// the NUMA nodes named.
    ///
    /// # Errors
    /// Among others `StorageFull`, before anything is written, where the file system has no room.
    pub(crate) fn map(file: &File, len: u64, nodes: &[u16]) -> io::Result<SharedMemory> {
        let system = FileSystem::of(file)?;
        let (bytes, offset) = (
            usize::try_from(len).map_err(io::Error::other)?,
            libc::off_t::try_from(len).map_err(io::Error::other)?,
        );
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory in use.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start).ok_or(io::ErrorKind::OutOfMemory)?;
        // From here on it is unmapped whatever happens.
        let mut memory = SharedMemory {
            start,
            len: bytes,
            system,
            transparent: 0,
            placement: place_on(start, bytes, nodes),
        };
        // Where the kernel has none for files, the pages are ordinary ones: it is told below.
        let _ = advise(start, bytes, libc::MADV_HUGEPAGE);
        // SAFETY: the descriptor is open; pages that the file has stay as they are.
        if unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, offset) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let before = transparent_bytes(SHARED_HUGE);
        match advise(start, bytes, libc::MADV_POPULATE_WRITE) {
            // Kernels before 5.14 do not know it: the pages come with their first use.
            Err(error) if error.raw_os_error() != Some(libc::EINVAL) => return Err(error),
            _ => {}
        }
        if let (Some(before), Some(after)) = (before, transparent_bytes(SHARED_HUGE)) {
            memory.transparent = after.saturating_sub(before).min(len);
        }
        Ok(memory)
    }

    /// Where `len` bytes from `offset` on are; `None` where the file has no such bytes.
    pub(crate) fn at(&self, offset: usize, len: usize) -> Option<NonNull<libc::c_void>> {
        let is_within = offset.checked_add(len).is_some_and(|end| end <= self.len);
        NonNull::new(self.start.as_ptr().wrapping_byte_add(offset)).filter(|_| is_within)
    }

    /// What `len` bytes of it lie in. Of transparent huge pages each part is taken to have its share.
    pub(crate) fn pages(&self, len: u64) -> Pages {
        let mut pages = Pages::default();
        match self.system {
            FileSystem::Hugetlbfs(page) if page >= 1 << 30 => pages.gigantic = len,
            FileSystem::Hugetlbfs(_) => pages.huge = len,
            FileSystem::Tmpfs | FileSystem::Other => {
                let share = u128::from(len) * u128::from(self.transparent) / self.len as u128;
                pages.transparent = u64::try_from(share).unwrap_or(len).min(len);
                pages.ordinary = len - pages.transparent;
            }
        }
        pages
    }

    /// Where it lies.
    pub(crate) fn placement(&self) -> Placement {
        self.placement
    }
}

/// What the kernel calls huge pages of tmpfs in `smaps`.
const SHARED_HUGE: &str = "ShmemPmdMapped:";

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: the range is this mapping's own, and no reference into it outlives the slabs that hold it.
        unsafe { libc::munmap(self.start.as_ptr(), self.len) };
    }
}

/// Nanoseconds on the clock that all processes of one boot share, and that [`Instant`](std::time::Instant) goes by.
pub(crate) fn monotonic_ns() -> io::Result<u64> {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: there is room for what the kernel tells.
    if unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let seconds = u64::try_from(now.tv_sec).map_err(io::Error::other)?;
    let rest = u64::try_from(now.tv_nsec).map_err(io::Error::other)?;
    Ok(seconds * 1_000_000_000 + rest)
}

/// The user that this process acts as.
pub(crate) fn user() -> u32 {
    // SAFETY: it only tells.
    unsafe { libc::geteuid() }
}
