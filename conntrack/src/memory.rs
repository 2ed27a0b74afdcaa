//! The table's memory: anonymous pages, huge ones where there are any, taken once and zeroed by the kernel.
//!
//! ```text
//!   ┌ reserved ┬ 1 GiB pages ┬ 2 MiB pages ┬ the rest: transparent huge pages, or ordinary ones ┐
//!   └ to align ┴─ start ─────┴─────────────┴────────────────────────────────────────────────────┘
//! ```
//!
//! What lies in a [`Slab`] holds indices and no pointers, so that it may as well lie in a file that outlives the process
//! (`shared.rs`).
#![allow(
    unsafe_code,
    reason = "the memory comes from mmap, and prefetching is an instruction"
)]

use std::ops::AddAssign;

/// Bytes of memory, by the kind of pages that hold them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pages {
    /// In pages of 1 GiB that were set aside for the purpose.
    pub gigantic: u64,
    /// In pages of 2 MiB that were set aside for the purpose (`vm.nr_hugepages`).
    pub huge: u64,
    /// In pages of 2 MiB that the kernel found when asked (`madvise`), as of the start.
    pub transparent: u64,
    /// In ordinary pages: each costs its own entry of the TLB.
    pub ordinary: u64,
}

impl Pages {
    /// All of it.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.gigantic + self.huge + self.transparent + self.ordinary
    }

    /// Whether most of the memory lies in ordinary pages, though there is enough of it for huge ones to matter.
    #[must_use]
    pub fn are_poor(&self) -> bool {
        self.bytes() >= HUGE_PAGES_MATTER && self.ordinary > self.bytes() / 2
    }
}

impl AddAssign for Pages {
    fn add_assign(&mut self, other: Pages) {
        self.gigantic += other.gigantic;
        self.huge += other.huge;
        self.transparent += other.transparent;
        self.ordinary += other.ordinary;
    }
}

/// From here on ordinary pages are worth a warning: the second-level TLB of today's CPUs holds about 8 MiB of them.
const HUGE_PAGES_MATTER: u64 = 8 << 20;

/// Whether memory lies where it was asked to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Placement {
    /// No NUMA nodes were named: it lies where the kernel saw fit.
    #[default]
    Anywhere,
    /// On the nodes named, as far as they had room.
    OnNodes,
    /// The system does not let itself be asked (`mbind`), so it lies anywhere.
    Refused,
}

/// Values for which all bytes are valid, whatever they are (a file may hold any), that need no drop, and that are changed
/// through shared references only by their own means.
///
/// # Safety
/// All of that is true of the type.
pub(crate) unsafe trait Zeroed: Default + Send + Sync + 'static {}

// SAFETY: arrays of atomic integers.
unsafe impl Zeroed for crate::index::Bucket {}
// SAFETY: atomic integers, and `Family::Cell`, which only `V4` and `V6` choose: atomic integers too.
unsafe impl<F: crate::Family> Zeroed for crate::entry::Entry<F> {}
// SAFETY: two atomic integers.
unsafe impl Zeroed for crate::wheel::Link {}
// SAFETY: an array of atomic integers.
unsafe impl Zeroed for crate::refused::Line {}
// SAFETY: an atomic integer.
unsafe impl Zeroed for crate::sync::AtomicU64 {}

#[cfg(loom)]
pub(crate) use checked::Slab;
#[cfg(not(loom))]
pub(crate) use mapped::{Slab, advise, place_on, transparent_bytes};

#[cfg(not(loom))]
mod mapped {
    use super::{Pages, Placement, Zeroed};
    use crate::shared::SharedMemory;
    use std::io;
    use std::ops::Deref;
    use std::ptr::NonNull;
    use std::sync::Arc;

    const GIGANTIC_PAGE: usize = 1 << 30;
    const HUGE_PAGE: usize = 2 << 20;
    /// NUMA nodes that a mask has room for, as in the kernel.
    const NODES: usize = 1024;

    /// A fixed number of values in memory of its own, or in its part of a file's.
    pub(crate) struct Slab<T> {
        start: NonNull<T>,
        count: usize,
        _memory: Memory,
        pages: Pages,
        placement: Placement,
    }

    /// What a slab keeps mapped.
    #[allow(dead_code, reason = "held for as long as the slab is")]
    enum Memory {
        Own(Mapping),
        Shared(Arc<SharedMemory>),
    }

    // SAFETY: a slab owns its memory, as a Box<[T]> would, or its part of memory that is shared by those who know how.
    unsafe impl<T: Zeroed> Send for Slab<T> {}
    // SAFETY: it gives out shared references only, and `T` is Sync.
    unsafe impl<T: Zeroed> Sync for Slab<T> {}

    impl<T: Zeroed> Slab<T> {
        /// `count` zeroed values on the NUMA nodes named, or anywhere where none is. Their pages are present already, so
        /// that using them never faults.
        pub(crate) fn new(count: usize, nodes: &[u16]) -> io::Result<Self> {
            let wanted = Self::len_of(count)?;
            let taken = take(wanted)?;
            let placement = place_on(taken.start, wanted, nodes);
            let before = transparent_bytes("AnonHugePages:");
            match advise(taken.start, wanted, libc::MADV_POPULATE_WRITE) {
                // Kernels before 5.14 do not know it: the pages come with their first use.
                Err(error) if error.raw_os_error() != Some(libc::EINVAL) => return Err(error),
                _ => {}
            }
            let ordinary = (wanted - taken.gigantic - taken.huge) as u64;
            let transparent = match (before, transparent_bytes("AnonHugePages:")) {
                (Some(before), Some(after)) => after.saturating_sub(before).min(ordinary),
                _ => 0,
            };
            Ok(Slab {
                start: taken.start.cast(),
                count,
                _memory: Memory::Own(taken.mapping),
                pages: Pages {
                    gigantic: taken.gigantic as u64,
                    huge: taken.huge as u64,
                    transparent,
                    ordinary: ordinary - transparent,
                },
                placement,
            })
        }

        /// `count` zeroed values, whose pages come as they are used. Those set aside are left to others.
        pub(crate) fn untouched(count: usize) -> io::Result<Self> {
            let taken = carve(Self::len_of(count)?, 0, 0)?;
            Ok(Slab {
                start: taken.start.cast(),
                count,
                _memory: Memory::Own(taken.mapping),
                pages: Pages::default(),
                placement: Placement::Anywhere,
            })
        }

        /// The `count` values that begin at byte `offset` of a file's memory, whatever they are.
        pub(crate) fn within(
            shared: &Arc<SharedMemory>,
            offset: usize,
            count: usize,
        ) -> io::Result<Self> {
            let len = Self::len_of(count)?;
            let start = shared.at(offset, len).ok_or(io::ErrorKind::InvalidInput)?;
            assert!(start.addr().get().is_multiple_of(align_of::<T>()));
            Ok(Slab {
                start: start.cast(),
                count,
                _memory: Memory::Shared(Arc::clone(shared)),
                pages: shared.pages(len as u64),
                placement: shared.placement(),
            })
        }

        fn len_of(count: usize) -> io::Result<usize> {
            const { assert!(align_of::<T>() <= 4096 && !std::mem::needs_drop::<T>()) };
            let len = count
                .checked_mul(size_of::<T>())
                .filter(|&len| len > 0 && len <= isize::MAX as usize - GIGANTIC_PAGE);
            Ok(len.ok_or(io::ErrorKind::InvalidInput)?)
        }

        /// What they lie in, as of the start.
        pub(crate) fn pages(&self) -> Pages {
            self.pages
        }

        /// Where they lie.
        pub(crate) fn placement(&self) -> Placement {
            self.placement
        }
    }

    impl<T> Deref for Slab<T> {
        type Target = [T];

        #[inline]
        fn deref(&self) -> &[T] {
            // SAFETY: `start` begins at least `count * size_of::<T>()` bytes of a live mapping, aligned for `T`;
            // `Zeroed` makes any bytes valid values, and nobody holds a unique reference.
            unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.count) }
        }
    }

    /// Address space of our own, and what was put there.
    struct Mapping {
        address: NonNull<libc::c_void>,
        len: usize,
    }

    impl Drop for Mapping {
        fn drop(&mut self) {
            // SAFETY: the range is this mapping's own, and no reference into it outlives the slab that has it.
            unsafe { libc::munmap(self.address.as_ptr(), self.len) };
        }
    }

    /// Memory, of which the first bytes are in pages of 1 GiB, the next ones in pages of 2 MiB, and the rest is not.
    struct Taken {
        mapping: Mapping,
        start: NonNull<libc::c_void>,
        gigantic: usize,
        huge: usize,
    }

    /// Memory of `wanted` bytes in the largest pages there are. No page that was set aside is taken for less than its
    /// size: the rest lies in smaller ones.
    fn take(wanted: usize) -> io::Result<Taken> {
        let share = |len: usize, page: usize| match len / page {
            0 => 0,
            pages => pages.min(set_aside(page)) * page,
        };
        let gigantic = share(wanted, GIGANTIC_PAGE);
        let huge = share(wanted - gigantic, HUGE_PAGE);
        match carve(wanted, gigantic, huge) {
            // Somebody else was faster, or a limit of our own holds.
            Err(_) if gigantic + huge > 0 => carve(wanted, 0, 0),
            taken => taken,
        }
    }

    /// Pages of this size that are set aside and free.
    fn set_aside(page: usize) -> usize {
        let read = |name| {
            let folder = "/sys/kernel/mm/hugepages/hugepages";
            let text = std::fs::read_to_string(format!("{folder}-{}kB/{name}", page >> 10)).ok()?;
            text.trim().parse::<usize>().ok()
        };
        let free = read("free_hugepages").unwrap_or(0);
        free.saturating_sub(read("resv_hugepages").unwrap_or(0))
    }

    fn carve(wanted: usize, gigantic: usize, huge: usize) -> io::Result<Taken> {
        let align = match wanted {
            _ if gigantic > 0 => GIGANTIC_PAGE,
            HUGE_PAGE.. => HUGE_PAGE,
            _ => 1,
        };
        let len = wanted + align;
        let address = map(
            std::ptr::null_mut(),
            len,
            libc::PROT_NONE,
            libc::MAP_NORESERVE,
        )?;
        // Not to be unmapped on the way out by an error: a mapping that failed may have left a hole, and another thread
        // may have something there by now. It is address space alone.
        let mapping = std::mem::ManuallyDrop::new(Mapping { address, len });
        let first = address.as_ptr().addr();
        let start = first.next_multiple_of(align) - first;
        let at = |offset: usize| address.as_ptr().wrapping_byte_add(start + offset);
        let own = libc::PROT_READ | libc::PROT_WRITE;
        let rest = gigantic + huge;
        for (offset, len, flags) in [
            (0, gigantic, libc::MAP_HUGETLB | libc::MAP_HUGE_1GB),
            (gigantic, huge, libc::MAP_HUGETLB | libc::MAP_HUGE_2MB),
            (rest, wanted - rest, 0),
        ] {
            if len > 0 {
                map(at(offset), len, own, libc::MAP_FIXED | flags)?;
            }
        }
        if wanted - rest >= HUGE_PAGE {
            let rest_start = NonNull::new(at(rest)).ok_or(io::ErrorKind::OutOfMemory)?;
            // Where the kernel has none, the pages are ordinary ones: `Slab::new` finds out.
            let _ = advise(rest_start, wanted - rest, libc::MADV_HUGEPAGE);
        }
        Ok(Taken {
            start: NonNull::new(at(0)).ok_or(io::ErrorKind::OutOfMemory)?,
            mapping: std::mem::ManuallyDrop::into_inner(mapping),
            gigantic,
            huge,
        })
    }

    fn map(
        at: *mut libc::c_void,
        len: usize,
        protection: libc::c_int,
        flags: libc::c_int,
    ) -> io::Result<NonNull<libc::c_void>> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags;
        // SAFETY: a new private mapping, at an address of the kernel's choice or (MAP_FIXED) within a reservation of
        // ours that nobody uses yet, touches no memory in use.
        let address = unsafe { libc::mmap(at, len, protection, flags, -1, 0) };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(address).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    pub(crate) fn advise(
        address: NonNull<libc::c_void>,
        len: usize,
        advice: libc::c_int,
    ) -> io::Result<()> {
        // SAFETY: the range is a mapping of ours; neither advice given here changes what it holds.
        match unsafe { libc::madvise(address.as_ptr(), len, advice) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Lets pages that are not present yet come from these nodes: one is preferred, of several each has its share.
    pub(crate) fn place_on(address: NonNull<libc::c_void>, len: usize, nodes: &[u16]) -> Placement {
        if nodes.is_empty() {
            return Placement::Anywhere;
        }
        const WORD: usize = libc::c_ulong::BITS as usize;
        let mut mask: [libc::c_ulong; NODES / WORD] = [0; _];
        for node in nodes.iter().map(|&node| usize::from(node)) {
            let Some(word) = mask.get_mut(node / WORD) else {
                return Placement::Refused;
            };
            *word |= 1 << (node % WORD);
        }
        let policy = if nodes.len() == 1 {
            libc::MPOL_PREFERRED
        } else {
            libc::MPOL_INTERLEAVE
        };
        // SAFETY: the range is a mapping of ours, the mask is as long as it is said to be (the kernel counts one more),
        // and a policy changes nothing that the memory holds.
        let placed = unsafe {
            libc::syscall(
                libc::SYS_mbind,
                address.as_ptr(),
                len,
                policy,
                mask.as_ptr(),
                NODES + 1,
                0,
            )
        };
        if placed == 0 {
            Placement::OnNodes
        } else {
            Placement::Refused
        }
    }

    /// The memory of this process that is in transparent huge pages of a kind.
    pub(crate) fn transparent_bytes(kind: &str) -> Option<u64> {
        let text = std::fs::read_to_string("/proc/self/smaps_rollup").ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(kind))?;
        let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
        Some(kib << 10)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn memory_is_reserved_where_pages_can_be_aligned_and_can_be_written_to_the_last_byte() {
            for wanted in [1, 4096, HUGE_PAGE - 1, HUGE_PAGE, 5 * HUGE_PAGE + 4097] {
                let taken = take(wanted).unwrap();
                let start = taken.start.as_ptr().addr();
                assert!(wanted < HUGE_PAGE || start.is_multiple_of(HUGE_PAGE));
                let end = taken.mapping.address.as_ptr().addr() + taken.mapping.len;
                assert!(start + wanted <= end);
                assert!(taken.gigantic + taken.huge <= wanted);
                advise(taken.start, wanted, libc::MADV_POPULATE_WRITE).unwrap();
            }
        }

        #[test]
        fn pages_that_are_not_there_are_an_error_and_no_crash() {
            // More than any machine has set aside.
            let pages = 1 << 40;
            assert!(carve(pages, 0, pages).is_err());
            assert!(carve(pages, pages, 0).is_err());
        }

        #[test]
        fn a_node_that_exists_takes_memory_and_one_that_does_not_is_told() {
            let placed = |nodes: &[u16]| {
                let slab = Slab::<crate::wheel::Link>::new(1000, nodes).unwrap();
                slab.placement()
            };
            assert_eq!(placed(&[]), Placement::Anywhere);
            assert_eq!(placed(&[0]), Placement::OnNodes);
            assert_eq!(placed(&[1023]), Placement::Refused);
            assert_eq!(placed(&[1024]), Placement::Refused);
        }
    }
}

#[cfg(loom)]
mod checked {
    use super::{Pages, Placement, Zeroed};
    use std::io;
    use std::ops::Deref;

    /// As the mapped one; loom's atomics are no plain memory.
    pub(crate) struct Slab<T>(Box<[T]>);

    impl<T: Zeroed> Slab<T> {
        pub(crate) fn new(count: usize, _nodes: &[u16]) -> io::Result<Self> {
            Ok(Slab((0..count).map(|_| T::default()).collect()))
        }

        pub(crate) fn untouched(count: usize) -> io::Result<Self> {
            Self::new(count, &[])
        }

        pub(crate) fn pages(&self) -> Pages {
            Pages {
                ordinary: size_of_val(&*self.0) as u64,
                ..Pages::default()
            }
        }

        pub(crate) fn placement(&self) -> Placement {
            Placement::Anywhere
        }
    }

    impl<T> Deref for Slab<T> {
        type Target = [T];

        fn deref(&self) -> &[T] {
            &self.0
        }
    }
}

/// Asks for the lines of a value before they are needed.
#[inline]
pub(crate) fn prefetch<T>(value: &T) {
    let start = std::ptr::from_ref(value).cast::<i8>();
    prefetch_line(start);
    if size_of::<T>() > 64 {
        prefetch_line(start.wrapping_add(64));
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn prefetch_line(address: *const i8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: SSE is part of x86_64, and a prefetch reads nothing, whatever the address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(address) };
}

/// Which of the eight words of a line have `upper` as their upper 16 bits, a bit each; as of some moment, not the same one
/// for all.
#[cfg(all(target_arch = "x86_64", not(loom)))]
#[inline]
pub(crate) fn upper_words(line: &crate::index::Bucket, upper: u16) -> u8 {
    use std::arch::asm;
    use std::arch::x86_64::__m128i;
    const { assert!(size_of::<crate::index::Bucket>() == 64) };
    let (a, b, c, d): (__m128i, __m128i, __m128i, __m128i);
    // SAFETY: reads the 64 bytes of a line, which is aligned to 64. Others store to them meanwhile, by atomics, so it must
    // not be a load of the language; for the CPU it is one like any other.
    unsafe {
        asm!(
            "movdqa {a}, [{line}]",
            "movdqa {b}, [{line} + 16]",
            "movdqa {c}, [{line} + 32]",
            "movdqa {d}, [{line} + 48]",
            line = in(reg) std::ptr::from_ref(line),
            a = out(xmm_reg) a,
            b = out(xmm_reg) b,
            c = out(xmm_reg) c,
            d = out(xmm_reg) d,
            options(readonly, nostack, preserves_flags),
        );
    }
    // SAFETY: SSE2 is part of x86_64.
    unsafe { words_with(upper, [a, b, c, d]) }
}

/// Which of the eight words in four registers have `upper` as their upper 16 bits.
#[cfg(all(target_arch = "x86_64", not(loom)))]
#[inline]
#[target_feature(enable = "sse2")]
fn words_with(upper: u16, [a, b, c, d]: [std::arch::x86_64::__m128i; 4]) -> u8 {
    use std::arch::x86_64::{
        __m128i, _mm_castps_si128, _mm_castsi128_ps, _mm_cmpeq_epi16, _mm_movemask_epi8,
        _mm_packs_epi16, _mm_packs_epi32, _mm_set1_epi16, _mm_setzero_si128, _mm_shuffle_ps,
        _mm_srai_epi32,
    };
    let upper_halves = |low: __m128i, high: __m128i| {
        let (low, high) = (_mm_castsi128_ps(low), _mm_castsi128_ps(high));
        _mm_srai_epi32::<16>(_mm_castps_si128(_mm_shuffle_ps::<0b11_01_11_01>(low, high)))
    };
    let words = _mm_packs_epi32(upper_halves(a, b), upper_halves(c, d));
    let same = _mm_cmpeq_epi16(words, _mm_set1_epi16(upper.cast_signed()));
    let found = _mm_movemask_epi8(_mm_packs_epi16(same, _mm_setzero_si128()));
    found.to_le_bytes()[0]
}

#[cfg(target_arch = "aarch64")]
#[inline]
fn prefetch_line(address: *const i8) {
    // SAFETY: a prefetch reads nothing, whatever the address.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{0}]", in(reg) address, options(nostack, preserves_flags));
    };
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
#[inline]
fn prefetch_line(_address: *const i8) {}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::sync::Ordering::Relaxed;
    use crate::wheel::Link;

    #[test]
    fn a_slab_begins_zeroed_and_holds_what_is_stored() {
        for count in [1, 5000, 600_000, 3 << 20] {
            let slab = Slab::<Link>::new(count, &[]).unwrap();
            assert_eq!(slab.len(), count);
            let bytes = (count * size_of::<Link>()) as u64;
            assert_eq!(slab.pages().bytes(), bytes, "no page is taken for less");
            assert_eq!(slab[count - 1].next.load(Relaxed), 0);
            slab[count - 1].next.store(7, Relaxed);
            assert_eq!(slab[count - 1].next.load(Relaxed), 7);
            prefetch(&slab[0]);
        }
    }

    #[test]
    fn a_slab_of_nothing_or_of_too_much_is_an_error() {
        assert!(Slab::<Link>::new(0, &[]).is_err());
        assert!(Slab::<Link>::new(usize::MAX / 4, &[]).is_err());
    }

    #[test]
    fn pages_are_poor_where_there_is_much_and_most_is_ordinary() {
        let pages = |transparent: u64, ordinary: u64| Pages {
            transparent: transparent << 20,
            ordinary: ordinary << 20,
            ..Pages::default()
        };
        let mut sum = pages(1, 2);
        sum += Pages {
            gigantic: 4,
            huge: 8,
            ..Pages::default()
        };
        assert_eq!(sum.bytes(), (3 << 20) + 12);
        let poor = [(0, 8), (7, 8), (8, 7), (8, 8), (0, 7)].map(|(t, o)| pages(t, o).are_poor());
        assert_eq!(poor, [true, true, false, false, false]);
    }
}
