//! Why a command on the configuration is not done.

use crate::connect::{ConnectError, broken};
use crate::output::OutputError;
use control::config::{Mistakes, ReadError};
use tonic::Status;

/// Why a command is not done. Nothing was changed, unless it says so.
#[derive(Debug, thiserror::Error)]
pub enum ConfigureError {
    /// There is no director.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The director refuses; each field that is wrong on a line.
    #[error("{}", broken(.0).unwrap_or_else(|| format!("the director answered: {}", crate::ipvsadm::told(.0))))]
    Refused(#[from] Box<Status>),
    /// A file is no configuration.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// What the standard input has is no configuration.
    #[error(transparent)]
    Mistakes(#[from] Mistakes),
    /// A file cannot be read.
    #[error(
        "{file}: {error}; accepted: a readable file of at most 64 MiB, or - for the standard input"
    )]
    Unreadable {
        /// Its name.
        file: String,
        /// What the system says.
        error: std::io::Error,
    },
    /// A value is not what it should be.
    #[error("{value:?} is not {what}; accepted: {accepted}")]
    NotA {
        /// What was given.
        value: String,
        /// What it should be.
        what: &'static str,
        /// What would be.
        accepted: String,
    },
    /// A line of rules cannot be done.
    #[error("{file}:{line}: {why}")]
    Line {
        /// The file's name.
        file: String,
        /// Counts from 1.
        line: usize,
        /// Why.
        why: String,
    },
    /// The director says what makes no sense here.
    #[error(
        "the director's state is not understood: {0}; accepted: that of a uvsd of this version"
    )]
    State(#[from] control::grpc::messages::MessageError),
    /// What the answer was cannot be written.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// The director has ended what was to go on.
    #[error("the director tells no more: it has stopped, or starts anew")]
    Ended,
    /// A new service without the one thing that it needs.
    #[error(
        "the new service has no --method; accepted: --method nat, dr, tun or fullnat: how packets reach servers that do not say it themselves"
    )]
    NoMethod,
    /// Nothing waits to be confirmed.
    #[error("no change waits for its confirmation")]
    NothingPending,
}
