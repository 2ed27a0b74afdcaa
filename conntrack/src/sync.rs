//! Atomics and queues: those of std and crossbeam, or loom's where a model checks them.

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering, fence,
};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering, fence,
};

#[cfg(not(loom))]
pub(crate) use crossbeam::queue::ArrayQueue;
#[cfg(loom)]
pub(crate) use queue::ArrayQueue;

/// Lets the other side of a collision move on.
#[inline]
pub(crate) fn pause() {
    #[cfg(not(loom))]
    std::hint::spin_loop();
    #[cfg(loom)]
    loom::thread::yield_now();
}

/// What loom can see of crossbeam's queue: a bounded queue that orders its users.
#[cfg(loom)]
mod queue {
    use loom::sync::Mutex;
    use std::collections::VecDeque;

    pub(crate) struct ArrayQueue<T> {
        values: Mutex<VecDeque<T>>,
        capacity: usize,
    }

    impl<T> ArrayQueue<T> {
        pub(crate) fn new(capacity: usize) -> Self {
            ArrayQueue {
                values: Mutex::new(VecDeque::new()),
                capacity,
            }
        }

        pub(crate) fn capacity(&self) -> usize {
            self.capacity
        }

        pub(crate) fn push(&self, value: T) -> Result<(), T> {
            let mut values = self
                .values
                .lock()
                .expect("no model panics while holding it");
            if values.len() == self.capacity {
                return Err(value);
            }
            values.push_back(value);
            Ok(())
        }

        pub(crate) fn is_empty(&self) -> bool {
            let values = self.values.lock();
            values.expect("no model panics while holding it").is_empty()
        }

        pub(crate) fn pop(&self) -> Option<T> {
            self.values
                .lock()
                .expect("no model panics while holding it")
                .pop_front()
        }
    }
}

/// A value on a cache line of its own, so that its writers disturb nobody else.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Alone<T>(pub(crate) T);
