//! The table that all workers share: what may be done with a connection by whoever found it.

use crate::entry::{ConnectionId, ConnectionView, Entry, Vitality};
use crate::family::Family;
use crate::index::{Hash, Index, Probe, Slot};
use crate::memory::{self, Pages, Placement, Slab};
use crate::reclaim::{Epochs, Pool};
use crate::state::State;
use crate::statistics::{Counters, TableStatistics};
use crate::sync::{Alone, ArrayQueue, AtomicBool, AtomicU32, Ordering, Ordering::Relaxed, fence};
use crate::time::Ticks;
use crate::tuple::{Direction, Tuple};
use crate::wheel::{Link, MAX_INDEX};
use std::hash::{BuildHasher, Hasher};
use std::ops::{ControlFlow, RangeInclusive};
use std::sync::Arc;

/// Entries of another worker that one may ask to have looked at, until it does.
pub const REQUEST_LIMIT: usize = if cfg!(loom) { 2 } else { 1024 };

/// Where the mark of [`Table::ask`] stands, beside an id.
pub(crate) const MARK_BIT: u32 = 63;

/// A worker has been asked for as much as it can remember.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy;

/// What a table is made from.
#[derive(Clone, Debug)]
pub struct TableConfig {
    /// Connections, templates included, that it has room for.
    pub capacity: u32,
    /// Of a hundred connections, how many may be half open. At most 100.
    pub half_open_percent: u8,
    /// Workers that will use it.
    pub workers: u16,
    /// The key of the hash. Whoever knows it can aim flows at one bucket: see [`random_seeds`].
    pub seeds: [u64; 4],
}

impl TableConfig {
    /// The capacity, if all numbers are in range.
    pub(crate) fn check(&self) -> Result<u32, TableError> {
        if self.capacity == 0 || self.capacity >= MAX_INDEX {
            return Err(TableError::Capacity(self.capacity));
        }
        if self.workers == 0 {
            return Err(TableError::Workers);
        }
        if self.half_open_percent > 100 {
            return Err(TableError::HalfOpenPercent(self.half_open_percent));
        }
        Ok(self.capacity)
    }
}

/// Seeds that nobody can guess.
#[must_use]
pub fn random_seeds() -> [u64; 4] {
    // The standard library keys its maps from the system's randomness; four values of that keyed hash are seeds.
    let state = std::hash::RandomState::new();
    [0_u64, 1, 2, 3].map(|number| state.hash_one(number))
}

/// Why there is no table.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The capacity is none, or more than an index can name.
    #[error("capacity: {0} connections; 1 to {max} are possible", max = MAX_INDEX - 1)]
    Capacity(u32),
    /// No workers.
    #[error("workers: 0; at least 1 is needed")]
    Workers,
    /// More than all.
    #[error("half_open_percent: {0}; 0 to 100 are possible")]
    HalfOpenPercent(u8),
    /// The system has no room for it.
    #[error("no memory for {capacity} connections: {source}")]
    Memory {
        /// Connections asked for.
        capacity: u32,
        /// What the system said.
        source: std::io::Error,
    },
}

/// The connections of one address family.
pub struct Table<F: Family> {
    pub(crate) entries: Slab<Entry<F>>,
    pub(crate) index: Index,
    pub(crate) links: Slab<Link>,
    hasher: ahash::RandomState,
    capacity: u32,
    half_open_limit: u32,
    pub(crate) half_open: Alone<AtomicU32>,
    pub(crate) pool: Pool,
    pub(crate) epochs: Epochs,
    pub(crate) workers: Box<[Worker]>,
    /// When connections of the process before were taken over.
    pub(crate) adopted_at: Ticks,
}

/// What the table keeps for each worker.
pub(crate) struct Worker {
    /// Has its [`Owner`](crate::Owner).
    pub(crate) is_owned: AtomicBool,
    pub(crate) counters: Alone<Counters>,
    /// Entries that others want looked at, as [`ConnectionId::to_u64`].
    pub(crate) requests: ArrayQueue<u64>,
    /// Connections that somebody who is no worker wants something done with, as [`ConnectionId::to_u64`] and a mark.
    pub(crate) asked: ArrayQueue<u64>,
    /// The first of the entries that it has from the process before, each linked to the next; 0: none.
    pub(crate) adopted: AtomicU32,
}

impl<F: Family> Table<F> {
    /// A table, its memory taken and present.
    ///
    /// # Errors
    /// A number out of range, or no memory.
    pub fn new(config: &TableConfig) -> Result<Arc<Self>, TableError> {
        Self::on_nodes(config, &[])
    }

    /// As [`new`](Self::new), its memory on these NUMA nodes: where there are several, each has its share of every part.
    /// [`TableStatistics::placement`] tells whether it lies there.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn on_nodes(config: &TableConfig, nodes: &[u16]) -> Result<Arc<Self>, TableError> {
        let capacity = config.check()?;
        let memory = |source| TableError::Memory { capacity, source };
        let entries = Slab::new(capacity as usize + 1, nodes).map_err(memory)?;
        let index = Index::new(capacity, nodes).map_err(memory)?;
        Ok(Arc::new(
            Self::of(config, entries, index, nodes).map_err(memory)?,
        ))
    }

    /// A table of these entries under this index, of which the rest knows nothing yet.
    pub(crate) fn of(
        config: &TableConfig,
        entries: Slab<Entry<F>>,
        index: Index,
        nodes: &[u16],
    ) -> std::io::Result<Self> {
        let capacity = config.capacity;
        let half_open_limit = u64::from(capacity) * u64::from(config.half_open_percent) / 100;
        let [a, b, c, d] = config.seeds;
        Ok(Table {
            entries,
            index,
            links: Slab::new(capacity as usize + 1, nodes)?,
            hasher: ahash::RandomState::with_seeds(a, b, c, d),
            capacity,
            half_open_limit: u32::try_from(half_open_limit).expect("a share of a u32"),
            half_open: Alone(AtomicU32::new(0)),
            pool: Pool::new(capacity, config.workers),
            epochs: Epochs::new(config.workers),
            workers: (0..config.workers)
                .map(|_| Worker {
                    is_owned: AtomicBool::new(false),
                    counters: Alone::default(),
                    requests: ArrayQueue::new(REQUEST_LIMIT),
                    asked: ArrayQueue::new(REQUEST_LIMIT),
                    adopted: AtomicU32::new(0),
                })
                .collect(),
            adopted_at: Ticks(0),
        })
    }

    /// The hash of a packet's tuple: the first stage of a lookup.
    #[inline]
    #[must_use]
    pub fn hash(&self, tuple: &Tuple<F>) -> Hash {
        let mut hasher = self.hasher.build_hasher();
        tuple.feed(&mut hasher);
        self.index.cut(hasher.finish())
    }

    /// Asks for the bucket's line.
    #[inline]
    pub fn prefetch(&self, hash: Hash) {
        self.index.prefetch(hash);
    }

    /// The second stage: compares the tags of the home bucket, and asks for the first candidate's lines.
    #[inline]
    #[must_use]
    pub fn probe(&self, hash: Hash) -> Probe {
        let probe = self.index.probe(hash);
        if probe.first.is_empty() {
            self.index.prefetch_further(hash);
        }
        memory::prefetch(self.entry(probe.first.id()));
        probe
    }

    /// The third stage: the connection that a packet belongs to, and which half of it.
    ///
    /// `None` is as of now: a connection that came after `probe` is found, one that was removed since is not.
    #[inline]
    #[must_use]
    pub fn find(
        &self,
        hash: Hash,
        probe: Probe,
        tuple: &Tuple<F>,
    ) -> Option<(ConnectionId, Direction)> {
        self.find_entry(hash, probe, tuple).map(|(found, _)| found)
    }

    /// As [`find`](Self::find), with the entry.
    #[inline]
    #[must_use]
    pub fn find_entry(
        &self,
        hash: Hash,
        probe: Probe,
        tuple: &Tuple<F>,
    ) -> Option<((ConnectionId, Direction), &Entry<F>)> {
        let first = self.find_first(probe, tuple);
        first.or_else(|| self.find_further(hash, tuple))
    }

    /// As [`find_entry`](Self::find_entry), if it is what `probe` has found, as it nearly always is; otherwise
    /// [`find_further`](Self::find_further) knows.
    #[inline(always)]
    #[must_use]
    pub fn find_first(
        &self,
        probe: Probe,
        tuple: &Tuple<F>,
    ) -> Option<((ConnectionId, Direction), &Entry<F>)> {
        let (slot, entry) = (probe.first, self.entry(probe.first.id()));
        if slot.is_empty() || !Self::is_connection(slot, entry, tuple) {
            return None;
        }
        Some(((slot.id(), slot.direction()), entry))
    }

    /// As [`find_entry`](Self::find_entry), wherever it is.
    #[inline(never)]
    #[must_use]
    pub fn find_further(
        &self,
        hash: Hash,
        tuple: &Tuple<F>,
    ) -> Option<((ConnectionId, Direction), &Entry<F>)> {
        let (id, direction) = self.search_from_home(hash, tuple)?;
        Some(((id, direction), self.entry(id)))
    }

    fn search_from_home(&self, hash: Hash, tuple: &Tuple<F>) -> Option<(ConnectionId, Direction)> {
        // What came since `probe` is among them.
        let mut candidates = self.index.candidates(hash);
        while candidates != 0 {
            let slot = self
                .index
                .home(hash)
                .load(candidates.trailing_zeros() as usize);
            if slot.has_tag(hash)
                && let Some(found) = self.connection_at(slot, tuple)
            {
                return Some(found);
            }
            candidates &= candidates - 1;
        }
        if self.index.is_at_home(hash) {
            return None;
        }
        self.search(hash, tuple)
    }

    /// All stages at once.
    #[must_use]
    pub fn lookup(&self, tuple: &Tuple<F>) -> Option<(ConnectionId, Direction)> {
        self.search(self.hash(tuple), tuple)
    }

    fn search(&self, hash: Hash, tuple: &Tuple<F>) -> Option<(ConnectionId, Direction)> {
        self.index
            .search(hash, |_, slot| self.connection_at(slot, tuple))
    }

    #[inline]
    fn connection_at(&self, slot: Slot, tuple: &Tuple<F>) -> Option<(ConnectionId, Direction)> {
        Self::is_connection(slot, self.entry(slot.id()), tuple)
            .then(|| (slot.id(), slot.direction()))
    }

    #[inline]
    fn is_connection(slot: Slot, entry: &Entry<F>, tuple: &Tuple<F>) -> bool {
        !slot.is_pending()
            && entry.matches(slot.direction(), tuple)
            && entry.vitality() == Vitality::Alive
    }

    /// The entry that an id names, in whatever life it is: for ids found since the last quiescent state.
    ///
    /// # Panics
    /// When the id is of another, larger table.
    #[inline]
    #[must_use]
    pub fn entry(&self, id: ConnectionId) -> &Entry<F> {
        &self.entries[id.index as usize]
    }

    /// The connection that an id names, if that is still it: for ids kept longer. Ended connections are not found.
    ///
    /// A generation comes again after 16384 lives of the entry: an id must not be kept that long.
    #[inline]
    #[must_use]
    pub fn get(&self, id: ConnectionId) -> Option<&Entry<F>> {
        self.entries.get(id.index as usize).filter(|entry| {
            entry.generation() == id.generation && entry.vitality() == Vitality::Alive
        })
    }

    /// The places of the table that were used so far, numbered from 1.
    #[must_use]
    pub fn places(&self) -> u32 {
        self.pool.end().saturating_sub(1)
    }

    /// The connection at a place.
    pub(crate) fn id_at(&self, index: u32) -> Option<ConnectionId> {
        let entry = self.entries.get(index as usize)?;
        let (generation, is_live) = entry.life(Ordering::Acquire);
        let is_it = is_live && entry.vitality() == Vitality::Alive;
        is_it.then_some(ConnectionId { index, generation })
    }

    /// Moves a connection's state. True for the one who moved it, who then counts; false when somebody else was
    /// faster, or the connection has ended.
    #[inline]
    pub fn advance(&self, entry: &Entry<F>, from: State, to: State) -> bool {
        if !entry.exchange_state(from, to) {
            return false;
        }
        if from.is_half_open() != to.is_half_open() {
            if to.is_half_open() {
                self.half_open.0.fetch_add(1, Relaxed);
            } else {
                self.half_open.0.fetch_sub(1, Relaxed);
            }
        }
        true
    }

    /// Ends a connection: no lookup finds it any more. Returns the state it ended in to the one who ended it, who then
    /// counts. The caller sees to it that [`Owner::remove`](crate::Owner::remove) is called, or returns
    /// [`Expiry::Remove`](crate::Expiry::Remove); otherwise its keys stay taken until its timer fires or another
    /// connection wants them.
    pub fn end(&self, entry: &Entry<F>) -> Option<State> {
        let state = entry.end()?;
        if state.is_half_open() {
            self.half_open.0.fetch_sub(1, Relaxed);
        }
        Some(state)
    }

    /// Whether half-open connections fill more than half of their share.
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        self.half_open.0.load(Relaxed) > self.half_open_limit / 2
    }

    /// Whether another connection may be half open.
    #[must_use]
    pub fn has_room_for_half_open(&self) -> bool {
        self.half_open.0.load(Relaxed) < self.half_open_limit
    }

    /// Whether it may be anybody's: the last sixteenth of the share is for those whom the caller prefers. Inserting does
    /// not know whom he prefers, and fills the share.
    #[inline]
    #[must_use]
    pub fn has_room_for_newcomers(&self) -> bool {
        self.half_open.0.load(Relaxed) < self.half_open_limit - self.half_open_limit / 16
    }

    /// Counts a half-open connection that is to come. False when there are as many as may be.
    pub(crate) fn reserve_half_open(&self) -> bool {
        let reserved = self.half_open.0.fetch_add(1, Relaxed) < self.half_open_limit;
        if !reserved {
            self.half_open.0.fetch_sub(1, Relaxed);
        }
        reserved
    }

    /// Uncounts one that did not come.
    pub(crate) fn forget_half_open(&self) {
        self.half_open.0.fetch_sub(1, Relaxed);
    }

    /// Shows a copy of every connection. Any thread may ask, at any time; connections that come or go meanwhile are
    /// shown or not, but never as a mixture of two.
    pub fn for_each(&self, mut visit: impl FnMut(ConnectionId, ConnectionView<F>)) {
        // Nobody breaks off.
        let _ = self.for_each_in(1..=self.places(), |id, view| {
            visit(id, view);
            ControlFlow::Continue(())
        });
    }

    /// As [`for_each`](Self::for_each), of those at some of the [`places`](Self::places), until `visit` breaks off.
    pub fn for_each_in(
        &self,
        places: RangeInclusive<u32>,
        mut visit: impl FnMut(ConnectionId, ConnectionView<F>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let (first, last) = places.into_inner();
        for index in first.max(1)..=last.min(self.places()) {
            if let Some((id, view)) = self.copy(index, Entry::view)
                && view.state != State::Dead
            {
                visit(id, view)?;
            }
        }
        ControlFlow::Continue(())
    }

    /// Asks the owner of a connection to end it, or to do what else `mark` says: it finds the id, and the mark, with
    /// [`Owner::next_asked`](crate::Owner::next_asked). For those who are no owner.
    ///
    /// # Errors
    /// As many are asked for as its queue has room for: later again.
    pub fn ask(&self, id: ConnectionId, owner: u16, mark: bool) -> Result<(), Busy> {
        let worker = self.workers.get(usize::from(owner)).ok_or(Busy)?;
        let word = id.to_u64() | u64::from(mark) << MARK_BIT;
        worker.asked.push(word).map_err(|_| Busy)
    }

    /// Whether a worker has not yet taken all that it was asked for.
    #[must_use]
    pub fn is_asked(&self, owner: u16) -> bool {
        let worker = self.workers.get(usize::from(owner));
        worker.is_some_and(|worker| !worker.asked.is_empty())
    }

    /// What `copy` makes of a connection that was the same one before and after; for those who have no hold on it.
    pub(crate) fn copy<C>(
        &self,
        index: u32,
        copy: impl Fn(&Entry<F>) -> C,
    ) -> Option<(ConnectionId, C)> {
        let entry = &self.entries[index as usize];
        // Acquire, with the Release of `give_birth`: the fields are at least as new as this life.
        let life = entry.life(Ordering::Acquire);
        let (generation, is_live) = life;
        if !is_live {
            return None;
        }
        let copied = copy(entry);
        // With the Release fence before `fill`: if a field was of a later life, its generation is seen below.
        fence(Ordering::Acquire);
        (entry.life(Relaxed) == life).then_some((ConnectionId { index, generation }, copied))
    }

    /// How full the table is, and what it refused. Sums of what each worker counts, which may be a moment apart.
    #[must_use]
    pub fn statistics(&self) -> TableStatistics {
        let (pages, placement) = self.memory();
        let mut sum = TableStatistics {
            capacity: self.capacity,
            half_open: self.half_open.0.load(Relaxed),
            half_open_limit: self.half_open_limit,
            index_bytes: self.index.memory().pages().bytes(),
            bytes: pages.bytes() + self.pool.bytes(),
            pages,
            placement,
            ..TableStatistics::default()
        };
        for worker in &self.workers {
            worker.counters.0.add_to(&mut sum);
        }
        #[allow(clippy::cast_precision_loss, reason = "shares for people to read")]
        {
            sum.index_load = sum.keys as f64 / self.index.slots() as f64;
            sum.bytes_per_connection = sum.bytes as f64 / f64::from(self.capacity);
        }
        sum
    }

    /// The memory of the parts in pages of their own, and whether all of it lies where it was asked to.
    fn memory(&self) -> (Pages, Placement) {
        let parts = [
            (self.entries.pages(), self.entries.placement()),
            (self.index.memory().pages(), self.index.memory().placement()),
            (self.links.pages(), self.links.placement()),
        ];
        let mut sum = Pages::default();
        let mut placement = Placement::OnNodes;
        for (pages, placed) in parts {
            sum += pages;
            if placed != Placement::OnNodes {
                placement = placed;
            }
        }
        (sum, placement)
    }
}

impl<F: Family> std::fmt::Debug for Table<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Table").field(&self.statistics()).finish()
    }
}
