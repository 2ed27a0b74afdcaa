//! Keys of the counters that Prometheus collects.

use super::{Accepts, Table, optional, switch_key};

/// `[metrics]`.
pub const METRICS: Table = Table {
    name: "metrics",
    keys: &[
        optional(
            "listen",
            "an address to listen at",
            Accepts::Form(
                "an IP address of this host and a port above 0, such as \"127.0.0.1:9107\" or \"[::1]:9107\"",
            ),
            "\"127.0.0.1:9107\"",
            "where Prometheus collects counters over HTTP, from /metrics; everybody who reaches it may",
        ),
        switch_key("services", "true", "counters of each service"),
        switch_key("servers", "true", "counters of each real server"),
        switch_key(
            "neighbours",
            "true",
            "whether each host on the links answers",
        ),
        switch_key(
            "port_statistics",
            "true",
            "what each port's driver counts, by its own names",
        ),
    ],
};
