//! Every metric there is. `docs/metrics.md` says the same, and a test holds the two together.

/// What a metric's value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Goes up only.
    Counter,
    /// Goes up and down.
    Gauge,
    /// How often something took how long.
    Histogram,
}

/// A metric.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// Its name.
    pub name: &'static str,
    /// What its value is.
    pub kind: Kind,
    /// What tells its values apart.
    pub labels: &'static [&'static str],
    /// What it means.
    pub help: &'static str,
}

const fn counter(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Family {
    Family {
        name,
        kind: Kind::Counter,
        labels,
        help,
    }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Family {
    Family {
        name,
        kind: Kind::Gauge,
        labels,
        help,
    }
}

const NOTHING: &[&str] = &[];
const SERVICE: &[&str] = &["service"];
const SERVER: &[&str] = &["service", "server"];
const WORKER: &[&str] = &["worker"];
const FAMILY: &[&str] = &["family"];
const PORT: &[&str] = &["port"];

/// Where [`apply` durations](super::ApplyTimes) end up.
pub(super) const APPLY: &str = "uvs_apply_duration_seconds";

/// All of them, in the order in which they are served.
pub const FAMILIES: &[Family] = &[
    gauge("uvs_build_info", &["version"], "1; the version of uvsd."),
    gauge("uvs_uptime_seconds", NOTHING, "Since the start of uvsd."),
    gauge(
        "uvs_revision",
        NOTHING,
        "The revision of the configuration that holds.",
    ),
    gauge(
        "uvs_configuration_version",
        NOTHING,
        "Configurations published to the workers.",
    ),
    gauge(
        "uvs_configuration_seen_version",
        NOTHING,
        "The oldest of them that a worker may still work with.",
    ),
    Family {
        name: APPLY,
        kind: Kind::Histogram,
        labels: NOTHING,
        help: "How long changes of the configuration took to be checked, compiled and published.",
    },
    gauge(
        "uvs_warnings",
        NOTHING,
        "Things that an operator should see to; uvs status tells them.",
    ),
    gauge(
        "uvs_service_info",
        &["service", "scheduler"],
        "1; a service and its scheduler.",
    ),
    gauge("uvs_service_servers", SERVICE, "Real servers of a service."),
    gauge(
        "uvs_service_weight",
        SERVICE,
        "The sum of its servers' weights; 0: nobody gets new connections.",
    ),
    counter(
        "uvs_service_connections_total",
        SERVICE,
        "Connections scheduled.",
    ),
    counter(
        "uvs_service_in_packets_total",
        SERVICE,
        "Packets from clients.",
    ),
    counter(
        "uvs_service_in_bytes_total",
        SERVICE,
        "Bytes of IP packets from clients.",
    ),
    counter(
        "uvs_service_out_packets_total",
        SERVICE,
        "Packets to clients that passed through here.",
    ),
    counter(
        "uvs_service_out_bytes_total",
        SERVICE,
        "Bytes of those IP packets.",
    ),
    gauge(
        "uvs_server_info",
        &["service", "server", "method"],
        "1; a real server and how packets reach it.",
    ),
    gauge("uvs_server_weight", SERVER, "Its share of new connections."),
    gauge(
        "uvs_server_connections",
        &["service", "server", "state"],
        "Connections that it has: active or inactive, as in IPVS.",
    ),
    gauge(
        "uvs_server_persistent_templates",
        SERVER,
        "Clients that are remembered as its own.",
    ),
    gauge(
        "uvs_server_upper_threshold",
        SERVER,
        "At so many connections it gets no new ones; 0: no limit.",
    ),
    counter(
        "uvs_server_connections_total",
        SERVER,
        "Connections scheduled to it.",
    ),
    counter(
        "uvs_server_in_packets_total",
        SERVER,
        "Packets from clients.",
    ),
    counter(
        "uvs_server_in_bytes_total",
        SERVER,
        "Bytes of IP packets from clients.",
    ),
    counter(
        "uvs_server_out_packets_total",
        SERVER,
        "Packets to clients that passed through here.",
    ),
    counter(
        "uvs_server_out_bytes_total",
        SERVER,
        "Bytes of those IP packets.",
    ),
    gauge("uvs_worker_up", WORKER, "1 while its thread runs."),
    counter(
        "uvs_worker_received_packets_total",
        WORKER,
        "Frames received.",
    ),
    counter(
        "uvs_worker_forwarded_packets_total",
        WORKER,
        "Frames forwarded by a connection.",
    ),
    counter(
        "uvs_worker_replied_packets_total",
        WORKER,
        "Frames of the director's own making that were sent.",
    ),
    counter(
        "uvs_worker_left_packets_total",
        WORKER,
        "Frames left to the kernel.",
    ),
    counter(
        "uvs_worker_waited_packets_total",
        WORKER,
        "Frames put aside until a neighbour answered or a fragment came.",
    ),
    counter(
        "uvs_worker_dropped_packets_total",
        WORKER,
        "Frames dropped, for all reasons.",
    ),
    counter("uvs_worker_connections_total", WORKER, "Connections made."),
    counter(
        "uvs_worker_bursts_total",
        WORKER,
        "Bursts of at least one frame.",
    ),
    counter(
        "uvs_worker_sleeps_total",
        WORKER,
        "Times it had nothing to do and slept.",
    ),
    counter(
        "uvs_worker_receive_missed_packets_total",
        WORKER,
        "Frames that its ports lost before it saw them.",
    ),
    counter(
        "uvs_worker_transmit_errors_total",
        WORKER,
        "Frames that its ports took and could not send.",
    ),
    counter(
        "uvs_worker_half_open_replaced_total",
        WORKER,
        "Half-open connections that ended in favour of clients that came again.",
    ),
    counter(
        "uvs_worker_helpers_refused_total",
        WORKER,
        "Connections that go without their service's helper: as many as may have one.",
    ),
    counter(
        "uvs_worker_fragments_forgotten_total",
        WORKER,
        "First fragments forgotten before their time.",
    ),
    counter(
        "uvs_dropped_packets_total",
        &["reason"],
        "Frames dropped, by reason, all workers together.",
    ),
    gauge(
        "uvs_table_capacity",
        FAMILY,
        "Connections that fit into the table of a family.",
    ),
    gauge("uvs_table_connections", FAMILY, "Connections in it."),
    gauge("uvs_table_half_open", FAMILY, "Half-open ones among them."),
    gauge(
        "uvs_table_half_open_limit",
        FAMILY,
        "So many of those may be there.",
    ),
    counter(
        "uvs_table_refused_connections_total",
        &["family", "reason"],
        "Connections refused: the table is full, or half-open ones fill their share.",
    ),
    gauge("uvs_table_bytes", FAMILY, "Memory of the table."),
    gauge(
        "uvs_lip_ports",
        NOTHING,
        "Ports of local addresses for FULLNAT, summed over servers.",
    ),
    gauge("uvs_lip_ports_in_use", NOTHING, "Those in use."),
    gauge(
        "uvs_neighbours",
        &["port", "state"],
        "Hosts on a port's link, by state.",
    ),
    gauge(
        "uvs_neighbour_up",
        &["port", "address"],
        "1 if the host's hardware address is known, 0 if it does not answer.",
    ),
    gauge("uvs_port_up", PORT, "1 while its link is up."),
    gauge("uvs_port_mtu_bytes", PORT, "Its MTU."),
    counter(
        "uvs_port_receive_missed_packets_total",
        PORT,
        "Frames that it lost before the workers saw them.",
    ),
    counter(
        "uvs_port_transmit_errors_total",
        PORT,
        "Frames that it took and could not send.",
    ),
    gauge(
        "uvs_port_statistic",
        &["port", "name"],
        "What its driver counts, by the driver's name for it.",
    ),
];
