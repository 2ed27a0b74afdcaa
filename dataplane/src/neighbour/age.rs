//! Neighbours grow old: they are asked for again, fail, and are forgotten.

use super::word::{
    CLAIMED, EMPTY, FAILED, INCOMPLETE, STALE, USABLE, generation, state, with_state,
};
use super::{FORGET, Neighbour, NeighbourTable, PROBES, Probe, REACHABLE, RETRY};
use crate::port::PortId;
use conntrack::Ticks;
use std::sync::atomic::{AtomicU32, Ordering, Ordering::Relaxed};

impl NeighbourTable {
    /// Ages the neighbours of one slice of the table (slices count up and wrap): forgets unused ones, asks again for
    /// those to be confirmed. Bounded by the slice's size. To be called by one worker, all slices once a second.
    pub fn age(&self, slice: usize, slices: usize, now: Ticks, ask: &mut dyn FnMut(Probe)) {
        let len = self.neighbours.len().div_ceil(slices);
        let start = (slice % slices) * len;
        for neighbour in self.neighbours.iter().skip(start).take(len) {
            self.age_one(neighbour, now, ask);
        }
    }

    /// The link of `port` was interrupted: who is behind it is asked again soon, by whoever ages the table, and used as
    /// before until then. Who did not answer meanwhile is pending again.
    pub fn doubt(&self, port: PortId, now: Ticks) {
        for neighbour in &self.neighbours {
            let word = neighbour.word.load(Ordering::Acquire);
            let doubted = match state(word) {
                USABLE => with_state(word, STALE),
                FAILED => with_state(word, INCOMPLETE),
                INCOMPLETE | STALE => word,
                _ => continue,
            };
            if neighbour.port.load(Relaxed) != port.0 {
                continue;
            }
            neighbour.probes.store(0, Relaxed);
            neighbour.probed.store(now.0.wrapping_sub(RETRY.0), Relaxed);
            // Lost against `learn`: it has answered by now.
            let _ = neighbour
                .word
                .compare_exchange(word, doubted, Ordering::Release, Relaxed);
        }
    }

    fn age_one(&self, neighbour: &Neighbour, now: Ticks, ask: &mut dyn FnMut(Probe)) {
        let word = neighbour.word.load(Ordering::Acquire);
        if matches!(state(word), EMPTY | CLAIMED) {
            return;
        }
        let since = |time: &AtomicU32| Ticks(now.0.wrapping_sub(time.load(Relaxed)));
        let replace = |word: u64, new: u64| {
            // Lost against `learn`: the next round sees what is there.
            let _ = neighbour
                .word
                .compare_exchange(word, new, Ordering::Release, Relaxed);
        };
        if since(&neighbour.used).0 > FORGET.0 {
            replace(
                word,
                u64::from(generation(word).wrapping_add(1)) << 8 | u64::from(EMPTY),
            );
            return;
        }
        match state(word) {
            USABLE
                if since(&neighbour.confirmed).0 > REACHABLE.0
                    && since(&neighbour.used).0 <= REACHABLE.0 =>
            {
                neighbour.probes.store(0, Relaxed);
                replace(word, with_state(word, STALE));
                if let Some(probe) = self.claim(neighbour, now) {
                    ask(probe);
                }
            }
            INCOMPLETE | STALE
                if neighbour.probes.load(Relaxed) >= PROBES
                    && since(&neighbour.probed).0 >= RETRY.0 =>
            {
                replace(word, with_state(word, FAILED));
            }
            // Not yet time to ask again, and the claim is refused; or it is.
            INCOMPLETE | STALE => {
                if let Some(probe) = self.claim(neighbour, now) {
                    ask(probe);
                }
            }
            _ => {}
        }
    }
}
