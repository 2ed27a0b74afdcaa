//! What is wrong with a configuration, and where: `configs/nat.toml:17: service[1].server[0].weight: 70000 is not a
//! weight; accepted: 0 to 65535`.

use std::fmt;

/// Mistakes told at once; what lies beyond is only counted.
pub const MISTAKES_TOLD: usize = 20;

/// One step of a [`KeyPath`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Into a table.
    Key(String),
    /// Into a list; counts from 0.
    Index(usize),
}

/// Where in a configuration: `service[1].server[0].weight`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyPath(pub Vec<Step>);

impl KeyPath {
    /// The path of a key at the top.
    #[must_use]
    pub fn top(key: &str) -> KeyPath {
        KeyPath::default().key(key)
    }

    /// The path of `key` in the table at this path.
    #[must_use]
    pub fn key(&self, key: &str) -> KeyPath {
        self.with(Step::Key(key.to_owned()))
    }

    /// The path of element `index` of the list at this path.
    #[must_use]
    pub fn index(&self, index: usize) -> KeyPath {
        self.with(Step::Index(index))
    }

    /// Whether the path begins with `key`.
    #[must_use]
    pub fn is_below(&self, key: &str) -> bool {
        matches!(self.0.first(), Some(Step::Key(first)) if first == key)
    }

    fn with(&self, step: Step) -> KeyPath {
        let mut steps = self.0.clone();
        steps.push(step);
        KeyPath(steps)
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) => {
                    f.write_str(if position == 0 { "" } else { "." })?;
                    match is_bare(key) {
                        true => f.write_str(key)?,
                        false => write!(f, "{key:?}")?,
                    }
                }
            }
        }
        Ok(())
    }
}

/// Whether TOML takes the key without quotes.
fn is_bare(key: &str) -> bool {
    !key.is_empty()
        && key
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Not TOML.
    #[error("syntax: {0}")]
    Syntax(String),
    /// A key that means nothing here.
    #[error("unknown key; {}", nearest.map_or_else(|| format!("known here: {}", known.join(", ")), |name| format!("did you mean `{name}`?")))]
    UnknownKey {
        /// The known key it most resembles.
        nearest: Option<&'static str>,
        /// All known keys of the table.
        known: Vec<&'static str>,
    },
    /// A key that must be there is not.
    #[error("missing: {what}; accepted: {accepted}")]
    Missing {
        /// What the key gives, with its article.
        what: &'static str,
        /// What may stand there.
        accepted: String,
    },
    /// A value that is not what the key takes.
    #[error("{value} is not {what}; accepted: {accepted}")]
    NotA {
        /// The value as written.
        value: String,
        /// What the key takes, with its article.
        what: &'static str,
        /// What may stand there.
        accepted: String,
    },
    /// Something is there twice.
    #[error("{value} is already {}; accepted: each once", first)]
    Duplicate {
        /// The value that repeats.
        value: String,
        /// Where it stands first.
        first: KeyPath,
    },
    /// More than there may be.
    #[error("{count} {what} are too many; accepted: at most {limit}")]
    TooMany {
        /// How many there are.
        count: usize,
        /// Of what.
        what: &'static str,
        /// How many there may be.
        limit: usize,
    },
    /// A value that contradicts another.
    #[error("{value} {conflict}; accepted: {accepted}")]
    Conflict {
        /// The value as written.
        value: String,
        /// What stands against it.
        conflict: &'static str,
        /// What would do.
        accepted: String,
    },
    /// A key that has no place beside the others.
    #[error("{0}")]
    Misplaced(&'static str),
    /// Accepted, but not as written (a warning).
    #[error("{value} {consequence}")]
    Changed {
        /// The value as written.
        value: String,
        /// What is made of it.
        consequence: String,
    },
}

/// A problem and the key it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The key.
    pub path: KeyPath,
    /// What is wrong with it.
    pub problem: Problem,
}

/// A mistake in a configuration, as told to people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The file's name, or what stands for it.
    pub file: String,
    /// Counts from 1.
    pub line: usize,
    /// The key; empty where there is none.
    pub path: KeyPath,
    /// What is wrong.
    pub problem: Problem,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.file, self.line)?;
        if !self.path.0.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        write!(f, "{}", self.problem)
    }
}

/// All mistakes of a configuration, in the order of their lines; at most [`MISTAKES_TOLD`] of them in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistakes {
    /// The first ones.
    pub told: Vec<Mistake>,
    /// How many more there are.
    pub more: usize,
}

impl Mistakes {
    pub(super) fn new(mut all: Vec<Mistake>) -> Mistakes {
        all.sort_by_key(|mistake| mistake.line);
        let more = all.len().saturating_sub(MISTAKES_TOLD);
        all.truncate(MISTAKES_TOLD);
        Mistakes { told: all, more }
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, mistake) in self.told.iter().enumerate() {
            if position > 0 {
                writeln!(f)?;
            }
            write!(f, "{mistake}")?;
        }
        if self.more > 0 {
            write!(f, "\nand {} more", self.more)?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}
