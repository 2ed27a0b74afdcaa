//! Why a call was refused, as a status with details.
//!
//! A status travels in headers, and many clients read 8 KiB of those at most: what is too long is cut, what is too much counted.
//!
//! Source: google/rpc/error_details.proto (BadRequest), google/rpc/code.proto; gRPC over HTTP2, "Responses" (a message's bytes
//! beyond ASCII take three, details are in base64).

use crate::config::{Finding, KeyPath, Problem, Step};
use crate::director::ApplyError;
use crate::manage::{EditError, ManageError};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

/// Bytes of a status's violations together; more violations are only counted.
const VIOLATIONS_LEN: usize = 3 << 10;
/// Bytes of a value that is told, and of a field.
const VALUE_LEN: usize = 256;
/// Bytes of a violation's description: with all that is accepted, but for lists of very many names.
const DESCRIPTION_LEN: usize = 2 << 10;
/// Bytes of a status's message.
const MESSAGE_LEN: usize = 1 << 10;

/// Fields that are wrong.
pub(super) fn invalid(findings: &[Finding], field: impl Fn(&KeyPath) -> String) -> Status {
    let mut left = VIOLATIONS_LEN;
    let told = findings.iter().map(|finding| {
        let field = cut(field(&finding.path), VALUE_LEN);
        FieldViolation::new(field, description(&finding.problem))
    });
    let violations: Vec<_> = told
        .take_while(|violation| {
            let len = violation.field.len() + violation.description.len();
            let fits = len <= left;
            left = left.saturating_sub(len);
            fits
        })
        .collect();
    let first = violations.first().map_or_else(String::new, |violation| {
        let text = format!("{}: {}", violation.field, violation.description);
        cut(text, MESSAGE_LEN)
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
        other => Status::new(code(other), cut(other.to_string(), MESSAGE_LEN)),
    }
}

fn description(problem: &Problem) -> String {
    let mut problem = problem.clone();
    if let Problem::NotA { value, .. }
    | Problem::Duplicate { value, .. }
    | Problem::Conflict { value, .. }
    | Problem::Changed { value, .. } = &mut problem
    {
        *value = cut(std::mem::take(value), VALUE_LEN);
    }
    cut(problem.to_string(), DESCRIPTION_LEN)
}

/// A text of at most `len` bytes and a mark that there was more.
fn cut(mut text: String, len: usize) -> String {
    if text.len() > len {
        text.truncate(text.floor_char_boundary(len));
        text.push('…');
    }
    text
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
