//! A structure full of flows, and the operations that are measured on it.

use crate::flows::{Kind, flow, sequence};
use crate::structure::{BURST, Form, Found, Hand, Structure, THREADS};
use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Looking up flows that are there.
    Hit,
    /// Looking up flows that are not.
    Miss,
    /// Putting a flow in and taking another one out, which was put in long before: that is one operation.
    InsertRemove,
    /// Of a hundred operations 95 hits and 5 of insert and remove.
    Mixed,
}

/// Bursts before a measurement.
const WARM_UP: usize = 32;
/// Operations of a measurement at least: fewer would be measured while the caches are still filling.
const AT_LEAST: u64 = 1 << 14;

/// All of them.
pub(crate) const OPERATIONS: [Operation; 4] = [
    Operation::Hit,
    Operation::Miss,
    Operation::InsertRemove,
    Operation::Mixed,
];

impl Operation {
    /// Its name in the rows.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Operation::Hit => "hit",
            Operation::Miss => "miss",
            Operation::InsertRemove => "insert+remove",
            Operation::Mixed => "mixed",
        }
    }

    /// Whether the form of lookups makes no difference.
    pub(crate) fn is_same_in_all_forms(self) -> bool {
        self == Operation::InsertRemove
    }
}

/// A structure with `entries` flows that stay, and what its threads do to it.
pub(crate) struct Run<S: Structure> {
    structure: S,
    residents: Vec<S::Key>,
    absent: Vec<S::Key>,
    threads: [Thread<S::Key>; THREADS],
}

/// Where a thread is in its work, from one measurement to the next.
struct Thread<K> {
    number: usize,
    /// The next burst of the sequence of lookups.
    burst: usize,
    /// Flows that come and go, the older half of them in the structure.
    passing: Vec<K>,
    /// The oldest of them.
    oldest: usize,
    /// What is due of an insert and remove, in parts of 95.
    due: usize,
}

impl<S: Structure> Run<S> {
    /// A structure of so many flows.
    pub(crate) fn new(entries: u32) -> Run<S> {
        // Half of them are in at any time: so a flow taken out has been in for many others.
        let passing = (entries / 4).max(256);
        let room = entries + passing + 4096;
        let structure = S::new(usize::try_from(room).expect("it fits memory"));
        let residents: Vec<S::Key> = sequence(Kind::Resident, entries);
        let threads = [0, 1].map(|number| Thread {
            number,
            burst: residents.len() / BURST / THREADS * number,
            passing: (0..passing)
                .map(|flow_number| flow(Kind::Passing(u32::from(number == 1)), flow_number).into())
                .collect(),
            oldest: 0,
            due: 0,
        });
        // In a thread of its own, as all use is: DPDK wants to know each.
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut hand = structure.hand(0);
                for number in 0..entries {
                    hand.insert(&flow(Kind::Resident, number).into(), number % 8);
                }
            });
        });
        for thread in &threads {
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let mut hand = structure.hand(thread.number);
                    for key in &thread.passing[..thread.passing.len() / 2] {
                        hand.insert(key, 1);
                    }
                });
            });
        }
        Run {
            structure,
            residents,
            absent: sequence(Kind::Absent, entries),
            threads,
        }
    }

    /// The time that each of so many threads takes for `count` operations: that of the slowest.
    pub(crate) fn measure(
        &mut self,
        operation: Operation,
        form: Form,
        threads: usize,
        count: u64,
    ) -> Duration {
        let Run {
            structure,
            residents,
            absent,
            threads: all,
        } = self;
        let keys: &[S::Key] = if operation == Operation::Miss {
            absent
        } else {
            residents
        };
        let barrier = Barrier::new(threads);
        let work = |thread: &mut Thread<S::Key>| {
            let mut hand = structure.hand(thread.number);
            barrier.wait();
            // The thread is new, and may have come to another CPU than the one before. After the barrier: whoever waits
            // there lets nobody reclaim anything.
            for _ in 0..WARM_UP {
                thread.burst(operation, form, keys, &mut hand);
            }
            let start = Instant::now();
            let mut done = 0;
            while done < count.max(AT_LEAST) {
                done += thread.burst(operation, form, keys, &mut hand);
            }
            let took = start.elapsed().as_secs_f64();
            // It may be more than was asked for.
            #[allow(clippy::cast_precision_loss, reason = "counts far below 2^52")]
            Duration::from_secs_f64(took * count as f64 / done as f64)
        };
        std::thread::scope(|scope| {
            let running: Vec<_> = all[..threads]
                .iter_mut()
                .map(|thread| scope.spawn(|| work(thread)))
                .collect();
            let times = running
                .into_iter()
                .map(|thread| thread.join().expect("it works"));
            times.max().expect("a thread at least")
        })
    }
}

impl<K: Copy> Thread<K> {
    /// Does a burst of operations, and returns how many.
    fn burst(
        &mut self,
        operation: Operation,
        form: Form,
        keys: &[K],
        hand: &mut impl Hand<K>,
    ) -> u64 {
        let mut done = 0;
        if operation == Operation::InsertRemove {
            for _ in 0..BURST {
                self.replace(hand);
            }
            done += BURST as u64;
        } else {
            let found = self.lookup(form, keys, hand);
            let expected = if operation == Operation::Miss {
                0
            } else {
                BURST
            };
            assert_eq!(found.count, expected, "flows found");
            black_box(found.sum);
            done += BURST as u64;
        }
        if operation == Operation::Mixed {
            self.due += 5 * BURST;
            while self.due >= 95 {
                self.due -= 95;
                self.replace(hand);
                done += 1;
            }
        }
        hand.quiescent();
        done
    }

    fn lookup(&mut self, form: Form, keys: &[K], hand: &mut impl Hand<K>) -> Found {
        let (bursts, _) = keys.as_chunks::<BURST>();
        let burst = &bursts[self.burst];
        self.burst = (self.burst + 1) % bursts.len();
        hand.lookup(form, burst)
    }

    /// Puts the newest flow in and takes the oldest out.
    fn replace(&mut self, hand: &mut impl Hand<K>) {
        let count = self.passing.len();
        let half = count / 2;
        let newest = if self.oldest + half < count {
            self.oldest + half
        } else {
            self.oldest + half - count
        };
        hand.insert(&self.passing[newest], 2);
        hand.remove(&self.passing[self.oldest]);
        self.oldest = if self.oldest + 1 < count {
            self.oldest + 1
        } else {
            0
        };
    }
}
