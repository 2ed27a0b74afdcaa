//! What `lblc` and `lblcr` remember of destinations, and when they forget it.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;

/// A table from destination addresses to `T`, all memory taken at the start.
///
/// It forgets by the kernel's rules, applied once a minute: every thirtieth minute without a need for the other rule,
/// what has not been used for the set time, a day if nothing else is set; and whenever there are more than [`USUAL`] destinations, what has not been
/// used for six minutes, until a third more than the excess is gone.
///
/// Differs from IPVS: the kernel's table has no limit between these checks. Here it is twice [`USUAL`]; what comes then
/// is not remembered, as in the kernel when memory runs out. And a check is spread over several ticks.
pub(crate) struct Destinations<T> {
    /// The first entry of each chain.
    buckets: Vec<u32>,
    entries: Vec<Entry<T>>,
    /// The first of the entries that were given back, chained.
    free: u32,
    count: usize,
    limit: usize,
    usual: usize,
    expiration_seconds: u32,
    /// Keyed, so that nobody outside can aim destinations at one bucket.
    keys: RandomState,
    now: u32,
    since_check: u32,
    checks: u32,
    sweep: Sweep,
}

struct Entry<T> {
    address: IpAddr,
    last_use: u32,
    next: u32,
    value: T,
}

/// A check under way.
#[derive(Default)]
struct Sweep {
    /// The next bucket.
    rover: usize,
    /// Buckets still to visit.
    remaining: usize,
    /// What was not used for so long is forgotten.
    idle_seconds: u32,
    /// Entries still to forget before the check ends early.
    goal: usize,
}

/// As many destinations are no reason to forget any early.
pub(crate) const USUAL: usize = 16_384;
/// Unless set otherwise, a destination not used for so long is forgotten, and a set of servers not changed for so long
/// loses one.
pub(crate) const EXPIRATION_SECONDS: u32 = 24 * 60 * 60;
const BUCKETS: usize = 16_384;
/// So many buckets of a check are visited for each second of a tick.
const BUCKETS_PER_SECOND: usize = 1024;
const CHECK_SECONDS: u32 = 60;
const CHECKS_UNTIL_FULL: u32 = 30;
const EARLY_SECONDS: u32 = 6 * 60;
const NONE: u32 = u32::MAX;

impl<T: Copy> Destinations<T> {
    /// For `usual` destinations, and at most twice as many.
    pub(crate) fn new(usual: usize, expiration_seconds: u32) -> Self {
        Self {
            buckets: vec![NONE; BUCKETS],
            entries: Vec::with_capacity(2 * usual),
            free: NONE,
            count: 0,
            limit: 2 * usual,
            usual,
            expiration_seconds,
            keys: RandomState::new(),
            now: 0,
            since_check: 0,
            checks: 1,
            sweep: Sweep::default(),
        }
    }

    /// Seconds since the table was made, by the ticks.
    pub(crate) fn now(&self) -> u32 {
        self.now
    }

    /// Remembers destinations that are not used for so long from now on.
    pub(crate) fn set_expiration(&mut self, seconds: u32) {
        self.expiration_seconds = seconds;
    }

    /// For how long a destination that is not used is remembered.
    pub(crate) fn expiration_seconds(&self) -> u32 {
        self.expiration_seconds
    }

    /// The entry of a destination, which counts as used now.
    pub(crate) fn find(&mut self, address: IpAddr) -> Option<usize> {
        let mut next = self.buckets[self.bucket(address)];
        while let Some(entry) = self.entries.get_mut(next as usize) {
            if entry.address == address {
                entry.last_use = self.now;
                return Some(next as usize);
            }
            next = entry.next;
        }
        None
    }

    /// What is remembered there.
    pub(crate) fn value(&mut self, entry: usize) -> &mut T {
        &mut self.entries[entry].value
    }

    /// Whether there is room for another destination.
    pub(crate) fn has_room(&self) -> bool {
        self.count < self.limit
    }

    /// Remembers a destination that is not in the table. There must be room.
    pub(crate) fn insert(&mut self, address: IpAddr, value: T) {
        assert!(self.has_room(), "the caller looked for room");
        let bucket = self.bucket(address);
        let entry = Entry {
            address,
            last_use: self.now,
            next: self.buckets[bucket],
            value,
        };
        let at = if self.free == NONE {
            self.entries.push(entry);
            u32::try_from(self.entries.len() - 1).expect("the limit has fewer bits")
        } else {
            let at = self.free;
            self.free = self.entries[at as usize].next;
            self.entries[at as usize] = entry;
            at
        };
        self.buckets[bucket] = at;
        self.count += 1;
    }

    /// Lets time pass. What is forgotten goes to `forgotten`.
    pub(crate) fn tick(&mut self, seconds: u32, mut forgotten: impl FnMut(T)) {
        self.now = self.now.wrapping_add(seconds);
        self.since_check = self.since_check.saturating_add(seconds);
        if self.since_check >= CHECK_SECONDS {
            self.since_check = 0;
            self.begin_check();
        }
        let share = (seconds as usize).saturating_mul(BUCKETS_PER_SECOND);
        for _ in 0..share.min(self.sweep.remaining) {
            self.sweep_bucket(&mut forgotten);
            self.sweep.remaining -= 1;
            if self.sweep.goal == 0 {
                self.sweep.remaining = 0;
                break;
            }
        }
    }

    fn begin_check(&mut self) {
        let (idle_seconds, goal) = if self.checks.is_multiple_of(CHECKS_UNTIL_FULL) {
            self.checks = 1;
            (self.expiration_seconds, usize::MAX)
        } else if self.count <= self.usual {
            self.checks += 1;
            return;
        } else {
            let excess = self.count - self.usual;
            (EARLY_SECONDS, (excess * 4 / 3).min(self.usual / 2))
        };
        self.sweep.remaining = BUCKETS;
        self.sweep.idle_seconds = idle_seconds;
        self.sweep.goal = goal;
    }

    fn sweep_bucket(&mut self, forgotten: &mut impl FnMut(T)) {
        let bucket = self.sweep.rover;
        self.sweep.rover = (bucket + 1) % BUCKETS;
        let mut before = NONE;
        let mut at = self.buckets[bucket];
        while let Some(entry) = self.entries.get_mut(at as usize) {
            let next = entry.next;
            if self.now.wrapping_sub(entry.last_use) < self.sweep.idle_seconds {
                before = at;
            } else {
                forgotten(entry.value);
                entry.next = self.free;
                self.free = at;
                match self.entries.get_mut(before as usize) {
                    Some(before) => before.next = next,
                    None => self.buckets[bucket] = next,
                }
                self.count -= 1;
                self.sweep.goal = self.sweep.goal.saturating_sub(1);
            }
            at = next;
        }
    }

    #[allow(
        clippy::cast_possible_truncation,
        reason = "any bits of the hash will do"
    )]
    fn bucket(&self, address: IpAddr) -> usize {
        self.keys.hash_one(address) as usize % BUCKETS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn address(number: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from_bits(number))
    }

    fn tick(table: &mut Destinations<u32>, seconds: u32) -> Vec<u32> {
        let mut gone = Vec::new();
        for _ in 0..seconds {
            table.tick(1, |value| gone.push(value));
        }
        gone.sort_unstable();
        gone
    }

    fn holding(usual: usize, count: u32) -> Destinations<u32> {
        let mut table = Destinations::new(usual, EXPIRATION_SECONDS);
        for number in 0..count {
            table.insert(address(number), number);
        }
        table
    }

    #[test]
    fn a_table_at_its_limit_has_no_room_until_something_is_forgotten() {
        let mut table = holding(4, 8);
        assert!(!table.has_room());
        // Four too many: at six minutes, a third more would be five, but half the usual number is the most at once.
        assert_eq!(tick(&mut table, 359), []);
        assert_eq!(tick(&mut table, 30).len(), 2);
        assert!(table.has_room());
        table.insert(address(100), 100);
        table.insert(address(101), 101);
        assert!(!table.has_room());
        let entry = table.find(address(101)).unwrap();
        assert_eq!(*table.value(entry), 101);
    }

    #[test]
    fn what_is_used_is_kept_and_the_rest_goes_early_when_there_are_too_many() {
        let mut table = holding(4, 6);
        for _ in 0..7 {
            tick(&mut table, 60);
            for number in 0..4 {
                table.find(address(number));
            }
        }
        for number in 0..4 {
            assert!(table.find(address(number)).is_some(), "{number}");
        }
        assert!(table.find(address(4)).is_none());
        assert!(table.find(address(5)).is_none());
    }

    #[test]
    fn destinations_few_enough_stay_for_a_day() {
        let mut table = holding(16, 3);
        assert_eq!(tick(&mut table, 12 * 60 * 60), []);
        table.find(address(1));
        assert_eq!(tick(&mut table, 12 * 60 * 60 + 31 * 60), [0, 2]);
        assert_eq!(tick(&mut table, 12 * 60 * 60), [1]);
        assert!(table.find(address(1)).is_none());
    }

    #[test]
    fn a_set_expiration_holds_at_the_full_check() {
        let mut table = Destinations::new(16, 60);
        table.insert(address(1), 1);
        table.insert(address(2), 2);
        // The check is every thirtieth minute, whatever the expiration.
        assert_eq!(tick(&mut table, 1770), []);
        table.find(address(2));
        assert_eq!(tick(&mut table, 60), [1]);
        assert_eq!(tick(&mut table, 30 * 60), [2]);
    }

    #[test]
    fn chains_survive_what_is_taken_out_of_them() {
        // More entries than buckets, so that chains are long.
        let mut table = holding(40_000, 50_000);
        tick(&mut table, 350);
        for number in (0..50_000).step_by(2) {
            table.find(address(number));
        }
        let gone = tick(&mut table, 60);
        assert!(gone.len() >= 13_333 && gone.iter().all(|number| number % 2 == 1));
        for number in 0..50_000 {
            let found = table.find(address(number)).map(|entry| *table.value(entry));
            let expected = gone.binary_search(&number).is_err().then_some(number);
            assert_eq!(found, expected);
        }
    }
}
