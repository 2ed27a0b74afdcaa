//! Plays scenarios that were recorded with the kernel's IPVS on the director, and says where it differs.
//!
//! ```text
//!   NAME.json ─ scenario ─▶ player ─┬─ build ─▶ frames ─▶ bench: Director, Worker, memory ports, a clock of its own
//!                                   │                        └──▶ frames ─ describe ─┐
//!                                   ├─ command: ipvsadm ─▶ kernel (its rules) ─ features ─▶ Configuration
//!                                   └─ tables: services, connections ────────────────┤
//!   NAME.expected.json ────────────────────────── compare, but for what is allowed ──┴─▶ ok, or the differences
//! ```

pub mod allowed;
pub mod bench;
pub mod build;
pub mod command;
pub mod compare;
pub mod describe;
pub mod endpoint;
pub mod features;
pub mod kernel;
pub mod netfilter;
pub mod player;
pub mod proc;
pub mod reassembly;
pub mod scenario;
pub mod tables;
pub mod topology;

use allowed::Credits;
use player::{PlayError, Player};
use scenario::{Scenario, ScenarioError};
use serde_json::Value;
use std::path::Path;

/// Why a scenario has no outcome.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// There is no scenario.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// A step makes no sense.
    #[error("step {number}: {error}")]
    Step {
        /// Counts from 0.
        number: usize,
        /// What is wrong.
        error: PlayError,
    },
    /// There is no director, or what comes before the steps makes no sense.
    #[error(transparent)]
    Start(PlayError),
}

/// Plays a scenario file; the differences from its recording, a line each.
///
/// # Errors
/// When it cannot be read, or not played to its end.
pub fn play(file: &Path) -> Result<Vec<String>, Failure> {
    let (scenario, recorded) = scenario::read(file)?;
    differences(&scenario, &recorded)
}

/// The differences between a recording and what uvs does, what it cannot do first.
fn differences(scenario: &Scenario, recorded: &[Value]) -> Result<Vec<String>, Failure> {
    let mut player = Player::new(scenario).map_err(Failure::Start)?;
    let mut found = Vec::new();
    let mut credits = Credits::default();
    for (number, (step, recorded)) in scenario.steps.iter().zip(recorded).enumerate() {
        let actual = player
            .step(step)
            .map_err(|error| Failure::Step { number, error })?;
        let differences = compare::step(
            recorded,
            &actual,
            &|address| player.is_directors(address),
            &mut credits,
        );
        found.extend(
            differences
                .into_iter()
                .map(|line| format!("step {number}: {line}")),
        );
    }
    if !found.is_empty() {
        let missing = player
            .missing()
            .iter()
            .map(|what| format!("not supported: {what}"));
        found.splice(..0, missing.collect::<Vec<_>>());
    }
    Ok(found)
}
