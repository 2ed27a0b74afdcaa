//! Keys of what holds for all connections: timeouts, and what the kernel's IPVS takes from sysctls.

use super::{Accepts, Key, SECONDS_LIMIT, Table, optional, switch_key};

/// `[timeouts]`.
pub const TIMEOUTS: Table = Table {
    name: "timeouts",
    keys: &[
        optional(
            "tcp",
            "a timeout in seconds",
            Accepts::Number(1, SECONDS_LIMIT),
            "900",
            "seconds an established TCP connection may be silent",
        ),
        optional(
            "tcp_fin",
            "a timeout in seconds",
            Accepts::Number(1, SECONDS_LIMIT),
            "120",
            "seconds after the first FIN",
        ),
        optional(
            "udp",
            "a timeout in seconds",
            Accepts::Number(1, SECONDS_LIMIT),
            "300",
            "seconds a UDP flow may be silent",
        ),
    ],
};

/// `[ipvs]`.
pub const IPVS: Table = Table {
    name: "ipvs",
    keys: &[
        optional(
            "conn_reuse_mode",
            "a mode of connection reuse",
            Accepts::Number(0, 2),
            "1",
            "a SYN on a known connection; 0: goes to its server; 1: is scheduled anew in TIME_WAIT and CLOSE; 2: also in FIN_WAIT with DR and TUN",
        ),
        switch_key(
            "expire_nodest_conn",
            "false",
            "connections of removed servers end, and a SYN for one of weight 0 is scheduled anew",
        ),
        switch_key(
            "expire_quiescent_template",
            "false",
            "a client whose persistence leads to a server of weight 0 gets another one",
        ),
        switch_key(
            "sloppy_tcp",
            "false",
            "any TCP packet but a reset may begin a connection",
        ),
        switch_key(
            "sloppy_sctp",
            "false",
            "any SCTP packet but an ABORT may begin a connection, not an INIT alone",
        ),
        switch_key(
            "schedule_icmp",
            "false",
            "an ICMP error about a packet of a service that no connection is known for is scheduled, and begins one",
        ),
        switch_key(
            "nat_icmp_send",
            "false",
            "a NAT server's packet of no connection is answered with port unreachable",
        ),
        switch_key(
            "pmtu_disc",
            "true",
            "tunnels copy the inner packet's don't-fragment bit",
        ),
        optional(
            "lblc_expiration",
            "a number of seconds",
            Accepts::Number(0, SECONDS_LIMIT),
            "86400",
            "with lblc, a destination unused for so many seconds is forgotten by a check every half hour; a change forgets all",
        ),
        optional(
            "lblcr_expiration",
            "a number of seconds",
            Accepts::Number(0, SECONDS_LIMIT),
            "86400",
            "with lblcr, likewise, and a set of servers unchanged for more seconds loses the most loaded with its next flow",
        ),
        mode_key(
            "secure_tcp",
            "when a client's acknowledgement alone establishes no TCP connection; 0: never; 1 and 2: while the table is short of room; 3: always",
        ),
        mode_key(
            "drop_packet",
            "when packets are dropped that would begin connections; 1 and 2: the more of them, the less room there is; 3: one of `am_droprate`",
        ),
        mode_key(
            "drop_entry",
            "when half-open connections, and idle ones of few packets, are ended before their time; modes as of secure_tcp",
        ),
        optional(
            "am_droprate",
            "a number of packets",
            Accepts::Number(0, 4_294_967_295),
            "10",
            "with `drop_packet = 3`, one of so many packets that would begin connections is dropped; 0: none",
        ),
        optional(
            "amemthresh",
            "a number of connections",
            Accepts::Number(0, 1_000_000_000),
            "0",
            "the table is short of room when fewer more would fit; 0: a 64th of `director.connections`",
        ),
    ],
};

const fn mode_key(name: &'static str, about: &'static str) -> Key {
    optional(
        name,
        "a mode of the defence",
        Accepts::Number(0, 3),
        "0",
        about,
    )
}
