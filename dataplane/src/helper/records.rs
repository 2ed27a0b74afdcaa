//! What helpers remember of connections, shared by all workers: any of them may forward a connection's packets.
//!
//! All fields are atomics, read and written `Relaxed`. A record says whose it is; whoever comes with the index of a
//! connection that has ended meanwhile does not get the next one's.

use super::ftp::Form;
use super::shift::Shift;
use crossbeam::queue::ArrayQueue;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};

/// Connections that can have a helper at the same time. Further ones go without; that is counted.
pub const RECORDS: usize = 4096;

const NOBODY: u64 = u64::MAX;

const NOTHING: u8 = 0;
const PLAIN: u8 = 1;
const EXTENDED: u8 = 2;
/// With one of the two above: the answer has come, and may come again.
const ANSWERED: u8 = 4;

/// What is remembered of one control connection.
#[derive(Debug)]
#[repr(align(64))]
pub struct Record {
    owner: AtomicU64,
    shift: AtomicU64,
    asked: AtomicU8,
    controlled: AtomicU32,
}

impl Record {
    /// How far the server's bytes are shifted.
    pub fn shift(&self) -> Shift {
        Shift::from_u64(self.shift.load(Relaxed))
    }

    /// Notes a new shift.
    pub fn set_shift(&self, shift: Shift) {
        self.shift.store(shift.to_u64(), Relaxed);
    }

    /// Notes what the client asked for; `None` for something else.
    pub fn ask(&self, form: Option<Form>) {
        let asked = match form {
            None => NOTHING,
            Some(Form::Plain) => PLAIN,
            Some(Form::Extended) => EXTENDED,
        };
        self.asked.store(asked, Relaxed);
    }

    /// Notes that the answer has come.
    pub fn answer(&self) {
        self.asked.fetch_or(ANSWERED, Relaxed);
    }

    /// The form of the answer that is due from the segment at `sequence`: also where it has come, and comes again.
    pub fn awaited(&self, sequence: u32) -> Option<Form> {
        let asked = self.asked.load(Relaxed);
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
        self.controlled.fetch_add(1, Relaxed);
    }

    /// Uncounts it.
    pub fn release(&self) {
        // A data connection that outlived its control connection's record is nobody's.
        let _ = self
            .controlled
            .fetch_update(Relaxed, Relaxed, |count| count.checked_sub(1));
    }

    /// Whether there are any.
    pub fn holds(&self) -> bool {
        self.controlled.load(Relaxed) > 0
    }
}

/// All records, and how many data connections wait for their client's port.
#[derive(Debug)]
pub struct Records {
    records: Box<[Record]>,
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
    #[must_use]
    pub fn with(count: usize) -> Records {
        let free = ArrayQueue::new(count.max(1));
        let records = (0_u32..).take(count.max(1)).map(|index| {
            // There is room for each.
            let _ = free.push(index);
            Record {
                owner: AtomicU64::new(NOBODY),
                shift: AtomicU64::new(0),
                asked: AtomicU8::new(NOTHING),
                controlled: AtomicU32::new(0),
            }
        });
        Records {
            records: records.collect(),
            free,
            expected: AtomicU32::new(0),
        }
    }

    /// A record for `owner`, fresh: the word that names it. `None` when all are taken.
    #[must_use]
    pub fn take(&self, owner: u64) -> Option<u32> {
        let index = self.free.pop()?;
        let record = &self.records[index as usize];
        record.reset();
        record.controlled.store(0, Relaxed);
        record.owner.store(owner, Relaxed);
        Some(index + 1)
    }

    /// The record that `word` names, while it is `owner`'s.
    #[must_use]
    pub fn get(&self, word: u32, owner: u64) -> Option<&Record> {
        let record = self.records.get((word as usize).checked_sub(1)?)?;
        (record.owner.load(Relaxed) == owner).then_some(record)
    }

    /// Takes the record back, once.
    pub fn give_back(&self, word: u32, owner: u64) {
        let Some(record) = self.get(word, owner) else {
            return;
        };
        let won = record
            .owner
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
        self.records.len() - self.free.len()
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
