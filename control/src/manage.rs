//! Changes to a running director, one after the other: each is planned, applied whole or not at all, counted as a revision,
//! written down, and told to whoever watches.
//!
//! ```text
//!   edits or a whole configuration ─▶ expected revision? ─▶ Director::apply ─▶ revision + 1 ─▶ state file, audit, watchers
//!                                             └─ to be confirmed: without a word in time, the one before comes back
//! ```

mod edit;
mod keeper;
mod revision;
mod start;
mod state;

pub use edit::{Edit, EditError};
pub use revision::{Actor, Change, Outcome, Pending};
pub use start::Start;

use crate::config::{Configuration, Finding};
use crate::director::{ApplyError, Director, Findings};
use crate::guard::{Audit, Record, Told};
use crate::plan::Plan;
use keeper::Keeper;
use parking_lot::{Mutex, MutexGuard};
use state::Saved;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::broadcast;

/// Changes that a slow watcher may be behind before it misses some, and is told so.
pub const CHANGES_KEPT: usize = 1024;
/// How long a change may wait for its confirmation, at most.
pub const CONFIRMATION_MAX: Duration = Duration::from_secs(24 * 3600);

/// What changes are called in the audit log.
const CHANGE: &str = "/uvs.v1.Configuration/Change";
const CONFIRM: &str = "/uvs.v1.Configuration/Confirm";
const ROLL_BACK: &str = "/uvs.v1.Configuration/RollBack";

/// Why a change was not made. The director goes on as before.
#[derive(Debug, thiserror::Error)]
pub enum ManageError {
    /// Somebody else was faster.
    #[error(
        "the configuration is at revision {is}, not {expected}: look at what changed, and try again"
    )]
    Outdated {
        /// The revision that holds.
        is: u64,
        /// The revision that was expected.
        expected: u64,
    },
    /// A change waits to be confirmed, and nothing may be built on it until then.
    #[error("revision {revision} waits for its confirmation for another {} s: confirm it or roll it back first", left.as_secs())]
    Unconfirmed {
        /// The revision that waits.
        revision: u64,
        /// For how long.
        left: Duration,
    },
    /// Nothing waits to be confirmed, or something else.
    #[error("revision {0} does not wait for a confirmation")]
    NothingToConfirm(u64),
    /// One of several edits cannot be made.
    #[error("edit {place}: {error}")]
    Edit {
        /// Which; counts from 0.
        place: usize,
        /// Why.
        error: EditError,
    },
    /// The director does not take the configuration.
    #[error(transparent)]
    Apply(#[from] ApplyError),
}

/// What a change is to be.
#[derive(Clone, Debug)]
pub enum Wish {
    /// These edits, one after the other.
    Edits(Vec<Edit>),
    /// This configuration, whole. What is fixed at the start must be as it is.
    Whole(Box<Configuration>),
}

/// On what terms a change is made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Terms {
    /// The revision that must hold, if it matters.
    pub expected: Option<u64>,
    /// Within this time the change is confirmed, or undone.
    pub confirm_within: Option<Duration>,
}

/// See the module's text.
pub struct Manager {
    director: Arc<Director>,
    held: Arc<Mutex<Held>>,
    changes: broadcast::Sender<Arc<Change>>,
    audit: Arc<Audit>,
    keeper: Option<Keeper>,
}

/// What changes with each revision.
struct Held {
    revision: u64,
    pending: Option<Waiting>,
    /// See [`state::origin`].
    origin: String,
}

/// A change that is not confirmed.
struct Waiting {
    revision: u64,
    until: Instant,
    before: Configuration,
}

impl Manager {
    /// Of a director that runs with `revision`.
    #[must_use]
    pub fn new(director: Arc<Director>, revision: u64) -> Manager {
        let origin = state::origin(&director.configuration());
        Manager {
            director,
            held: Arc::new(Mutex::new(Held {
                revision,
                pending: None,
                origin,
            })),
            changes: broadcast::channel(CHANGES_KEPT).0,
            audit: Arc::default(),
            keeper: None,
        }
    }

    /// Of a director that was started with what [`Start`] found: with an audit log, and with a state file where its
    /// configuration names one.
    ///
    /// # Errors
    /// When the thread that writes the state file cannot be made.
    pub fn started(
        director: Arc<Director>,
        start: &Start,
        audit: Arc<Audit>,
    ) -> io::Result<Manager> {
        let mut manager = Manager::new(director, start.revision);
        manager.held.lock().origin.clone_from(&start.origin);
        manager.audit = audit;
        if let Some(path) = manager.director.settings.state.clone() {
            let (director, held) = (Arc::clone(&manager.director), Arc::clone(&manager.held));
            let keeper = Keeper::start(path, director, held)?;
            if start.is_new {
                keeper.want();
            }
            manager.keeper = Some(keeper);
        }
        Ok(manager)
    }

    /// How often the state file was written; fewer times than there were changes, where those came fast.
    #[must_use]
    pub fn state_writes(&self) -> u64 {
        self.keeper.as_ref().map_or(0, Keeper::writes)
    }

    /// The director.
    #[must_use]
    pub fn director(&self) -> &Arc<Director> {
        &self.director
    }

    /// The configuration that holds, its revision, and whether that waits for a confirmation.
    #[must_use]
    pub fn current(&self) -> (Configuration, u64, Option<Pending>) {
        let held = self.held.lock();
        (self.director.configuration(), held.revision, held.pending())
    }

    /// The revision that holds.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.held.lock().revision
    }

    /// Whatever changes from now on, in order; the revision that holds now, and whether it waits for a confirmation.
    #[must_use]
    pub fn watch(&self) -> (broadcast::Receiver<Arc<Change>>, u64, Option<Pending>) {
        let held = self.held.lock();
        (self.changes.subscribe(), held.revision, held.pending())
    }

    /// What a wish would change. Nothing is changed.
    ///
    /// # Errors
    /// When it could not be made, as far as that can be told without making it.
    pub fn plan(&self, wish: &Wish, terms: Terms) -> Result<Outcome, ManageError> {
        let held = self.held.lock();
        held.expect(terms.expected)?;
        let wanted = self.wanted(wish)?;
        let plan = self.director.plan(&wanted)?;
        Ok(Outcome {
            revision: held.revision,
            plan,
            pending: held.pending(),
            warning: None,
        })
    }

    /// Makes a change, and returns once it is in the state file, if there is one.
    ///
    /// # Errors
    /// Everything is as before then. Where only the state file cannot be written, the change holds and its outcome has a
    /// warning: a server must be taken out of service also while a disk is full.
    pub fn change(&self, wish: &Wish, terms: Terms, actor: &Actor) -> Result<Outcome, ManageError> {
        let mut held = self.held.lock();
        let before = held.revision;
        let made = self.make_wish(&mut held, wish, terms, actor);
        self.finish(held, made, before, CHANGE, actor)
    }

    /// As [`change`](Self::change), but does not wait for the state file: it follows.
    ///
    /// # Errors
    /// Everything is as before then.
    pub fn change_at_once(
        &self,
        wish: &Wish,
        terms: Terms,
        actor: &Actor,
    ) -> Result<Outcome, ManageError> {
        let mut held = self.held.lock();
        let before = held.revision;
        let made = self.make_wish(&mut held, wish, terms, actor);
        if made.is_ok() {
            self.want();
        }
        self.write_down(&made, before, CHANGE, actor);
        made
    }

    fn make_wish(
        &self,
        held: &mut Held,
        wish: &Wish,
        terms: Terms,
        actor: &Actor,
    ) -> Result<Outcome, ManageError> {
        held.expect(terms.expected)?;
        let wanted = self.wanted(wish)?;
        self.make(held, wanted, terms, actor)
    }

    /// Takes over what the configuration file says now, whole: also what was changed otherwise since, but with a state file
    /// only where the configuration file says something else than when it was read last. Does not wait for the state file.
    ///
    /// # Errors
    /// Everything is as before then.
    pub fn reload(&self, file: Configuration, actor: &Actor) -> Result<Outcome, ManageError> {
        let mut held = self.held.lock();
        let before = held.revision;
        let origin = state::origin(&file);
        let wanted = if self.keeper.is_some() && origin == held.origin {
            state::merged(&file, &self.director.configuration())
        } else {
            file
        };
        let made = self.make(&mut held, wanted, Terms::default(), actor);
        if made.is_ok() {
            held.origin = origin;
            self.want();
        }
        self.write_down(&made, before, "reload", actor);
        made
    }

    fn make(
        &self,
        held: &mut Held,
        wanted: Configuration,
        terms: Terms,
        actor: &Actor,
    ) -> Result<Outcome, ManageError> {
        if let Some(pending) = held.pending() {
            return Err(ManageError::Unconfirmed {
                revision: pending.revision,
                left: pending.left,
            });
        }
        let before = terms
            .confirm_within
            .map(|within| (within, self.director.configuration()));
        let plan = self.director.apply(wanted)?;
        held.revision += 1;
        held.pending = before.map(|(within, before)| Waiting {
            revision: held.revision,
            until: Instant::now() + within.min(CONFIRMATION_MAX),
            before,
        });
        Ok(self.told(held, plan, actor))
    }

    /// Confirms the change that waits for it. Returns a warning where it is not in the state file, as
    /// [`change`](Self::change).
    ///
    /// # Errors
    /// When `revision` does not wait.
    pub fn confirm(&self, revision: u64, actor: &Actor) -> Result<Option<String>, ManageError> {
        let mut held = self.held.lock();
        let is_pending = held.pending.as_ref().map(|waiting| waiting.revision) == Some(revision);
        let made = if is_pending {
            held.pending = None;
            Ok(Outcome {
                revision,
                plan: Plan::default(),
                pending: None,
                warning: None,
            })
        } else {
            Err(ManageError::NothingToConfirm(revision))
        };
        let before = held.revision;
        let confirmed = self.finish(held, made, before, CONFIRM, actor)?;
        Ok(confirmed.warning)
    }

    /// Takes the change back that waits for its confirmation: as a revision of its own.
    ///
    /// # Errors
    /// When `revision` does not wait; or when what held before cannot be had again: then the change stays.
    pub fn roll_back(&self, revision: u64, actor: &Actor) -> Result<Outcome, ManageError> {
        let mut held = self.held.lock();
        let before = held.revision;
        let made = self.take_back(&mut held, revision, actor);
        // Also where it stays: it waits for nothing any more.
        self.want();
        self.finish(held, made, before, ROLL_BACK, actor)
    }

    fn take_back(
        &self,
        held: &mut Held,
        revision: u64,
        actor: &Actor,
    ) -> Result<Outcome, ManageError> {
        let waits = |waiting: &mut Waiting| waiting.revision == revision;
        let Some(waiting) = held.pending.take_if(waits) else {
            return Err(ManageError::NothingToConfirm(revision));
        };
        let plan = self.director.apply(waiting.before)?;
        held.revision += 1;
        Ok(self.told(held, plan, actor))
    }

    /// Takes the change back whose time for confirmation is over, if there is one. To be called now and then.
    pub fn tidy(&self) -> Option<Result<Outcome, ManageError>> {
        let overdue = {
            let held = self.held.lock();
            let waiting = held.pending.as_ref()?;
            (waiting.until <= Instant::now()).then_some(waiting.revision)?
        };
        let actor = Actor::of_uvsd("not confirmed in time");
        let mut held = self.held.lock();
        let before = held.revision;
        let made = self.take_back(&mut held, overdue, &actor);
        self.want();
        self.write_down(&made, before, ROLL_BACK, &actor);
        Some(made)
    }

    /// Writes down that a call could not even be understood.
    pub fn not_understood(&self, actor: &Actor, status: &tonic::Status) {
        let record = Record::of(actor, CHANGE, Told::failed(status));
        self.audit.write(&record);
    }

    /// What was made is written down, and waited for until it is in the state file.
    fn finish(
        &self,
        held: MutexGuard<'_, Held>,
        made: Result<Outcome, ManageError>,
        before: u64,
        method: &str,
        actor: &Actor,
    ) -> Result<Outcome, ManageError> {
        let wanted = made.as_ref().ok().and_then(|_| self.want());
        drop(held);
        let made = made.map(|outcome| Outcome {
            warning: wanted.and_then(|(keeper, wanted)| keeper.wait(wanted).err()),
            ..outcome
        });
        self.write_down(&made, before, method, actor);
        made
    }

    /// Lets what holds be written into the state file.
    fn want(&self) -> Option<(&Keeper, u64)> {
        self.keeper.as_ref().map(|keeper| (keeper, keeper.want()))
    }

    fn write_down(
        &self,
        made: &Result<Outcome, ManageError>,
        before: u64,
        method: &str,
        actor: &Actor,
    ) {
        self.audit.write(&match made {
            Ok(outcome) => Record {
                revisions: Some((before, outcome.revision)),
                plan: Some(&outcome.plan),
                ..Record::of(actor, method, Told::Done)
            },
            Err(error) => Record::of(actor, method, Told::refused(error)),
        });
    }

    /// Tells the watchers of a change that was made.
    fn told(&self, held: &Held, plan: Plan, actor: &Actor) -> Outcome {
        let outcome = Outcome {
            revision: held.revision,
            plan,
            pending: held.pending(),
            warning: None,
        };
        // Without watchers nobody misses it.
        let _ = self.changes.send(Arc::new(Change {
            time: SystemTime::now(),
            actor: actor.clone(),
            outcome: outcome.clone(),
        }));
        outcome
    }

    /// The configuration that a wish leads to.
    fn wanted(&self, wish: &Wish) -> Result<Configuration, ManageError> {
        let mut wanted = match wish {
            Wish::Whole(whole) => (**whole).clone(),
            Wish::Edits(edits) => {
                let mut configuration = self.director.configuration();
                for (place, edit) in edits.iter().enumerate() {
                    edit.make(&mut configuration)
                        .map_err(|error| ManageError::Edit { place, error })?;
                }
                configuration
            }
        };
        // As in a file; whoever asked sees it in what holds afterwards.
        wanted.force_server_ports();
        Ok(wanted)
    }
}

impl Held {
    fn expect(&self, expected: Option<u64>) -> Result<(), ManageError> {
        match expected {
            Some(expected) if expected != self.revision => Err(ManageError::Outdated {
                is: self.revision,
                expected,
            }),
            _ => Ok(()),
        }
    }

    /// What is to hold after a restart: not what waits for its confirmation.
    fn saved(&self, director: &Director) -> Saved {
        let (revision, configuration) = match &self.pending {
            None => (self.revision, director.configuration()),
            Some(waiting) => (waiting.revision - 1, waiting.before.clone()),
        };
        Saved {
            revision,
            counted: self.revision,
            origin: self.origin.clone(),
            configuration,
        }
    }

    fn pending(&self) -> Option<Pending> {
        self.pending.as_ref().map(|waiting| Pending {
            revision: waiting.revision,
            left: waiting.until.saturating_duration_since(Instant::now()),
        })
    }
}

impl ManageError {
    /// What is wrong with the configuration that was wanted, where it is that.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        match self {
            ManageError::Apply(ApplyError::Invalid(Findings(findings))) => findings,
            _ => &[],
        }
    }
}
