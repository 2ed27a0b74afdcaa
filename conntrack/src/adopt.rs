//! Taking over the connections that the process before left in a file.
//!
//! ```text
//!   each entry ─▶ lives? ─▶ fields fit? ─▶ the index leads to it, by its keys? ─▶ caller: its server? ─▶ adopted
//!                  │ no        │ no            │ no                                │ no
//!                  └───────────┴───────────────┴───────────────────────────────────┴──▶ free
//!   then        ─▶ whom it belongs to ─▶ slots of none emptied ─▶ free lists, timers' lists, counts
//! ```
//! Nothing is believed for its own sake. The keyed hash of an entry's addresses and ports has to lead to the slot that
//! names it, so that one that was changed is not found where it should be. The server's number and the method are held
//! against the real server's address in the directory, and where no reply key has them, against the client's end
//! (`Entry::witness`). Everything that follows from something else is made anew: checksum deltas, counts, free lists,
//! overflow counts.
//!
//! What is written on the way leaves the file as good as it was: whoever is killed here is followed by one who does the
//! same again.

use crate::entry::{ConnectionId, Entry};
use crate::family::Family;
use crate::file::TableFile;
use crate::index::{Hash, Index, Slot, Survey};
use crate::method::Method;
use crate::reclaim::Filler;
use crate::sync::Ordering::Relaxed;
use crate::table::{Table, TableConfig, TableError};
use crate::time::Ticks;
use crate::tuple::{Direction, Tuple};
use std::ops::AddAssign;
use std::sync::Arc;

/// Entries whose buckets are asked for before the first of them is needed.
const BATCH: usize = 32;

/// Why an entry is not taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Its fields do not fit each other.
    Fields,
    /// The index does not lead to it.
    Keys,
    /// Its server is unknown, or another one.
    Server,
    /// What a helper knew of it is gone.
    Helper,
}

/// How many entries were not taken over, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refusals {
    /// [`Cause::Fields`].
    pub fields: u64,
    /// [`Cause::Keys`].
    pub keys: u64,
    /// [`Cause::Server`].
    pub server: u64,
    /// [`Cause::Helper`].
    pub helper: u64,
}

impl Refusals {
    /// All of them.
    #[must_use]
    pub fn all(&self) -> u64 {
        self.fields + self.keys + self.server + self.helper
    }

    fn count(&mut self, cause: Cause) {
        *match cause {
            Cause::Fields => &mut self.fields,
            Cause::Keys => &mut self.keys,
            Cause::Server => &mut self.server,
            Cause::Helper => &mut self.helper,
        } += 1;
    }
}

/// What became of the entries of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Adopted {
    /// Connections and templates that go on.
    pub adopted: u64,
    /// Those that do not.
    pub refused: Refusals,
}

impl AddAssign for Adopted {
    fn add_assign(&mut self, other: Adopted) {
        self.adopted += other.adopted;
        self.refused.fields += other.refused.fields;
        self.refused.keys += other.refused.keys;
        self.refused.server += other.refused.server;
        self.refused.helper += other.refused.helper;
    }
}

/// What rewriting a request of a connection adds to the IP and to the L4 checksum.
pub type Deltas = (u16, u16);

/// Whom the caller asks of each entry: whether its server and all that is his own fits; then its deltas, none for a
/// template. The flag tells whether the index leads to it by its reply key too.
type Judge<'j, F> = dyn FnMut(ConnectionId, &Entry<F>, bool) -> Result<Option<Deltas>, Cause> + 'j;

impl<F: Family> Table<F> {
    /// The table that lies in a file, with those of its connections that can be believed; empty where the file is.
    ///
    /// `now` goes on counting where the process before stopped: see [`TableFile::epoch`]. No connection has longer than
    /// `longest` to live. `judge` is asked last of each: what it takes is adopted.
    ///
    /// # Errors
    /// A number out of range, or no memory.
    ///
    /// # Panics
    /// When the file is for another capacity.
    pub fn in_file(
        config: &TableConfig,
        file: &TableFile,
        (now, longest): (Ticks, Ticks),
        judge: &mut Judge<'_, F>,
    ) -> Result<(Arc<Self>, Adopted), TableError> {
        let capacity = config.check()?;
        assert_eq!(
            capacity,
            file.capacity(),
            "the file is for another capacity"
        );
        let memory = |source| TableError::Memory { capacity, source };
        let (entries, buckets) = file.slabs::<F>().map_err(memory)?;
        let index = Index::of(buckets).map_err(memory)?;
        let config = TableConfig {
            seeds: file.seeds(),
            ..config.clone()
        };
        let mut table = Self::of(&config, entries, index, file.nodes()).map_err(memory)?;
        table.adopted_at = now;
        let adopted = Adoption::new(&table, now, longest).run(judge);
        Ok((Arc::new(table), adopted))
    }
}

/// Under way.
struct Adoption<'t, F: Family> {
    table: &'t Table<F>,
    survey: Survey,
    kept: Kept,
    /// Those by NAT that the index does not lead to by their reply key.
    one_way: Vec<u32>,
    sum: Adopted,
    keys: u64,
    overflowed: u64,
    half_open: u32,
    now: Ticks,
    longest: Ticks,
}

/// A bit for each entry that was taken over.
struct Kept(Box<[u64]>);

impl Kept {
    fn add(&mut self, index: u32) {
        self.0[index as usize / 64] |= 1 << (index % 64);
    }

    fn has(&self, index: u32) -> bool {
        let word = self.0.get(index as usize / 64);
        word.is_some_and(|word| word & 1 << (index % 64) != 0)
    }

    fn all(&self) -> impl Iterator<Item = u32> {
        let places = (0_u32..).zip(&self.0).filter(|(_, word)| **word != 0);
        places.flat_map(|(place, word)| {
            let bits = (0..64).filter(move |bit| word & 1 << bit != 0);
            bits.map(move |bit| place * 64 + bit)
        })
    }
}

/// An entry whose keys are to be looked up.
#[derive(Clone, Copy)]
struct Candidate {
    index: u32,
    request: Hash,
    reply: Option<Hash>,
}

impl<'t, F: Family> Adoption<'t, F> {
    fn new(table: &'t Table<F>, now: Ticks, longest: Ticks) -> Self {
        Adoption {
            table,
            survey: Survey::new(&table.index),
            kept: Kept(vec![0; table.entries.len().div_ceil(64)].into()),
            one_way: Vec::new(),
            sum: Adopted::default(),
            keys: 0,
            overflowed: 0,
            half_open: 0,
            now,
            longest,
        }
    }

    fn run(mut self, judge: &mut Judge<'_, F>) -> Adopted {
        let mut batch = Vec::with_capacity(BATCH);
        // Entry 0 is nobody's.
        for (index, entry) in (0_u32..).zip(self.table.entries.iter()).skip(1) {
            if let Some(candidate) = self.look_at(index, entry) {
                self.table.index.prefetch(candidate.request);
                if let Some(reply) = candidate.reply {
                    self.table.index.prefetch(reply);
                }
                batch.push(candidate);
            }
            if batch.len() == BATCH {
                batch.drain(..).for_each(|one| self.decide(one, judge));
            }
        }
        batch.drain(..).for_each(|one| self.decide(one, judge));
        self.find_controls();
        let survey = std::mem::replace(&mut self.survey, Survey::none());
        survey.finish(&self.table.index);
        self.hand_over();
        self.find_replies();
        self.sum
    }

    fn refuse(&mut self, entry: &Entry<F>, cause: Cause) {
        // It is no loss: nobody could find it any more.
        if !entry.is_void() {
            self.sum.refused.count(cause);
        }
        entry.clear();
    }

    /// Where an entry that seems to be a connection is to be looked for.
    fn look_at(&mut self, index: u32, entry: &Entry<F>) -> Option<Candidate> {
        if !entry.claims_to_live() {
            entry.clear();
            return None;
        }
        if !entry.is_sound() {
            self.refuse(entry, Cause::Fields);
            return None;
        }
        let hash = |tuple: Tuple<F>| self.table.hash(&tuple);
        Some(Candidate {
            index,
            request: hash(entry.request_tuple()),
            reply: entry.reply_tuple().map(hash),
        })
    }

    fn decide(&mut self, candidate: Candidate, judge: &mut Judge<'_, F>) {
        let table = self.table;
        let entry = &table.entries[candidate.index as usize];
        let id = ConnectionId {
            index: candidate.index,
            generation: entry.generation(),
        };
        let place = |hash, direction| {
            let slot = Slot::pending(hash, direction, id).confirmed();
            table.index.place_of(hash, slot).map(|place| (hash, place))
        };
        let request = place(candidate.request, Direction::Request);
        let reply = candidate
            .reply
            .and_then(|hash| place(hash, Direction::Reply));
        let is_witnessed = match entry.method() {
            // Another connection may have taken its reply key: see `Owner::take_reply`.
            Method::Nat => true,
            _ => candidate.reply.is_none() || reply.is_some(),
        };
        if request.is_none() || !is_witnessed {
            return self.refuse(entry, Cause::Keys);
        }
        match judge(id, entry, reply.is_some()) {
            Err(cause) => return self.refuse(entry, cause),
            Ok(Some((ip_delta, l4_delta))) if !entry.is_template() => {
                entry.set_deltas(ip_delta, l4_delta);
            }
            Ok(_) => {}
        }
        for (hash, place) in request.into_iter().chain(reply) {
            self.survey.note(&table.index, hash, place);
            self.keys += 1;
            self.overflowed += u64::from(place.distance > 0);
        }
        if candidate.reply.is_some() && reply.is_none() {
            self.one_way.push(candidate.index);
        }
        entry.set_right(self.now, self.longest);
        self.kept.add(candidate.index);
        self.half_open += u32::from(entry.state().is_half_open());
        self.sum.adopted += 1;
    }

    /// Lets connections belong to those alone that can be theirs, and templates count them.
    fn find_controls(&mut self) {
        let entries = &self.table.entries;
        for index in self.kept.all() {
            let entry = &entries[index as usize];
            let Some(id) = entry.control() else {
                continue;
            };
            let control = entries.get(id.index as usize).filter(|control| {
                self.kept.has(id.index)
                    && id.index != index
                    && control.generation() == id.generation
                    && control.server() == entry.server()
                    && (control.is_template()
                        || control.virtual_address() == entry.virtual_address())
            });
            match control {
                None => entry.forget_control(),
                Some(control) if control.is_template() => control.hold(),
                Some(_) => {}
            }
        }
    }

    /// Gives entries to their workers, and what lies between them to those who need one.
    fn hand_over(&self) {
        let table = self.table;
        let workers = u16::try_from(table.workers.len()).expect("it was a u16");
        let (mut end, mut filler) = (1, Filler::default());
        for index in self.kept.all() {
            for free in end..index {
                filler.add(&table.links, &table.pool, free);
            }
            end = index + 1;
            let entry = &table.entries[index as usize];
            let owner = match entry.local() {
                // The one whose share its local port is in.
                Some((_, port)) if !entry.is_template() => port % workers,
                _ => entry.owner() % workers,
            };
            entry.set_owner(owner);
            let first = &table.workers[usize::from(owner)].adopted;
            let next = &table.links[index as usize].next;
            next.store(first.load(Relaxed), Relaxed);
            first.store(index, Relaxed);
        }
        filler.finish(&table.pool);
        table.pool.begin_at(end);
        table.half_open.0.store(self.half_open, Relaxed);
        let counters = &table.workers[0].counters.0;
        counters.entries.add(self.sum.adopted);
        counters.keys.add(self.keys);
        counters.overflowed.add(self.overflowed);
    }

    /// Gives those by NAT their reply key back that nobody else has.
    fn find_replies(&self) {
        let counters = &self.table.workers[0].counters.0;
        for index in &self.one_way {
            let entry = &self.table.entries[*index as usize];
            let id = ConnectionId {
                index: *index,
                generation: entry.generation(),
            };
            // Where it is another's it stays so.
            let _ = self.table.insert_reply(counters, id, entry);
        }
    }
}
