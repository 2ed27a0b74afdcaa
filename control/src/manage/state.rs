//! The state file: what was changed while a director ran, so that it holds when it runs again.
//!
//! ```text
//!   # uvsd's state: written by uvsd alone …
//!   # format 1
//!   # revision 42        what holds
//!   # counted 43         the last revision that was given away: 43 waited for its confirmation
//!   # origin 5f…         what the configuration file said when this began (SHA-256 of what of it can change)
//!   # checksum 9a…       of all lines but this one (SHA-256)
//!   [port.wan] …         the whole configuration, as in the configuration file
//! ```
//!
//! A new state is written beside, synced, and renamed over the old one, whose text `FILE.last` keeps: at any moment there is a
//! whole one under the file's name.

use crate::config::{
    AccessSettings, Configuration, DirectorSettings, DpdkSettings, Driver, Mistakes,
};
use ring::digest::{SHA256, digest};
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The only one so far.
const FORMAT: u32 = 1;
const TITLE: &str = "# uvsd's state: written by uvsd alone; changes belong into the configuration file, or are made while uvsd runs";
/// Owner writes, group reads: there are no secrets in it.
const MODE: u32 = 0o640;

/// Why a state file is not used.
#[derive(Debug, thiserror::Error)]
pub(super) enum StateError {
    /// It cannot be read or written.
    #[error("{}: {error}; accepted: a file that uvsd can read and write", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// It is something else.
    #[error("{}: {why}; accepted: a file that uvsd wrote, of format {FORMAT}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// In what.
        why: &'static str,
    },
    /// It is not as it was written.
    #[error("{}: its checksum is not that of its contents: it is torn or was changed by hand", path.display())]
    Torn {
        /// The file.
        path: PathBuf,
        /// The last revision given away, as far as it can be read.
        counted: u64,
    },
    /// What it holds is no configuration.
    #[error("{0}")]
    Invalid(#[from] Mistakes),
}

/// What a state file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Saved {
    pub(super) revision: u64,
    /// The last revision that was given away; more than `revision` while that waits for its confirmation.
    pub(super) counted: u64,
    pub(super) origin: String,
    pub(super) configuration: Configuration,
}

/// What of a configuration can change while a director runs, in a word that differs where that does.
pub(super) fn origin(configuration: &Configuration) -> String {
    let mut changeable = Configuration {
        director: DirectorSettings::default(),
        dpdk: DpdkSettings::default(),
        access: AccessSettings::default(),
        metrics: None,
        ..configuration.clone()
    };
    for port in &mut changeable.ports {
        port.driver = Driver::Memory;
    }
    hex(changeable.to_toml().as_bytes())
}

/// The fixed part of the configuration file with what a state says of the rest.
pub(super) fn merged(file: &Configuration, state: &Configuration) -> Configuration {
    let mut merged = Configuration {
        director: file.director.clone(),
        dpdk: file.dpdk.clone(),
        access: file.access.clone(),
        metrics: file.metrics.clone(),
        ports: file.ports.clone(),
        ..state.clone()
    };
    for port in &mut merged.ports {
        let same = state.ports.iter().find(|other| other.name == port.name);
        if let Some(same) = same {
            port.addresses.clone_from(&same.addresses);
        }
    }
    merged
}

/// Reads a state; `None` where there is no file.
pub(super) fn read(path: &Path) -> Result<Option<Saved>, StateError> {
    let text = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(StateError::Io {
                path: path.to_owned(),
                error,
            });
        }
    };
    parse(path, &text).map(Some)
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Saved, StateError> {
    let foreign = |why| StateError::Foreign {
        path: path.to_owned(),
        why,
    };
    let torn = |counted| StateError::Torn {
        path: path.to_owned(),
        counted,
    };
    // What is cut anywhere, or zeros where a disk lost it, begins as it should at best.
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.splitn(7, '\n');
    if lines.next() != Some(TITLE) {
        return Err(foreign("is no state of uvsd"));
    }
    let mut next = |name: &str| {
        let line = lines.next()?;
        line.strip_prefix("# ")?
            .strip_prefix(name)?
            .strip_prefix(' ')
    };
    match next("format").map(str::parse) {
        Some(Ok(FORMAT)) => {}
        Some(Ok(_)) => return Err(foreign("has a format that this uvsd does not know")),
        _ => return Err(torn(0)),
    }
    let number = |text: Option<&str>| text.and_then(|text| text.parse::<u64>().ok());
    let (revision, counted) = (number(next("revision")), number(next("counted")));
    let known = counted.or(revision).unwrap_or_default();
    let (origin, checksum) = (next("origin"), next("checksum"));
    let body = lines.next();
    let (Some(revision), Some(counted), Some(origin), Some(checksum), Some(body)) =
        (revision, counted, origin, checksum, body)
    else {
        return Err(torn(known));
    };
    let header = header(revision, counted, origin);
    if checksum != sum(&header, body) {
        return Err(torn(known));
    }
    let accepted = Configuration::parse(&path.display().to_string(), body)?;
    Ok(Saved {
        revision,
        counted,
        origin: origin.to_owned(),
        configuration: accepted.configuration,
    })
}

fn header(revision: u64, counted: u64, origin: &str) -> String {
    format!(
        "{TITLE}\n# format {FORMAT}\n# revision {revision}\n# counted {counted}\n# origin {origin}\n"
    )
}

fn sum(header: &str, body: &str) -> String {
    hex(format!("{header}{body}").as_bytes())
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(64);
    for byte in digest(&SHA256, bytes).as_ref() {
        write!(text, "{byte:02x}").expect("a string takes everything");
    }
    text
}

/// Writes a state, whole or not at all.
pub(super) fn write(path: &Path, saved: &Saved) -> io::Result<()> {
    let body = saved.configuration.to_toml();
    let header = header(saved.revision, saved.counted, &saved.origin);
    let checksum = sum(&header, &body);
    let (new, last, link) = (
        beside(path, ".new"),
        beside(path, ".last"),
        beside(path, ".link"),
    );
    let folder = path.parent().unwrap_or(Path::new("/"));
    let written = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(MODE)
            .open(&new)?;
        write!(file, "{header}# checksum {checksum}\n{body}")?;
        file.sync_all()
    })();
    if let Err(error) = written {
        // A disk that is full gets its room back.
        let _ = fs::remove_file(&new);
        return Err(error);
    }
    // The old one gets a second name first, so that there is one under the file's name at any moment.
    let _ = fs::remove_file(&link);
    match fs::hard_link(path, &link) {
        Ok(()) => fs::rename(&link, &last)?,
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        // Not every file system has two names for a file.
        Err(_) => {
            fs::copy(path, &link)?;
            fs::rename(&link, &last)?;
        }
    }
    fs::rename(&new, path)?;
    File::open(folder)?.sync_all()
}

/// The file of another name beside it.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "[port.lan]\ndriver = \"memory\"\naddresses = [\"10.1.0.1/24\"]\n\
        [[service]]\nlisten = \"tcp 10.1.0.100:80\"\nmethod = \"nat\"\n";

    fn saved(revision: u64) -> Saved {
        let configuration = Configuration::parse("f", TEXT).unwrap().configuration;
        Saved {
            revision,
            counted: revision + 1,
            origin: origin(&configuration),
            configuration,
        }
    }

    #[test]
    fn what_is_written_comes_back_and_the_one_before_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.toml");
        assert!(read(&path).unwrap().is_none());
        for revision in 1..4 {
            write(&path, &saved(revision)).unwrap();
            assert_eq!(read(&path).unwrap(), Some(saved(revision)));
            let last = read(&beside(&path, ".last")).unwrap();
            assert_eq!(last, (revision > 1).then(|| saved(revision - 1)));
        }
        let names = fs::read_dir(folder.path()).unwrap();
        assert_eq!(names.count(), 2, "nothing else is left");
    }

    #[test]
    fn each_cut_and_each_changed_byte_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.toml");
        write(&path, &saved(7)).unwrap();
        let whole = fs::read(&path).unwrap();
        for len in 0..whole.len() {
            assert!(parse(&path, &whole[..len]).is_err(), "{len}");
            let mut zeros = whole.clone();
            zeros[len..].fill(0);
            assert!(parse(&path, &zeros).is_err(), "{len}");
            let mut changed = whole.clone();
            changed[len] ^= 1;
            assert!(parse(&path, &changed).is_err(), "{len}");
        }
        let Err(StateError::Torn { counted, .. }) = parse(&path, &whole[..whole.len() - 1]) else {
            panic!("not torn");
        };
        assert_eq!(counted, 8);
    }

    #[test]
    fn what_is_foreign_is_told_as_that() {
        let path = Path::new("/x");
        let error = |text: &str| parse(path, text.as_bytes()).unwrap_err().to_string();
        assert_eq!(
            error(TEXT),
            "/x: is no state of uvsd; accepted: a file that uvsd wrote, of format 1"
        );
        let later = format!("{TITLE}\n# format 2\n");
        assert!(error(&later).contains("a format that this uvsd does not know"));
    }

    #[test]
    fn what_is_fixed_at_the_start_is_no_part_of_the_origin() {
        let parse = |text: &str| Configuration::parse("f", text).unwrap().configuration;
        let other = parse(&format!(
            "# Another comment\n[director]\nworkers = 2\n{TEXT}"
        ));
        assert_eq!(origin(&other), saved(1).origin);
        let other = parse(&TEXT.replace("10.1.0.1/24", "10.1.0.2/24"));
        assert_ne!(origin(&other), saved(1).origin);
    }
}
