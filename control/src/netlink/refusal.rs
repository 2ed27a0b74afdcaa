//! Why a request is refused, and the number by which the kernel would say so.
//!
//! Source: Linux net/netfilter/ipvs/ip_vs_ctl.c and net/netlink/genetlink.c (behaviour alone), and what the real `ipvsadm` prints.

use crate::config::Listen;
use crate::director::ApplyError;
use crate::guard::Role;
use crate::manage::{EditError, ManageError};
use rustix::io::Errno;

/// Why a request is refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("a malformed message")]
    Malformed,
    #[error("attribute {0} is shorter than it must be, or longer than it may")]
    Short(u16),
    #[error("the message has no {0}")]
    Missing(&'static str),
    #[error("there is no family or file {0:?}")]
    Unknown(String),
    #[error("command {0} is not known")]
    Command(u8),
    #[error("the system has no memory for it")]
    NoMemory,
    #[error("it needs the role {0}: see [access] in the configuration")]
    Forbidden(Role),
    #[error("{0} is no address family; accepted: 2 (IPv4) or 10 (IPv6)")]
    Family(u16),
    #[error("there is no scheduler {0:?}; accepted: {names}", names = scheduler::names().join(", "))]
    Scheduler(String),
    #[error("there is no persistence engine {0:?}; accepted: sip")]
    Engine(String),
    #[error("{what} {value} is out of range; accepted: {accepted}")]
    Range {
        what: &'static str,
        value: i64,
        accepted: String,
    },
    #[error("{what} {value} cannot be used; accepted: {accepted}")]
    Value {
        what: &'static str,
        value: String,
        accepted: &'static str,
    },
    #[error("there is no service {0}")]
    NoService(Listen),
    #[error("service {0} exists already")]
    ServiceExists(Listen),
    #[error("a daemon of that kind runs already")]
    DaemonRuns,
    #[error("no daemon of that kind runs")]
    NoDaemon,
    #[error(transparent)]
    Manage(#[from] ManageError),
}

impl Refusal {
    pub(super) fn errno(&self) -> Errno {
        match self {
            Refusal::Malformed | Refusal::Missing(_) | Refusal::Value { .. } => Errno::INVAL,
            Refusal::Short(_) | Refusal::Range { .. } => Errno::RANGE,
            Refusal::Unknown(_) | Refusal::Scheduler(_) | Refusal::Engine(_) => Errno::NOENT,
            Refusal::Command(_) => Errno::OPNOTSUPP,
            Refusal::NoMemory => Errno::NOMEM,
            Refusal::Forbidden(_) => Errno::PERM,
            Refusal::Family(_) => Errno::AFNOSUPPORT,
            Refusal::NoService(_) | Refusal::NoDaemon => Errno::SRCH,
            Refusal::ServiceExists(_) | Refusal::DaemonRuns => Errno::EXIST,
            Refusal::Manage(error) => of_change(error),
        }
    }

    /// Whether an operator would not know why from the number alone.
    pub(super) fn is_telling(&self) -> bool {
        !matches!(
            self.errno(),
            // Who may not is told with the audit log.
            Errno::NOENT | Errno::SRCH | Errno::EXIST | Errno::PERM
        )
    }
}

fn of_change(error: &ManageError) -> Errno {
    match error {
        ManageError::Edit { error, .. } => match error {
            EditError::ServiceExists(_) | EditError::ServerExists(..) | EditError::Exists(..) => {
                Errno::EXIST
            }
            EditError::NoService(..) => Errno::SRCH,
            EditError::NoServer(..) | EditError::Missing(..) => Errno::NOENT,
        },
        ManageError::Apply(ApplyError::Invalid(_)) => Errno::INVAL,
        ManageError::Apply(_) => Errno::NOMEM,
        ManageError::Outdated { .. }
        | ManageError::Unconfirmed { .. }
        | ManageError::NothingToConfirm(_) => Errno::BUSY,
    }
}
