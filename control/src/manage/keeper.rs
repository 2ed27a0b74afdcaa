//! Writes the state file, in a thread of its own: all changes made while it wrote go into the next file together.

use super::Held;
use super::state;
use crate::director::Director;
use parking_lot::{Condvar, Mutex};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a change waits for the disk before it is answered with a warning.
const PATIENCE: Duration = Duration::from_secs(5);
/// After an error, it is tried again so often.
const AGAIN: Duration = Duration::from_secs(1);

/// See the module's text. Dropping it writes what is not written yet.
pub(super) struct Keeper {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    path: PathBuf,
    progress: Mutex<Progress>,
    changed: Condvar,
}

#[derive(Default)]
struct Progress {
    /// Counts what was to be written.
    wanted: u64,
    /// Up to there it is on the disk.
    written: u64,
    /// Up to there it was tried.
    tried: u64,
    error: Option<String>,
    /// How often the file was written.
    writes: u64,
    stop: bool,
}

impl Keeper {
    pub(super) fn start(
        path: PathBuf,
        director: Arc<Director>,
        held: Arc<Mutex<Held>>,
    ) -> io::Result<Keeper> {
        let shared = Arc::new(Shared {
            path,
            progress: Mutex::default(),
            changed: Condvar::new(),
        });
        let own = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("uvs-state".to_owned())
            .spawn(move || own.run(&director, &held))?;
        Ok(Keeper {
            shared,
            thread: Some(thread),
        })
    }

    /// What holds is to be written. To be called while `Held` is locked; returns what to wait for.
    pub(super) fn want(&self) -> u64 {
        let mut progress = self.shared.progress.lock();
        progress.wanted += 1;
        self.shared.changed.notify_all();
        progress.wanted
    }

    /// How often the file was written.
    pub(super) fn writes(&self) -> u64 {
        self.shared.progress.lock().writes
    }

    /// Waits until it is on the disk.
    ///
    /// # Errors
    /// Why it is not: in words.
    pub(super) fn wait(&self, wanted: u64) -> Result<(), String> {
        let until = Instant::now() + PATIENCE;
        let mut progress = self.shared.progress.lock();
        loop {
            if progress.written >= wanted {
                return Ok(());
            }
            if progress.tried >= wanted {
                return Err(progress.error.clone().unwrap_or_default());
            }
            if self
                .shared
                .changed
                .wait_until(&mut progress, until)
                .timed_out()
            {
                let path = self.shared.path.display();
                return Err(format!(
                    "director.state: {path}: not written within {} s",
                    PATIENCE.as_secs()
                ));
            }
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.shared.progress.lock().stop = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // If it panicked, it has said so.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn run(&self, director: &Director, held: &Mutex<Held>) {
        while self.is_wanted() {
            // Whatever was wanted before this lock is in what is written.
            let (wanted, saved) = {
                let held = held.lock();
                (self.progress.lock().wanted, held.saved(director))
            };
            let outcome = state::write(&self.path, &saved);
            let mut progress = self.progress.lock();
            progress.tried = wanted;
            match outcome {
                Ok(()) => {
                    progress.written = wanted;
                    progress.writes += 1;
                    if progress.error.take().is_some() {
                        tracing::info!(
                            "director.state: {}: revision {} is on the disk",
                            self.path.display(),
                            saved.revision
                        );
                    }
                }
                Err(error) => {
                    let error = format!(
                        "director.state: {}: revision {} is not on the disk: {error}; it holds, but not after a restart, until this can be written",
                        self.path.display(),
                        saved.revision
                    );
                    if progress.error.is_none() {
                        tracing::error!("{error}");
                    }
                    progress.error = Some(error);
                }
            }
            director.set_notice(progress.error.clone());
            self.changed.notify_all();
        }
    }

    /// Waits until there is something to write; false at the end.
    fn is_wanted(&self) -> bool {
        let mut progress = self.progress.lock();
        loop {
            if progress.wanted > progress.tried {
                return true;
            }
            if progress.stop {
                return false;
            }
            if progress.wanted > progress.written {
                if self.changed.wait_for(&mut progress, AGAIN).timed_out() {
                    return true;
                }
            } else {
                self.changed.wait(&mut progress);
            }
        }
    }
}
