//! What helpers remember of connections, shared by all workers: any of them may forward a connection's packets.
//!
//! All fields are atomics, read and written `Relaxed`. A record says whose it is; whoever comes with the index of a
//! connection that has ended meanwhile does not get the next one's.

use super::ftp::Form;
use super::shift::Shift;
use conntrack::Words;
use crossbeam::queue::ArrayQueue;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Connections that can have a helper at the same time. Further ones go without; that is counted.
pub const RECORDS: usize = 4096;
/// Words of a record: a cache line, of which not all are used.
pub const RECORD_WORDS: usize = 8;

/// Entry 0 of a table is nobody's.
const NOBODY: u64 = 0;

const NOTHING: u64 = 0;
const PLAIN: u64 = 1;
const EXTENDED: u64 = 2;
/// With one of the two above: the answer has come, and may come again.
const ANSWERED: u64 = 4;

/// Places in a record.
const OWNER: usize = 0;
const SHIFT: usize = 1;
const SUM: usize = 2;
const ASKED: usize = 3;
const CONTROLLED: usize = 4;

/// What is remembered of one control connection.
#[derive(Clone, Copy, Debug)]
pub struct Record<'r>(&'r [AtomicU64]);

/// What tells a record that is whole from one that was damaged, or being written when its process was killed.
fn sum(owner: u64, shift: u64) -> u64 {
    // Source: Knuth, The Art of Computer Programming 6.4 (Fibonacci hashing).
    (owner.rotate_left(17) ^ shift).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1
}

impl Record<'_> {
    /// How far the server's bytes are shifted.
    #[must_use]
    pub fn shift(&self) -> Shift {
        Shift::from_u64(self.0[SHIFT].load(Relaxed))
    }

    /// Notes a new shift.
    pub fn set_shift(&self, shift: Shift) {
        let shift = shift.to_u64();
        self.0[SHIFT].store(shift, Relaxed);
        self.0[SUM].store(sum(self.0[OWNER].load(Relaxed), shift), Relaxed);
    }

    /// Notes what the client asked for; `None` for something else.
    pub fn ask(&self, form: Option<Form>) {
        let asked = match form {
            None => NOTHING,
            Some(Form::Plain) => PLAIN,
            Some(Form::Extended) => EXTENDED,
        };
        self.0[ASKED].store(asked, Relaxed);
    }

    /// Notes that the answer has come.
    pub fn answer(&self) {
        self.0[ASKED].fetch_or(ANSWERED, Relaxed);
    }

    /// The form of the answer that is due from the segment at `sequence`: also where it has come, and comes again.
    #[must_use]
    pub fn awaited(&self, sequence: u32) -> Option<Form> {
        let asked = self.0[ASKED].load(Relaxed);
        if asked & ANSWERED != 0 && !self.shift().is_at(sequence) {
            return None;
        }
        match asked & !ANSWERED {
            PLAIN => Some(Form::Plain),
            EXTENDED => Some(Form::Extended),
            _ => None,
        }
    }

    /// The connection begins another life: new sequence numbers.
    pub fn reset(&self) {
        self.set_shift(Shift::default());
        self.ask(None);
    }

    /// Counts a data connection that this control connection must outlive.
    pub fn hold(&self) {
        self.0[CONTROLLED].fetch_add(1, Relaxed);
    }

    /// Uncounts it.
    pub fn release(&self) {
        // A data connection that outlived its control connection's record is nobody's.
        let _ = self.0[CONTROLLED].fetch_update(Relaxed, Relaxed, |count| count.checked_sub(1));
    }

    /// Whether there are any.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.0[CONTROLLED].load(Relaxed) > 0
    }
}

/// All records, and how many data connections wait for their client's port.
#[derive(Debug)]
pub struct Records {
    words: Words,
    free: ArrayQueue<u32>,
    expected: AtomicU32,
}

impl Default for Records {
    fn default() -> Records {
        Records::new()
    }
}

impl Records {
    /// [`RECORDS`] free ones.
    #[must_use]
    pub fn new() -> Records {
        Records::with(RECORDS)
    }

    /// So many free ones, at least one.
    ///
    /// # Panics
    /// When there is no address space for them.
    #[must_use]
    pub fn with(count: usize) -> Records {
        let words = Words::new(count.max(1) * RECORD_WORDS);
        Left::new(words.expect("there is address space for some records")).finish()
    }

    fn record(&self, index: u32) -> Option<Record<'_>> {
        record(&self.words, index)
    }

    /// A record for `owner`, fresh: the word that names it. `None` when all are taken.
    #[must_use]
    pub fn take(&self, owner: u64) -> Option<u32> {
        let index = self.free.pop()?;
        let record = self.record(index)?;
        record.0[OWNER].store(owner, Relaxed);
        record.0[CONTROLLED].store(0, Relaxed);
        record.reset();
        Some(index + 1)
    }

    /// The record that `word` names, while it is `owner`'s.
    #[must_use]
    pub fn get(&self, word: u32, owner: u64) -> Option<Record<'_>> {
        let record = self.record(word.checked_sub(1)?)?;
        (record.0[OWNER].load(Relaxed) == owner).then_some(record)
    }

    /// Takes the record back, once.
    pub fn give_back(&self, word: u32, owner: u64) {
        let Some(record) = self.get(word, owner) else {
            return;
        };
        let won = record.0[OWNER]
            .compare_exchange(owner, NOBODY, Relaxed, Relaxed)
            .is_ok();
        if won {
            // There is room for each, and each was taken before.
            let _ = self.free.push(word - 1);
        }
    }

    /// How many are taken.
    #[must_use]
    pub fn in_use(&self) -> usize {
        self.free.capacity() - self.free.len()
    }

    /// Whether any data connection waits for its client's port.
    #[inline]
    #[must_use]
    pub fn expects(&self) -> bool {
        self.expected.load(Relaxed) > 0
    }

    /// Counts a data connection that waits.
    pub fn expect(&self) {
        self.expected.fetch_add(1, Relaxed);
    }

    /// Uncounts it.
    pub fn met(&self) {
        self.expected.fetch_sub(1, Relaxed);
    }
}

fn record(words: &Words, index: u32) -> Option<Record<'_>> {
    let start = index as usize * RECORD_WORDS;
    words.get(start..start + RECORD_WORDS).map(Record)
}

/// The records that the process before left, of which those are taken over that their connections claim.
#[derive(Debug)]
pub struct Left {
    words: Words,
    claimed: Vec<bool>,
}

impl Left {
    /// Those in `words`.
    #[must_use]
    pub fn new(words: Words) -> Left {
        let claimed = vec![false; words.len() / RECORD_WORDS];
        Left { words, claimed }
    }

    /// Whether the record that `word` names is whole, and `owner`'s. It has no data connections then.
    pub fn claim(&mut self, word: u32, owner: u64) -> bool {
        let Some(index) = word.checked_sub(1) else {
            return false;
        };
        let Some(record) = record(&self.words, index) else {
            return false;
        };
        let [told, shift, told_sum] = [OWNER, SHIFT, SUM].map(|word| record.0[word].load(Relaxed));
        let claimed = &mut self.claimed[index as usize];
        if *claimed || told != owner || told_sum != sum(owner, shift) {
            return false;
        }
        record.0[CONTROLLED].store(0, Relaxed);
        *claimed = true;
        true
    }

    /// The records, all others free.
    #[must_use]
    pub fn finish(self) -> Records {
        let free = ArrayQueue::new(self.claimed.len().max(1));
        for (index, claimed) in (0_u32..).zip(&self.claimed) {
            if !claimed && let Some(record) = record(&self.words, index) {
                record.0[OWNER].store(NOBODY, Relaxed);
                // There is room for each.
                let _ = free.push(index);
            }
        }
        Records {
            words: self.words,
            free,
            expected: AtomicU32::new(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_its_owners_alone_and_the_last_one_is_the_last() {
        let records = Records::with(2);
        let words = [7, 8].map(|owner| records.take(owner).unwrap());
        assert_eq!((records.take(9), records.in_use()), (None, 2));
        assert!(records.get(words[0], 7).is_some() && records.get(words[0], 8).is_none());
        assert!(records.get(0, 7).is_none() && records.get(99, 7).is_none());
        records.get(words[0], 7).unwrap().hold();
        records.give_back(words[0], 8);
        assert_eq!(records.take(9), None);
        records.give_back(words[0], 7);
        records.give_back(words[0], 7);
        assert_eq!(records.in_use(), 1);
        let again = records.take(9).unwrap();
        assert_eq!(again, words[0]);
        assert!(!records.get(again, 9).unwrap().holds());
        assert_eq!(records.take(10), None);
    }

    #[test]
    fn of_what_is_left_the_owners_whole_records_are_taken_over_and_the_rest_is_free() {
        let records = Records::with(4);
        let words = [7, 8, 9].map(|owner| records.take(owner).unwrap());
        let shift = Shift::default().then(5, 3).unwrap();
        records.get(words[0], 7).unwrap().set_shift(shift);
        records.get(words[0], 7).unwrap().hold();
        // Killed in between.
        records.get(words[1], 8).unwrap().0[SHIFT].store(shift.to_u64(), Relaxed);
        let mut left = Left::new(records.words);
        assert!(left.claim(words[0], 7) && !left.claim(words[0], 7));
        assert!(!left.claim(words[1], 8) && !left.claim(words[2], 7));
        assert!(!left.claim(0, 7) && !left.claim(99, 7));
        let records = left.finish();
        let record = records.get(words[0], 7).unwrap();
        assert_eq!((record.shift(), record.holds()), (shift, false));
        assert!(records.take(10).is_some());
    }

    #[test]
    fn an_answer_is_awaited_until_it_came_and_again_where_it_came() {
        let records = Records::with(1);
        let word = records.take(7).unwrap();
        let record = records.get(word, 7).unwrap();
        assert_eq!(record.awaited(5), None);
        record.ask(Some(Form::Extended));
        assert_eq!(record.awaited(5), Some(Form::Extended));
        record.set_shift(record.shift().then(5, 0).unwrap());
        record.answer();
        assert_eq!(record.awaited(5), Some(Form::Extended));
        assert_eq!(record.awaited(6), None);
        record.ask(Some(Form::Plain));
        assert_eq!(record.awaited(6), Some(Form::Plain));
        record.reset();
        assert_eq!(
            (record.awaited(5), record.shift()),
            (None, Shift::default())
        );
    }

    #[test]
    fn what_is_held_and_expected_is_counted() {
        let records = Records::with(1);
        records.expect();
        assert!(records.expects());
        records.met();
        assert!(!records.expects());
        let word = records.take(7).unwrap();
        let record = records.get(word, 7).unwrap();
        record.release();
        assert!(!record.holds());
        record.hold();
        record.hold();
        record.release();
        assert!(record.holds());
        record.release();
        assert!(!record.holds());
    }
}
