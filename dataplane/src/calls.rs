//! The Call-IDs that persistence templates are about: texts of up to 255 bytes, which the connection table has no room
//! for. Records of one size, shared by the workers; a template has the number of its record.
//!
//! A record is written before its template comes into the table, whose insertion publishes it (Release), and is free
//! again when the template has ended. Whoever found the template just then may read a record that is being written for
//! another call: it is not the text he looks for, or it is, and the template he holds has ended, which he finds out.

use ahash::RandomState;
use conntrack::Words;
use crossbeam::queue::ArrayQueue;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Bytes of a Call-ID, at most. Source: Linux include/net/ip_vs.h (`IP_VS_PEDATA_MAXLEN`).
pub const CALL_ID_LEN: usize = 255;
/// Calls that are told apart at once.
pub const CALLS: u32 = 65_536;
/// Words of a Call-ID.
pub const WORDS: usize = (CALL_ID_LEN + 1) / 8;

/// A Call-ID in the form of a record: its length, its bytes, zeros.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CallId([u64; WORDS]);

impl CallId {
    /// `None` for a text that is empty or longer than [`CALL_ID_LEN`].
    #[must_use]
    pub fn new(text: &[u8]) -> Option<CallId> {
        let len = u8::try_from(text.len()).ok().filter(|len| *len > 0)?;
        let mut bytes = [0; WORDS * 8];
        bytes[0] = len;
        bytes[1..=text.len()].copy_from_slice(text);
        let mut words = [0; WORDS];
        for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = chunk
                .iter()
                .fold(0, |word, byte| word << 8 | u64::from(*byte));
        }
        Some(CallId(words))
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> Vec<u8> {
        let bytes = self.0.iter().flat_map(|word| word.to_be_bytes());
        let len = usize::from(self.0[0].to_be_bytes()[0]);
        bytes.skip(1).take(len).collect()
    }

    /// Words that hold something.
    fn used(&self) -> usize {
        usize::from(self.0[0].to_be_bytes()[0]) / 8 + 1
    }
}

struct Records {
    texts: Words,
    free: ArrayQueue<u32>,
}

/// See the module's text.
pub struct Calls {
    hasher: RandomState,
    records: OnceLock<Records>,
}

impl Default for Calls {
    /// Without memory: no call can be remembered before [`prepare`](Self::prepare).
    fn default() -> Calls {
        Calls {
            hasher: RandomState::new(),
            records: OnceLock::new(),
        }
    }
}

impl Calls {
    /// Takes the memory (16 MiB), once. Not on the packet path.
    ///
    /// # Panics
    /// When there is no address space for it.
    pub fn prepare(&self) {
        self.records.get_or_init(|| {
            let texts = Words::new(CALLS as usize * WORDS);
            let texts = texts.expect("there is address space for 16 MiB");
            Records::new(texts, |_| false)
        });
    }

    /// Where a call's templates begin to be looked for: a number that nobody outside can choose.
    #[must_use]
    pub fn place(&self, call: &CallId) -> u16 {
        place(&self.hasher, call)
    }

    /// Remembers a call under a number above 0; `None` when there are [`CALLS`] already.
    #[must_use]
    pub fn take(&self, call: &CallId) -> Option<u32> {
        let records = self.records.get()?;
        let index = records.free.pop()?;
        let text = text_at(&records.texts, index)?;
        for (stored, word) in text.iter().zip(call.0).take(call.used()) {
            stored.store(word, Relaxed);
        }
        Some(index + 1)
    }

    /// Whether the number is that call's.
    #[must_use]
    pub fn is(&self, number: u32, call: &CallId) -> bool {
        let text = self.text_of(number);
        text.is_some_and(|text| {
            let mut words = text.iter().zip(call.0).take(call.used());
            words.all(|(stored, word)| stored.load(Relaxed) == word)
        })
    }

    /// Frees a number; 0 is none.
    pub fn give_back(&self, number: u32) {
        if let Some((records, index)) = self.records.get().zip(number.checked_sub(1)) {
            // There is room: as many places as numbers, and each is given back by the one who ended its template.
            let _ = records.free.push(index);
        }
    }

    /// The call of a number, for people to read. It may be another one by now, or half of two.
    #[must_use]
    pub fn get(&self, number: u32) -> Option<CallId> {
        let text = self.text_of(number)?;
        let mut call = CallId([0; WORDS]);
        for (word, stored) in call.0.iter_mut().zip(text) {
            *word = stored.load(Relaxed);
        }
        Some(call)
    }

    /// How many calls are remembered.
    #[must_use]
    pub fn in_use(&self) -> usize {
        let free = self.records.get().map(|records| records.free.len());
        free.map_or(0, |free| CALLS as usize - free)
    }

    fn text_of(&self, number: u32) -> Option<&[AtomicU64]> {
        text_at(&self.records.get()?.texts, number.checked_sub(1)?)
    }
}

fn text_at(texts: &Words, index: u32) -> Option<&[AtomicU64]> {
    let start = index as usize * WORDS;
    texts.get(start..start + WORDS)
}

fn place(hasher: &RandomState, call: &CallId) -> u16 {
    #[allow(clippy::cast_possible_truncation, reason = "some bits of a hash")]
    let place = hasher.hash_one(&call.0[..call.used()]) as u16;
    place
}

impl Records {
    /// All numbers free but those that are `used`, counted from 0.
    fn new(texts: Words, used: impl Fn(u32) -> bool) -> Records {
        let free = ArrayQueue::new(CALLS as usize);
        for index in (0..CALLS).filter(|index| !used(*index)) {
            // There is room for each.
            let _ = free.push(index);
        }
        Records { texts, free }
    }
}

/// The calls that the process before left, of which those are taken over that their templates claim.
pub struct Left {
    texts: Words,
    hasher: RandomState,
    claimed: Vec<bool>,
}

impl Left {
    /// Those in `texts`, hashed with these seeds.
    #[must_use]
    pub fn new(texts: Words, seeds: [u64; 4]) -> Left {
        let [a, b, c, d] = seeds;
        Left {
            texts,
            hasher: RandomState::with_seeds(a, b, c, d),
            claimed: vec![false; CALLS as usize],
        }
    }

    /// Whether the number is that of a call whose template may stand at `port`: up to so many places beyond its own.
    pub fn claim(&mut self, number: u32, port: u16, places: u16) -> bool {
        let Some(index) = number.checked_sub(1) else {
            return false;
        };
        let (Some(text), Some(claimed)) = (
            text_at(&self.texts, index),
            self.claimed.get_mut(index as usize),
        ) else {
            return false;
        };
        let mut call = CallId([0; WORDS]);
        for (word, stored) in call.0.iter_mut().zip(text) {
            *word = stored.load(Relaxed);
        }
        let is_its_place = port.wrapping_sub(place(&self.hasher, &call)) < places;
        is_its_place && !std::mem::replace(claimed, true)
    }

    /// The calls, all other numbers free.
    #[must_use]
    pub fn finish(self) -> Calls {
        let claimed = self.claimed;
        let records = Records::new(self.texts, |index| claimed[index as usize]);
        Calls {
            hasher: self.hasher,
            records: OnceLock::from(records),
        }
    }
}

impl std::fmt::Debug for Calls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Calls")
            .field("in_use", &self.in_use())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_found_by_its_number_until_that_is_another_calls() {
        let calls = Calls::default();
        let one = CallId::new(b"one@example.test").unwrap();
        assert_eq!(calls.take(&one), None, "no memory yet");
        calls.prepare();
        let long = CallId::new(&[b'x'; CALL_ID_LEN]).unwrap();
        let (first, second) = (calls.take(&one).unwrap(), calls.take(&long).unwrap());
        assert!(calls.is(first, &one) && calls.is(second, &long));
        assert!(!calls.is(first, &long) && !calls.is(second, &one) && !calls.is(0, &one));
        assert_eq!(calls.get(first).unwrap().text(), b"one@example.test");
        assert_eq!(calls.get(second).unwrap().text(), [b'x'; CALL_ID_LEN]);
        assert_eq!(calls.in_use(), 2);
        calls.give_back(first);
        calls.give_back(0);
        assert_eq!(calls.in_use(), 1);
    }

    #[test]
    fn a_text_of_no_use_is_no_call() {
        assert!(CallId::new(b"").is_none());
        assert!(CallId::new(&[b'x'; CALL_ID_LEN + 1]).is_none());
        let (short, longer) = (CallId::new(b"ab"), CallId::new(b"ab\0"));
        assert!(short != longer);
    }

    #[test]
    fn of_what_is_left_calls_are_taken_over_whose_templates_stand_where_they_should() {
        let words = || Words::new(CALLS as usize * WORDS).unwrap();
        let calls = Left::new(words(), [1, 2, 3, 4]).finish();
        let [one, two] =
            [b"one@example.test", b"two@example.test"].map(|text| CallId::new(text).unwrap());
        let numbers = [&one, &two].map(|call| calls.take(call).unwrap());
        let places = [&one, &two].map(|call| calls.place(call));
        let records = calls.records.into_inner().unwrap();
        let mut left = Left::new(records.texts, [1, 2, 3, 4]);
        assert!(left.claim(numbers[0], places[0].wrapping_add(15), 16));
        assert!(!left.claim(numbers[0], places[0], 16), "claimed already");
        assert!(!left.claim(numbers[1], places[1].wrapping_add(16), 16));
        assert!(!left.claim(0, places[1], 16) && !left.claim(CALLS + 1, places[1], 16));
        let calls = left.finish();
        assert!(calls.is(numbers[0], &one));
        assert_eq!((calls.in_use(), calls.place(&one)), (1, places[0]));
    }

    #[test]
    fn at_the_limit_no_call_is_taken_until_one_is_given_back() {
        let calls = Calls::default();
        calls.prepare();
        let call = CallId::new(b"x").unwrap();
        for _ in 0..CALLS {
            assert!(calls.take(&call).is_some());
        }
        assert_eq!(calls.take(&call), None);
        calls.give_back(7);
        assert_eq!(calls.take(&call), Some(7));
    }
}
