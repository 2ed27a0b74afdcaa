//! The audit log: a line of JSON for each change, each refusal and each look at connections.
//!
//! Lines are appended in one write each. A line that cannot be written is counted and told in the log of uvsd, and the director
//! goes on: it must be possible to take a server out also while the disk is full.

use crate::grpc;
use crate::manage::{Actor, ManageError};
use crate::plan::{Action, Plan, PlannedService};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::SystemTime;
use tonic::Status;

/// Owner writes, group reads.
const MODE: u32 = 0o640;
/// Services of a change that a line lists, at most; the others are counted.
const SERVICES: usize = 1000;

/// See the module's text.
#[derive(Default)]
pub struct Audit {
    path: Option<PathBuf>,
    file: Mutex<Option<File>>,
    failed: AtomicU64,
    /// Refusals that were too many to be written down.
    skipped: AtomicU64,
}

/// What becomes of a call.
#[derive(Clone, Debug)]
pub enum Told {
    /// It was done, or began to be.
    Done,
    /// It was not.
    Failed {
        /// That of gRPC, such as "PermissionDenied".
        code: String,
        /// In words.
        message: String,
    },
}

impl Told {
    /// By a status.
    #[must_use]
    pub fn failed(status: &Status) -> Told {
        Told::Failed {
            code: format!("{:?}", status.code()),
            message: status.message().to_owned(),
        }
    }

    /// By why a change was not made.
    pub(crate) fn refused(error: &ManageError) -> Told {
        Told::Failed {
            code: format!("{:?}", grpc::code(error)),
            message: error.to_string(),
        }
    }
}

/// What a line tells.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    /// Who.
    pub actor: &'a Actor,
    /// What, as the path of a method.
    pub method: &'a str,
    /// The revisions before and after.
    pub revisions: Option<(u64, u64)>,
    /// What changed.
    pub plan: Option<&'a Plan>,
    /// What became of it.
    pub told: Told,
}

impl<'a> Record<'a> {
    /// Of a call that is no change.
    #[must_use]
    pub fn of(actor: &'a Actor, method: &'a str, told: Told) -> Record<'a> {
        Record {
            actor,
            method,
            revisions: None,
            plan: None,
            told,
        }
    }
}

impl Audit {
    /// Appends to a file, which is made if need be; to none: writes nothing.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: Option<&Path>) -> io::Result<Audit> {
        Ok(Audit {
            path: path.map(Path::to_owned),
            file: Mutex::new(path.map(open).transpose()?),
            ..Audit::default()
        })
    }

    /// Opens the file again, by its name: after it was moved away. Where that fails, what was open goes on.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn reopen(&self) -> io::Result<()> {
        if let Some(path) = &self.path {
            let new = open(path)?;
            *self.file.lock() = Some(new);
        }
        Ok(())
    }

    /// Lines that could not be written.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failed.load(Relaxed)
    }

    /// Counts a refusal that is not written down.
    pub(super) fn skip(&self) {
        self.skipped.fetch_add(1, Relaxed);
    }

    /// Writes a line.
    pub fn write(&self, record: &Record<'_>) {
        let mut file = self.file.lock();
        let Some(file) = file.as_mut() else { return };
        let skipped = self.skipped.swap(0, Relaxed);
        let mut line = line(record, skipped).to_string();
        line.push('\n');
        if let Err(error) = file.write_all(line.as_bytes()) {
            let failed = self.failed.fetch_add(1, Relaxed) + 1;
            tracing::error!(
                "access.audit: {}: {error}; {failed} lines are lost, this one of {}: {}",
                self.path.as_deref().unwrap_or(Path::new("")).display(),
                record.actor.name,
                record.method
            );
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(MODE)
        .open(path)
}

fn line(record: &Record<'_>, skipped: u64) -> Value {
    let mut line = Map::new();
    let mut put = |key: &str, value: Value| line.insert(key.to_owned(), value);
    let now = prost_types::Timestamp::from(SystemTime::now());
    put("time", now.to_string().into());
    put("who", record.actor.name.clone().into());
    put("way", record.actor.way.clone().into());
    put("method", record.method.into());
    if let Some((before, after)) = record.revisions {
        put("revision_before", before.into());
        put("revision_after", after.into());
    }
    if let Some(plan) = record.plan {
        put("diff", diff(plan));
    }
    match &record.told {
        Told::Done => put("result", "ok".into()),
        Told::Failed { code, message } => {
            put("result", code.clone().into());
            put("message", message.clone().into())
        }
    };
    if skipped > 0 {
        put("refusals_not_written", skipped.into());
    }
    Value::Object(line)
}

fn diff(plan: &Plan) -> Value {
    let services = plan.services.iter().take(SERVICES).map(service);
    let mut diff = json!({
        "summary": plan.to_string(),
        "services": services.collect::<Vec<_>>(),
    });
    let flags = [
        ("ways", plan.ways_changed),
        ("lip_pools", plan.lip_pools_changed),
        ("marks", plan.marks_changed),
        ("timeouts", plan.timeouts_changed),
        ("ipvs", plan.ipvs_changed),
    ];
    for (name, _) in flags.iter().filter(|(_, changed)| *changed) {
        diff[*name] = "changed".into();
    }
    if plan.services.len() > SERVICES {
        diff["more_services"] = (plan.services.len() - SERVICES).into();
    }
    diff
}

fn service(service: &PlannedService) -> Value {
    let servers = service.servers.iter().map(|server| {
        json!({
            "server": server.address.to_string(),
            "action": action(server.action),
            "connections": server.connections,
        })
    });
    json!({
        "service": service.listen.to_string(),
        "action": service.action.map_or("servers", action),
        "servers": servers.collect::<Vec<_>>(),
        "connections_cut": service.connections_cut,
    })
}

fn action(action: Action) -> &'static str {
    match action {
        Action::Add => "add",
        Action::Edit => "edit",
        Action::Remove => "remove",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn actor() -> Actor {
        Actor {
            name: "uid 1000 (alice)".to_owned(),
            way: "grpc, unix".to_owned(),
        }
    }

    fn lines(path: &Path) -> Vec<Value> {
        let text = std::fs::read_to_string(path).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        lines.collect()
    }

    #[test]
    fn lines_are_appended_and_the_file_is_opened_again_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log/audit.jsonl");
        let audit = Audit::open(Some(&path)).unwrap();
        audit.write(&Record::of(&actor(), "/a/B", Told::Done));
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777 & !MODE, 0, "{mode:o}");
        drop(audit);
        let audit = Audit::open(Some(&path)).unwrap();
        audit.skip();
        let refused = Told::failed(&Status::permission_denied("no \"way\"\n"));
        audit.write(&Record::of(&actor(), "/a/C", refused));
        let told = lines(&path);
        assert_eq!(told.len(), 2);
        assert_eq!(told[0]["result"], "ok");
        assert_eq!(told[0]["who"], "uid 1000 (alice)");
        let time = told[0]["time"].as_str().unwrap();
        assert!(time.parse::<prost_types::Timestamp>().is_ok(), "{time}");
        assert_eq!(told[1]["result"], "PermissionDenied");
        assert_eq!(told[1]["message"], "no \"way\"\n");
        assert_eq!(told[1]["refusals_not_written"], 1);
        std::fs::rename(&path, folder.path().join("old")).unwrap();
        audit.reopen().unwrap();
        audit.write(&Record::of(&actor(), "/a/D", Told::Done));
        assert_eq!(lines(&path).len(), 1);
        assert_eq!(lines(&folder.path().join("old")).len(), 2);
    }

    #[test]
    fn a_line_that_cannot_be_written_is_counted() {
        let audit = Audit::open(Some(Path::new("/dev/full"))).unwrap();
        audit.write(&Record::of(&actor(), "/a/B", Told::Done));
        audit.write(&Record::of(&actor(), "/a/B", Told::Done));
        assert_eq!(audit.failed(), 2);
    }

    #[test]
    fn without_a_file_nothing_is_written() {
        let audit = Audit::default();
        audit.write(&Record::of(&actor(), "/a/B", Told::Done));
        audit.reopen().unwrap();
        assert_eq!(audit.failed(), 0);
    }
}
