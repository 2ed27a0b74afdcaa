//! The numbers of netlink, generic netlink and its family IPVS.
//!
//! Source: Linux include/uapi/linux/netlink.h, genetlink.h and ip_vs.h (the interface alone).

/// The family's name.
pub(super) const FAMILY_NAME: &str = "IPVS";
/// Bytes of a family's name, at most, without the NUL.
pub(super) const NAME_LEN: usize = 15;
/// The number that the family has here; the kernel gives one to each family as they come.
pub(super) const FAMILY: u16 = 33;
/// The version of the family's messages.
pub(super) const FAMILY_VERSION: u8 = 1;
/// Messages of this type ask for a file in the kernel's format, which no family of the kernel can have: numbers of families
/// end at 1023.
pub(super) const FILE: u16 = 0x5f01;
/// The version that a director's info tells: 1.2.1.
pub(super) const IPVS_VERSION: u32 = 0x01_02_01;

/// `struct nlmsghdr`.
pub(super) mod message {
    pub(crate) const HEADER_LEN: usize = 16;
    pub(crate) const ERROR: u16 = 2;
    pub(crate) const DONE: u16 = 3;
    /// Types below are netlink's own.
    pub(crate) const FIRST_TYPE: u16 = 16;
    /// The family that knows the families: nlctrl.
    pub(crate) const CONTROL: u16 = 16;

    pub(crate) const REQUEST: u16 = 1;
    pub(crate) const MULTI: u16 = 2;
    pub(crate) const ACK: u16 = 4;
    pub(crate) const DUMP: u16 = 0x300;
    /// Of an error: what was asked is not repeated in whole.
    pub(crate) const CAPPED: u16 = 0x100;
}

/// Of nlctrl.
pub(super) mod control {
    pub(crate) const NEW_FAMILY: u8 = 1;
    pub(crate) const GET_FAMILY: u8 = 3;
    pub(crate) const VERSION: u8 = 2;

    pub(crate) const FAMILY_ID: u16 = 1;
    pub(crate) const FAMILY_NAME: u16 = 2;
    pub(crate) const FAMILY_VERSION: u16 = 3;
    pub(crate) const HEADER_SIZE: u16 = 4;
    pub(crate) const LARGEST_ATTRIBUTE: u16 = 5;
}

/// Commands of IPVS.
pub(super) mod command {
    pub(crate) const NEW_SERVICE: u8 = 1;
    pub(crate) const SET_SERVICE: u8 = 2;
    pub(crate) const DEL_SERVICE: u8 = 3;
    pub(crate) const GET_SERVICE: u8 = 4;
    pub(crate) const NEW_DEST: u8 = 5;
    pub(crate) const SET_DEST: u8 = 6;
    pub(crate) const DEL_DEST: u8 = 7;
    pub(crate) const GET_DEST: u8 = 8;
    pub(crate) const NEW_DAEMON: u8 = 9;
    pub(crate) const DEL_DAEMON: u8 = 10;
    pub(crate) const GET_DAEMON: u8 = 11;
    pub(crate) const SET_CONFIG: u8 = 12;
    pub(crate) const GET_CONFIG: u8 = 13;
    pub(crate) const SET_INFO: u8 = 14;
    pub(crate) const GET_INFO: u8 = 15;
    pub(crate) const ZERO: u8 = 16;
    pub(crate) const FLUSH: u8 = 17;
}

/// Of a command.
pub(super) mod top {
    pub(crate) const SERVICE: u16 = 1;
    pub(crate) const DEST: u16 = 2;
    pub(crate) const DAEMON: u16 = 3;
    pub(crate) const TIMEOUT_TCP: u16 = 4;
    pub(crate) const TIMEOUT_TCP_FIN: u16 = 5;
    pub(crate) const TIMEOUT_UDP: u16 = 6;
    pub(crate) const LARGEST: u32 = 6;
}

/// Of a service.
pub(super) mod service {
    pub(crate) const FAMILY: u16 = 1;
    pub(crate) const PROTOCOL: u16 = 2;
    pub(crate) const ADDRESS: u16 = 3;
    pub(crate) const PORT: u16 = 4;
    pub(crate) const MARK: u16 = 5;
    pub(crate) const SCHEDULER: u16 = 6;
    pub(crate) const FLAGS: u16 = 7;
    pub(crate) const TIMEOUT: u16 = 8;
    pub(crate) const NETMASK: u16 = 9;
    pub(crate) const STATS: u16 = 10;
    pub(crate) const ENGINE: u16 = 11;
    pub(crate) const STATS64: u16 = 12;
}

/// Of a server.
pub(super) mod dest {
    pub(crate) const ADDRESS: u16 = 1;
    pub(crate) const PORT: u16 = 2;
    pub(crate) const METHOD: u16 = 3;
    pub(crate) const WEIGHT: u16 = 4;
    pub(crate) const UPPER: u16 = 5;
    pub(crate) const LOWER: u16 = 6;
    pub(crate) const ACTIVE: u16 = 7;
    pub(crate) const INACTIVE: u16 = 8;
    pub(crate) const PERSISTENT: u16 = 9;
    pub(crate) const STATS: u16 = 10;
    pub(crate) const FAMILY: u16 = 11;
    pub(crate) const STATS64: u16 = 12;
    pub(crate) const TUNNEL: u16 = 13;
    pub(crate) const TUNNEL_PORT: u16 = 14;
    pub(crate) const TUNNEL_FLAGS: u16 = 15;
}

/// Of a daemon of synchronisation.
pub(super) mod daemon {
    pub(crate) const STATE: u16 = 1;
    pub(crate) const INTERFACE: u16 = 2;
    pub(crate) const ID: u16 = 3;
    pub(crate) const LARGEST: u16 = 4;
    pub(crate) const GROUP: u16 = 5;
    pub(crate) const GROUP6: u16 = 6;
    pub(crate) const PORT: u16 = 7;
    pub(crate) const TTL: u16 = 8;

    pub(crate) const MASTER: u32 = 1;
    pub(crate) const BACKUP: u32 = 2;
}

/// Of statistics.
pub(super) mod stats {
    pub(crate) const CONNECTIONS: u16 = 1;
    pub(crate) const IN_PACKETS: u16 = 2;
    pub(crate) const OUT_PACKETS: u16 = 3;
    pub(crate) const IN_BYTES: u16 = 4;
    pub(crate) const OUT_BYTES: u16 = 5;
    /// The first of the five rates, in the same order.
    pub(crate) const FIRST_RATE: u16 = 6;
}

/// Of an info.
pub(super) mod info {
    pub(crate) const VERSION: u16 = 1;
    pub(crate) const TABLE_SIZE: u16 = 2;
}

/// Flags of a service.
pub(super) mod flag {
    pub(crate) const PERSISTENT: u32 = 1;
    /// Always told, never asked for.
    pub(crate) const HASHED: u32 = 2;
    pub(crate) const ONE_PACKET: u32 = 4;
    /// `sh-fallback`, `mh-fallback`.
    pub(crate) const FALLBACK: u32 = 8;
    /// `sh-port`, `mh-port`.
    pub(crate) const PORT: u32 = 16;
}

/// How packets reach a server.
pub(super) mod method {
    pub(crate) const MASK: u32 = 7;
    pub(crate) const MASQUERADING: u32 = 0;
    pub(crate) const LOCAL: u32 = 1;
    pub(crate) const TUNNEL: u32 = 2;
    pub(crate) const DIRECT: u32 = 3;
}

/// Kinds of tunnels, and their flags.
pub(super) mod tunnel {
    pub(crate) const IPIP: u8 = 0;
    pub(crate) const GUE: u8 = 1;
    pub(crate) const GRE: u8 = 2;
    pub(crate) const CHECKSUM: u16 = 1;
    pub(crate) const REMOTE_CHECKSUM: u16 = 2;
}

/// Address families.
pub(super) const AF_INET: u16 = 2;
/// See [`AF_INET`].
pub(super) const AF_INET6: u16 = 10;
