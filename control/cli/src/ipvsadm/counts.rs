//! Counters in the columns of `--stats` and `--rate`.

/// What `--stats` shows, or `--rate` of a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections scheduled.
    pub connections: u64,
    /// Packets from clients.
    pub in_packets: u64,
    /// Packets to clients.
    pub out_packets: u64,
    /// Bytes from clients.
    pub in_bytes: u64,
    /// Bytes to clients.
    pub out_bytes: u64,
}

/// The five columns.
pub(super) fn fields(counters: Counters, exact: bool) -> String {
    let Counters {
        connections,
        in_packets,
        out_packets,
        in_bytes,
        out_bytes,
    } = counters;
    let values = [connections, in_packets, out_packets, in_bytes, out_bytes];
    values
        .into_iter()
        .map(|value| field(value, exact))
        .collect()
}

/// Nine characters wide: from 10^8 on in thousands (K), from 10^9 on in millions (M), and so on, unless `exact`.
fn field(value: u64, exact: bool) -> String {
    if exact {
        return format!(" {value:>8}");
    }
    match value {
        0..100_000_000 => format!("{value:>9}"),
        100_000_000..1_000_000_000 => format!("{:>8}K", value / 1000),
        1_000_000_000..100_000_000_000 => format!("{:>8}M", value / 1_000_000),
        100_000_000_000..100_000_000_000_000 => format!("{:>8}G", value / 1_000_000_000),
        _ => format!("{:>8}T", value / 1_000_000_000_000),
    }
}
