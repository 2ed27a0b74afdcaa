//! Who was refused lately, as fingerprints: in each bucket the latest 31.
//!
//! ```text
//!   bucket, 64 bytes   ┌──────┬─────────┬─────────┬──  ──┬──────────┐
//!                      │oldest│ print 0 │ print 1 │  ..  │ print 30 │   four to a word; print 0: never used
//!                      └──────┴─────────┴─────────┴──  ──┴──────────┘
//! ```
//! The address space is taken at the start. Its pages, huge ones where there are any, come when they are first used: with
//! the first flood, not before.

use crate::index::Hash;
use crate::memory::Slab;
use crate::sync::{AtomicU64, Ordering::Relaxed};

/// Fingerprints of a bucket.
const PRINTS: usize = 31;
/// The lowest bit of each fingerprint in a word.
const LOW_BITS: u64 = 0x0001_0001_0001_0001;

/// One line of fingerprints. Its worker alone writes and reads it.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(crate) struct Line {
    words: [AtomicU64; 8],
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Line>() == 64);

/// Remembers newcomers of one worker that were refused.
pub struct Refused {
    lines: Slab<Line>,
    bits: u32,
}

/// A newcomer's place and fingerprint.
#[derive(Clone, Copy, Debug)]
pub struct Print {
    line: u32,
    print: u16,
}

impl Refused {
    /// Room for 31 fingerprints in each of `1 << bits` lines.
    ///
    /// # Errors
    /// There is no address space for it.
    pub fn new(bits: u32) -> std::io::Result<Refused> {
        Ok(Refused {
            lines: Slab::untouched(1 << bits)?,
            bits,
        })
    }

    /// The fingerprint of a newcomer with this hash.
    #[inline]
    #[must_use]
    pub fn print(&self, hash: Hash) -> Print {
        let (line, print) = hash.print(self.bits);
        Print { line, print }
    }

    /// Asks for a fingerprint's line before it is needed.
    #[inline]
    pub fn prefetch(&self, print: Print) {
        crate::memory::prefetch(&self.lines[print.line as usize]);
    }

    /// Whether the newcomer was refused before. If not, it is remembered, in place of the oldest of its line.
    #[inline]
    pub fn knows_or_learns(&mut self, print: Print) -> bool {
        let line = &self.lines[print.line as usize].words;
        let words: [u64; 8] = std::array::from_fn(|word| line[word].load(Relaxed));
        let wanted = LOW_BITS * u64::from(print.print);
        // What differs from the fingerprint; the first place holds no fingerprint, and counts as different.
        let mut differences = words.map(|word| word ^ wanted);
        differences[0] |= 1;
        // Source: Warren, Hacker's Delight 6-1 (a word with a zero in it).
        let zeros = differences.map(|word| word.wrapping_sub(LOW_BITS) & !word & (LOW_BITS << 15));
        if zeros.iter().fold(0, |any, zero| any | zero) != 0 {
            return true;
        }
        let oldest = usize::try_from(words[0] & 0xffff).expect("16 bits") % PRINTS;
        let (word, shift) = ((oldest + 1) / 4, (oldest + 1) % 4 * 16);
        let kept = line[word].load(Relaxed) & !(0xffff << shift);
        line[word].store(kept | u64::from(print.print) << shift, Relaxed);
        let next = if oldest + 1 == PRINTS { 0 } else { oldest + 1 };
        let first = line[0].load(Relaxed) & !0xffff;
        line[0].store(first | next as u64, Relaxed);
        false
    }
}

impl std::fmt::Debug for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Refused")
            .field("bits", &self.bits)
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Every fingerprint is another one, and goes to the next line.
    fn print(number: usize, lines: u32) -> Print {
        Print {
            line: u32::try_from(number).expect("few") % lines,
            print: u16::try_from(number / lines as usize % 65_535 + 1).expect("16 bits"),
        }
    }

    #[test]
    fn who_was_refused_is_known_until_a_line_of_others_came() {
        for (bits, lines) in [(0, 1), (2, 4)] {
            let mut refused = Refused::new(bits).unwrap();
            let all = PRINTS * lines as usize;
            for round in 0..3 {
                let number = |place| round * all * 2 + place;
                for place in 0..all {
                    assert!(
                        !refused.knows_or_learns(print(number(place), lines)),
                        "{place}"
                    );
                }
                for place in 0..all {
                    assert!(
                        refused.knows_or_learns(print(number(place), lines)),
                        "{place}"
                    );
                }
                // One more in each line, in place of the oldest.
                for line in 0..lines as usize {
                    assert!(!refused.knows_or_learns(print(number(all + line), lines)));
                    assert!(!refused.knows_or_learns(print(number(line), lines)));
                    assert!(
                        refused.knows_or_learns(print(number(line + 2 * lines as usize), lines))
                    );
                }
            }
        }
    }

    #[test]
    fn every_fingerprint_is_told_from_every_other_and_from_the_place_of_the_oldest() {
        let mut refused = Refused::new(0).unwrap();
        // The place of the oldest goes through all values up to 30 meanwhile.
        for first in (1..=u16::MAX - 31).step_by(4093) {
            for print in first..first + 31 {
                assert!(
                    !refused.knows_or_learns(Print { line: 0, print }),
                    "{print}"
                );
            }
        }
    }
}
