//! What is wrong with a command line, in the words and with the exit status that scripts know.

/// Why a command line is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mistake {
    /// It does not begin with a command.
    #[error("Try `ipvsadm -h' or 'ipvsadm --help' for more information.")]
    NoCommand,
    /// An option that does not exist.
    #[error("{0}: unknown option")]
    Unknown(String),
    /// An option without its value.
    #[error("{0}: missing argument")]
    NoValue(String),
    /// A second command.
    #[error("invalid option `{0}'")]
    SecondCommand(String),
    /// A word that belongs to nothing.
    #[error("unexpected argument {0}")]
    Stray(String),
    /// An option given twice.
    #[error("multiple '{0}' options specified")]
    Repeated(&'static str),
    /// A command without what it needs.
    #[error("You need to supply the '{option}' option for the '{command}' command")]
    Missing {
        /// What it needs.
        option: &'static str,
        /// Its name.
        command: &'static str,
    },
    /// An option that is not the command's.
    #[error("Illegal '{option}' option with the '{command}' command")]
    Illegal {
        /// The option.
        option: &'static str,
        /// The command.
        command: &'static str,
    },
    /// Two options of one command that exclude each other.
    #[error("The option '{second}' conflicts with the '{first}' option in the '{command}' command")]
    Conflict {
        /// The first of them, in the order of options.
        first: &'static str,
        /// The other.
        second: &'static str,
        /// The command.
        command: &'static str,
    },
    /// Columns with a listing that has none.
    #[error("options conflicts in the list command")]
    ColumnsConflict,
    /// A tunnel without what it needs.
    #[error("You need to supply the '{option}' option for the '{tunnel}' tunnel type")]
    TunnelMissing {
        /// What it needs.
        option: &'static str,
        /// Its type.
        tunnel: &'static str,
    },
    /// An option that is not the tunnel's.
    #[error("Illegal '{option}' option with the '{tunnel}' tunnel type")]
    TunnelIllegal {
        /// The option.
        option: &'static str,
        /// The type.
        tunnel: &'static str,
    },
    /// Two options of one tunnel that exclude each other.
    #[error(
        "The option '{second}' conflicts with the '{first}' option in the '{tunnel}' tunnel type"
    )]
    TunnelConflict {
        /// One.
        first: &'static str,
        /// The other, which is named first.
        second: &'static str,
        /// The type.
        tunnel: &'static str,
    },
    /// Tunnel options without a tunnel.
    #[error("Tunnel options conflict with forward method")]
    NotATunnel,
    /// A value of a fixed kind.
    #[error("illegal {0} specified")]
    IllegalValue(&'static str),
    /// A mark, a timeout: a value that is repeated.
    #[error("invalid {what} value `{value}' specified")]
    InvalidValue {
        /// What it should be.
        what: &'static str,
        /// What it is.
        value: String,
    },
    /// `-6` without a mark before it.
    #[error("-6 used before -f")]
    SixBeforeMark,
    /// `-b` with a word that is no flag.
    #[error("invalid scheduler flag `{0}'")]
    UnknownFlag(String),
    /// `-b` with another scheduler's flag.
    #[error("incompatible scheduler flag `{0}'")]
    ForeignFlag(String),
    /// `--mcast-group` with no multicast address.
    #[error("invalid {family} mcast-group `{value}'")]
    NotMulticast {
        /// IPv4 or IPv6.
        family: &'static str,
        /// What was given.
        value: String,
    },
    /// `--set` with fewer values.
    #[error("--set option requires 3 timeout values")]
    ThreeTimeouts,
    /// Port 0, which only persistence makes useful.
    #[error("Zero port specified for non-persistent service")]
    ZeroPort,
    /// `-o` with a connection-oriented protocol.
    #[error("One-Packet Scheduling is only for UDP virtual services")]
    OnePacketNotUdp,
    /// A server of the other family.
    #[error("Different address family is allowed only for tunneling servers")]
    OtherFamily,
    /// `--laddr` with an address of the other family. Differs from IPVS: it has no local addresses.
    #[error("Local addresses are of the virtual service's address family")]
    LocalOfOtherFamily,
    /// A FULLNAT server of a service without `--laddr`.
    #[error("FULLNAT servers need the virtual service's 'laddr' option")]
    NoLocalAddresses,
    /// A FULLNAT server of a service with `-o`.
    #[error("One-Packet Scheduling is not for FULLNAT servers: their replies need connections")]
    OnePacketFullNat,
}

impl Mistake {
    /// The exit status.
    #[must_use]
    pub fn exit_status(&self) -> u8 {
        match self {
            Mistake::NoCommand | Mistake::Unknown(_) | Mistake::NoValue(_) => 255,
            _ => 2,
        }
    }
}
