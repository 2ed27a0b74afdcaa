//! When an entry that was taken out of the index may be used again: once every worker has passed a quiescent state.
//!
//! ```text
//!   owner            remove a, b ── quiescent: epoch 7 → 8, {a, b} wait for 8 ───────── all at 8: a, b are free
//!   worker 1   ──burst──┐ publishes 7 ──burst (may still hold a)──┐ publishes 8 ──burst──
//!   worker 2   offline (holds nothing, is not waited for) ────────────────────────────────
//! ```
//! Between bursts a worker holds no reference into the table. It publishes the epoch it reads there; one that is about
//! to sleep goes offline instead.

use crate::memory::Slab;
use crate::sync::{Alone, ArrayQueue, AtomicU32, AtomicU64, Ordering, Ordering::Relaxed, fence};
use crate::wheel::Link;

const OFFLINE: u64 = u64::MAX;

/// How far each worker has come.
pub(crate) struct Epochs {
    current: Alone<AtomicU64>,
    published: Box<[Alone<AtomicU64>]>,
}

impl Epochs {
    pub(crate) fn new(workers: u16) -> Epochs {
        Epochs {
            current: Alone(AtomicU64::new(1)),
            published: (0..workers)
                .map(|_| Alone(AtomicU64::new(OFFLINE)))
                .collect(),
        }
    }

    /// The worker holds no reference at this moment.
    #[inline]
    pub(crate) fn quiescent(&self, worker: u16) {
        // Acquire, with the Release of `close`: what was removed before this epoch began will not be found again.
        let epoch = self.current.0.load(Ordering::Acquire);
        let published = &self.published[usize::from(worker)].0;
        if published.load(Relaxed) != epoch {
            // Release, with the Acquire of `passed`: the references of the burst before are gone.
            published.store(epoch, Ordering::Release);
        }
    }

    /// The worker will hold none until it is back online.
    pub(crate) fn offline(&self, worker: u16) {
        // Release, with the Acquire of `passed`.
        self.published[usize::from(worker)]
            .0
            .store(OFFLINE, Ordering::Release);
    }

    /// The worker begins to look for connections again.
    pub(crate) fn online(&self, worker: u16) {
        let epoch = self.current.0.load(Ordering::Acquire);
        self.published[usize::from(worker)].0.store(epoch, Relaxed);
        // With the fence of `close`: either the remover sees this worker online, or the worker sees the removal.
        fence(Ordering::SeqCst);
    }

    /// Begins an epoch after all removals so far, and returns it.
    fn close(&self) -> u64 {
        // Release, with the Acquire of `quiescent` and `online`. Acquire, so that epochs are ordered among owners.
        let epoch = self.current.0.fetch_add(1, Ordering::AcqRel) + 1;
        // With the fence of `online`.
        fence(Ordering::SeqCst);
        epoch
    }

    /// Whether every worker came to `epoch`. `laggard` is who did not the last time: whoever is slow stays slow.
    fn passed(&self, epoch: u64, laggard: &mut usize) -> bool {
        // Acquire, with the Release of `quiescent` and `offline`.
        let is_behind = |worker: &Alone<AtomicU64>| worker.0.load(Ordering::Acquire) < epoch;
        if self.published.get(*laggard).is_some_and(is_behind) {
            return false;
        }
        match self.published.iter().position(is_behind) {
            Some(worker) => {
                *laggard = worker;
                false
            }
            None => true,
        }
    }
}

/// A list of entries through their `next` links.
#[derive(Debug, Default)]
struct Chain {
    head: u32,
    tail: u32,
    count: u32,
}

impl Chain {
    fn push(&mut self, links: &Slab<Link>, index: u32) {
        links[index as usize].next.store(self.head, Relaxed);
        if self.count == 0 {
            self.tail = index;
        }
        self.head = index;
        self.count += 1;
    }

    fn pop(&mut self, links: &Slab<Link>) -> Option<u32> {
        if self.count == 0 {
            return None;
        }
        let index = self.head;
        self.head = links[index as usize].next.load(Relaxed);
        self.count -= 1;
        Some(index)
    }

    /// Takes all of `other`.
    fn absorb(&mut self, links: &Slab<Link>, other: Chain) {
        if other.count == 0 {
            return;
        }
        links[other.tail as usize].next.store(self.head, Relaxed);
        if self.count == 0 {
            self.tail = other.tail;
        }
        self.head = other.head;
        self.count += other.count;
    }

    /// Cuts off the first `count`, of which there are more.
    fn split(&mut self, links: &Slab<Link>, count: u32) -> Chain {
        let mut tail = self.head;
        for _ in 1..count {
            tail = links[tail as usize].next.load(Relaxed);
        }
        let cut = Chain {
            head: self.head,
            tail,
            count,
        };
        self.head = links[tail as usize].next.load(Relaxed);
        self.count -= count;
        cut
    }
}

/// Entries that belong to no worker: those never used, and what workers had too many of.
pub(crate) struct Pool {
    unused: Alone<AtomicU32>,
    capacity: u32,
    /// Entries taken from `unused` at once.
    range: u32,
    /// Entries handed from worker to worker at once.
    chunk: u32,
    surplus: ArrayQueue<Chain>,
}

impl Pool {
    /// All entries, from index 1 to `capacity`.
    pub(crate) fn new(capacity: u32, workers: u16) -> Pool {
        let share = Self::share(capacity, workers);
        Pool {
            unused: Alone(AtomicU32::new(1)),
            capacity,
            range: if share < 256 { share } else { 256 },
            chunk: Self::chunk(share),
            surplus: ArrayQueue::new(Self::chunks(capacity, workers)),
        }
    }

    /// What a worker may hoard: in a small table it must not starve the others.
    const fn share(capacity: u32, workers: u16) -> u32 {
        let share = capacity / workers as u32 / 8;
        if share == 0 { 1 } else { share }
    }

    const fn chunk(share: u32) -> u32 {
        if share < 64 { share } else { 64 }
    }

    const fn chunks(capacity: u32, workers: u16) -> usize {
        (capacity / Self::chunk(Self::share(capacity, workers))) as usize + 1
    }

    /// Bytes of the queue for surplus entries, which has a stamp beside each chain.
    #[cfg(not(loom))]
    pub(crate) const fn surplus_bytes(capacity: u32, workers: u16) -> u64 {
        (Self::chunks(capacity, workers) * size_of::<(AtomicU64, Chain)>()) as u64
    }

    /// Indices that were ever in use are below this one.
    pub(crate) fn end(&self) -> u32 {
        // Relaxed: a reader that comes too early misses connections that are being made just now.
        self.unused.0.load(Relaxed)
    }

    /// Begins with those never used at `index`.
    #[cfg(not(loom))]
    pub(crate) fn begin_at(&self, index: u32) {
        self.unused.0.store(index, Relaxed);
    }

    pub(crate) fn bytes(&self) -> u64 {
        (self.surplus.capacity() * size_of::<(AtomicU64, Chain)>()) as u64
    }

    fn fresh(&self) -> Option<std::ops::Range<u32>> {
        let end = |start: u32| (start + self.range).min(self.capacity + 1);
        let start = self
            .unused
            .0
            .fetch_update(Relaxed, Relaxed, |start| {
                (start <= self.capacity).then(|| end(start))
            })
            .ok()?;
        Some(start..end(start))
    }
}

/// Takes free entries in among those that belong to no worker, one by one.
#[cfg(not(loom))]
#[derive(Default)]
pub(crate) struct Filler {
    chain: Chain,
}

#[cfg(not(loom))]
impl Filler {
    pub(crate) fn add(&mut self, links: &Slab<Link>, pool: &Pool, index: u32) {
        self.chain.push(links, index);
        if self.chain.count >= pool.chunk {
            self.finish(pool);
        }
    }

    /// To be called after the last.
    pub(crate) fn finish(&mut self, pool: &Pool) {
        if self.chain.count > 0 {
            let pushed = pool.surplus.push(std::mem::take(&mut self.chain));
            assert!(
                pushed.is_ok(),
                "there is room for all chunks of the capacity"
            );
        }
    }
}

/// The entries that one worker may use, and those it waits for.
pub(crate) struct Hoard {
    free: Chain,
    fresh: std::ops::Range<u32>,
    /// Removed since the last epoch was closed.
    limbo: Chain,
    /// Removed before `epoch`.
    waiting: Chain,
    epoch: u64,
    laggard: usize,
}

impl Hoard {
    pub(crate) fn new() -> Hoard {
        Hoard {
            free: Chain::default(),
            fresh: 0..0,
            limbo: Chain::default(),
            waiting: Chain::default(),
            epoch: 0,
            laggard: 0,
        }
    }

    /// An entry to use.
    pub(crate) fn take(&mut self, links: &Slab<Link>, pool: &Pool) -> Option<u32> {
        if let Some(index) = self.free.pop(links).or_else(|| self.fresh.next()) {
            return Some(index);
        }
        if let Some(chain) = pool.surplus.pop() {
            self.free = chain;
            return self.free.pop(links);
        }
        self.fresh = pool.fresh()?;
        self.fresh.next()
    }

    /// Takes back an entry that others may be looking at.
    pub(crate) fn retire(&mut self, links: &Slab<Link>, index: u32) {
        self.limbo.push(links, index);
    }

    /// Frees what every worker has let go of. The caller has just passed a quiescent state itself.
    #[inline]
    pub(crate) fn collect(&mut self, links: &Slab<Link>, pool: &Pool, epochs: &Epochs) {
        let has_surplus = self.free.count > pool.range + pool.chunk;
        if self.waiting.count != 0 || self.limbo.count != 0 || has_surplus {
            self.collect_some(links, pool, epochs);
        }
    }

    fn collect_some(&mut self, links: &Slab<Link>, pool: &Pool, epochs: &Epochs) {
        if self.waiting.count != 0 {
            if !epochs.passed(self.epoch, &mut self.laggard) {
                return;
            }
            self.free.absorb(links, std::mem::take(&mut self.waiting));
        }
        if self.limbo.count != 0 {
            self.waiting = std::mem::take(&mut self.limbo);
            self.epoch = epochs.close();
        }
        if self.free.count > pool.range + pool.chunk {
            let surplus = self.free.split(links, pool.chunk);
            if let Err(surplus) = pool.surplus.push(surplus) {
                // The queue has room for every chunk there can be; a chunk that finds none stays here.
                self.free.absorb(links, surplus);
            }
        }
    }
}
