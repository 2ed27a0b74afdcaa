//! Keys of the director itself and of how it stands in the network: ports and routes.

use super::{Accepts, Table, of, optional, required, switch_key};

/// Largest number of a CPU that a worker can be bound to.
pub(in crate::config) const LAST_CPU: u64 = 1023;

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
            "\"poll\" with a port that can only be polled, otherwise \"sleep\"",
            "sleep: wait in the kernel for packets, and look at DPDK's every 10 ms; poll: never give the core away",
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
        optional(
            "netlink",
            "a socket for clients of the kernel's IPVS",
            Accepts::Form("\"unix:\" and an absolute path of at most 100 bytes, or \"none\""),
            "`control` and \".nl\" behind it",
            "where unmodified ipvsadm, keepalived and ldirectord find the director (uvs compat); root and uvsd's own user may ask",
        ),
        optional(
            "proc",
            "a folder for files in the kernel's format",
            Accepts::Form("an absolute path of at most 200 bytes, such as \"/run/uvs/proc\""),
            "none",
            "where net/ip_vs and net/ip_vs_stats are written each second as the kernel has them in /proc, for tools that read those",
        ),
        optional(
            "table",
            "a file for the connection table",
            Accepts::Form(
                "an absolute path of at most 200 bytes, on tmpfs or hugetlbfs, such as \"/dev/shm/uvs/table\"",
            ),
            "none: connections end with uvsd",
            "where the connection table lies, so that connections go on when uvsd starts again, also after a crash",
        ),
        optional(
            "state",
            "a file for the state",
            Accepts::Form(
                "an absolute path of at most 200 bytes, such as \"/var/lib/uvs/state.toml\"",
            ),
            "none: what was changed otherwise than in this file ends with uvsd",
            "where services, servers, addresses, pools, routes, marks and timeouts are kept as they were changed while uvsd ran, so that they hold when it starts again, unless they have been changed in this file since",
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
            Accepts::Word(&["auto", "af_packet", "af_xdp", "dpdk", "pcap", "memory"]),
            "auto: the first of these that can be had here: dpdk, where `device` is said, af_xdp in native mode, af_packet; af_packet: a kernel interface; af_xdp: likewise, where an XDP program hands over the director's packets alone, faster, and the kernel gets the rest; dpdk: a device of DPDK, in a uvsd that is built with it; pcap: a capture file; memory: nothing outside the process, for tests",
        ),
        optional(
            "interface",
            "an interface name",
            Accepts::Form("1 to 15 bytes without '/', ':' or blanks"),
            "none; af_packet and af_xdp need it",
            "the kernel interface",
        ),
        optional(
            "file",
            "a capture file",
            Accepts::Form("a path to a pcap or pcapng file of Ethernet frames"),
            "none; pcap needs it",
            "what a pcap port receives, as fast as worker 0 can take it; the other workers receive nothing from it",
        ),
        switch_key(
            "infinite",
            "false",
            "a pcap port begins again after its file's last frame",
        ),
        optional(
            "output",
            "a file to write",
            Accepts::Form("a path"),
            "none: what is sent is forgotten",
            "where a pcap port writes what is sent, about once a second: worker 0 to this file, worker N to this name with \".N\" behind it; what was there is lost",
        ),
        optional(
            "checksums",
            "what to do about transport checksums",
            Accepts::Word(&["verify", "trust"]),
            "verify for veth, tun, bridge, macvlan, ipvlan, vxlan and without native XDP, otherwise trust; af_xdp alone has it",
            "verify: packets of senders on this machine may have unfinished checksums, which are finished; trust: all come from a wire",
        ),
        optional(
            "device",
            "a device of DPDK",
            Accepts::Form(
                "a PCI address such as \"0000:01:00.0\", or a virtual device such as \"net_af_packet0,iface=eth0\"",
            ),
            "none; dpdk needs it",
            "the device that DPDK drives",
        ),
        optional(
            "mtu",
            "a number of bytes",
            Accepts::Number(576, 9216),
            "what the device has",
            "largest IP packet of a DPDK port",
        ),
        optional(
            "rss",
            "what frames are spread over workers by",
            Accepts::Word(&["flow", "source", "destination"]),
            "\"flow\"",
            "by what a DPDK port's NIC chooses the worker, where it can; with source on the clients' side and destination on the servers', both directions of a NAT connection meet",
        ),
        optional(
            "exception",
            "where frames go that are the kernel's",
            Accepts::Word(&["tap", "none"]),
            "\"none\"",
            "tap: to an interface of the kernel's that is made for a DPDK port, for ssh, BGP, VRRP on this machine; none: nowhere",
        ),
        optional(
            "exception_interface",
            "an interface name",
            Accepts::Form("1 to 15 bytes without '/', ':' or blanks"),
            "\"uvs-\" and the port's name",
            "the name of that interface",
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
