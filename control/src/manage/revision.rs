//! What is told of a change.

use crate::plan::Plan;
use std::time::{Duration, SystemTime};

/// Who made a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// Such as "uid 0 (root)" or "san spiffe://ops"; "uvsd" for what it does of itself.
    pub name: String,
    /// By what way, such as "grpc, unix" or "SIGHUP"; or why.
    pub way: String,
}

impl Actor {
    /// The daemon itself, and why.
    #[must_use]
    pub fn of_uvsd(why: &str) -> Actor {
        Actor {
            name: "uvsd".to_owned(),
            way: why.to_owned(),
        }
    }
}

/// A change that waits for its confirmation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Its revision.
    pub revision: u64,
    /// How long it still waits.
    pub left: Duration,
}

/// What a change led to, or would.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The revision that holds now.
    pub revision: u64,
    /// What changed.
    pub plan: Plan,
    /// Set while it waits for its confirmation.
    pub pending: Option<Pending>,
    /// Set where it holds, but not after a restart, for the state file could not be written: why.
    pub warning: Option<String>,
}

/// A change that was made.
#[derive(Clone, Debug)]
pub struct Change {
    /// When.
    pub time: SystemTime,
    /// By whom.
    pub actor: Actor,
    /// What.
    pub outcome: Outcome,
}
