//! Keys of services, of their servers, and of what services refer to: marks and pools of local addresses.

use super::{Accepts, SECONDS_LIMIT, Table, of, optional, required, switch_key, table};

const ADDRESS_AND_PORT: &str = "\"ADDRESS:PORT\", \"[IPV6]:PORT\" or the address alone for the service's port, such as \"10.2.0.11:8080\"";
const NETWORK: &str = "a network without host bits, such as \"10.5.0.0/24\" or \"fd00:5::/32\"";
const PORT_RANGE: &str =
    "\"PORT\" or \"LOW-HIGH\" within 1 to 65535, such as \"80\" or \"5000-5999\"";

/// Forwarding methods, in the words of a file.
const METHODS: &[&str] = &["nat", "dr", "tun", "fullnat"];

/// Protocols, in the words of a file.
const PROTOCOLS: &[&str] = &["tcp", "udp"];

/// `[[lip_pool]]`.
pub const LIP_POOL: Table = Table {
    name: "lip_pool",
    keys: &[
        required(
            "name",
            "a pool's name",
            Accepts::Form("1 to 32 letters, digits, '-' or '_', each name once"),
            "how services refer to it",
        ),
        of(
            "a local address",
            required(
                "addresses",
                "a list of local addresses",
                Accepts::Form(
                    "1 to 1024 unicast addresses, such as [\"10.2.0.200\", \"10.2.0.201\"]",
                ),
                "the local addresses (LIP): requests reach the servers from them",
            ),
        ),
        optional(
            "ports",
            "a range of ports",
            Accepts::Form("\"LOW-HIGH\" within 1 to 65535"),
            "\"1024-65535\"",
            "the local ports, shared out among the workers",
        ),
    ],
};

/// `[[mark]]`.
pub const MARK: Table = Table {
    name: "mark",
    keys: &[
        required(
            "mark",
            "a mark",
            Accepts::Number(1, 4_294_967_295),
            "what `listen = \"mark N\"` of a service names",
        ),
        optional(
            "port",
            "the name of a port",
            Accepts::Form("the NAME of a [port.NAME]"),
            "any",
            "packets that come in there",
        ),
        optional(
            "source",
            "a network of clients",
            Accepts::Form(NETWORK),
            "any",
            "packets from there; of this family alone",
        ),
        optional(
            "destination",
            "a network that is asked",
            Accepts::Form(NETWORK),
            "any",
            "packets to there; of this family alone",
        ),
        optional(
            "protocol",
            "a protocol",
            Accepts::Word(PROTOCOLS),
            "any",
            "packets of it",
        ),
        optional(
            "source_ports",
            "a range of ports",
            Accepts::Form(PORT_RANGE),
            "any",
            "packets from these ports",
        ),
        optional(
            "destination_ports",
            "a range of ports",
            Accepts::Form(PORT_RANGE),
            "any",
            "packets to these ports",
        ),
    ],
};

/// `[[service]]`.
pub const SERVICE: Table = Table {
    name: "service",
    keys: &[
        required(
            "listen",
            "a virtual service",
            Accepts::Form(
                "\"PROTOCOL ADDRESS:PORT\" with tcp, udp or sctp, a unicast address and a port of 0 to 65535, such as \"tcp 10.0.0.100:80\" or \"udp [fd00::100]:53\", or \"mark N\" or \"mark N ipv6\" with a mark of 1 to 4294967295",
            ),
            "protocol, virtual address (VIP) and port, 0 for all ports that no other service has; or the mark that a [[mark]] gives; the director answers ARP and ND for the address",
        ),
        of(
            "a virtual address",
            optional(
                "addresses",
                "a list of virtual addresses",
                Accepts::Form(
                    "at most 1024 unicast addresses, such as [\"10.5.0.1\", \"10.5.0.2\"]",
                ),
                "[]",
                "with listen = \"mark N\": the addresses (VIP) whose packets are looked at, and for which the director answers ARP and ND",
            ),
        ),
        optional(
            "scheduler",
            "a scheduler",
            Accepts::Scheduler,
            "\"wlc\"",
            "which server gets a new flow",
        ),
        of(
            "a flag of this scheduler",
            optional(
                "flags",
                "a list of scheduler flags",
                Accepts::Form(
                    "of \"sh-port\" and \"sh-fallback\" (with sh), \"mh-port\" and \"mh-fallback\" (with mh), each once",
                ),
                "[]",
                "variations of the scheduler",
            ),
        ),
        optional(
            "slow_start",
            "a number of seconds",
            Accepts::Number(0, 86_400),
            "0",
            "with rr, wrr, lc, wlc, sed, twos and maglev: a server that is added or returns from weight 0 beside others comes to its full share of new flows step by step in so many seconds; 0: at once",
        ),
        required(
            "method",
            "a forwarding method",
            Accepts::Word(METHODS),
            "how packets reach the servers",
        ),
        optional(
            "lip_pool",
            "a pool of local addresses",
            Accepts::Form("the name of a [[lip_pool]] with addresses of the service's family"),
            "none; fullnat needs it",
            "where FULLNAT takes local addresses from",
        ),
        switch_key(
            "one_packet",
            "false",
            "UDP: each packet is scheduled alone and leaves no connection behind",
        ),
        optional(
            "helper",
            "a helper",
            Accepts::Word(&["ftp"]),
            "none",
            "looks into TCP connections by NAT: data connections of FTP follow their control connection; not with fullnat",
        ),
        optional(
            "persistence_timeout",
            "a timeout in seconds",
            Accepts::Number(1, SECONDS_LIMIT),
            "none: not persistent",
            "a client's new connections go to the server it had within so many seconds",
        ),
        optional(
            "persistence_granularity",
            "a netmask or the length of a prefix",
            Accepts::Form(
                "an IPv4 netmask such as \"255.255.255.0\", or \"1\" to \"128\" where clients speak IPv6",
            ),
            "every client by itself",
            "clients whose addresses are the same in these bits are one",
        ),
        optional(
            "persistence_engine",
            "a persistence engine",
            Accepts::Word(&["sip"]),
            "none",
            "sip: with UDP, each call (Call-ID) is persistent by itself, and messages without a Call-ID are dropped",
        ),
        table("server", "the real servers, the newest last"),
    ],
};

/// `[[service.server]]`.
pub const SERVER: Table = Table {
    name: "service.server",
    keys: &[
        required(
            "address",
            "a real server",
            Accepts::Form(ADDRESS_AND_PORT),
            "the server's address (RIP) and port",
        ),
        optional(
            "weight",
            "a weight",
            Accepts::Number(0, 65_535),
            "1",
            "share of new flows; 0: none, while known connections go on",
        ),
        optional(
            "method",
            "a forwarding method",
            Accepts::Word(METHODS),
            "the service's",
            "how packets reach this server",
        ),
        optional(
            "upper",
            "a number of connections",
            Accepts::Number(0, 4_294_967_295),
            "0",
            "at so many connections, active and inactive, the server gets no new ones; 0: no limit",
        ),
        optional(
            "lower",
            "a number of connections",
            Accepts::Number(0, 4_294_967_295),
            "0",
            "below so many connections it gets new ones again; 0: below three quarters of `upper`",
        ),
        optional(
            "tunnel",
            "a kind of tunnel",
            Accepts::Word(&["ipip", "gre", "gue"]),
            "\"ipip\"",
            "with tun, what stands between the outer IP header and the packet: nothing, GRE, or UDP and GUE",
        ),
        optional(
            "tunnel_port",
            "a UDP port",
            Accepts::Number(1, 65_535),
            "none; gue needs it",
            "where the server receives GUE",
        ),
        optional(
            "tunnel_checksum",
            "a choice of checksum",
            Accepts::Word(&["none", "full", "remote"]),
            "\"none\"",
            "with gre and gue, whether the tunnel's header has a checksum over the packet; remote (gue): as full, since no packet leaves with its own checksum unfinished",
        ),
    ],
};
