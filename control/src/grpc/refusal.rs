//! Why a call was refused, as a status with details.
//!
//! Source: google/rpc/error_details.proto (BadRequest), google/rpc/code.proto.

use crate::config::{Finding, KeyPath, Step};
use crate::director::ApplyError;
use crate::manage::{EditError, ManageError};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

/// Violations that a status carries; more are only counted.
const VIOLATIONS: usize = 100;

/// Fields that are wrong.
pub(super) fn invalid(findings: &[Finding], field: impl Fn(&KeyPath) -> String) -> Status {
    let told = findings.iter().take(VIOLATIONS);
    let violations: Vec<_> = told
        .map(|finding| FieldViolation::new(field(&finding.path), finding.problem.to_string()))
        .collect();
    let first = violations.first().map_or_else(String::new, |violation| {
        format!("{}: {}", violation.field, violation.description)
    });
    let message = match findings.len() {
        0 | 1 => first,
        count => format!("{first} (and {} more)", count - 1),
    };
    let details = ErrorDetails::with_bad_request(violations);
    Status::with_error_details(Code::InvalidArgument, message, details)
}

/// A change that was not made. `field` tells where in the call a path of the configuration stands.
pub(super) fn refused(error: &ManageError, field: impl Fn(&KeyPath) -> String) -> Status {
    match error {
        ManageError::Apply(ApplyError::Invalid(findings)) => invalid(&findings.0, field),
        other => Status::new(code(other), other.to_string()),
    }
}

/// What kind of error it is.
pub(crate) fn code(error: &ManageError) -> Code {
    match error {
        ManageError::Apply(ApplyError::Invalid(_)) => Code::InvalidArgument,
        ManageError::Outdated { .. } => Code::Aborted,
        ManageError::Edit { error, .. } => match error {
            EditError::ServiceExists(_) | EditError::ServerExists(..) | EditError::Exists(..) => {
                Code::AlreadyExists
            }
            EditError::NoService(..) | EditError::NoServer(..) | EditError::Missing(..) => {
                Code::NotFound
            }
        },
        ManageError::Unconfirmed { .. }
        | ManageError::NothingToConfirm(_)
        | ManageError::Apply(ApplyError::NeedsRestart { .. }) => Code::FailedPrecondition,
        ManageError::Apply(ApplyError::NoRoom(_) | ApplyError::Tell(_)) => Code::ResourceExhausted,
    }
}

/// From the keys of a configuration file to the fields of a whole state: "service[1].server[0].weight" is
/// "state.services[1].servers[0].weight".
pub(super) fn field_of_state(path: &KeyPath) -> String {
    let mut field = KeyPath::top("state");
    let mut steps = path.0.iter().peekable();
    while let Some(step) = steps.next() {
        field = match step {
            Step::Index(index) => field.index(*index),
            Step::Key(key) if matches!(steps.peek(), Some(Step::Index(_))) => {
                field.key(match key.as_str() {
                    "service" => "services",
                    "server" => "servers",
                    "route" => "routes",
                    "lip_pool" => "lip_pools",
                    "mark" => "marks",
                    other => other,
                })
            }
            Step::Key(key) => field.key(match key.as_str() {
                "listen" => "key",
                "port" if field.0.len() == 1 => "ports",
                other => other,
            }),
        };
    }
    field.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_files_become_paths_of_messages() {
        let path = KeyPath::top("service").index(1).key("server").index(0);
        for (path, field) in [
            (path.key("weight"), "state.services[1].servers[0].weight"),
            (
                KeyPath::top("service").index(2).key("listen"),
                "state.services[2].key",
            ),
            (
                KeyPath::top("route").index(3).key("port"),
                "state.routes[3].port",
            ),
            (
                KeyPath::top("lip_pool").index(0).key("addresses").index(4),
                "state.lip_pools[0].addresses[4]",
            ),
            (
                KeyPath::top("port").key("wan").key("addresses"),
                "state.ports.wan.addresses",
            ),
        ] {
            assert_eq!(field_of_state(&path), field);
        }
    }
}
