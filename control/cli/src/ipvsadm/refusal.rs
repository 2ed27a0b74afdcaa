//! Why a command that was understood is not done: the kernel's reasons in the words of ipvsadm 1.31, and the director's own.

use super::{Command, Mistake};
use proto::v1;
use std::net::IpAddr;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// Why a command is not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A service of this key is there.
    #[error("Service already exists")]
    ServiceExists,
    /// There is no service of this key.
    #[error("No such service")]
    NoService,
    /// There is no service of this key to be listed.
    #[error("No such service")]
    NotListed,
    /// There is no service to have this server.
    #[error("Service not defined")]
    ServiceNotDefined,
    /// No scheduler or engine of this name.
    #[error("Scheduler or persistence engine not found")]
    NoModule,
    /// The service has this server.
    #[error("Destination already exists")]
    ServerExists,
    /// The service has no such server.
    #[error("No such destination")]
    NoServer,
    /// The lower threshold is above the upper one.
    #[error("Numerical result out of range")]
    Thresholds,
    /// An address that is no host's, or a mixture of families where there is synchronisation.
    #[error("Invalid operation.  Possibly wrong module version, address not unicast, ...")]
    Invalid,
    /// The daemon's interface does not exist.
    #[error("No such device")]
    NoDevice,
    /// The daemon runs.
    #[error("Daemon has already run")]
    DaemonRuns,
    /// The daemon does not run.
    #[error("No daemon is running")]
    NoDaemon,
    /// What FULLNAT needs and the kernel knows nothing of.
    #[error(transparent)]
    FullNat(Mistake),
    /// What the director cannot do, or does not grant, and the kernel has no words for.
    #[error("{0}")]
    Director(String),
}

impl Refusal {
    /// The exit status of ipvsadm.
    #[must_use]
    pub fn exit_status(&self) -> u8 {
        match self {
            Refusal::FullNat(mistake) => mistake.exit_status(),
            Refusal::NotListed => 1,
            _ => 255,
        }
    }
}

/// Whether packets can be for one host of this address alone.
fn is_unicast(address: IpAddr) -> bool {
    !address.is_multicast() && !address.is_unspecified()
}

/// The refusal that a director's status means for a command. `is_there` tells of the command's service.
///
/// The kernel looks at the service first, then at schedulers and thresholds, then at the server.
/// Source: Linux net/netfilter/ipvs/ip_vs_ctl.c.
pub(super) fn of_status(command: &Command, status: &Status, is_there: Option<bool>) -> Refusal {
    let missing = is_there == Some(false);
    match (command, status.code()) {
        (Command::AddService(_), Code::AlreadyExists) => Refusal::ServiceExists,
        (Command::AddService(_), Code::InvalidArgument) if is_there == Some(true) => {
            Refusal::ServiceExists
        }
        (Command::EditService(_), Code::InvalidArgument) if missing => Refusal::NoService,
        (Command::AddService(_) | Command::EditService(_), Code::InvalidArgument)
            if is_about_modules(status) =>
        {
            Refusal::NoModule
        }
        (
            Command::EditService(_) | Command::DeleteService(_) | Command::Zero(_),
            Code::NotFound,
        ) => Refusal::NoService,
        (Command::AddServer(..), Code::AlreadyExists) => Refusal::ServerExists,
        (
            Command::AddServer(..) | Command::EditServer { .. } | Command::DeleteServer(..),
            Code::NotFound | Code::InvalidArgument,
        ) if missing => Refusal::ServiceNotDefined,
        (Command::AddServer(..), Code::NotFound) => Refusal::ServiceNotDefined,
        (Command::EditServer { .. } | Command::DeleteServer(..), Code::NotFound) => {
            Refusal::NoServer
        }
        (Command::AddServer(_, server), Code::InvalidArgument)
            if !is_unicast(server.address.ip()) =>
        {
            Refusal::Invalid
        }
        // The kernel has no such server: it would never have let it in.
        (Command::EditServer { server, .. }, Code::InvalidArgument)
            if !is_unicast(server.address.ip()) =>
        {
            Refusal::NoServer
        }
        (Command::DeleteServer(_, address), Code::InvalidArgument) if !is_unicast(address.ip()) => {
            Refusal::NoServer
        }
        _ => Refusal::Director(told(status)),
    }
}

/// Whether an answer for a command depends on whether its service is there.
pub(super) fn needs_service(command: &Command, status: &Status) -> bool {
    match command {
        Command::AddService(_) | Command::EditService(_) => status.code() == Code::InvalidArgument,
        Command::AddServer(..) => status.code() == Code::InvalidArgument,
        Command::EditServer { .. } | Command::DeleteServer(..) => {
            matches!(status.code(), Code::NotFound | Code::InvalidArgument)
        }
        _ => false,
    }
}

fn is_about_modules(status: &Status) -> bool {
    let details = status.get_error_details();
    let bad = details.bad_request().into_iter();
    let mut fields = bad
        .flat_map(|bad| &bad.field_violations)
        .map(|violation| &violation.field);
    fields.any(|field| field.ends_with(".scheduler") || field.ends_with(".engine"))
}

/// A status in words: each field that is wrong on a line.
pub(crate) fn told(status: &Status) -> String {
    let details = status.get_error_details();
    let bad = details.bad_request().into_iter();
    let violations = bad.flat_map(|bad| &bad.field_violations);
    let lines: Vec<String> = violations
        .map(|violation| format!("{}: {}", violation.field, violation.description))
        .collect();
    match (lines.is_empty(), status.code()) {
        (false, _) => lines.join("\n"),
        (true, Code::Unimplemented) => "this uvsd cannot do that yet".to_owned(),
        (true, _) => status.message().to_owned(),
    }
}

/// Whether a service is in a state.
pub(super) fn has_service(state: &v1::State, key: &v1::ServiceKey) -> bool {
    let mut services = state.services.iter();
    services.any(|service| service.key.as_ref() == Some(key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::{ErrorDetails, FieldViolation};

    fn command(line: &str) -> Command {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        super::super::parse(&words).unwrap()
    }

    #[test]
    fn the_same_status_is_told_by_what_was_asked() {
        let add = "-A -t 10.0.0.1:80";
        let delete = "-d -t 10.0.0.1:80 -r 10.0.0.2";
        let join = "-a -t 10.0.0.1:80 -r 224.0.0.1";
        for (line, code, is_there, expected) in [
            (add, Code::AlreadyExists, None, "Service already exists"),
            ("-D -t 10.0.0.1:80", Code::NotFound, None, "No such service"),
            ("-Z -t 10.0.0.1:80", Code::NotFound, None, "No such service"),
            (delete, Code::NotFound, Some(false), "Service not defined"),
            (delete, Code::NotFound, Some(true), "No such destination"),
            (
                join,
                Code::AlreadyExists,
                None,
                "Destination already exists",
            ),
            (join, Code::NotFound, None, "Service not defined"),
            (
                join,
                Code::InvalidArgument,
                Some(false),
                "Service not defined",
            ),
            (join, Code::PermissionDenied, None, "why"),
        ] {
            let refusal = of_status(&command(line), &Status::new(code, "why"), is_there);
            assert_eq!(refusal.to_string(), expected, "{line}");
            assert_eq!(refusal.exit_status(), 255);
        }
        let refusal = of_status(
            &command(join),
            &Status::new(Code::InvalidArgument, ""),
            Some(true),
        );
        assert_eq!(refusal, Refusal::Invalid);
        assert_eq!(Refusal::NotListed.exit_status(), 1);
    }

    #[test]
    fn what_the_kernel_has_no_words_for_is_told_field_by_field() {
        let violations = vec![
            FieldViolation::new("edits.edits[0]", "first"),
            FieldViolation::new("edits.edits[1]", "second"),
        ];
        let details = ErrorDetails::with_bad_request(violations);
        let status = Status::with_error_details(Code::InvalidArgument, "all", details);
        let refusal = of_status(&command("-A -t 10.0.0.1:80"), &status, Some(false));
        let expected = "edits.edits[0]: first\nedits.edits[1]: second";
        assert_eq!(refusal, Refusal::Director(expected.to_owned()));
    }
}
