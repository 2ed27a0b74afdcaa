//! Which newcomers get in while half-open connections fill their share of the table: those that come again.
//!
//! ```text
//!   a first packet that leaves its connection half open
//!     │ is there room?          below 15/16 of the share for everybody, the last 16th is for those that come again
//!     ├ yes ─▶ as always
//!     │ was it refused before?
//!     ├ no ──▶ remembered and refused, before a server is picked or anything is looked for
//!     ├ yes ─▶ a half-open connection of this worker's that was silent for a second ends in its favour
//!     └ yes, but there is none ─▶ one of the last places, or refused
//! ```
//! A flood from random sources never says the same thing twice; a client's TCP says it again after a second. See
//! `docs/decisions/0006-newcomers-that-come-again.md`.

use super::egress::Egress;
use super::family::Ip;
use super::services::Services;
use super::{Flows, settle};
use crate::packet::Tuple;
use crate::port::Port;
use crate::stats::add;
use conntrack::{Entry, Hash, State, Ticks};

/// A half-open connection is left alone for so long after its client's last packet.
pub(super) const MOMENT: Ticks = Ticks::from_seconds(1);
/// Places of the table looked at in a tick, in search of connections to end.
pub(super) const PLACES_PER_TICK: u32 = 1024;
/// Newcomers remembered in a bucket: a cache line with the place of the oldest.
const PRINTS: usize = 31;
/// Words of a bucket.
const WORDS: usize = PRINTS + 1;
/// Buckets, as a power of two. With 16 million newcomers remembered, a worker that refuses ten million in a second
/// still knows them when their clients come again.
const BUCKETS: u32 = 19;

/// Where a worker is with newcomers.
pub(super) struct Newcomers {
    refused: Refused,
    /// The place of the table that was looked at last.
    hand: u32,
    /// Places that may be looked at until the tick is over.
    places_left: u32,
    tick: Ticks,
}

impl Newcomers {
    pub(super) fn new() -> Newcomers {
        Newcomers {
            refused: Refused::new(BUCKETS),
            hand: 0,
            places_left: PLACES_PER_TICK,
            tick: Ticks(0),
        }
    }
}

impl<F: Ip> Flows<F> {
    /// Whether a first packet may leave a half-open connection behind. Where it may not, that is counted in the table.
    #[inline]
    pub(super) fn may_come_in<P: Port>(
        &mut self,
        services: &Services,
        egress: &Egress<P>,
        tuple: &Tuple<F>,
    ) -> bool {
        self.table.has_room_for_newcomers() || self.comes_again(services, egress, tuple)
    }

    #[inline(never)]
    fn comes_again<P: Port>(
        &mut self,
        services: &Services,
        egress: &Egress<P>,
        tuple: &Tuple<F>,
    ) -> bool {
        let hash = self.table.hash(tuple);
        let comes_in = self.newcomers.refused.knows_or_learns(hash)
            && (self.make_room(services, egress) || self.table.has_room_for_half_open());
        if !comes_in {
            self.owner.count_refused_half_open();
        }
        comes_in
    }

    /// Ends a half-open connection of this worker's whose client has been silent for a moment. The search goes on where
    /// the last one ended, and is bounded for each tick.
    fn make_room<P: Port>(&mut self, services: &Services, egress: &Egress<P>) -> bool {
        let newcomers = &mut self.newcomers;
        if newcomers.tick != egress.now {
            newcomers.tick = egress.now;
            newcomers.places_left = PLACES_PER_TICK;
        }
        while newcomers.places_left > 0 {
            newcomers.places_left -= 1;
            let Some(id) = self.owner.next_place(&mut newcomers.hand) else {
                continue;
            };
            let entry = self.table.entry(id);
            if !is_given_up(entry, egress) {
                continue;
            }
            if let Some(state) = self.owner.remove(id) {
                let shared = (&*self.calls, &*self.helpers);
                settle(
                    &self.table,
                    shared,
                    &mut self.lips,
                    services,
                    (id, entry),
                    state,
                );
                add(&egress.stats.half_open_replaced, 1);
                return true;
            }
        }
        false
    }
}

/// Whether a connection may end for the sake of another: nobody has answered, and its client has not come again for a
/// moment.
fn is_given_up<F: Ip, P: Port>(entry: &Entry<F>, egress: &Egress<P>) -> bool {
    let state = entry.state();
    if !is_unanswered(state) {
        return false;
    }
    let timeout = egress.snapshot.timeouts.of(state);
    let silent_since = Ticks(entry.expires_at().0.wrapping_sub(timeout.0));
    silent_since.after(MOMENT).has_passed(egress.now)
}

/// Whether it is a state that a client's first packet alone leads to.
pub(super) fn is_unanswered(state: State) -> bool {
    matches!(
        state,
        State::SynRecv | State::SynAck | State::SctpInit1 | State::SctpInit
    )
}

/// Who was refused, as fingerprints: in each bucket the latest ones.
///
/// ```text
///   bucket, 64 bytes   ┌──────┬─────────┬─────────┬──  ──┬──────────┐
///                      │oldest│ print 0 │ print 1 │  ..  │ print 30 │   print 0: never used
///                      └──────┴─────────┴─────────┴──  ──┴──────────┘
/// ```
/// The memory is taken at the start; its pages come with the first flood.
struct Refused {
    words: Box<[u16]>,
    /// Where the first bucket's line begins.
    start: usize,
    bits: u32,
}

impl Refused {
    fn new(bits: u32) -> Refused {
        let words = vec![0; (WORDS << bits) + WORDS].into_boxed_slice();
        // An offset that the allocator does not tell costs a second cache line, and nothing else.
        let start = words.as_ptr().align_offset(64);
        Refused {
            start: if start < WORDS { start } else { 0 },
            words,
            bits,
        }
    }

    /// Whether this newcomer was refused before. Remembers it if not, in place of the oldest of its bucket.
    fn knows_or_learns(&mut self, hash: Hash) -> bool {
        let (place, print) = hash.print(self.bits);
        let first = self.start + place * WORDS;
        let Some((oldest, prints)) = self
            .words
            .get_mut(first..first + WORDS)
            .and_then(<[u16]>::split_first_mut)
        else {
            unreachable!("a print is below the number of buckets");
        };
        // All are compared, whichever it is: the compiler makes a few vector instructions of it.
        if prints
            .iter()
            .fold(false, |known, &other| known | (other == print))
        {
            return true;
        }
        prints[usize::from(*oldest)] = print;
        *oldest = if usize::from(*oldest) + 1 == PRINTS {
            0
        } else {
            *oldest + 1
        };
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use conntrack::{Table, TableConfig, V4};
    use std::net::Ipv4Addr;

    fn hashes(seed: u64) -> impl Iterator<Item = Hash> {
        let table = Table::<V4>::new(&TableConfig {
            capacity: 16,
            half_open_percent: 100,
            workers: 1,
            seeds: [seed, 2, 3, 4],
        })
        .unwrap();
        (0..).map(move |number| {
            table.hash(&Tuple {
                source: Ipv4Addr::from_bits(number),
                destination: Ipv4Addr::LOCALHOST,
                source_port: 1,
                destination_port: 80,
                protocol: 6,
            })
        })
    }

    #[test]
    fn who_was_refused_is_known_until_a_bucket_of_others_came() {
        let mut refused = Refused::new(0);
        let hashes: Vec<_> = hashes(1).take(PRINTS + 1).collect();
        for hash in &hashes[..PRINTS] {
            assert!(!refused.knows_or_learns(*hash));
        }
        for hash in &hashes[..PRINTS] {
            assert!(refused.knows_or_learns(*hash));
        }
        assert!(!refused.knows_or_learns(hashes[PRINTS]));
        assert!(!refused.knows_or_learns(hashes[0]), "the oldest made room");
        assert!(refused.knows_or_learns(hashes[2]));
    }

    #[test]
    fn of_as_many_as_half_of_all_prints_all_are_known_and_few_others_are() {
        // A small table, whose buckets do not tell hashes apart.
        let mut refused = Refused::new(10);
        let half = (PRINTS << 10) / 2;
        let hashes: Vec<_> = hashes(1).take(2 * half).collect();
        let known = |refused: &mut Refused, hashes: &[Hash]| {
            let known = hashes.iter().map(|hash| refused.knows_or_learns(*hash));
            known.filter(|known| *known).count()
        };
        // One in 2114 newcomers looks like another one of its bucket, and buckets are half full in the end.
        let mistaken = known(&mut refused, &hashes[..half]);
        assert!(mistaken < half / 1000, "{mistaken} of {half}");
        let lost = half - known(&mut refused, &hashes[..half]);
        assert!(lost < half / 1000, "{lost} of {half}");
    }

    #[test]
    fn buckets_are_cache_lines() {
        let refused = Refused::new(12);
        let line = refused.words[refused.start..].as_ptr().addr();
        assert!(line.is_multiple_of(64));
        assert_eq!(WORDS * size_of::<u16>(), 64);
    }
}
