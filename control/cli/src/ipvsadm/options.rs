//! Which options there are, in what form, and with which commands.

use super::Mistake;
use std::collections::VecDeque;

/// What an option says. The order is the one in which ipvsadm 1.31 complains about them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    Numeric,
    Connection,
    Service,
    Scheduler,
    Persistent,
    Netmask,
    Server,
    Method,
    Weight,
    Upper,
    Lower,
    Interface,
    Timeout,
    Daemon,
    Statistics,
    Rate,
    Thresholds,
    PersistentConnections,
    NoSort,
    SyncId,
    Exact,
    OnePacket,
    Engine,
    Flags,
    Group,
    GroupPort,
    GroupTtl,
    SyncLen,
    TunnelInfo,
    TunnelType,
    TunnelPort,
    TunnelNoChecksum,
    TunnelChecksum,
    TunnelRemoteChecksum,
    LocalAddresses,
    Full,
    Atomic,
    Json,
}

impl What {
    /// As errors name it.
    pub(super) fn name(self) -> &'static str {
        match self {
            What::Numeric => "numeric",
            What::Connection => "connection",
            What::Service => "service-address",
            What::Scheduler => "scheduler",
            What::Persistent => "persistent",
            What::Netmask => "netmask",
            What::Server => "real-server",
            What::Method => "forwarding-method",
            What::Weight => "weight",
            What::Upper => "u-threshold",
            What::Lower => "l-threshold",
            What::Interface => "mcast-interface",
            What::Timeout => "timeout",
            What::Daemon => "daemon",
            What::Statistics => "stats",
            What::Rate => "rate",
            What::Thresholds => "thresholds",
            What::PersistentConnections => "persistent-conn",
            What::NoSort => "nosort",
            What::SyncId => "syncid",
            What::Exact => "exact",
            What::OnePacket => "ops",
            What::Engine => "pe",
            What::Flags => "sched-flags",
            What::Group => "mcast-group",
            What::GroupPort => "mcast-port",
            What::GroupTtl => "mcast-ttl",
            What::SyncLen => "sync-maxlen",
            What::TunnelInfo => "tun-info",
            What::TunnelType => "tun-type",
            What::TunnelPort => "tun-port",
            What::TunnelNoChecksum => "tun-nocsum",
            What::TunnelChecksum => "tun-csum",
            What::TunnelRemoteChecksum => "tun-remcsum",
            What::LocalAddresses => "laddr",
            What::Full => "full",
            What::Atomic => "atomic",
            What::Json => "json",
        }
    }
}

/// What a command line begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    AddService,
    EditService,
    DeleteService,
    AddServer,
    EditServer,
    DeleteServer,
    List,
    Zero,
    Clear,
    Restore,
    Save,
    Set,
    StartDaemon,
    StopDaemon,
    Version,
    Help,
}

impl Verb {
    /// As errors name it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Verb::AddService => "add-service",
            Verb::EditService => "edit-service",
            Verb::DeleteService => "delete-service",
            Verb::AddServer => "add-server",
            Verb::EditServer => "edit-server",
            Verb::DeleteServer => "delete-server",
            Verb::List => "list",
            Verb::Zero => "zero",
            Verb::Clear => "flush",
            Verb::Restore => "restore",
            Verb::Save => "save",
            Verb::Set => "set",
            Verb::StartDaemon => "start-daemon",
            Verb::StopDaemon => "stop-daemon",
            Verb::Version => "version",
            Verb::Help => "help",
        }
    }

    /// The options it needs, and those it takes besides.
    pub(super) fn options(self) -> (&'static [What], &'static [What]) {
        use What::*;
        match self {
            Verb::AddService | Verb::EditService => (
                &[Service],
                &[
                    Scheduler,
                    Persistent,
                    Netmask,
                    OnePacket,
                    Engine,
                    Flags,
                    LocalAddresses,
                ],
            ),
            Verb::DeleteService => (&[Service], &[]),
            Verb::AddServer | Verb::EditServer => (
                &[Service, Server],
                &[
                    Method,
                    Weight,
                    Upper,
                    Lower,
                    TunnelType,
                    TunnelPort,
                    TunnelNoChecksum,
                    TunnelChecksum,
                    TunnelRemoteChecksum,
                ],
            ),
            Verb::DeleteServer => (&[Service, Server], &[]),
            Verb::List => (
                &[],
                &[
                    Numeric,
                    Connection,
                    Service,
                    Timeout,
                    Daemon,
                    Statistics,
                    Rate,
                    Thresholds,
                    PersistentConnections,
                    NoSort,
                    Exact,
                    TunnelInfo,
                    Json,
                ],
            ),
            Verb::Zero => (&[], &[Service]),
            Verb::Save => (&[], &[Numeric, Full]),
            Verb::Restore => (&[], &[Atomic]),
            Verb::StartDaemon => (
                &[],
                &[Interface, SyncId, Group, GroupPort, GroupTtl, SyncLen],
            ),
            Verb::StopDaemon => (&[], &[SyncId]),
            Verb::Clear | Verb::Set | Verb::Version | Verb::Help => (&[], &[]),
        }
    }
}

/// What an option means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    Command(Verb),
    Option(What),
    /// `-6`.
    Ipv6,
    /// `--sort`, which is so anyway.
    Sorted,
}

/// Whether an option takes a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    Never,
    Always,
    /// The next word, unless it is an option.
    Maybe,
}

type Known = (char, &'static str, Value, Meaning);

const fn command(letter: char, name: &'static str, verb: Verb) -> Known {
    (letter, name, Value::Never, Meaning::Command(verb))
}

const fn flag(letter: char, name: &'static str, what: What) -> Known {
    (letter, name, Value::Never, Meaning::Option(what))
}

const fn value(letter: char, name: &'static str, what: What) -> Known {
    (letter, name, Value::Always, Meaning::Option(what))
}

const fn perhaps(letter: char, name: &'static str, what: What) -> Known {
    (letter, name, Value::Maybe, Meaning::Option(what))
}

/// A short form of `'\0'` is none, as is an empty long form.
const KNOWN: &[Known] = &[
    command('A', "add-service", Verb::AddService),
    command('E', "edit-service", Verb::EditService),
    command('D', "delete-service", Verb::DeleteService),
    command('a', "add-server", Verb::AddServer),
    command('e', "edit-server", Verb::EditServer),
    command('d', "delete-server", Verb::DeleteServer),
    command('L', "list", Verb::List),
    command('l', "", Verb::List),
    command('Z', "zero", Verb::Zero),
    command('C', "clear", Verb::Clear),
    command('R', "restore", Verb::Restore),
    command('S', "save", Verb::Save),
    command('\0', "set", Verb::Set),
    (
        '\0',
        "start-daemon",
        Value::Always,
        Meaning::Command(Verb::StartDaemon),
    ),
    (
        '\0',
        "stop-daemon",
        Value::Always,
        Meaning::Command(Verb::StopDaemon),
    ),
    command('v', "version", Verb::Version),
    command('h', "help", Verb::Help),
    value('t', "tcp-service", What::Service),
    value('u', "udp-service", What::Service),
    value('\0', "sctp-service", What::Service),
    value('f', "fwmark-service", What::Service),
    ('6', "ipv6", Value::Never, Meaning::Ipv6),
    value('s', "scheduler", What::Scheduler),
    perhaps('p', "persistent", What::Persistent),
    value('M', "netmask", What::Netmask),
    flag('o', "ops", What::OnePacket),
    value('b', "sched-flags", What::Flags),
    value('\0', "pe", What::Engine),
    value('\0', "laddr", What::LocalAddresses),
    value('r', "real-server", What::Server),
    flag('m', "masquerading", What::Method),
    flag('i', "ipip", What::Method),
    flag('g', "gatewaying", What::Method),
    flag('\0', "fullnat", What::Method),
    value('w', "weight", What::Weight),
    value('x', "u-threshold", What::Upper),
    value('y', "l-threshold", What::Lower),
    value('\0', "tun-type", What::TunnelType),
    value('\0', "tun-port", What::TunnelPort),
    flag('\0', "tun-nocsum", What::TunnelNoChecksum),
    flag('\0', "tun-csum", What::TunnelChecksum),
    flag('\0', "tun-remcsum", What::TunnelRemoteChecksum),
    flag('n', "numeric", What::Numeric),
    flag('c', "connection", What::Connection),
    flag('\0', "timeout", What::Timeout),
    flag('\0', "daemon", What::Daemon),
    flag('\0', "stats", What::Statistics),
    flag('\0', "rate", What::Rate),
    flag('\0', "thresholds", What::Thresholds),
    flag('\0', "persistent-conn", What::PersistentConnections),
    flag('\0', "tun-info", What::TunnelInfo),
    flag('\0', "nosort", What::NoSort),
    ('\0', "sort", Value::Never, Meaning::Sorted),
    flag('X', "exact", What::Exact),
    flag('\0', "full", What::Full),
    flag('\0', "atomic", What::Atomic),
    flag('\0', "json", What::Json),
    value('\0', "mcast-interface", What::Interface),
    value('\0', "syncid", What::SyncId),
    value('\0', "sync-maxlen", What::SyncLen),
    value('\0', "mcast-group", What::Group),
    value('\0', "mcast-port", What::GroupPort),
    value('\0', "mcast-ttl", What::GroupTtl),
];

/// An option as it was met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Met {
    pub(super) meaning: Meaning,
    /// Its long name, or its letter where it has none.
    pub(super) name: &'static str,
    /// The word it stands in.
    pub(super) word: String,
    pub(super) value: Option<String>,
}

/// Splits words into options and what is left.
pub(super) struct Options {
    words: VecDeque<String>,
    /// Letters of a cluster that have not been looked at yet, and the whole of it.
    cluster: Option<(String, String)>,
    /// Words that belong to no option.
    pub(super) stray: Vec<String>,
}

impl Options {
    pub(super) fn new(words: &[String]) -> Options {
        Options {
            words: words.iter().cloned().collect(),
            cluster: None,
            stray: Vec::new(),
        }
    }

    /// The next option, if there is one.
    pub(super) fn next(&mut self) -> Option<Result<Met, Mistake>> {
        if let Some((letters, word)) = self.cluster.take() {
            return Some(self.letter(&letters, word));
        }
        loop {
            let word = self.words.pop_front()?;
            if word == "--" {
                self.stray.extend(self.words.drain(..));
                return None;
            }
            if let Some(long) = word.strip_prefix("--") {
                return Some(self.long(long, &word));
            }
            match word.strip_prefix('-') {
                Some(letters) if !letters.is_empty() => {
                    return Some(self.letter(letters, word.clone()));
                }
                _ => self.stray.push(word),
            }
        }
    }

    fn long(&mut self, long: &str, word: &str) -> Result<Met, Mistake> {
        let (name, value) = match long.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (long, None),
        };
        let known = KNOWN.iter().find(|(_, known, ..)| *known == name);
        let known = known.ok_or_else(|| Mistake::Unknown(word.to_owned()))?;
        self.met(known, word.to_owned(), value)
    }

    fn letter(&mut self, letters: &str, word: String) -> Result<Met, Mistake> {
        let mut rest = letters.chars();
        let letter = rest.next().expect("a cluster that is kept has letters");
        let rest = rest.as_str();
        let known = KNOWN.iter().find(|(known, ..)| *known == letter);
        let known = known.ok_or_else(|| Mistake::Unknown(word.clone()))?;
        if rest.is_empty() {
            return self.met(known, word, None);
        }
        if known.2 == Value::Never {
            self.cluster = Some((rest.to_owned(), word.clone()));
            return self.met(known, word, None);
        }
        let value = rest.strip_prefix('=').unwrap_or(rest).to_owned();
        self.met(known, word, Some(value))
    }

    fn met(&mut self, known: &Known, word: String, value: Option<String>) -> Result<Met, Mistake> {
        let (_, name, wants, meaning) = *known;
        let next_is_value = self
            .words
            .front()
            .is_some_and(|next| !next.starts_with('-'));
        let value = match wants {
            Value::Never => None,
            Value::Always => {
                let value = value.or_else(|| self.words.pop_front());
                Some(value.ok_or_else(|| Mistake::NoValue(word.clone()))?)
            }
            Value::Maybe if value.is_none() && next_is_value => self.words.pop_front(),
            Value::Maybe => value,
        };
        Ok(Met {
            meaning,
            name,
            word,
            value,
        })
    }
}
