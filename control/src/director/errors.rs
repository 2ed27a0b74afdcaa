//! Why a director does not start, or does not take a configuration over.

use crate::compile::NoRoom;
use crate::config::Finding;
use conntrack::{FileError, TableError};
use std::fmt;
use std::path::PathBuf;

/// What is wrong with a configuration that was not read from a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Findings(pub Vec<Finding>);

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told: Vec<_> = self
            .0
            .iter()
            .map(|finding| format!("{}: {}", finding.path, finding.problem))
            .collect();
        f.write_str(&told.join("\n"))
    }
}

/// A port's driver cannot be told what is forwarded from now on.
#[derive(Debug, thiserror::Error)]
#[error("port {port}: what is to be forwarded cannot be told to it: {error}")]
pub struct TellError {
    /// Its name.
    pub port: String,
    /// What the system says.
    pub error: std::io::Error,
}

/// Why a director does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration cannot work.
    #[error("{0}")]
    Invalid(Findings),
    /// A port cannot be opened.
    #[error("port {port}: {}", with_causes(&**error))]
    Port {
        /// Its name.
        port: String,
        /// Why.
        error: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A port's driver cannot be told what to receive.
    #[error(transparent)]
    Tell(#[from] TellError),
    /// The ports handed over are not those of the configuration.
    #[error(
        "{given} ports with {queues} queues were handed over; accepted: {ports} ports with {workers} queues each"
    )]
    Ports {
        /// Ports handed over.
        given: usize,
        /// Queues of the first port that has the wrong number, or of the first at all.
        queues: usize,
        /// Ports of the configuration.
        ports: usize,
        /// Workers of the configuration.
        workers: usize,
    },
    /// The connection table cannot be made.
    #[error("director.connections: {0}")]
    Table(#[from] TableError),
    /// The file for the connection table cannot be used.
    #[error("director.table: {}: {error}", path.display())]
    TableFile {
        /// Where it is to be.
        path: PathBuf,
        /// Why.
        error: FileError,
    },
    /// There are more servers than numbers.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// A worker cannot be bound to its CPU.
    #[error(
        "director.pin: worker {worker} cannot run on CPU {cpu}: {error}; accepted: a CPU this process may use"
    )]
    Pin {
        /// Its number.
        worker: u16,
        /// The CPU.
        cpu: usize,
        /// What the system says.
        error: std::io::Error,
    },
    /// A worker's thread cannot be made.
    #[error("worker {worker} has no thread: {error}")]
    Thread {
        /// Its number.
        worker: u16,
        /// What the system says.
        error: std::io::Error,
    },
}

/// An error with what it came of.
fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let cause = error.source().map(with_causes);
    cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

/// Why a configuration is not taken over. The old one goes on.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// It cannot work.
    #[error("{0}")]
    Invalid(Findings),
    /// It changes what is fixed at the start.
    #[error("{}: fixed while the director runs; accepted: as they are, or a restart of uvsd", keys.join(", "))]
    NeedsRestart {
        /// The keys that differ.
        keys: Vec<String>,
    },
    /// There are more servers than numbers.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// A port's driver cannot be told.
    #[error(transparent)]
    Tell(#[from] TellError),
}
