//! Making a change, or only planning it, and telling what came of it.

use super::{Changing, ConfigureError, print, table};
use crate::json;
use crate::remote::{Remote, Terms, Wish, edits};
use proto::v1;
use proto::v1::edit::Edit;
use tonic::Code;

/// How often a change is worked out anew because somebody else's came between.
const ATTEMPTS: usize = 5;

impl Changing {
    /// Makes edits.
    pub(super) fn edit(&self, wanted: Vec<Edit>) -> Result<(), ConfigureError> {
        self.make(&self.asking.remote()?, edits(wanted), 0)
    }

    /// Makes edits that depend on what holds: nothing may come between.
    pub(super) fn edit_what_holds(
        &self,
        work_out: impl Fn(&v1::State) -> Result<Vec<Edit>, ConfigureError>,
    ) -> Result<(), ConfigureError> {
        let remote = self.asking.remote()?;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let answer = remote.configuration(false)?;
            let state = answer.state.unwrap_or_default();
            let made = self.make(&remote, edits(work_out(&state)?), answer.revision);
            match made {
                Err(ConfigureError::Refused(status))
                    if status.code() == Code::Aborted
                        && self.expect_revision.is_none()
                        && attempts < ATTEMPTS => {}
                made => return made,
            }
        }
    }

    /// Makes a change, if `revision` holds (0: any) or the one that the caller expects.
    pub(super) fn make(
        &self,
        remote: &Remote,
        wish: Wish,
        revision: u64,
    ) -> Result<(), ConfigureError> {
        let terms = Terms {
            expected_revision: self.expect_revision.unwrap_or(revision),
            confirm_within: self.confirm_within.map(super::Span::message),
        };
        let text = if self.dry_run {
            let planned = remote.plan(wish, terms)?;
            if self.asking.json {
                json::text("PlanChangeResponse", &planned)
            } else {
                table::planned(&planned)
            }
        } else {
            let changed = remote.change(wish, terms)?;
            if self.asking.json {
                json::text("ChangeResponse", &changed)
            } else {
                table::changed(&changed)
            }
        };
        print(&text)
    }
}
