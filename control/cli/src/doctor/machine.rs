//! The files that tell of a machine, below a root folder.

use std::fs;
use std::path::{Path, PathBuf};

/// A machine: this one, or a test's.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    root: PathBuf,
}

impl Machine {
    pub(super) fn new(root: &Path) -> Machine {
        Machine {
            root: root.to_owned(),
        }
    }

    /// A file's text without blanks around it.
    pub(super) fn read(&self, path: &str) -> Option<String> {
        let text = fs::read_to_string(self.root.join(path)).ok()?;
        Some(text.trim().to_owned())
    }

    /// A file that holds a number.
    pub(super) fn number(&self, path: &str) -> Option<i64> {
        self.read(path)?.parse().ok()
    }

    /// What is in a folder, in the order of names.
    pub(super) fn names(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.root.join(path)).into_iter().flatten();
        let names = entries
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut names: Vec<_> = names.collect();
        names.sort_unstable();
        names
    }

    pub(super) fn exists(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }

    /// The last part of what a symbolic link points to.
    pub(super) fn link(&self, path: &str) -> Option<String> {
        let to = fs::read_link(self.root.join(path)).ok()?;
        Some(to.file_name()?.to_string_lossy().into_owned())
    }

    /// A file that lists CPUs: "0-3,8".
    pub(super) fn cpus(&self, path: &str) -> Vec<u16> {
        self.read(path)
            .map_or_else(Vec::new, |list| cpu_list(&list))
    }
}

/// The kernel's form of a list of CPUs; what is no number is left out.
pub(super) fn cpu_list(list: &str) -> Vec<u16> {
    let ranges = list.split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.trim().parse::<u16>().ok()?..=last.trim().parse().ok()?)
    });
    ranges.flatten().collect()
}
