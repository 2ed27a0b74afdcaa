//! `ipvsadm` 1.31 for a director: its command line and its listings as plain values, and what is done with them.
//!
//! ```text
//!   run (what is done, restore: line by line) ─ carry (commands as edits) ─ messages ─▶ a director
//!   arguments ─ options (which, in what form) ─ address, local (their values) ─▶ Command, or a Mistake with its exit status
//!   services, connections, daemons ─ listing ─▶ text, byte for byte
//! ```
//! Only `run` and `restore` talk to a director. Source: observed with ipvsadm 1.31 on Linux 6.1.

mod address;
pub mod arguments;
mod carry;
mod counts;
mod help;
pub mod listing;
mod local;
mod messages;
mod mistake;
mod names;
mod options;
mod refusal;
mod restore;
mod run;

pub use arguments::parse;
pub(crate) use carry::Rules;
pub use local::LocalAddresses;
pub use mistake::Mistake;
pub use names::Names;
pub use refusal::Refusal;
pub(crate) use refusal::told;
pub(crate) use restore::words_of;
pub use run::{Called, Streams, called_as, run};

use std::net::{IpAddr, SocketAddr};

/// The protocol of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// What a service is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ServiceKey {
    /// `-t`, `-u`, `--sctp-service`.
    Address(Protocol, SocketAddr),
    /// `-f`.
    Mark {
        /// The firewall mark, never 0.
        mark: u32,
        /// Whether it stands for IPv6 packets (`-6`).
        ipv6: bool,
    },
}

impl ServiceKey {
    /// Whether its packets are IPv6 ones.
    #[must_use]
    pub fn is_ipv6(&self) -> bool {
        match self {
            ServiceKey::Address(_, address) => address.is_ipv6(),
            ServiceKey::Mark { ipv6, .. } => *ipv6,
        }
    }

    /// The protocol, where it is one.
    #[must_use]
    pub fn protocol(&self) -> Option<Protocol> {
        match self {
            ServiceKey::Address(protocol, _) => Some(*protocol),
            ServiceKey::Mark { .. } => None,
        }
    }
}

/// Which clients a persistent service takes for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mask {
    /// An IPv4 netmask.
    Ipv4(u32),
    /// The length of an IPv6 prefix, 1 to 128.
    Ipv6(u8),
}

impl Mask {
    /// Every client is one of its own.
    #[must_use]
    pub fn whole(ipv6: bool) -> Mask {
        if ipv6 {
            Mask::Ipv6(128)
        } else {
            Mask::Ipv4(u32::MAX)
        }
    }
}

/// `-p` and `-M`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Persistence {
    /// Seconds.
    pub timeout_s: u32,
    /// Which clients are one.
    pub mask: Mask,
}

/// A service, as `-A` and `-E` describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// What it is known by.
    pub key: ServiceKey,
    /// The scheduler's name, unchecked.
    pub scheduler: String,
    /// `-b`: flag-1 to flag-3. The first two are `sh-fallback` and `sh-port`, or `mh-fallback` and `mh-port`.
    pub flags: [bool; 3],
    /// Set for a persistent service.
    pub persistence: Option<Persistence>,
    /// `-o`.
    pub one_packet: bool,
    /// `--pe`, unchecked.
    pub engine: Option<String>,
    /// `--laddr`: where its FULLNAT servers' packets come from. Differs from IPVS: it has no such option.
    pub local: Option<LocalAddresses>,
}

impl Service {
    /// Whether a server can be this service's: one by FULLNAT needs local addresses, and connections.
    ///
    /// # Errors
    /// What it lacks.
    pub fn takes(&self, server: &Server) -> Result<(), Mistake> {
        if server.method != Method::FullNat {
            return Ok(());
        }
        if self.local.is_none() {
            return Err(Mistake::NoLocalAddresses);
        }
        if self.one_packet {
            return Err(Mistake::OnePacketFullNat);
        }
        Ok(())
    }
}

/// How packets reach a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// `-m`.
    Nat,
    /// `-g`.
    Dr,
    /// `-i`.
    Tun(Tunnel),
    /// `--fullnat`. Differs from IPVS: it has no such method.
    FullNat,
}

/// What a packet is wrapped in on its way to a TUN server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tunnel {
    /// An IP header.
    Ipip,
    /// Generic Routing Encapsulation.
    Gre(TunnelChecksum),
    /// Generic UDP Encapsulation.
    Gue {
        /// The UDP port that the server listens on.
        port: u16,
        /// Its checksum.
        checksum: TunnelChecksum,
    },
}

/// The checksum of a tunnel header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelChecksum {
    /// None.
    None,
    /// A plain one.
    Plain,
    /// Remote checksum offload: GUE alone.
    Remote,
}

/// A server, as `-a` and `-e` describe it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Server {
    /// RIP and port.
    pub address: SocketAddr,
    /// How packets reach it.
    pub method: Method,
    /// Share of new flows, at most `i32::MAX`.
    pub weight: u32,
    /// Connections from which on it is overloaded; 0: never.
    pub upper: u32,
    /// Connections below which it is no longer.
    pub lower: u32,
}

/// Which end of the synchronisation a daemon is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It tells.
    Master,
    /// It listens.
    Backup,
}

/// A synchronisation daemon, as `--start-daemon` describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Daemon {
    /// Which end.
    pub role: Role,
    /// The interface to speak on.
    pub interface: String,
    /// What masters and backups have in common.
    pub sync_id: u8,
    /// Bytes of a message at most; 0: what the interface takes.
    pub len_max: u16,
    /// The multicast group; unset: 224.0.0.81.
    pub group: Option<IpAddr>,
    /// The UDP port; 0: 8848.
    pub port: u16,
    /// The time to live; 0: 1.
    pub ttl: u8,
}

/// What `-L` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Services, or the one that is named, with their servers.
    Services(Option<ServiceKey>),
    /// `-c`.
    Connections,
    /// `--timeout`.
    Timeouts,
    /// `--daemon`.
    Daemons,
}

/// Which columns stand beside services and servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Columns {
    /// Method, weight, connections.
    #[default]
    Plain,
    /// `--stats`.
    Statistics,
    /// `--rate`.
    Rates,
    /// `--thresholds`.
    Thresholds,
    /// `--persistent-conn`.
    Persistent,
    /// `--tun-info`.
    Tunnels,
}

/// `-L` with its options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct List {
    /// What to show.
    pub subject: Subject,
    /// Which columns.
    pub columns: Columns,
    /// `-X`: counters in full.
    pub exact: bool,
    /// `-n`: no names.
    pub numeric: bool,
    /// Unset by `--nosort`.
    pub sorted: bool,
    /// `--persistent-conn`: what persistence engines know of connections.
    pub engines: bool,
    /// `--json`: as the director's messages have it. Differs from IPVS: ipvsadm has no such option.
    pub json: bool,
}

/// A command line, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `-A`.
    AddService(Service),
    /// `-E`.
    EditService(Service),
    /// `-D`.
    DeleteService(ServiceKey),
    /// `-a`.
    AddServer(ServiceKey, Server),
    /// `-e`.
    EditServer {
        /// Whose server.
        service: ServiceKey,
        /// What it becomes.
        server: Server,
        /// Whether the method was said. If it was not, the server becomes a DR one, as it does with ipvsadm 1.31.
        method_is_said: bool,
    },
    /// `-d`.
    DeleteServer(ServiceKey, SocketAddr),
    /// `-L`, and no arguments at all.
    List(List),
    /// `-Z`.
    Zero(Option<ServiceKey>),
    /// `-C`.
    Clear,
    /// `-R`.
    Restore {
        /// `--atomic`: all lines or none. Differs from IPVS: ipvsadm has no such option.
        atomic: bool,
    },
    /// `-S`.
    Save {
        /// `-n`.
        numeric: bool,
        /// `--full`: with thresholds and timeouts. Differs from IPVS: ipvsadm has no such option.
        full: bool,
    },
    /// `--set`: seconds; 0 keeps.
    SetTimeouts {
        /// Established TCP connections.
        tcp: u32,
        /// TCP connections after a FIN.
        tcp_fin: u32,
        /// UDP flows.
        udp: u32,
    },
    /// `--start-daemon`.
    StartDaemon(Daemon),
    /// `--stop-daemon`.
    StopDaemon(Role),
    /// `-v`.
    Version,
    /// `-h`.
    Help,
}
