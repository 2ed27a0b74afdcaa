//! How a key comes to stand in the index exactly once, though any number of workers insert it at the same moment.
//!
//! ```text
//!   1. claim     an empty slot of the chain, pending
//!   2. fence     either I see your claim, or you see mine
//!   3. contest   another slot with my key on the chain?
//!                   confirmed, alive           → I withdraw: it exists
//!                   confirmed, unborn          → I withdraw, and try again
//!                   confirmed, dead            → I empty it
//!                   pending, nearer home       → I withdraw, and try again
//!                   pending, further out       → I empty it; its owner will find out at step 4 and try again
//!   4. confirm   pending → confirmed; if somebody emptied my slot, I try again
//! ```
//! Two workers cannot both get past step 3: each claimed before it looked, so one of them saw the other. Whoever
//! moves to another slot looks again from the beginning.
//!
//! A connection of two keys may get the first and be refused the second. Until it has both it is unborn: no lookup
//! finds it, so nobody can count it, change it or end it before it is certain to be.

use crate::entry::{ConnectionId, Entry, Vitality};
use crate::family::Family;
use crate::index::{Hash, Place, Slot};
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
    ///
    /// By NAT the newcomer may have it: see [`Owner::take_reply`](crate::Owner::take_reply).
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
    /// The living connection that has the key. Slots of the dead are emptied on the way.
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
            match self.judge(counters, hash, place, slot) {
                Vitality::Alive => Some(slot.id()),
                Vitality::Unborn | Vitality::Dead => None,
            }
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
        Ok(())
    }

    /// Makes the tuple of a connection's replies its key.
    #[cfg(not(loom))]
    pub(crate) fn insert_reply(
        &self,
        counters: &Counters,
        id: ConnectionId,
        entry: &Entry<F>,
    ) -> Result<(), InsertError> {
        let reply = entry.reply_tuple();
        reply.map_or(Ok(()), |reply| {
            self.insert_key(counters, id, Direction::Reply, &reply)
        })
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
                return match self.judge(counters, hash, place, slot) {
                    Vitality::Alive => Some(Contest::Exists(slot.id())),
                    Vitality::Unborn => Some(Contest::Yield),
                    Vitality::Dead => None,
                };
            }
            // If emptying it fails, it was confirmed or withdrawn in between: the next attempt will see.
            (place < mine || !self.index.release(hash, place, slot)).then_some(Contest::Yield)
        })
    }

    /// Empties the slot of a connection that has ended.
    fn judge(&self, counters: &Counters, hash: Hash, place: Place, slot: Slot) -> Vitality {
        let vitality = self.entry(slot.id()).vitality();
        if vitality == Vitality::Dead {
            self.release_key(counters, hash, place, slot);
        }
        vitality
    }

    /// Takes all keys of a connection that ended out of the index. Any worker may, and several at once.
    pub(crate) fn release_keys(&self, counters: &Counters, id: ConnectionId, entry: &Entry<F>) {
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

    /// Takes the reply key alone away from a connection, which lives on under its request key. True for the one who
    /// took it. Only where it stands for replies: a key that is another connection's request key stays.
    pub(crate) fn release_reply_key(&self, counters: &Counters, id: ConnectionId) -> bool {
        let Some(tuple) = self.entry(id).reply_tuple() else {
            return false;
        };
        let hash = self.hash(&tuple);
        let released = self.index.search(hash, |place, slot| {
            let is_it =
                slot.id() == id && slot.direction() == Direction::Reply && !slot.is_pending();
            (is_it && self.release_key(counters, hash, place, slot)).then_some(())
        });
        released.is_some()
    }

    fn release_key(&self, counters: &Counters, hash: Hash, place: Place, slot: Slot) -> bool {
        let released = self.index.release(hash, place, slot);
        if released {
            counters.keys.subtract(1);
            counters.overflowed.subtract(u64::from(place.distance > 0));
        }
        released
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::state::State;
    use crate::{Method, NewConnection, Owner, TableConfig, Ticks, V4};
    use std::net::Ipv4Addr;

    fn flow(client: u32) -> NewConnection<V4> {
        NewConnection {
            protocol: 17,
            client: (Ipv4Addr::from_bits(client), 1),
            virtual_server: (Ipv4Addr::LOCALHOST, 2),
            real_server: (Ipv4Addr::BROADCAST, 3),
            local: None,
            method: Method::Dr,
            server: 0,
            control: None,
            state: State::Udp,
            timeout: Ticks(1),
            ip_delta: 0,
            l4_delta: 0,
            reply_neighbour: 0,
            route_generation: 0,
            flags: 0,
        }
    }

    #[test]
    fn a_key_whose_chain_is_full_is_refused_and_counted() {
        let config = TableConfig {
            capacity: 200,
            half_open_percent: 100,
            workers: 1,
            seeds: [5, 6, 7, 8],
        };
        let table = Table::<V4>::new(&config).unwrap();
        let mut owner = Owner::new(table.clone(), 0);
        let chain = |flow: &NewConnection<V4>| {
            let hash = table.hash(&flow.request_tuple());
            [0, 1].map(|distance| std::ptr::from_ref(table.index.bucket(hash, distance)))
        };
        let wanted = chain(&flow(0));
        let mut same_chain = (0..).map(flow).filter(|flow| chain(flow) == wanted);
        let limit = crate::index::CHAIN_LIMIT as usize * crate::index::SLOTS;
        let flows: Vec<_> = same_chain.by_ref().take(limit).collect();
        for flow in &flows {
            owner.insert(flow, Ticks(0)).unwrap();
        }
        let one_more = same_chain.next().unwrap();
        assert_eq!(
            owner.insert(&one_more, Ticks(0)),
            Err(InsertError::ChainFull)
        );
        let statistics = table.statistics();
        assert_eq!(statistics.inserts_refused_chain, 1);
        assert_eq!(statistics.entries, limit as u64);
        assert_eq!(statistics.overflowed, (limit - crate::index::SLOTS) as u64);

        // All are found, wherever they live, and room for one is enough.
        let ids: Vec<_> = flows
            .iter()
            .map(|flow| table.lookup(&flow.request_tuple()).unwrap().0)
            .collect();
        owner.remove(ids[3]);
        let id = owner.insert(&one_more, Ticks(0)).unwrap();
        assert_eq!(
            table.lookup(&one_more.request_tuple()),
            Some((id, Direction::Request))
        );
        assert_eq!(table.lookup(&flows[3].request_tuple()), None);
        let last = flows.last().unwrap();
        assert_eq!(
            table.lookup(&last.request_tuple()),
            Some((ids[limit - 1], Direction::Request))
        );
    }
}
