//! The table from outside: against a model, at its limits, over time, and under many threads.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, reason = "tests, and what they share")]

mod adopt;
mod corruption;
mod flows;
mod held;
mod limits;
mod model;
mod stress;
mod timers;
