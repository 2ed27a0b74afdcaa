//! From a key's hash to the entries that may hold it: buckets of one cache line, and chains of them.
//!
//! ```text
//!   bucket, 64 bytes                                             slot, 64 bits
//!   ┌──────┬──────┬──────┬──────┬──────┬──────┬──────┬─────────┐  63     48  47   46   45      32  31        0
//!   │slot 0│slot 1│slot 2│slot 3│slot 4│slot 5│slot 6│overflow │  ┌───────┬────┬─────┬──────────┬───────────┐
//!   └──────┴──────┴──────┴──────┴──────┴──────┴──────┴─────────┘  │  tag  │dir │pend.│generation│   entry   │
//!                                                                 └───────┴────┴─────┴──────────┴───────────┘
//!   home       + stride    + 2 stride                             entry 0 does not exist: 0 is an empty slot
//!   [7 full]──▶[7 full]──▶[1 of ours]
//!   overflow 1  overflow 1  overflow 0: a search for a key of this home ends here
//! ```
//! The stride is the key's own, so that full buckets do not crowd together: with a stride of one for all, a chain of
//! eight was already full somewhere at a load of 0.6 (docs/decisions/0003-bucket-layout.md).
//!
//! `overflow` counts the keys that passed a bucket because it was full and live further on. A search goes on to the
//! next bucket only where it is not zero, so removal leaves no tombstones. It is raised before the slot is taken and
//! lowered after the slot was emptied: it may be too high for a moment, never too low for a slot that can be seen.
//!
//! A pending slot claims a key and is no connection yet: lookups pass it by, inserts of the same key settle who stays
//! (see `insert`).

use crate::entry::{ConnectionId, GENERATION};
use crate::memory::{self, Slab};
use crate::sizing::buckets;
use crate::sync::{AtomicU64, Ordering, Ordering::Relaxed};
use crate::tuple::Direction;

/// Slots of a bucket. Two in a model, so that it reaches a second bucket soon.
pub(crate) const SLOTS: usize = if cfg!(loom) { 2 } else { 7 };
/// Buckets that a key may be away from home, and one.
pub(crate) const CHAIN_LIMIT: u32 = 24;

/// The hash of a tuple, cut into what the index needs. The default is no key's.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hash {
    bucket: u32,
    /// Never 0.
    tag: u16,
    step: u16,
}

impl Hash {
    /// The hash as one of `1 << bits` places, at most 32 bits, and a fingerprint of 16 bits that is never 0 and tells
    /// nothing of the place.
    #[inline]
    pub(crate) fn print(self, bits: u32) -> (u32, u16) {
        let rest = u64::from(self.bucket) << 16 | u64::from(self.step);
        // The bits above are mixed the best. Source: Knuth, The Art of Computer Programming 6.4 (Fibonacci hashing).
        let mixed = rest.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let place = (mixed << bits) >> 32;
        (u32::try_from(place).expect("32 bits at most"), self.tag)
    }
}

/// Which slot of a home bucket may hold the key. The default names none; `find` then looks at all of them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Probe {
    /// The first of them, as it was; empty where there is none.
    pub(crate) first: Slot,
}

/// The contents of a slot. The default is an empty one's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Slot(u64);

const REPLY: u64 = 1 << 47;
const PENDING: u64 = 1 << 46;

impl Slot {
    /// A slot that claims the key.
    pub(crate) fn pending(hash: Hash, direction: Direction, id: ConnectionId) -> Slot {
        let direction = match direction {
            Direction::Request => 0,
            Direction::Reply => REPLY,
        };
        Slot(u64::from(hash.tag) << 48 | direction | PENDING | id.to_u64())
    }

    /// The same, standing for the connection.
    pub(crate) fn confirmed(self) -> Slot {
        Slot(self.0 & !PENDING)
    }

    #[inline]
    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    #[inline]
    pub(crate) fn is_pending(self) -> bool {
        self.0 & PENDING != 0
    }

    #[inline]
    pub(crate) fn direction(self) -> Direction {
        if self.0 & REPLY == 0 {
            Direction::Request
        } else {
            Direction::Reply
        }
    }

    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "the fields are cut out")]
    pub(crate) fn id(self) -> ConnectionId {
        ConnectionId {
            index: self.0 as u32,
            generation: (self.0 >> 32) as u16 & GENERATION,
        }
    }

    #[inline]
    pub(crate) fn has_tag(self, hash: Hash) -> bool {
        self.0 >> 48 == u64::from(hash.tag)
    }
}

/// Where on a key's chain a slot is. Slots nearer home come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) distance: u32,
    slot: u32,
}

/// One line of the index.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(crate) struct Bucket {
    slots: [AtomicU64; SLOTS],
    overflow: AtomicU64,
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Bucket>() == 64 && align_of::<Bucket>() == 64);

impl Bucket {
    #[inline]
    pub(crate) fn load(&self, slot: usize) -> Slot {
        // Acquire, with the Release of `claim` and `confirm`: whoever sees a slot sees the entry behind it.
        Slot(self.slots[slot].load(Ordering::Acquire))
    }

    /// The slots that seem to have the tag, a bit each: whoever relies on one loads it.
    #[cfg(all(target_arch = "x86_64", not(loom)))]
    #[inline]
    fn matching(&self, tag: u16) -> u8 {
        memory::upper_words(self, tag) & ((1 << SLOTS) - 1)
    }

    /// The slots that seem to have the tag, a bit each: whoever relies on one loads it.
    #[cfg(not(all(target_arch = "x86_64", not(loom))))]
    fn matching(&self, tag: u16) -> u8 {
        (0..SLOTS).fold(0, |found, slot| {
            let has_tag = self.load(slot).0 >> 48 == u64::from(tag);
            found | u8::from(has_tag) << slot
        })
    }
}

/// All buckets.
pub(crate) struct Index {
    buckets: Slab<Bucket>,
    count: u32,
    chain_limit: u32,
    /// Strides are 1 to this: no chain comes to a bucket twice.
    longest_stride: u32,
}

impl Index {
    /// An index for `capacity` connections of two keys each.
    pub(crate) fn new(capacity: u32, nodes: &[u16]) -> std::io::Result<Index> {
        let count = buckets(capacity);
        let count = usize::try_from(count).map_err(|_| std::io::ErrorKind::InvalidInput)?;
        Self::of(Slab::new(count, nodes)?)
    }

    /// An index of these buckets.
    pub(crate) fn of(buckets: Slab<Bucket>) -> std::io::Result<Index> {
        let count = u32::try_from(buckets.len()).map_err(|_| std::io::ErrorKind::InvalidInput)?;
        let chain_limit = CHAIN_LIMIT.min(count);
        Ok(Index {
            buckets,
            count,
            chain_limit,
            longest_stride: (count - 1) / (chain_limit - 1),
        })
    }

    pub(crate) fn slots(&self) -> u64 {
        u64::from(self.count) * SLOTS as u64
    }

    pub(crate) fn memory(&self) -> &Slab<Bucket> {
        &self.buckets
    }

    /// Cuts a hash: the high half picks the bucket by multiplication, whatever their number, the low bits are the tag, and those between the stride.
    #[inline]
    #[allow(
        clippy::cast_possible_truncation,
        reason = "the product is below count, the tag is cut out"
    )]
    pub(crate) fn cut(&self, hash: u64) -> Hash {
        Hash {
            bucket: (((hash >> 32) * u64::from(self.count)) >> 32) as u32,
            // Never 0, which is an empty slot's.
            tag: (hash as u16).max(1),
            step: (hash >> 16) as u16,
        }
    }

    #[inline]
    pub(crate) fn home(&self, hash: Hash) -> &Bucket {
        &self.buckets[hash.bucket as usize]
    }

    #[inline]
    pub(crate) fn bucket(&self, hash: Hash, distance: u32) -> &Bucket {
        &self.buckets[self.number(hash, distance)]
    }

    /// The number of the bucket so far from home.
    #[inline]
    fn number(&self, hash: Hash, distance: u32) -> usize {
        let stride = 1 + ((u64::from(hash.step) * u64::from(self.longest_stride)) >> 16);
        let number = u64::from(hash.bucket) + u64::from(distance) * stride;
        let count = u64::from(self.count);
        let wrapped = if number >= count {
            number - count
        } else {
            number
        };
        usize::try_from(wrapped).expect("a bucket's number is a u32")
    }

    #[inline]
    pub(crate) fn prefetch(&self, hash: Hash) {
        memory::prefetch(self.home(hash));
    }

    /// Whether no key with this home lives further on.
    #[inline]
    pub(crate) fn is_at_home(&self, hash: Hash) -> bool {
        self.home(hash).overflow.load(Relaxed) == 0
    }

    /// Asks for the bucket behind home, if a key of that home may live there.
    #[inline]
    pub(crate) fn prefetch_further(&self, hash: Hash) {
        if !self.is_at_home(hash) {
            memory::prefetch(self.bucket(hash, 1));
        }
    }

    /// Compares all tags of the home bucket: the slots that seem to have the key's, a bit each.
    #[inline]
    pub(crate) fn candidates(&self, hash: Hash) -> u8 {
        self.home(hash).matching(hash.tag)
    }

    /// The first of them, if there is one.
    #[inline]
    pub(crate) fn probe(&self, hash: Hash) -> Probe {
        let first = match self.candidates(hash) {
            0 => Slot::default(),
            found => self.home(hash).load(found.trailing_zeros() as usize),
        };
        Probe { first }
    }

    /// Shows every slot with the key's tag, from home on, to `visit`, until it has an answer.
    pub(crate) fn search<R>(
        &self,
        hash: Hash,
        mut visit: impl FnMut(Place, Slot) -> Option<R>,
    ) -> Option<R> {
        for distance in 0..self.chain_limit {
            let bucket = self.bucket(hash, distance);
            for slot in 0..SLOTS {
                let value = bucket.load(slot);
                if value.has_tag(hash) {
                    #[allow(clippy::cast_possible_truncation, reason = "slot is below SLOTS")]
                    let place = Place {
                        distance,
                        slot: slot as u32,
                    };
                    if let Some(answer) = visit(place, value) {
                        return Some(answer);
                    }
                }
            }
            if bucket.overflow.load(Relaxed) == 0 {
                break;
            }
        }
        None
    }

    /// Puts `value` into an empty slot of the chain; `None` where there is none.
    pub(crate) fn claim(&self, hash: Hash, value: Slot) -> Option<Place> {
        for distance in 0..self.chain_limit {
            let bucket = self.bucket(hash, distance);
            for slot in 0..SLOTS {
                // Release, with the Acquire of `load`: other inserts of the key read the entry of a pending slot.
                if bucket.slots[slot].load(Relaxed) == 0
                    && bucket.slots[slot]
                        .compare_exchange(0, value.0, Ordering::Release, Relaxed)
                        .is_ok()
                {
                    #[allow(clippy::cast_possible_truncation, reason = "slot is below SLOTS")]
                    return Some(Place {
                        distance,
                        slot: slot as u32,
                    });
                }
            }
            bucket.overflow.fetch_add(1, Relaxed);
        }
        self.forget_overflow(hash, self.chain_limit);
        None
    }

    /// Lets a pending slot stand for its connection. False when it was taken away.
    pub(crate) fn confirm(&self, hash: Hash, place: Place, pending: Slot) -> bool {
        // Release, with the Acquire of `load`.
        self.exchange(
            hash,
            place,
            pending,
            pending.confirmed().0,
            Ordering::Release,
        )
    }

    /// Empties a slot. False when it holds something else by now, and then whoever emptied it did the rest.
    pub(crate) fn release(&self, hash: Hash, place: Place, value: Slot) -> bool {
        let released = self.exchange(hash, place, value, 0, Relaxed);
        if released {
            self.forget_overflow(hash, place.distance);
        }
        released
    }

    fn exchange(&self, hash: Hash, place: Place, from: Slot, to: u64, ordering: Ordering) -> bool {
        self.bucket(hash, place.distance).slots[place.slot as usize]
            .compare_exchange(from.0, to, ordering, Relaxed)
            .is_ok()
    }

    /// Where `value` stands on the chain, whatever the buckets count.
    #[cfg(not(loom))]
    pub(crate) fn place_of(&self, hash: Hash, value: Slot) -> Option<Place> {
        (0..self.chain_limit).find_map(|distance| {
            let bucket = self.bucket(hash, distance);
            (0_u32..)
                .take(SLOTS)
                .find(|slot| bucket.load(*slot as usize) == value)
                .map(|slot| Place { distance, slot })
        })
    }

    /// A key that had passed the first `distance` buckets of its chain is gone.
    fn forget_overflow(&self, hash: Hash, distance: u32) {
        for passed in 0..distance {
            self.bucket(hash, passed).overflow.fetch_sub(1, Relaxed);
        }
    }
}

/// What is known of an index while connections of the process before are looked for in it.
#[cfg(not(loom))]
pub(crate) struct Survey {
    /// Of each bucket: a bit for each slot that stands for a connection.
    used: Box<[u8]>,
    /// Of each bucket: how many of those keys live further on.
    passed: Box<[u16]>,
}

#[cfg(not(loom))]
impl Survey {
    pub(crate) fn new(index: &Index) -> Survey {
        Survey {
            used: vec![0; index.count as usize].into(),
            passed: vec![0; index.count as usize].into(),
        }
    }

    /// Of no index.
    pub(crate) fn none() -> Survey {
        Survey {
            used: Box::default(),
            passed: Box::default(),
        }
    }

    /// Notes a slot that stands for a connection.
    pub(crate) fn note(&mut self, index: &Index, hash: Hash, place: Place) {
        self.used[index.number(hash, place.distance)] |= 1 << place.slot;
        for distance in 0..place.distance {
            let passed = &mut self.passed[index.number(hash, distance)];
            *passed = passed.saturating_add(1);
        }
    }

    /// Empties all other slots, and sets right what the buckets count.
    pub(crate) fn finish(self, index: &Index) {
        let noted = self.used.iter().zip(&self.passed);
        for (bucket, (used, passed)) in index.buckets.iter().zip(noted) {
            for (slot, value) in bucket.slots.iter().enumerate() {
                if used & 1 << slot == 0 && value.load(Relaxed) != 0 {
                    value.store(0, Relaxed);
                }
            }
            let passed = u64::from(*passed);
            if bucket.overflow.load(Relaxed) != passed {
                bucket.overflow.store(passed, Relaxed);
            }
        }
    }
}

#[cfg(all(test, loom))]
impl Hash {
    /// The same chain for another key.
    pub(crate) fn with_other_tag(self) -> Hash {
        Hash {
            tag: !self.tag,
            ..self
        }
    }
}

#[cfg(all(test, loom))]
impl Index {
    /// The sum of all overflow counts.
    pub(crate) fn overflows(&self) -> u64 {
        self.buckets
            .iter()
            .map(|bucket| bucket.overflow.load(Relaxed))
            .sum()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const HASH: Hash = Hash {
        bucket: 31,
        tag: 0xbeef,
        step: 0xffff,
    };

    fn slot(index: u32) -> Slot {
        Slot::pending(
            HASH,
            Direction::Reply,
            ConnectionId {
                index,
                generation: 5,
            },
        )
    }

    fn overflows(index: &Index) -> Vec<u64> {
        (0..CHAIN_LIMIT)
            .map(|distance| index.bucket(HASH, distance).overflow.load(Relaxed))
            .collect()
    }

    #[test]
    fn a_slot_keeps_its_fields() {
        let id = ConnectionId {
            index: u32::MAX,
            generation: GENERATION,
        };
        for direction in [Direction::Request, Direction::Reply] {
            let slot = Slot::pending(HASH, direction, id);
            assert!(slot.is_pending() && slot.has_tag(HASH));
            let slot = slot.confirmed();
            assert!(!slot.is_pending() && slot.has_tag(HASH));
            assert_eq!((slot.id(), slot.direction()), (id, direction));
        }
    }

    #[test]
    fn no_hash_has_the_tag_of_an_empty_slot() {
        let index = Index::new(10, &[]).unwrap();
        for word in [0, 0xffff_ffff_ffff_0000, 1, u64::MAX] {
            let hash = index.cut(word);
            assert_eq!(index.candidates(hash), 0, "{word:x}");
            assert_eq!(index.search(hash, |place, _| Some(place)), None);
        }
        assert_eq!((index.cut(0).tag, index.cut(7).tag), (1, 7));
    }

    #[test]
    fn a_chain_takes_as_many_keys_as_its_buckets_have_slots() {
        // The chain begins in the last bucket and goes round.
        let index = Index::new(10, &[]).unwrap();
        assert_eq!(index.slots(), 32 * SLOTS as u64);
        let limit = CHAIN_LIMIT * u32::try_from(SLOTS).unwrap();
        let places: Vec<_> = (1..=limit)
            .map(|number| index.claim(HASH, slot(number)).unwrap())
            .collect();
        assert!(places.is_sorted());
        assert_eq!(index.claim(HASH, slot(limit + 1)), None);
        let later = (0..CHAIN_LIMIT).rev().map(|after| after.into());
        let slots = SLOTS as u64;
        assert_eq!(
            overflows(&index),
            later.map(|after: u64| after * slots).collect::<Vec<_>>(),
            "a refused claim leaves no count"
        );
        assert_eq!(index.candidates(HASH), 0x7f);

        let mut seen = 0;
        index.search::<()>(HASH, |_, _| {
            seen += 1;
            None
        });
        assert_eq!(seen, limit);

        for (number, &place) in (1..).zip(&places) {
            assert!(
                !index.release(HASH, place, slot(number).confirmed()),
                "it is pending"
            );
            assert!(index.confirm(HASH, place, slot(number)));
            assert!(index.release(HASH, place, slot(number).confirmed()));
            assert!(
                !index.release(HASH, place, slot(number).confirmed()),
                "once"
            );
        }
        assert_eq!(overflows(&index), [0; CHAIN_LIMIT as usize]);
    }

    #[test]
    fn a_search_ends_where_nothing_overflowed() {
        let index = Index::new(10, &[]).unwrap();
        for number in 1..=7 {
            index.claim(HASH, slot(number)).unwrap();
        }
        // A neighbour's own key with the same tag is not on this chain.
        index.claim(Hash { bucket: 0, ..HASH }, slot(8)).unwrap();
        let mut seen = 0;
        index.search::<()>(HASH, |place, _| {
            assert_eq!(place.distance, 0);
            seen += 1;
            None
        });
        assert_eq!(seen, 7);
    }

    #[test]
    fn a_chain_never_comes_to_a_bucket_twice() {
        for capacity in [1, 100, 1000, 4099] {
            let index = Index::new(capacity, &[]).unwrap();
            for hash in [0, 0xffff_0000, u64::MAX, 0x8000_0000_7fff_0000] {
                let hash = index.cut(hash);
                let chain: std::collections::HashSet<_> = (0..CHAIN_LIMIT)
                    .map(|distance| std::ptr::from_ref(index.bucket(hash, distance)))
                    .collect();
                assert_eq!(chain.len(), CHAIN_LIMIT as usize);
            }
        }
    }

    #[test]
    fn every_hash_has_a_bucket() {
        for capacity in [1, 7, 1000, 100_003] {
            let index = Index::new(capacity, &[]).unwrap();
            assert_eq!(index.cut(0).bucket, 0);
            assert_eq!(index.cut(u64::MAX).bucket, index.count - 1);
        }
    }
}
