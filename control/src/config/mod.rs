//! The configuration: a TOML text, read and validated whole.
//!
//! ```text
//!   text ─ toml ─▶ tables ─ reader, by the tables of `keys` ─▶ Configuration ─ check ─▶ Accepted { warnings }
//!                     └──────────── every mistake with its line ───┴──────────▶ Mistakes (20 told, the rest counted)
//! ```

mod access;
mod check;
pub mod keys;
mod mistake;
mod model;
mod prefix;
mod read;
mod reader;
mod routing;
mod write;

pub use access::{AccessSettings, CALLERS, Caller, TlsSettings};
pub use check::check;
pub use mistake::{Finding, KeyPath, MISTAKES_TOLD, Mistake, Mistakes, Problem, Step};
pub use model::{
    AnsweredBy, Configuration, DirectorSettings, DpdkDevice, DpdkSettings, Driver, Granularity,
    GueChecksum, Idle, LipPool, Listen, Mark, MetricsSettings, Persistence, Pin, PortSettings,
    Protocol, Route, Server, Service, Spread, TimeoutSettings, TunnelKind,
};
pub use prefix::{NotAPrefix, Prefix};
pub use write::scheduler_flags;

pub(crate) use read::words;
pub(crate) use write::method as method_word;

use read::Draft;
use reader::{Reader, Section, locate};
use std::path::Path;
use toml::Spanned;
use toml::de::DeTable;

/// Ports of a director, at most.
pub const PORTS: usize = 16;
/// Addresses of a port, at most.
pub const ADDRESSES_PER_PORT: usize = 64;
/// Routes, at most.
pub const ROUTES: usize = 1024;
/// Pools of local addresses, at most.
pub const LIP_POOLS: usize = 256;
/// Addresses of a pool, at most.
pub const LIPS_PER_POOL: usize = 1024;
/// Rules that mark packets, at most.
pub const MARKS: usize = 1024;
/// Addresses of a mark's service, at most.
pub const ADDRESSES_PER_SERVICE: usize = 1024;
/// Services, at most.
pub const SERVICES: usize = 16_384;
/// Real servers of all services together, at most.
pub const SERVERS: usize = 131_072;
/// Bytes of a configuration file, at most.
pub const FILE_LEN: usize = 64 << 20;

/// A configuration that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// What to do.
    pub configuration: Configuration,
    /// What was taken otherwise than written, or will hardly work.
    pub warnings: Vec<Mistake>,
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It could not be read at all.
    #[error("{file}: {error}; accepted: a readable TOML file of at most 64 MiB")]
    Unreadable {
        /// Its name.
        file: String,
        /// What the system says.
        error: std::io::Error,
    },
    /// Its contents are not a configuration.
    #[error(transparent)]
    Mistakes(#[from] Mistakes),
}

impl Configuration {
    /// Reads and validates a file.
    ///
    /// # Errors
    /// When it cannot be read or holds mistakes.
    pub fn from_file(path: &Path) -> Result<Accepted, ReadError> {
        let file = path.display().to_string();
        let unreadable = |error| ReadError::Unreadable {
            file: file.clone(),
            error,
        };
        let metadata = std::fs::metadata(path).map_err(unreadable)?;
        if metadata.len() > FILE_LEN as u64 {
            return Err(unreadable(std::io::ErrorKind::FileTooLarge.into()));
        }
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        Ok(Configuration::parse(&file, &text)?)
    }

    /// Validates a text. `file` is its name in messages.
    ///
    /// # Errors
    /// All mistakes, those in the syntax first and alone.
    pub fn parse(file: &str, text: &str) -> Result<Accepted, Mistakes> {
        let (root, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            let mistakes = errors.iter().map(|error| Mistake {
                file: file.to_owned(),
                line: line_at(text, error.span().map_or(0, |span| span.start)),
                path: KeyPath::default(),
                problem: Problem::Syntax(error.message().to_owned()),
            });
            return Err(Mistakes::new(mistakes.collect()));
        }
        let reader = Reader::new(text);
        let top = Section::new(&reader, &keys::TOP, KeyPath::default(), root.get_ref());
        let mut draft = Draft::read(&top);
        let mut warnings = draft.configuration.force_server_ports();
        let mut findings = reader.into_findings();
        let (wrong, doubtful) = check::check_beside(&draft.configuration, &findings);
        warnings.extend(doubtful);
        let restore = |findings: Vec<Finding>| {
            findings.into_iter().map(|finding| Finding {
                path: draft.restore(&finding.path),
                ..finding
            })
        };
        findings.extend(restore(wrong));
        let warnings = told(file, text, &root, restore(warnings));
        if !findings.is_empty() {
            return Err(Mistakes::new(told(file, text, &root, findings.into_iter())));
        }
        Ok(Accepted {
            configuration: draft.configuration,
            warnings,
        })
    }
}

/// Puts file and line to findings.
fn told(
    file: &str,
    text: &str,
    root: &Spanned<DeTable<'_>>,
    findings: impl Iterator<Item = Finding>,
) -> Vec<Mistake> {
    let mistakes = findings.map(|Finding { path, problem }| Mistake {
        file: file.to_owned(),
        line: line_at(text, locate(root, &path).start),
        path,
        problem,
    });
    mistakes.collect()
}

/// The line of the byte at `offset`; counts from 1.
fn line_at(text: &str, offset: usize) -> usize {
    1 + text
        .as_bytes()
        .iter()
        .take(offset)
        .filter(|byte| **byte == b'\n')
        .count()
}
