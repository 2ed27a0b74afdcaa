//! A worker's half of the table: the connections it made, their timers, and the entries it may use.

use crate::entry::{ConnectionId, Entry, NewConnection};
use crate::family::Family;
use crate::insert::InsertError;
use crate::reclaim::Hoard;
use crate::state::State;
use crate::statistics::Counters;
use crate::sync::{Ordering, Ordering::Relaxed, fence};
use crate::table::{MARK_BIT, Table};
use crate::time::Ticks;
use crate::wheel::Wheel;
use std::sync::Arc;

/// What becomes of a connection whose deadline has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// It ends.
    Remove,
    /// It lives on for this long, at least.
    Renew(Ticks),
}

/// The one who may insert into the table in a worker's name. Begins online.
///
/// A worker calls [`quiescent`](Self::quiescent) between bursts, when it holds no `&Entry` and trusts no id found
/// before; what others removed is reused only after that.
pub struct Owner<F: Family> {
    table: Arc<Table<F>>,
    worker: u16,
    wheel: Wheel,
    hoard: Hoard,
}

impl<F: Family> Owner<F> {
    /// The owner for `worker`.
    ///
    /// # Panics
    /// When the table knows no such worker, or it has an owner.
    #[must_use]
    pub fn new(table: Arc<Table<F>>, worker: u16) -> Self {
        let state = table
            .workers
            .get(usize::from(worker))
            .unwrap_or_else(|| panic!("worker {worker} of {}", table.workers.len()));
        assert!(
            !state.is_owned.swap(true, Relaxed),
            "worker {worker} has an owner"
        );
        table.epochs.online(worker);
        let mut owner = Owner {
            table,
            worker,
            wheel: Wheel::new(),
            hoard: Hoard::new(),
        };
        owner.arm_adopted();
        owner
    }

    /// Arms the timers of the connections that the worker has from the process before.
    fn arm_adopted(&mut self) {
        let table = &*self.table;
        let mut next = table.workers[usize::from(self.worker)]
            .adopted
            .swap(0, Relaxed);
        if next != 0 {
            self.wheel.start(table.adopted_at);
        }
        while next != 0 {
            let index = next;
            next = table.links[index as usize].next.load(Relaxed);
            let deadline = table.entries[index as usize].expires_at();
            self.wheel.arm(&table.links, index, deadline, false);
        }
    }

    /// The table.
    #[inline]
    #[must_use]
    pub fn table(&self) -> &Arc<Table<F>> {
        &self.table
    }

    /// The worker.
    #[inline]
    #[must_use]
    pub fn worker(&self) -> u16 {
        self.worker
    }

    /// Makes a connection, its timer armed.
    ///
    /// # Errors
    /// There is no room, or one of its keys belongs to a connection; the table is as before.
    ///
    /// # Panics
    /// When it is to begin [`State::Dead`].
    pub fn insert(
        &mut self,
        new: &NewConnection<F>,
        now: Ticks,
    ) -> Result<ConnectionId, InsertError> {
        assert!(new.state != State::Dead, "a connection begins alive");
        let table = &*self.table;
        let counters = &table.workers[usize::from(self.worker)].counters.0;
        let request = new.request_tuple();
        if let Some(id) = table.key_holder(counters, table.hash(&request), &request) {
            return Err(InsertError::Exists(id));
        }
        if new.state.is_half_open() && !table.reserve_half_open() {
            counters.refused_half_open.add(1);
            return Err(InsertError::HalfOpenFull);
        }
        let Some(index) = self.hoard.take(&table.links, &table.pool) else {
            if new.state.is_half_open() {
                table.forget_half_open();
            }
            counters.refused_full.add(1);
            return Err(InsertError::Full);
        };
        let entry = &table.entries[index as usize];
        let id = ConnectionId {
            index,
            generation: entry.generation(),
        };
        // Release, with the Acquire fence in `Table::copy`: whoever copies a field of this life sees that the one
        // before is over.
        fence(Ordering::Release);
        let deadline = now.after(new.timeout);
        entry.fill(new, self.worker, deadline);
        if let Err(error) = table.insert_keys(counters, id, entry) {
            if new.state.is_half_open() {
                table.forget_half_open();
            }
            // Other inserts may have seen it: it goes the way of all connections.
            entry.give_up();
            table.release_keys(counters, id, entry);
            entry.next_life();
            self.hoard.retire(&table.links, index);
            return Err(error);
        }
        entry.give_birth(new.state);
        counters.entries.add(1);
        self.wheel.start(now);
        self.wheel.arm(&table.links, index, deadline, false);
        Ok(id)
    }

    /// Brings a connection's end forward to `deadline`: at once if the connection is this worker's, otherwise when its
    /// owner next advances its timers. Where the owner's queue is full, that is counted and the armed timer stays: the
    /// connection ends late.
    pub fn shorten(&mut self, id: ConnectionId, deadline: Ticks) {
        let Some(entry) = self.table.get(id) else {
            return;
        };
        entry.set_expires_at(deadline);
        if entry.owner() == self.worker {
            self.wheel.disarm(&self.table.links, id.index);
            self.wheel.arm(&self.table.links, id.index, deadline, false);
        } else {
            self.request(id, entry.owner());
        }
    }

    /// Ends a connection and takes it out of the index. Returns the state it ended in to the one who ended it, who then
    /// counts; `None` when it had ended before. Its entry is reused once its owner and every worker have passed a
    /// quiescent state.
    pub fn remove(&mut self, id: ConnectionId) -> Option<State> {
        let entry = self.table.entries.get(id.index as usize)?;
        if entry.generation() != id.generation {
            return None;
        }
        let owner = entry.owner();
        let state = self.table.end(entry);
        self.table.release_keys(self.counters(), id, entry);
        if owner == self.worker {
            self.wheel.disarm(&self.table.links, id.index);
            self.retire(id.index);
        } else {
            self.request(id, owner);
        }
        state
    }

    /// Takes the reply key away from a connection, so that another one can have it: replies are the newcomer's from
    /// then on, and the older one goes on under its request key alone. False, and nothing changed, where the connection
    /// has no such key (any more). Any worker may, whoever made the connection; ending it later leaves the newcomer's
    /// key alone.
    ///
    /// `id` must have been found since the last quiescent state.
    ///
    /// Source: Linux net/netfilter/ipvs/ip_vs_conn.c (`ip_vs_conn_out_get`: the newest connection comes first).
    pub fn take_reply(&mut self, id: ConnectionId) -> bool {
        self.table.release_reply_key(self.counters(), id)
    }

    /// Ends those of this worker's connections that `on_visit` wants removed. Looks at `budget` entries of the table,
    /// beginning with the one numbered `from`; returns where to go on, or `None` at the end.
    ///
    /// As with [`advance_timers`](Self::advance_timers), whoever keeps counts calls [`Table::end`] before returning true.
    /// Connections that others make meanwhile may be visited or not.
    pub fn walk(
        &mut self,
        from: u32,
        budget: u32,
        on_visit: &mut dyn FnMut(ConnectionId, &Entry<F>) -> bool,
    ) -> Option<u32> {
        let end = self.table.pool.end();
        // Entry 0 is nobody's.
        let from = from.max(1);
        let until = end.min(from.saturating_add(budget));
        for index in from..until {
            let entry = &self.table.entries[index as usize];
            let (generation, is_live) = entry.life(Relaxed);
            let id = ConnectionId { index, generation };
            let is_mine = is_live && entry.owner() == self.worker && entry.state() != State::Dead;
            if is_mine && on_visit(id, entry) {
                self.remove(id);
            }
        }
        (until < end).then_some(until)
    }

    /// Takes a template out of the index: no lookup finds it any more, its key may be had by another, and it lasts until
    /// its timer fires.
    ///
    /// Source: Linux net/netfilter/ipvs/ip_vs_conn.c (`ip_vs_check_template`).
    pub fn void_template(&mut self, id: ConnectionId) {
        if let Some(entry) = self.table.get(id).filter(|entry| entry.is_template()) {
            self.table.release_keys(self.counters(), id, entry);
            entry.set_void();
        }
    }

    /// Lets timers fire whose time has come: at most `budget`, counting empty slots of the wheel (one for 160 ms).
    /// Before that, serves at most `budget` requests of other workers. Returns how many timers fired.
    ///
    /// `on_expiry` sees every connection whose deadline has passed, and decides. Whoever keeps counts calls
    /// [`Table::end`] before returning [`Expiry::Remove`], and counts by the state that it returns.
    pub fn advance_timers(
        &mut self,
        now: Ticks,
        budget: usize,
        on_expiry: &mut dyn FnMut(ConnectionId, &Entry<F>) -> Expiry,
    ) -> usize {
        self.wheel.start(now);
        self.serve_requests(budget);
        let mut left = budget;
        let mut fired = 0;
        while let Some(index) = self.wheel.pop(&self.table.links, now, &mut left) {
            fired += 1;
            self.fire(index, now, on_expiry);
        }
        fired
    }

    /// Moves a hand one place on in the table, and round at its end. The connection there, if it is one of this
    /// worker's. A hand begins at 0.
    pub fn next_place(&self, hand: &mut u32) -> Option<ConnectionId> {
        *hand = if *hand < self.table.places() {
            *hand + 1
        } else {
            1
        };
        let id = self.table.id_at(*hand)?;
        (self.table.entry(id).owner() == self.worker).then_some(id)
    }

    /// The next of this worker's connections that [`Table::ask`] named, and the mark it came with. It may have ended.
    pub fn next_asked(&self) -> Option<(ConnectionId, bool)> {
        let asked = &self.table.workers[usize::from(self.worker)].asked;
        let word = asked.pop()?;
        Some((ConnectionId::from_u64(word), word >> MARK_BIT != 0))
    }

    /// Counts a connection that was refused before it came to [`insert`](Self::insert), because as many were half open
    /// as may be.
    pub fn count_refused_half_open(&self) {
        self.counters().refused_half_open.add(1);
    }

    /// Between bursts: this worker holds no reference into the table.
    #[inline]
    pub fn quiescent(&mut self) {
        self.table.epochs.quiescent(self.worker);
        self.hoard
            .collect(&self.table.links, &self.table.pool, &self.table.epochs);
    }

    /// Before sleeping: as [`quiescent`](Self::quiescent), and nobody waits for this worker until it is
    /// [`online`](Self::online) again. Meanwhile it must not look into the table.
    pub fn offline(&mut self) {
        self.table.epochs.offline(self.worker);
    }

    /// After sleeping, before looking into the table.
    pub fn online(&mut self) {
        self.table.epochs.online(self.worker);
    }

    fn fire(
        &mut self,
        index: u32,
        now: Ticks,
        on_expiry: &mut dyn FnMut(ConnectionId, &Entry<F>) -> Expiry,
    ) {
        let entry = &self.table.entries[index as usize];
        let id = ConnectionId {
            index,
            generation: entry.generation(),
        };
        // Ended by another worker whose request found no room.
        let mut is_over = entry.state() == State::Dead;
        if !is_over && entry.expires_at().has_passed(now) {
            match on_expiry(id, entry) {
                Expiry::Remove => is_over = true,
                Expiry::Renew(timeout) => entry.set_expires_at(now.after(timeout)),
            }
        }
        if is_over {
            self.table.end(entry);
            self.table.release_keys(self.counters(), id, entry);
            self.retire(index);
        } else {
            self.wheel
                .arm(&self.table.links, index, entry.expires_at(), true);
        }
    }

    /// Lets an entry of this worker's wait for its next life. Its keys and its timer are gone.
    fn retire(&mut self, index: u32) {
        self.table.entries[index as usize].next_life();
        self.counters().entries.subtract(1);
        self.hoard.retire(&self.table.links, index);
    }

    /// Asks the owner of a connection to look at it.
    fn request(&self, id: ConnectionId, owner: u16) {
        let requests = &self.table.workers[usize::from(owner)].requests;
        if requests.push(id.to_u64()).is_err() {
            self.counters().requests_lost.add(1);
        }
    }

    fn serve_requests(&mut self, budget: usize) {
        for _ in 0..budget {
            let Some(word) = self.table.workers[usize::from(self.worker)].requests.pop() else {
                return;
            };
            let id = ConnectionId::from_u64(word);
            let entry = &self.table.entries[id.index as usize];
            if entry.generation() != id.generation {
                continue;
            }
            self.wheel.disarm(&self.table.links, id.index);
            if entry.state() == State::Dead {
                self.table.release_keys(self.counters(), id, entry);
                self.retire(id.index);
            } else {
                self.wheel
                    .arm(&self.table.links, id.index, entry.expires_at(), false);
            }
        }
    }

    fn counters(&self) -> &Counters {
        &self.table.workers[usize::from(self.worker)].counters.0
    }
}

impl<F: Family> Drop for Owner<F> {
    /// Its connections stay in the table, and no timer watches them any more: owners last as long as the table does.
    fn drop(&mut self) {
        self.table.epochs.offline(self.worker);
    }
}

impl<F: Family> std::fmt::Debug for Owner<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Owner")
            .field("worker", &self.worker)
            .finish_non_exhaustive()
    }
}
