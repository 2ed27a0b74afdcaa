//! The messages of `uvs.v1.Configuration` without a director: what one would make of them, for programs that work out a change
//! before they ask for it.

use super::place::Place;
use super::{read, write};
use crate::config::{Configuration, Finding, Service};
use crate::manage::{Edit, EditError};
use proto::v1;
use std::cell::RefCell;

/// Why a message cannot be made anything of.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// What it says is wrong.
    #[error("{}", told(.0))]
    Wrong(Vec<Finding>),
    /// What it is about is there already, or is not there.
    #[error(transparent)]
    Edit(#[from] EditError),
}

fn told(findings: &[Finding]) -> String {
    let lines = findings
        .iter()
        .map(|Finding { path, problem }| format!("{path}: {problem}"));
    lines.collect::<Vec<_>>().join("\n")
}

/// What of a configuration can change, as a message.
#[must_use]
pub fn state_of(configuration: &Configuration) -> v1::State {
    write::state(configuration)
}

/// A service, as a message.
#[must_use]
pub fn service_of(service: &Service) -> v1::ServiceSettings {
    write::service(service)
}

/// `current` with everything changeable as a message says. Its parts are not looked at together.
///
/// # Errors
/// When something in it is wrong.
pub fn configuration_of(
    state: &v1::State,
    current: Configuration,
) -> Result<Configuration, MessageError> {
    sound(|top| read::state(state, &top.key("state"), current))
}

/// What a step of a change would do to `current`.
///
/// # Errors
/// When something in it is wrong.
pub fn edit_of(edit: &v1::Edit, current: &Configuration) -> Result<Edit, MessageError> {
    sound(|top| read::edit(edit, &top.key("edit"), current))
}

/// Does a step of a change to a configuration.
///
/// # Errors
/// When it cannot be done; nothing is changed then.
pub fn make(edit: &v1::Edit, configuration: &mut Configuration) -> Result<(), MessageError> {
    edit_of(edit, configuration)?.make(configuration)?;
    Ok(())
}

fn sound<T>(read: impl FnOnce(&Place<'_>) -> Option<T>) -> Result<T, MessageError> {
    let found = RefCell::new(Vec::new());
    let value = read(&Place::top(&found));
    match value {
        Some(value) if found.borrow().is_empty() => Ok(value),
        _ => Err(MessageError::Wrong(found.take())),
    }
}
