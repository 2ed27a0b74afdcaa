//! How a key comes to stand in the index exactly once, though any number of workers insert it at the same moment.
//!
//! ```text
//!   1. claim     an empty slot of the chain, pending
//!   2. fence     either I see your claim, or you see mine
//!   3. contest   another slot with my key on the chain?
//!                   confirmed                  → I withdraw: it exists
//!                   pending, nearer home       → I withdraw, and try again
//!                   pending, further out       → I empty it; its owner will find out at step 4 and try again
//!   4. confirm   pending → confirmed; if somebody emptied my slot, I try again
//! ```
//! Two workers cannot both get past step 3: each claimed before it looked, so one of them saw the other. Whoever
//! moves to another slot looks again from the beginning.

use crate::entry::{ConnectionId, Entry};
use crate::family::Family;
use crate::index::{Hash, Place, Slot};
use crate::state::State;
use crate::statistics::Counters;
use crate::sync::{Ordering, fence, pause};
use crate::table::Table;
use crate::tuple::{Direction, Tuple};

/// Attempts to insert a key before giving up.
const ATTEMPTS: u32 = if cfg!(loom) { 3 } else { 16 };

/// Why a connection did not come into the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InsertError {
    /// No entry is free.
    #[error("the connection table is full")]
    Full,
    /// No slot is free on the key's chain.
    #[error("the key's chain in the connection table is full")]
    ChainFull,
    /// As many connections are half open as may be.
    #[error("half-open connections fill their share of the connection table")]
    HalfOpenFull,
    /// The request key belongs to a connection already, in either direction.
    #[error("the connection exists")]
    Exists(ConnectionId),
    /// The reply key belongs to another connection: it needs another local port.
    #[error("the reply's addresses and ports belong to another connection")]
    ReplyExists(ConnectionId),
    /// Other workers inserted the same key again and again, and none of them is done yet.
    #[error("other workers are inserting the same connection")]
    Contended,
}

/// What another slot with the key means for a claim.
enum Contest {
    Exists(ConnectionId),
    Yield,
}

impl<F: Family> Table<F> {
    /// Whose the key is. Slots of connections that ended are emptied on the way.
    pub(crate) fn key_holder(
        &self,
        counters: &Counters,
        hash: Hash,
        tuple: &Tuple<F>,
    ) -> Option<ConnectionId> {
        self.index.search(hash, |place, slot| {
            let entry = self.entry(slot.id());
            if slot.is_pending() || !entry.matches(slot.direction(), tuple) {
                return None;
            }
            self.living(counters, hash, place, slot, entry)
        })
    }

    /// Makes all tuples of a connection its keys.
    pub(crate) fn insert_keys(
        &self,
        counters: &Counters,
        id: ConnectionId,
        entry: &Entry<F>,
    ) -> Result<(), InsertError> {
        self.insert_key(counters, id, Direction::Request, &entry.request_tuple())?;
        if let Some(reply) = entry.reply_tuple() {
            self.insert_key(counters, id, Direction::Reply, &reply)
                .map_err(|error| match error {
                    InsertError::Exists(other) => InsertError::ReplyExists(other),
                    error => error,
                })?;
        }
        // With the fence of `release_keys`: another worker may have found the connection by one key and ended it
        // before it had both. Either it saw the second key, or this sees the end.
        fence(Ordering::SeqCst);
        if entry.state() == State::Dead {
            self.release_keys(counters, id, entry);
        }
        Ok(())
    }

    /// Makes `tuple` a key of connection `id`.
    fn insert_key(
        &self,
        counters: &Counters,
        id: ConnectionId,
        direction: Direction,
        tuple: &Tuple<F>,
    ) -> Result<(), InsertError> {
        let hash = self.hash(tuple);
        let pending = Slot::pending(hash, direction, id);
        for _ in 0..ATTEMPTS {
            let Some(place) = self.index.claim(hash, pending) else {
                counters.refused_chain.add(1);
                return Err(InsertError::ChainFull);
            };
            // With the same fence of other inserts: of two claims of one key, at least one sees the other.
            fence(Ordering::SeqCst);
            match self.contest(counters, hash, tuple, place) {
                None => {
                    if self.index.confirm(hash, place, pending) {
                        counters.keys.add(1);
                        counters.overflowed.add(u64::from(place.distance > 0));
                        return Ok(());
                    }
                }
                Some(outcome) => {
                    // If it fails, somebody else emptied the slot: all the same.
                    self.index.release(hash, place, pending);
                    if let Contest::Exists(id) = outcome {
                        return Err(InsertError::Exists(id));
                    }
                }
            }
            pause();
        }
        counters.contended.add(1);
        Err(InsertError::Contended)
    }

    /// Looks for other slots with the key while mine, at `place`, is pending.
    fn contest(
        &self,
        counters: &Counters,
        hash: Hash,
        tuple: &Tuple<F>,
        mine: Place,
    ) -> Option<Contest> {
        self.index.search(hash, |place, slot| {
            let entry = self.entry(slot.id());
            if place == mine || !entry.matches(slot.direction(), tuple) {
                return None;
            }
            if !slot.is_pending() {
                return self
                    .living(counters, hash, place, slot, entry)
                    .map(Contest::Exists);
            }
            // If emptying it fails, it was confirmed or withdrawn in between: the next attempt will see.
            (place < mine || !self.index.release(hash, place, slot)).then_some(Contest::Yield)
        })
    }

    /// The connection of a confirmed slot; `None`, and the slot empty, if it has ended.
    fn living(
        &self,
        counters: &Counters,
        hash: Hash,
        place: Place,
        slot: Slot,
        entry: &Entry<F>,
    ) -> Option<ConnectionId> {
        if entry.state() != State::Dead {
            return Some(slot.id());
        }
        self.release_key(counters, hash, place, slot);
        None
    }

    /// Takes all keys of a connection that ended out of the index. Any worker may, and several at once.
    pub(crate) fn release_keys(&self, counters: &Counters, id: ConnectionId, entry: &Entry<F>) {
        // With the fence of `insert_keys`.
        fence(Ordering::SeqCst);
        for tuple in [Some(entry.request_tuple()), entry.reply_tuple()]
            .into_iter()
            .flatten()
        {
            let hash = self.hash(&tuple);
            self.index.search::<()>(hash, |place, slot| {
                if slot.id() == id && !slot.is_pending() {
                    self.release_key(counters, hash, place, slot);
                }
                None
            });
        }
    }

    fn release_key(&self, counters: &Counters, hash: Hash, place: Place, slot: Slot) {
        if self.index.release(hash, place, slot) {
            counters.keys.subtract(1);
            counters.overflowed.subtract(u64::from(place.distance > 0));
        }
    }
}
