//! Peers that are maps from a key to the index of a state.

use crate::flows::Key;
use crate::structure::{BURST, Form, Found, Hand, States, Structure, THREADS};
use ahash::RandomState;
use parking_lot::{Mutex, MutexGuard, RwLock};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// A map that threads share.
pub(crate) trait Map: Sync {
    /// Its row.
    const ROWS: &'static [(&'static str, Form)];
    /// An empty one with room for so many keys.
    fn with_room(room: usize) -> Self;
    /// Finds the indices of those keys that are there, under as few locks or guards as the map allows.
    fn find(&self, keys: &[Key; BURST], answers: &mut [Option<u32>; BURST]);
    /// Puts a key in.
    fn insert(&self, key: Key, index: u32);
    /// Takes a key out.
    fn remove(&self, key: &Key) -> Option<u32>;
}

/// A map and the states that it leads to. A state is used again as soon as its key is gone: whoever still reads it
/// would have to be waited for, which the map does not do and this leaves out.
pub(crate) struct Mapped<M> {
    map: M,
    states: States,
    /// States from this one on were never in use.
    unused: AtomicU32,
    free: [Mutex<Vec<u32>>; THREADS],
}

impl<M: Map> Structure for Mapped<M> {
    type Key = Key;
    type Hand<'a>
        = MappedHand<'a, M>
    where
        M: 'a;
    const ROWS: &'static [(&'static str, Form)] = M::ROWS;

    fn new(room: usize) -> Self {
        Mapped {
            map: M::with_room(room),
            states: States::new(room),
            unused: AtomicU32::new(0),
            free: Default::default(),
        }
    }

    fn hand(&self, thread: usize) -> MappedHand<'_, M> {
        MappedHand {
            mapped: self,
            free: self.free[thread].lock(),
        }
    }
}

pub(crate) struct MappedHand<'a, M> {
    mapped: &'a Mapped<M>,
    free: MutexGuard<'a, Vec<u32>>,
}

impl<M: Map> Hand<Key> for MappedHand<'_, M> {
    fn lookup(&mut self, _: Form, keys: &[Key; BURST]) -> Found {
        let mut found = Found::default();
        // First all answers, then all states: their cache misses overlap.
        let mut answers = [None; BURST];
        self.mapped.map.find(keys, &mut answers);
        for index in answers.into_iter().flatten() {
            found.add(self.mapped.states.read(index as usize));
        }
        found
    }

    fn insert(&mut self, key: &Key, server: u32) {
        let fresh = || self.mapped.unused.fetch_add(1, Relaxed);
        let index = self.free.pop().unwrap_or_else(fresh);
        self.mapped.states.write(index as usize, server);
        self.mapped.map.insert(*key, index);
    }

    fn remove(&mut self, key: &Key) {
        let index = self.mapped.map.remove(key).expect("it is there");
        self.free.push(index);
    }
}

impl Map for papaya::HashMap<Key, u32, RandomState> {
    const ROWS: &'static [(&'static str, Form)] = &[("papaya", Form::Burst)];

    fn with_room(room: usize) -> Self {
        papaya::HashMap::with_capacity_and_hasher(room, RandomState::new())
    }

    fn find(&self, keys: &[Key; BURST], answers: &mut [Option<u32>; BURST]) {
        let map = self.pin();
        for (key, answer) in keys.iter().zip(answers) {
            *answer = map.get(key).copied();
        }
    }

    fn insert(&self, key: Key, index: u32) {
        self.pin().insert(key, index);
    }

    fn remove(&self, key: &Key) -> Option<u32> {
        self.pin().remove(key).copied()
    }
}

impl Map for dashmap::DashMap<Key, u32, RandomState> {
    const ROWS: &'static [(&'static str, Form)] = &[("dashmap", Form::Burst)];

    fn with_room(room: usize) -> Self {
        dashmap::DashMap::with_capacity_and_hasher(room, RandomState::new())
    }

    fn find(&self, keys: &[Key; BURST], answers: &mut [Option<u32>; BURST]) {
        for (key, answer) in keys.iter().zip(answers) {
            *answer = self.get(key).map(|index| *index);
        }
    }

    fn insert(&self, key: Key, index: u32) {
        self.insert(key, index);
    }

    fn remove(&self, key: &Key) -> Option<u32> {
        self.remove(key).map(|(_, index)| index)
    }
}

impl Map for scc::HashMap<Key, u32, RandomState> {
    const ROWS: &'static [(&'static str, Form)] = &[("scc::HashMap", Form::Burst)];

    fn with_room(room: usize) -> Self {
        scc::HashMap::with_capacity_and_hasher(room, RandomState::new())
    }

    fn find(&self, keys: &[Key; BURST], answers: &mut [Option<u32>; BURST]) {
        for (key, answer) in keys.iter().zip(answers) {
            *answer = self.read_sync(key, |_, &index| index);
        }
    }

    fn insert(&self, key: Key, index: u32) {
        self.insert_sync(key, index)
            .unwrap_or_else(|_| panic!("it is not there"));
    }

    fn remove(&self, key: &Key) -> Option<u32> {
        self.remove_sync(key).map(|(_, index)| index)
    }
}

/// scc's map for reading much and writing little. What is taken out of it is not given back, so it is read before.
impl Map for scc::HashIndex<Key, u32, RandomState> {
    const ROWS: &'static [(&'static str, Form)] = &[("scc::HashIndex", Form::Burst)];

    fn with_room(room: usize) -> Self {
        scc::HashIndex::with_capacity_and_hasher(room, RandomState::new())
    }

    fn find(&self, keys: &[Key; BURST], answers: &mut [Option<u32>; BURST]) {
        let guard = scc::Guard::new();
        for (key, answer) in keys.iter().zip(answers) {
            *answer = self.peek(key, &guard).copied();
        }
    }

    fn insert(&self, key: Key, index: u32) {
        self.insert_sync(key, index)
            .unwrap_or_else(|_| panic!("it is not there"));
    }

    fn remove(&self, key: &Key) -> Option<u32> {
        let entry = self.get_sync(key)?;
        let index = *entry.get();
        entry.remove_entry();
        Some(index)
    }
}

impl Map for RwLock<HashMap<Key, u32, RandomState>> {
    const ROWS: &'static [(&'static str, Form)] = &[("RwLock<HashMap>", Form::Burst)];

    fn with_room(room: usize) -> Self {
        RwLock::new(HashMap::with_capacity_and_hasher(room, RandomState::new()))
    }

    fn find(&self, keys: &[Key; BURST], answers: &mut [Option<u32>; BURST]) {
        let map = self.read();
        for (key, answer) in keys.iter().zip(answers) {
            *answer = map.get(key).copied();
        }
    }

    fn insert(&self, key: Key, index: u32) {
        self.write().insert(key, index);
    }

    fn remove(&self, key: &Key) -> Option<u32> {
        self.write().remove(key)
    }
}
