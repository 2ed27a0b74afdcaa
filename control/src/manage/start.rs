//! With what configuration a director starts: that of the file, or what was made of it while one ran before.

use super::state::{self, Saved, StateError, beside};
use crate::config::{self, Configuration};
use std::fs;
use std::path::Path;

/// The first of all.
const FIRST: u64 = 1;

/// What to start with.
#[derive(Debug)]
pub struct Start {
    /// The configuration.
    pub configuration: Configuration,
    /// Its revision.
    pub revision: u64,
    /// What the configuration file said.
    pub(super) origin: String,
    /// Whether the state file does not say so yet.
    pub(super) is_new: bool,
    /// What an operator should know.
    pub told: Vec<String>,
    /// What went wrong, and what was done about it.
    pub wrong: Vec<String>,
}

impl Start {
    /// From the configuration file, and the state file that it names, if it does.
    #[must_use]
    pub fn new(file: Configuration) -> Start {
        let origin = state::origin(&file);
        let mut start = Start {
            revision: FIRST,
            origin,
            is_new: true,
            told: Vec::new(),
            wrong: Vec::new(),
            configuration: file,
        };
        if let Some(path) = start.configuration.director.state.clone() {
            start.look(&path);
        }
        start
    }

    fn look(&mut self, path: &Path) {
        let last = beside(path, ".last");
        match state::read(path) {
            Ok(Some(saved)) => self.consider(saved, path),
            // Somebody removed it to begin anew: only the numbers go on.
            Ok(None) => {
                if let Ok(Some(saved)) = state::read(&last) {
                    self.revision = saved.counted + 1;
                }
            }
            Err(error) => {
                let counted = match &error {
                    StateError::Torn { counted, .. } => *counted,
                    _ => 0,
                };
                let kept = keep(path, ".refused");
                self.wrong.push(format!(
                    "director.state: {error}; it is refused, and kept as {kept}"
                ));
                self.fall_back(&last, counted);
            }
        }
    }

    /// Takes the state before the one that cannot be used.
    fn fall_back(&mut self, last: &Path, counted: u64) {
        match state::read(last) {
            Ok(Some(saved)) if saved.origin == self.origin => {
                self.consider(saved, last);
                self.wrong.push(format!(
                    "director.state: {} is used in its place: what was changed after it is lost",
                    last.display()
                ));
            }
            Ok(Some(saved)) => {
                self.revision = saved.counted + 1;
                self.wrong.push(format!(
                    "director.state: {} was made of another configuration file: the file holds",
                    last.display()
                ));
            }
            Ok(None) => self.wrong.push(
                "director.state: there is no state before it: the configuration file holds".into(),
            ),
            Err(error) => self.wrong.push(format!(
                "director.state: nor can {error}: the configuration file holds"
            )),
        }
        // No number is taken twice, as far as that can be told.
        self.revision = (self.revision + 1).max(counted + 1);
        self.is_new = true;
    }

    /// Uses a whole state, if it was made of this configuration file.
    fn consider(&mut self, saved: Saved, path: &Path) {
        let revision = saved.revision;
        if saved.origin != self.origin {
            self.revision = saved.counted + 1;
            let kept = keep(path, ".superseded");
            self.told.push(format!(
                "director.state: the configuration file was changed since revision {revision} was made of it: the file holds, \
                 as revision {}; what was changed otherwise until revision {revision} is lost, and kept in {kept}",
                self.revision
            ));
            return;
        }
        let merged = state::merged(&self.configuration, &saved.configuration);
        let (wrong, _) = config::check(&merged);
        if let Some(finding) = wrong.first() {
            self.revision = saved.counted + 1;
            let kept = keep(path, ".refused");
            self.wrong.push(format!(
                "director.state: {}: revision {revision} cannot be used with this configuration file: {}: {}; the file holds, \
                 and the state is kept as {kept}",
                path.display(), finding.path, finding.problem
            ));
            return;
        }
        self.configuration = merged;
        self.is_new = saved.counted != revision;
        self.revision = if self.is_new {
            saved.counted + 1
        } else {
            revision
        };
        self.told.push(if self.is_new {
            format!(
                "director.state: revision {} was not confirmed: revision {revision} holds again, as revision {}",
                saved.counted, self.revision
            )
        } else {
            format!(
                "director.state: revision {revision} of {} holds: what the configuration file says, as it was changed since",
                path.display()
            )
        });
    }
}

/// Gives a file another name, so that it is not written over; tells the name.
fn keep(path: &Path, ending: &str) -> String {
    let kept = beside(path, ending);
    match fs::rename(path, &kept) {
        Ok(()) => kept.display().to_string(),
        Err(error) => format!("{} (not renamed: {error})", path.display()),
    }
}
