//! Every key of a configuration: what it takes, what holds without it, and what it means.

/// What a key takes.
#[derive(Clone, Copy, Debug)]
pub enum Accepts {
    /// A whole number within bounds, both included.
    Number(u64, u64),
    /// One of these words.
    Word(&'static [&'static str]),
    /// A string, array or boolean of the described form.
    Form(&'static str),
}

impl Accepts {
    /// In words, for a message.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Accepts::Number(low, high) => format!("{low} to {high}"),
            Accepts::Word(words) => words
                .iter()
                .map(|word| format!("\"{word}\""))
                .collect::<Vec<_>>()
                .join(", "),
            Accepts::Form(form) => (*form).to_owned(),
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
    pub(super) fn key(&self, name: &str) -> &'static Key {
        self.keys
            .iter()
            .find(|key| key.name == name)
            .unwrap_or_else(|| unreachable!("{} has no key {name}", self.name))
    }
}

const ADDRESS_AND_PORT: &str = "\"ADDRESS:PORT\", \"[IPV6]:PORT\" or the address alone for the service's port, such as \"10.2.0.11:8080\"";
const SECONDS_LIMIT: u64 = 31 * 24 * 3600;
const CPU_LIMIT: u64 = 1023;
/// Largest number of a CPU that a worker can be bound to.
pub(super) const LAST_CPU: u64 = CPU_LIMIT;

/// The top of a file.
pub const TOP: Table = Table {
    name: "",
    keys: &[
        table("director", "the director's own settings"),
        table(
            "port",
            "the director's ports, each by a name of its own: [port.wan]",
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
    ],
};

/// `[director]`.
pub const DIRECTOR: Table = Table {
    name: "director",
    keys: &[
        optional(
            "workers",
            "a number of workers",
            Accepts::Number(1, 64),
            "1",
            "packet threads; each owns one queue of every port",
        ),
        optional(
            "connections",
            "a number of connections",
            Accepts::Number(1, 1_000_000_000),
            "1000000",
            "capacity of the connection table, per address family; all its memory is taken at the start",
        ),
        optional(
            "servers",
            "a number of servers",
            Accepts::Number(1, 131_072),
            "4096",
            "room for real servers, removed ones included while connections refer to them",
        ),
        optional(
            "half_open_percent",
            "a percentage",
            Accepts::Number(1, 100),
            "25",
            "share of the table that half-open TCP connections, and those that FTP announces, may fill",
        ),
        optional(
            "idle",
            "what a worker does without packets",
            Accepts::Word(&["sleep", "poll"]),
            "\"sleep\"",
            "sleep: wait in the kernel for packets; poll: never give the core away",
        ),
        optional(
            "pin",
            "a choice of CPUs",
            Accepts::Form(
                "true (worker N on CPU N), false, or one CPU number (0 to 1023) per worker, each once, such as [2, 3]",
            ),
            "false",
            "binds each worker to a CPU",
        ),
        optional(
            "control",
            "a control socket",
            Accepts::Form("\"unix:\" and an absolute path of at most 100 bytes"),
            "\"unix:/run/uvs/uvs.sock\"",
            "where the gRPC service listens",
        ),
    ],
};

/// `[port.NAME]`.
pub const PORT: Table = Table {
    name: "port",
    keys: &[
        required(
            "driver",
            "a driver",
            Accepts::Word(&["af_packet", "memory"]),
            "af_packet: a kernel interface; memory: nothing outside the process, for tests",
        ),
        optional(
            "interface",
            "an interface name",
            Accepts::Form("1 to 15 bytes without '/', ':' or blanks"),
            "none; af_packet needs it",
            "the kernel interface",
        ),
        of(
            "an own address with its prefix length",
            optional(
                "addresses",
                "a list of the director's addresses",
                Accepts::Form(
                    "at most 64 unicast addresses with their prefix lengths, such as [\"10.1.0.1/24\", \"fd00:1::1/64\"]",
                ),
                "[]",
                "the director's own addresses (DIP) and, by their prefixes, the subnets on the port's link",
            ),
        ),
        optional(
            "answered_by",
            "who answers for the port's addresses",
            Accepts::Word(&["uvs", "kernel"]),
            "\"uvs\"",
            "uvs: nobody else has `addresses`, ARP, ND and ping are answered here; kernel: the kernel's interface has them too and answers itself",
        ),
    ],
};

/// `[[route]]`.
pub const ROUTE: Table = Table {
    name: "route",
    keys: &[
        required(
            "to",
            "a destination network",
            Accepts::Form("a network without host bits, such as \"10.3.0.0/16\" or \"::/0\""),
            "the destinations",
        ),
        optional(
            "via",
            "a gateway",
            Accepts::Form("a unicast address in a port's subnet"),
            "none: on the link of `port`",
            "the next hop",
        ),
        optional(
            "port",
            "the name of a port",
            Accepts::Form("the NAME of a [port.NAME]"),
            "the port in whose subnet `via` lies",
            "the port to leave by",
        ),
    ],
};

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
            Accepts::Word(scheduler::NAMES),
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

/// Forwarding methods, in the words of a file.
const METHODS: &[&str] = &["nat", "dr", "tun", "fullnat"];

/// Protocols, in the words of a file.
const PROTOCOLS: &[&str] = &["tcp", "udp"];
const NETWORK: &str = "a network without host bits, such as \"10.5.0.0/24\" or \"fd00:5::/32\"";
const PORT_RANGE: &str =
    "\"PORT\" or \"LOW-HIGH\" within 1 to 65535, such as \"80\" or \"5000-5999\"";

/// All tables.
pub const TABLES: &[Table] = &[
    TOP, DIRECTOR, PORT, ROUTE, LIP_POOL, MARK, SERVICE, SERVER, TIMEOUTS, IPVS,
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

const fn mode_key(name: &'static str, about: &'static str) -> Key {
    optional(
        name,
        "a mode of the defence",
        Accepts::Number(0, 3),
        "0",
        about,
    )
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
