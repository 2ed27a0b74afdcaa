//! `[access]` as a value: who may do what, and how it is written down.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Entries of a list of callers, at most.
pub const CALLERS: usize = 256;

/// `[access]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessSettings {
    /// The group of the control socket; `None`: that of the process.
    pub group: Option<String>,
    /// Who may look at counters and configuration.
    pub viewers: Vec<Caller>,
    /// Who may change it, too.
    pub operators: Vec<Caller>,
    /// Who may do everything.
    pub admins: Vec<Caller>,
    /// Who may list connections and capture packets.
    pub captures: Vec<Caller>,
    /// Where changes and refusals are written down.
    pub audit: Option<PathBuf>,
    /// Calls of each caller in a second.
    pub rate: u32,
    /// The gRPC service over TCP.
    pub tls: Option<TlsSettings>,
}

impl Default for AccessSettings {
    fn default() -> AccessSettings {
        AccessSettings {
            group: None,
            viewers: Vec::new(),
            operators: Vec::new(),
            admins: Vec::new(),
            captures: Vec::new(),
            audit: None,
            rate: 5000,
            tls: None,
        }
    }
}

/// `[access.tls]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// Where to listen.
    pub listen: SocketAddr,
    /// The chain of uvsd's certificate, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// Who signs the certificates of clients, PEM.
    pub client_ca: PathBuf,
}

/// One or several callers, as a list names them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Caller {
    /// `user:NAME`.
    User(String),
    /// `uid:NUMBER`.
    Uid(u32),
    /// `group:NAME`: its members, and whoever runs with it.
    Group(String),
    /// `gid:NUMBER`.
    Gid(u32),
    /// `san:NAME`: a name of a URI or of the DNS in a certificate.
    San(String),
}

impl Caller {
    /// From the text in a list.
    #[must_use]
    pub fn parse(text: &str) -> Option<Caller> {
        let (kind, name) = text.split_once(':')?;
        let is_name = (1..=255).contains(&name.len())
            && name.chars().all(|c| !c.is_whitespace() && !c.is_control());
        let name = is_name.then_some(name)?;
        Some(match kind {
            "user" => Caller::User(name.to_owned()),
            "group" => Caller::Group(name.to_owned()),
            "san" => Caller::San(name.to_owned()),
            "uid" => Caller::Uid(name.parse().ok()?),
            "gid" => Caller::Gid(name.parse().ok()?),
            _ => return None,
        })
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Caller::User(name) => write!(f, "user:{name}"),
            Caller::Uid(uid) => write!(f, "uid:{uid}"),
            Caller::Group(name) => write!(f, "group:{name}"),
            Caller::Gid(gid) => write!(f, "gid:{gid}"),
            Caller::San(name) => write!(f, "san:{name}"),
        }
    }
}
