//! Local ports of FULLNAT: one worker's share of one local address towards one real server.
//!
//! ```text
//!   ports first..=last with port % workers == worker, numbered 0, 1, 2, …
//!   used:     a bit for each, 64 to a word          full:  a bit for each word of `used` without a free bit
//!   cursor:   the number after the one given out last; the search goes on from there, so that a port that was
//!             given back rests for as long as there are others
//! ```
//! Workers need no agreement: their shares are disjoint by the remainder.

/// One worker's ports of one local address towards one real server.
#[derive(Clone, Debug)]
pub struct PortPool {
    base: u32,
    step: u32,
    count: u32,
    cursor: u32,
    in_use: u32,
    used: Box<[u64]>,
    full: Box<[u64]>,
}

impl PortPool {
    /// The share of `worker`, one of `workers`, in the ports `first..=last`.
    ///
    /// # Panics
    /// When there is no such worker.
    #[must_use]
    pub fn new(first: u16, last: u16, worker: u16, workers: u16) -> PortPool {
        assert!(worker < workers, "worker {worker} of {workers}");
        let (first, last) = (u32::from(first), u32::from(last));
        let step = u32::from(workers);
        let base = first + (u32::from(worker) + step - first % step) % step;
        let count = if base > last {
            0
        } else {
            (last - base) / step + 1
        };
        let words = (count as usize).div_ceil(64);
        let mut pool = PortPool {
            base,
            step,
            count,
            cursor: 0,
            in_use: 0,
            used: vec![0; words].into(),
            full: vec![0; words.div_ceil(64)].into(),
        };
        // What lies beyond the last port counts as used for ever.
        if let Some(word) = pool.used.last_mut()
            && !count.is_multiple_of(64)
        {
            *word = u64::MAX << (count % 64);
        }
        if let Some(word) = pool.full.last_mut()
            && !words.is_multiple_of(64)
        {
            *word = u64::MAX << (words % 64);
        }
        pool
    }

    /// A free port, host byte order; `None` when all are in use.
    #[must_use]
    pub fn take(&mut self) -> Option<u16> {
        if self.in_use == self.count {
            return None;
        }
        let number = self.next_free();
        self.mark(number);
        self.cursor = if number + 1 == self.count {
            0
        } else {
            number + 1
        };
        Some(self.port(number))
    }

    /// Frees a port. False when it was not in use, or is not of this share.
    pub fn give_back(&mut self, port: u16) -> bool {
        let Some(number) = self.number(port) else {
            return false;
        };
        let (word, bit) = (number as usize / 64, number % 64);
        if self.used[word] & 1 << bit == 0 {
            return false;
        }
        self.used[word] &= !(1 << bit);
        self.full[word / 64] &= !(1 << (word % 64));
        self.in_use -= 1;
        true
    }

    /// Takes a certain port, as when a connection comes from elsewhere. False when it is in use already, or is not
    /// of this share.
    #[must_use]
    pub fn mark_used(&mut self, port: u16) -> bool {
        let Some(number) = self.number(port) else {
            return false;
        };
        if self.used[number as usize / 64] & 1 << (number % 64) != 0 {
            return false;
        }
        self.mark(number);
        true
    }

    /// How many ports are taken.
    #[must_use]
    pub fn in_use(&self) -> u32 {
        self.in_use
    }

    /// How many ports the share has.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.count
    }

    /// The first free number from the cursor on, going round. There is one.
    fn next_free(&self) -> u32 {
        let start = self.cursor as usize / 64;
        let behind = !self.used[start] & u64::MAX << (self.cursor % 64);
        if behind != 0 {
            return number_of(start, behind);
        }
        // Whole words after the cursor's, then from the beginning up to and including the cursor's own.
        let word = first_zero(&self.full, start + 1)
            .or_else(|| first_zero(&self.full, 0))
            .expect("a port is free");
        number_of(word, !self.used[word])
    }

    fn mark(&mut self, number: u32) {
        let word = number as usize / 64;
        self.used[word] |= 1 << (number % 64);
        if self.used[word] == u64::MAX {
            self.full[word / 64] |= 1 << (word % 64);
        }
        self.in_use += 1;
    }

    fn port(&self, number: u32) -> u16 {
        u16::try_from(self.base + number * self.step).expect("numbers stay within first..=last")
    }

    fn number(&self, port: u16) -> Option<u32> {
        let offset = u32::from(port).checked_sub(self.base)?;
        let number = offset / self.step;
        (offset % self.step == 0 && number < self.count).then_some(number)
    }
}

/// The index of the first zero bit at or after `from`.
fn first_zero(words: &[u64], from: usize) -> Option<usize> {
    let mut mask = u64::MAX << (from % 64);
    for (index, &word) in words.iter().enumerate().skip(from / 64) {
        let free = !word & mask;
        if free != 0 {
            return Some(index * 64 + free.trailing_zeros() as usize);
        }
        mask = u64::MAX;
    }
    None
}

fn number_of(word: usize, free: u64) -> u32 {
    u32::try_from(word).expect("there are at most 1024 words") * 64 + free.trailing_zeros()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[test]
    fn every_port_comes_once_and_then_none() {
        for (first, last, workers) in [
            (1, 1, 1),
            (1024, 65535, 3),
            (0, 65535, 1),
            (5000, 5063, 1),
            (100, 4260, 1),
        ] {
            let mut seen = HashSet::new();
            for worker in 0..workers {
                let mut pool = PortPool::new(first, last, worker, workers);
                for _ in 0..pool.capacity() {
                    let port = pool.take().unwrap();
                    assert!((first..=last).contains(&port) && port % workers == worker);
                    assert!(seen.insert(port), "{port} twice");
                }
                assert_eq!(pool.in_use(), pool.capacity());
                assert_eq!(pool.take(), None);
            }
            assert_eq!(
                seen.len(),
                usize::from(last - first) + 1,
                "{first}-{last} by {workers}"
            );
        }
    }

    #[test]
    fn a_freed_port_rests_while_there_are_others() {
        let mut pool = PortPool::new(1000, 1199, 0, 1);
        let first = pool.take().unwrap();
        assert!(pool.give_back(first));
        for _ in 1..200 {
            assert_ne!(pool.take(), Some(first));
        }
        assert_eq!(pool.take(), Some(first));
    }

    #[test]
    fn the_last_free_port_is_found_wherever_the_cursor_is() {
        let mut pool = PortPool::new(0, 65535, 0, 1);
        while pool.take().is_some() {}
        for port in [0, 63, 64, 4095, 4096, 40_000, 65_535, 1] {
            assert!(pool.give_back(port));
            assert_eq!(pool.take(), Some(port));
        }
    }

    #[test]
    fn a_share_may_be_empty() {
        let mut pool = PortPool::new(10, 11, 2, 5);
        assert_eq!(pool.capacity(), 0);
        assert_eq!(pool.take(), None);
        assert!(!pool.give_back(10));
        assert!(!pool.mark_used(12));
    }

    proptest! {
        #[test]
        fn a_pool_is_a_set(
            first in 0..300_u16,
            count in 0..300_u16,
            workers in 1..4_u16,
            steps in prop::collection::vec((0..3_u8, 0..700_u16), 0..400),
        ) {
            let worker = workers - 1;
            let mut pool = PortPool::new(first, first + count, worker, workers);
            let mine: HashSet<u16> =
                (first..=first + count).filter(|port| port % workers == worker).collect();
            let mut held = HashSet::new();
            prop_assert_eq!(pool.capacity() as usize, mine.len());
            for (step, port) in steps {
                match step {
                    0 => match pool.take() {
                        Some(port) => {
                            prop_assert!(mine.contains(&port));
                            prop_assert!(held.insert(port), "{} is held", port);
                        }
                        None => prop_assert_eq!(held.len(), mine.len()),
                    },
                    1 => prop_assert_eq!(pool.give_back(port), held.remove(&port)),
                    _ => {
                        let expected = mine.contains(&port) && held.insert(port);
                        prop_assert_eq!(pool.mark_used(port), expected);
                    }
                }
                prop_assert_eq!(pool.in_use() as usize, held.len());
            }
        }
    }
}
