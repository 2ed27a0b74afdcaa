//! Every key of a configuration: what it takes, what holds without it, and what it means. Here is the form of keys and
//! tables; the tables themselves stand beside, a file for each group.

mod access;
mod behaviour;
mod director;
mod dpdk;
mod metrics;
mod service;

pub(super) use director::LAST_CPU;

pub use access::{ACCESS, ACCESS_TLS};
pub use behaviour::{IPVS, TIMEOUTS};
pub use director::{DIRECTOR, PORT, ROUTE};
pub use dpdk::DPDK;
pub use metrics::METRICS;
pub use service::{LIP_POOL, MARK, SERVER, SERVICE};

/// What a key takes.
#[derive(Clone, Copy, Debug)]
pub enum Accepts {
    /// A whole number within bounds, both included.
    Number(u64, u64),
    /// One of these words.
    Word(&'static [&'static str]),
    /// The name of a scheduler; a program may add some.
    Scheduler,
    /// A string, array or boolean of the described form.
    Form(&'static str),
}

impl Accepts {
    /// In words, for a message.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Accepts::Number(low, high) => format!("{low} to {high}"),
            Accepts::Word(_) | Accepts::Scheduler => self
                .words()
                .iter()
                .map(|word| format!("\"{word}\""))
                .collect::<Vec<_>>()
                .join(", "),
            Accepts::Form(form) => (*form).to_owned(),
        }
    }

    /// The words that are taken.
    ///
    /// # Panics
    /// When it is not words that are: the reader and the table are out of step.
    pub(crate) fn words(&self) -> Vec<&'static str> {
        match self {
            Accepts::Word(words) => words.to_vec(),
            Accepts::Scheduler => scheduler::names(),
            other => unreachable!("{other:?} are no words"),
        }
    }
}

/// One key of a table.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// As written.
    pub name: &'static str,
    /// What its value is, with the article: "a weight".
    pub what: &'static str,
    /// What one element is, with the article, where the value is a list; otherwise as `what`.
    pub each: &'static str,
    /// What it takes.
    pub accepts: Accepts,
    /// What holds without it; `None` where it must be there.
    pub default: Option<&'static str>,
    /// What it means.
    pub about: &'static str,
}

/// A table of a configuration.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// As written in a header: "service.server".
    pub name: &'static str,
    /// What stands in it.
    pub keys: &'static [Key],
}

impl Table {
    /// The key of this name.
    ///
    /// # Panics
    /// When the table has none: the reader and the table are out of step.
    pub fn key(&self, name: &str) -> &'static Key {
        self.keys
            .iter()
            .find(|key| key.name == name)
            .unwrap_or_else(|| unreachable!("{} has no key {name}", self.name))
    }
}

/// Largest number of seconds that a key takes: 31 days.
const SECONDS_LIMIT: u64 = 31 * 24 * 3600;

/// The top of a file.
pub const TOP: Table = Table {
    name: "",
    keys: &[
        table("director", "the director's own settings"),
        table(
            "port",
            "the director's ports, each by a name of its own: [port.wan]",
        ),
        table(
            "dpdk",
            "what DPDK is told, where a port has driver \"dpdk\"",
        ),
        table("route", "where packets go that leave no port's subnet"),
        table("lip_pool", "local addresses for FULLNAT"),
        table(
            "mark",
            "marks packets without a connection for services of marks; the first that matches holds",
        ),
        table("service", "the virtual services"),
        table("timeouts", "how long idle connections are remembered"),
        table(
            "ipvs",
            "behaviour that the kernel's IPVS takes from sysctls",
        ),
        table("access", "who may do what, and how it is written down"),
        table(
            "metrics",
            "counters for Prometheus, served while this table is there",
        ),
    ],
};

/// All tables.
pub const TABLES: &[Table] = &[
    TOP, DIRECTOR, PORT, DPDK, ROUTE, LIP_POOL, MARK, SERVICE, SERVER, TIMEOUTS, IPVS, ACCESS,
    ACCESS_TLS, METRICS,
];

const fn required(
    name: &'static str,
    what: &'static str,
    accepts: Accepts,
    about: &'static str,
) -> Key {
    Key {
        name,
        what,
        each: what,
        accepts,
        default: None,
        about,
    }
}

const fn optional(
    name: &'static str,
    what: &'static str,
    accepts: Accepts,
    default: &'static str,
    about: &'static str,
) -> Key {
    Key {
        name,
        what,
        each: what,
        accepts,
        default: Some(default),
        about,
    }
}

const fn switch_key(name: &'static str, default: &'static str, about: &'static str) -> Key {
    let accepts = Accepts::Form("true or false");
    optional(name, "a switch", accepts, default, about)
}

const fn table(name: &'static str, about: &'static str) -> Key {
    Key {
        name,
        what: "a table",
        each: "a table",
        accepts: Accepts::Form("a table"),
        default: Some("none"),
        about,
    }
}

const fn of(each: &'static str, key: Key) -> Key {
    Key { each, ..key }
}
