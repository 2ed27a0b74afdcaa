//! Keeps threads in step. Unlike the standard library's barrier it lets go when one of them panics: the others panic then, too,
//! rather than wait for ever.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// See the module's text.
pub(crate) struct Step {
    members: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: usize,
    /// Counts how often all were there.
    steps: u64,
    is_broken: bool,
}

impl Step {
    /// For so many threads.
    pub(crate) fn new(members: usize) -> Step {
        Step {
            members,
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Waits until all are here.
    ///
    /// # Panics
    /// When one of them has panicked.
    pub(crate) fn wait(&self) {
        let mut state = self.state();
        state.waiting += 1;
        if state.waiting == self.members {
            state.waiting = 0;
            state.steps += 1;
            self.changed.notify_all();
            return;
        }
        let step = state.steps;
        while state.steps == step {
            assert!(!state.is_broken, "another worker has panicked");
            let woken = self.changed.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Goes on only while nobody has panicked.
    ///
    /// # Panics
    /// When somebody has.
    pub(crate) fn check(&self) {
        assert!(!self.state().is_broken, "another worker has panicked");
    }

    /// To be held by each thread while it works: lets the others know when it panics.
    pub(crate) fn watched(&self) -> Watched<'_> {
        Watched(self)
    }

    /// Nothing panics halfway through a change of it: what a panic left is whole.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See [`Step::watched`].
pub(crate) struct Watched<'a>(&'a Step);

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.state().is_broken = true;
            self.0.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    #[test]
    fn nobody_goes_on_before_all_are_there() {
        let (step, came) = (Step::new(3), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for round in 1..=100 {
                        came.fetch_add(1, SeqCst);
                        step.wait();
                        assert!(came.load(SeqCst) >= 3 * round);
                        step.wait();
                    }
                });
            }
        });
        assert_eq!(came.load(SeqCst), 300);
    }

    #[test]
    fn when_one_panics_the_others_do_not_wait_for_ever() {
        let step = Step::new(3);
        let ended = std::thread::scope(|scope| {
            let waiting = || {
                let _watched = step.watched();
                step.wait();
            };
            let threads = [scope.spawn(waiting), scope.spawn(waiting)];
            let faulty = scope.spawn(|| {
                let _watched = step.watched();
                panic!("a fault");
            });
            assert!(faulty.join().is_err());
            threads.map(|thread| thread.join().is_err())
        });
        assert_eq!(ended, [true, true]);
    }
}
