//! The table's memory: anonymous pages, huge ones where there are any, taken once and zeroed by the kernel.
//!
//! What lies in a [`Slab`] holds indices and no pointers, so that it could as well lie in a shared memory file.
#![allow(
    unsafe_code,
    reason = "the memory comes from mmap, and prefetching is an instruction"
)]

/// What kind of pages hold the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// Huge pages set aside for the purpose (`vm.nr_hugepages`).
    Huge,
    /// Huge pages where the kernel finds some (`madvise`).
    Transparent,
    /// Ordinary pages.
    Ordinary,
}

/// Values for which all-zero bytes are valid, that need no drop, and that are changed through shared references only
/// by their own means.
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

#[cfg(loom)]
pub(crate) use checked::Slab;
#[cfg(not(loom))]
pub(crate) use mapped::Slab;

#[cfg(not(loom))]
mod mapped {
    use super::{Pages, Zeroed};
    use std::io;
    use std::ops::Deref;
    use std::ptr::NonNull;

    const HUGE_PAGE: usize = 2 << 20;

    /// A fixed number of values in memory of its own.
    pub(crate) struct Slab<T> {
        start: NonNull<T>,
        count: usize,
        len: usize,
        pages: Pages,
    }

    // SAFETY: a slab owns its memory, as a Box<[T]> would.
    unsafe impl<T: Zeroed> Send for Slab<T> {}
    // SAFETY: it gives out shared references only, and `T` is Sync.
    unsafe impl<T: Zeroed> Sync for Slab<T> {}

    impl<T: Zeroed> Slab<T> {
        /// `count` zeroed values, their pages present already, so that using them never faults.
        pub(crate) fn new(count: usize) -> io::Result<Self> {
            const { assert!(align_of::<T>() <= 4096 && !std::mem::needs_drop::<T>()) };
            let wanted = count
                .checked_mul(size_of::<T>())
                .filter(|&len| len > 0 && len <= isize::MAX as usize - HUGE_PAGE)
                .ok_or(io::ErrorKind::InvalidInput)?;
            let (address, len, pages) = take(wanted)?;
            let slab = Slab {
                start: address.cast(),
                count,
                len,
                pages,
            };
            match advise(address, len, libc::MADV_POPULATE_WRITE) {
                // Kernels before 5.14 do not know it: the pages come with their first use.
                Err(error) if error.raw_os_error() != Some(libc::EINVAL) => Err(error),
                _ => Ok(slab),
            }
        }

        /// Bytes taken.
        pub(crate) fn bytes(&self) -> usize {
            self.len
        }

        /// What they lie in.
        pub(crate) fn pages(&self) -> Pages {
            self.pages
        }
    }

    impl<T> Deref for Slab<T> {
        type Target = [T];

        #[inline]
        fn deref(&self) -> &[T] {
            // SAFETY: `start` begins a live mapping of at least `count * size_of::<T>()` bytes, aligned to a page;
            // its bytes began as zeroes, which `Zeroed` makes valid values, and nobody holds a unique reference.
            unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.count) }
        }
    }

    impl<T> Drop for Slab<T> {
        fn drop(&mut self) {
            // SAFETY: the mapping is this slab's own, and no reference into it outlives the slab.
            unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
        }
    }

    /// Memory of at least `wanted` bytes, how much, and of what kind.
    fn take(wanted: usize) -> io::Result<(NonNull<libc::c_void>, usize, Pages)> {
        if wanted >= HUGE_PAGE {
            let len = wanted.next_multiple_of(HUGE_PAGE);
            if let Ok(address) = map(len, libc::MAP_HUGETLB) {
                return Ok((address, len, Pages::Huge));
            }
        }
        let address = map(wanted, 0)?;
        let is_huge = wanted >= HUGE_PAGE && advise(address, wanted, libc::MADV_HUGEPAGE).is_ok();
        let pages = if is_huge {
            Pages::Transparent
        } else {
            Pages::Ordinary
        };
        Ok((address, wanted, pages))
    }

    fn map(len: usize, flags: libc::c_int) -> io::Result<NonNull<libc::c_void>> {
        // SAFETY: a new private mapping at an address of the kernel's choice touches no memory in use.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags,
                -1,
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(address).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    fn advise(address: NonNull<libc::c_void>, len: usize, advice: libc::c_int) -> io::Result<()> {
        // SAFETY: the range is a mapping of ours; neither advice given here changes what it holds.
        match unsafe { libc::madvise(address.as_ptr(), len, advice) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

#[cfg(loom)]
mod checked {
    use super::{Pages, Zeroed};
    use std::io;
    use std::ops::Deref;

    /// As the mapped one; loom's atomics are no plain memory.
    pub(crate) struct Slab<T>(Box<[T]>);

    impl<T: Zeroed> Slab<T> {
        pub(crate) fn new(count: usize) -> io::Result<Self> {
            Ok(Slab((0..count).map(|_| T::default()).collect()))
        }

        pub(crate) fn bytes(&self) -> usize {
            size_of_val(&*self.0)
        }

        pub(crate) fn pages(&self) -> Pages {
            Pages::Ordinary
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
    use std::arch::x86_64::{
        __m128i, _mm_castps_si128, _mm_castsi128_ps, _mm_cmpeq_epi16, _mm_movemask_epi8,
        _mm_packs_epi16, _mm_packs_epi32, _mm_set1_epi16, _mm_setzero_si128, _mm_shuffle_ps,
        _mm_srai_epi32,
    };
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
    unsafe {
        let upper_halves = |low, high| {
            let halves =
                _mm_shuffle_ps::<0b11_01_11_01>(_mm_castsi128_ps(low), _mm_castsi128_ps(high));
            _mm_srai_epi32::<16>(_mm_castps_si128(halves))
        };
        let words = _mm_packs_epi32(upper_halves(a, b), upper_halves(c, d));
        let same = _mm_cmpeq_epi16(words, _mm_set1_epi16(upper.cast_signed()));
        let found = _mm_movemask_epi8(_mm_packs_epi16(same, _mm_setzero_si128()));
        found.to_le_bytes()[0]
    }
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
        for count in [1, 5000, 600_000] {
            let slab = Slab::<Link>::new(count).unwrap();
            assert_eq!(slab.len(), count);
            assert!(slab.bytes() >= count * size_of::<Link>());
            assert_eq!(slab[count - 1].next.load(Relaxed), 0);
            slab[count - 1].next.store(7, Relaxed);
            assert_eq!(slab[count - 1].next.load(Relaxed), 7);
            prefetch(&slab[0]);
        }
    }

    #[test]
    fn a_slab_of_nothing_or_of_too_much_is_an_error() {
        assert!(Slab::<Link>::new(0).is_err());
        assert!(Slab::<Link>::new(usize::MAX / 4).is_err());
    }
}
