//! Cache lines in memory like the table's, for a bench to compare a lookup with: what fetching a line costs at least.

use crate::memory::{self, Pages, Slab};
use crate::sync::Ordering::Relaxed;
use crate::wheel::Link;
use std::io;

/// Bytes of a cache line.
const LINE_LEN: usize = 64;
/// Values of the slab in a line; which type they have does not matter.
const STEP: usize = LINE_LEN / size_of::<Link>();

/// Lines of zeroes, taken from the system as the table's are: on huge pages where there are any, and present.
pub struct Lines(Slab<Link>);

impl Lines {
    /// As many lines as `bytes` have, at least one.
    ///
    /// # Errors
    /// No memory.
    pub fn new(bytes: u64) -> io::Result<Lines> {
        let count = usize::try_from(bytes).map_err(|_| io::ErrorKind::OutOfMemory)? / LINE_LEN;
        Slab::new(count.max(1) * STEP, &[]).map(Lines)
    }

    /// How many lines there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len() / STEP
    }

    /// What kind of pages hold them.
    #[must_use]
    pub fn pages(&self) -> Pages {
        self.0.pages()
    }

    /// Asks for a line before it is needed.
    ///
    /// # Panics
    /// When there is no such line.
    #[inline]
    pub fn prefetch(&self, line: usize) {
        memory::prefetch(&self.0[line * STEP]);
    }

    /// Reads a line.
    ///
    /// # Panics
    /// When there is no such line.
    #[inline]
    #[must_use]
    pub fn read(&self, line: usize) -> u32 {
        self.0[line * STEP].next.load(Relaxed)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_there_and_zero() {
        for (bytes, count) in [(0, 1), (64, 1), (100_000, 1562), (4 << 20, 65_536)] {
            let lines = Lines::new(bytes).unwrap();
            assert_eq!(lines.count(), count);
            for line in [0, count - 1] {
                lines.prefetch(line);
                assert_eq!(lines.read(line), 0);
            }
        }
    }

    #[test]
    fn more_than_there_is_is_an_error() {
        assert!(Lines::new(u64::MAX / 2).is_err());
    }
}
