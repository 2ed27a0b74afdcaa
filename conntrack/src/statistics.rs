//! What the table counts.

use crate::memory::{Pages, Placement};
use crate::sync::{AtomicU64, Ordering::Relaxed};

/// The counts of one worker, who alone writes them. Those of things that come and go may fall below zero (and wrap):
/// only their sum over all workers means anything.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) entries: Counter,
    pub(crate) keys: Counter,
    pub(crate) overflowed: Counter,
    pub(crate) refused_full: Counter,
    pub(crate) refused_half_open: Counter,
    pub(crate) refused_chain: Counter,
    pub(crate) contended: Counter,
    pub(crate) requests_lost: Counter,
}

/// A count that one worker writes and anybody reads.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    #[inline]
    pub(crate) fn add(&self, amount: u64) {
        self.0
            .store(self.0.load(Relaxed).wrapping_add(amount), Relaxed);
    }

    #[inline]
    pub(crate) fn subtract(&self, amount: u64) {
        self.0
            .store(self.0.load(Relaxed).wrapping_sub(amount), Relaxed);
    }
}

/// How full a table is, and what it refused since it was made.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TableStatistics {
    /// Connections that fit.
    pub capacity: u32,
    /// Connections there are, with those that ended and were not yet collected by their owner.
    pub entries: u64,
    /// Half-open connections.
    pub half_open: u32,
    /// Half-open connections there may be.
    pub half_open_limit: u32,
    /// Keys in the index.
    pub keys: u64,
    /// Used share of the index's slots, 0 to 1.
    pub index_load: f64,
    /// Keys that do not live in their home bucket.
    pub overflowed: u64,
    /// Inserts refused because no entry was free.
    pub inserts_refused_full: u64,
    /// Inserts refused because as many connections were half open as may be.
    pub inserts_refused_half_open: u64,
    /// Inserts refused because no slot was free on the key's chain.
    pub inserts_refused_chain: u64,
    /// Inserts given up because other workers inserted the same key again and again.
    pub inserts_contended: u64,
    /// Requests to another worker that found its queue full: the connection's timer does what was asked, later.
    pub requests_lost: u64,
    /// Memory taken, bytes.
    pub bytes: u64,
    /// What of it is the index's, bytes.
    pub index_bytes: u64,
    /// In what kind of pages, but for a few bytes in a hundred connections.
    pub pages: Pages,
    /// Whether it lies on the NUMA nodes that were named.
    pub placement: Placement,
    /// Memory taken for each connection of the capacity, bytes.
    pub bytes_per_connection: f64,
}

impl Counters {
    pub(crate) fn add_to(&self, sum: &mut TableStatistics) {
        for (counter, total) in [
            (&self.entries, &mut sum.entries),
            (&self.keys, &mut sum.keys),
            (&self.overflowed, &mut sum.overflowed),
            (&self.refused_full, &mut sum.inserts_refused_full),
            (&self.refused_half_open, &mut sum.inserts_refused_half_open),
            (&self.refused_chain, &mut sum.inserts_refused_chain),
            (&self.contended, &mut sum.inserts_contended),
            (&self.requests_lost, &mut sum.requests_lost),
        ] {
            *total = total.wrapping_add(counter.0.load(Relaxed));
        }
    }
}
