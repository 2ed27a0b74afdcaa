//! Configuration, the gRPC service and the daemon.
//!
//! ```text
//!   file ─ config ─▶ Configuration ─ director ─▶ ports, tables, workers
//!                                      ├─ plan      what a new configuration changes
//!                                      ├─ manage    revisions of it, made by edits
//!                                      ├─ compile   Configuration ─▶ Snapshot
//!                                      ├─ connections  what is in the tables
//!                                      └─ status ─▶ grpc ─▶ the control socket (socket), served by daemon
//! ```

pub mod arguments;
mod compile;
pub mod config;
pub mod connections;
pub mod daemon;
pub mod director;
pub mod grpc;
pub mod manage;
mod notify;
pub mod plan;
pub mod rates;
pub mod socket;
pub mod status;
mod traffic;

pub use compile::NoRoom;
pub use director::{ApplyError, Director, StartError};
pub use plan::Plan;
pub use rates::Rates;
pub use traffic::Traffic;
