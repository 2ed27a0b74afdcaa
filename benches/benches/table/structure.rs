//! What is asked of every structure, and the states that a peer's answers lead to.

use conntrack::{Tuple, V4};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Keys that are looked up together, as a worker does it with the packets of a burst.
pub(crate) const BURST: usize = 32;
/// Threads at most.
pub(crate) const THREADS: usize = 2;

/// How a burst of keys is looked up.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// By whatever the structure has for many keys at once.
    Burst,
    /// By one call for each key.
    Single,
}

/// A structure that remembers flows, each with 64 bytes of state.
pub(crate) trait Structure: Sync + Sized {
    /// A flow as its users hold it.
    type Key: Copy + Send + Sync + From<Tuple<V4>>;
    /// A thread's means of using it.
    type Hand<'a>: Hand<Self::Key>
    where
        Self: 'a;
    /// Names of its rows, with the form of lookup that each measures.
    const ROWS: &'static [(&'static str, Form)];

    /// One with room for so many flows.
    fn new(room: usize) -> Self;
    /// A hand for the thread of this number, which calls this itself.
    fn hand(&self, thread: usize) -> Self::Hand<'_>;
}

/// What a thread does with a structure.
pub(crate) trait Hand<K> {
    /// Looks up all keys and reads the state of each flow that is there: how many are, and the sum of what was read.
    fn lookup(&mut self, form: Form, keys: &[K; BURST]) -> Found;
    /// Remembers a flow that is not there, with a state that says `server`. Waits where all room is taken by flows that
    /// were removed and that another thread may still be reading.
    fn insert(&mut self, key: &K, server: u32);
    /// Forgets a flow that is there.
    fn remove(&mut self, key: &K);
    /// Says that the thread is between bursts.
    fn quiescent(&mut self) {}
}

/// What lookups came to.
#[derive(Clone, Copy, Default)]
pub(crate) struct Found {
    /// Flows that are there.
    pub count: usize,
    /// The sum of their states' words.
    pub sum: u32,
}

impl Found {
    /// Adds a flow's word.
    pub(crate) fn add(&mut self, word: u32) {
        self.count += 1;
        self.sum = self.sum.wrapping_add(word);
    }
}

/// A connection's state: one line.
#[derive(Default)]
#[repr(align(64))]
struct State([AtomicU32; 16]);

const _: () = assert!(size_of::<State>() == 64);

/// The states that a peer's answers are indices of.
pub(crate) struct States(Vec<State>);

impl States {
    /// So many.
    pub(crate) fn new(count: usize) -> States {
        States((0..count).map(|_| State::default()).collect())
    }

    /// Writes all of a state.
    pub(crate) fn write(&self, index: usize, server: u32) {
        for word in &self.0[index].0 {
            word.store(server, Relaxed);
        }
    }

    /// Reads a word of a state.
    pub(crate) fn read(&self, index: usize) -> u32 {
        self.0[index].0[6].load(Relaxed)
    }
}
