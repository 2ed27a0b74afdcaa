//! What was measured, as a table or as JSON.

use benches::{Measurement, Phase, Share};
use conntrack::Method;
use serde_json::{Value, json};
use std::fmt;

/// Where the workers had a core for a smaller part of the time, this is said.
const CPU_SHARE_MIN: f64 = 0.95;

/// All that was measured.
#[derive(Debug)]
pub struct Report {
    /// In the order of measuring.
    pub measurements: Vec<Measurement>,
    /// SYNs that were to come in each second of established traffic.
    pub new_flows_per_second: u32,
    /// The user ended it early.
    pub interrupted: bool,
    /// What the reader should know of the figures.
    pub notes: Vec<String>,
}

impl Report {
    /// A list with an object for each measurement. Times in nanoseconds.
    #[must_use]
    pub fn json(&self) -> Value {
        self.measurements.iter().map(|of| self.object(of)).collect()
    }

    fn object(&self, of: &Measurement) -> Value {
        let burst = |percentile| of.bursts.value_at_percentile(percentile);
        let per_worker: Vec<_> = of.shares.iter().map(mpps_of).collect();
        let pages = json!({
            "gigantic": of.pages.gigantic,
            "huge": of.pages.huge,
            "transparent": of.pages.transparent,
            "ordinary": of.pages.ordinary,
        });
        json!({
            "mode": mode(of.method),
            "family": of.family.name(),
            "flows": of.flows,
            "frame_len": of.frame_len,
            "workers": of.shares.len(),
            "phase": of.phase.name(),
            "mpps": of.packets_per_s() / 1e6,
            "ns_per_packet": of.ns_per_packet(),
            "roofline_ns": of.roofline_ns(),
            "flows_per_s": of.flows_per_s(),
            "size": of.size.to_string(),
            "packets": of.packets(),
            "new_flows_per_second": self.new_flows_per_second,
            "cross": of.cross,
            "mpps_per_worker": per_worker,
            "port_ns": of.of_port.ns_per_packet(),
            "cpu_share": of.total().cpu_share(),
            "cpu_ns_per_packet": of.total().cpu_ns_per_packet(),
            "roofline_cpu_ns": of.of_floor.map(|share| share.cpu_ns_per_packet()),
            "port_cpu_ns": of.of_port.cpu_ns_per_packet(),
            "burst_ns": {
                "p50": burst(50.0),
                "p99": burst(99.0),
                "p99.9": burst(99.9),
                "max": of.bursts.max(),
            },
            "bytes_per_connection": of.bytes_per_connection,
            "connections_per_gib": of.connections_per_gib(),
            "table_bytes_by_pages": pages,
        })
    }
}

/// A method's name in arguments and results.
pub(super) fn mode(method: Method) -> &'static str {
    match method {
        Method::Nat => "nat",
        Method::Dr => "dr",
        Method::Tun => "tun",
        Method::FullNat => "fullnat",
        Method::Local => "local",
    }
}

fn mpps_of(share: &Share) -> f64 {
    share.packets_per_s() / 1e6
}

/// A large number in few digits.
fn short(number: f64) -> String {
    match number {
        _ if number >= 1e6 => format!("{:.2} M", number / 1e6),
        _ if number >= 1e3 => format!("{:.1} k", number / 1e3),
        _ => format!("{number:.0}"),
    }
}

/// The columns: a title, and whether its cells end in line instead of beginning so.
const COLUMNS: [(&str, bool); 19] = [
    ("mode", false),
    ("family", false),
    ("size", true),
    ("flows", true),
    ("workers", true),
    ("phase", false),
    ("Mpps", true),
    ("ns/packet", true),
    ("on core", true),
    ("roofline", true),
    ("ratio", true),
    ("port", true),
    ("new conn/s", true),
    ("packets", true),
    ("conn/GiB", true),
    ("p50 us", true),
    ("p99 us", true),
    ("p99.9 us", true),
    ("max us", true),
];

fn cells(of: &Measurement) -> [String; COLUMNS.len()] {
    let none = || "-".to_owned();
    let size = if of.size.to_string() == of.frame_len.to_string() || of.size == benches::Size::Imix
    {
        of.size.to_string()
    } else {
        of.frame_len.to_string()
    };
    let new_flows = of.flows_per_s();
    #[allow(clippy::cast_precision_loss, reason = "for people to read")]
    let packets = of.packets() as f64;
    #[allow(clippy::cast_precision_loss, reason = "for people to read")]
    let us = |nanoseconds: u64| format!("{:.2}", nanoseconds as f64 / 1e3);
    let burst = |percentile| us(of.bursts.value_at_percentile(percentile));
    let floor = of.of_floor.map(|share| share.cpu_ns_per_packet());
    let ratio = floor.map(|floor| of.total().cpu_ns_per_packet() / floor);
    [
        mode(of.method).to_owned(),
        of.family.name().to_owned(),
        size,
        of.flows.to_string(),
        of.shares.len().to_string(),
        of.phase.name().to_owned(),
        format!("{:.2}", of.packets_per_s() / 1e6),
        format!("{:.1}", of.ns_per_packet()),
        format!("{:.1}", of.total().cpu_ns_per_packet()),
        of.roofline_ns()
            .map_or_else(none, |floor| format!("{floor:.1}")),
        ratio.map_or_else(none, |ratio| format!("{ratio:.2}")),
        format!("{:.1}", of.of_port.ns_per_packet()),
        if new_flows > 0.0 {
            short(new_flows)
        } else {
            none()
        },
        short(packets),
        short(of.connections_per_gib()),
        burst(50.0),
        burst(99.0),
        burst(99.9),
        us(of.bursts.max()),
    ]
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows: Vec<_> = self.measurements.iter().map(cells).collect();
        let widths: Vec<usize> = COLUMNS
            .iter()
            .enumerate()
            .map(|(column, (title, _))| {
                let cells = rows.iter().map(|row| row[column].len());
                cells.chain([title.len()]).max().expect("the title")
            })
            .collect();
        let line = |cells: [&str; COLUMNS.len()]| {
            let padded = cells.iter().zip(&widths).zip(COLUMNS);
            let padded = padded.map(|((cell, width), (_, ends_in_line))| {
                if ends_in_line {
                    format!("{cell:>width$}")
                } else {
                    format!("{cell:<width$}")
                }
            });
            padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        writeln!(f, "{}", line(COLUMNS.map(|(title, _)| title)))?;
        for (row, of) in rows.iter().zip(&self.measurements) {
            writeln!(f, "{}", line(row.each_ref().map(String::as_str)))?;
            if let [_, _, ..] = of.shares[..] {
                let each = of
                    .shares
                    .iter()
                    .map(|share| format!("{:.2}", mpps_of(share)));
                let each = each.collect::<Vec<_>>().join(" + ");
                let has_replies = of.phase == Phase::Established && of.method.sees_replies();
                let way = if of.cross && has_replies {
                    ", replies at another worker than requests"
                } else {
                    ""
                };
                writeln!(f, "         by worker: {each} Mpps{way}")?;
            }
        }
        writeln!(f)?;
        writeln!(
            f,
            "ns/packet: a worker's time, with that of the port alone (port) and of the clock, read once a burst of at most 32;\n\
             on core: what of it the worker had a core for, the same where nobody else wants one.\n\
             p50 to max: how long bursts took. conn/GiB: connections in a GiB of table, its index included.\n\
             Established packets are of flows at random; with nat and fullnat half of them are replies."
        )?;
        if self.measurements.iter().any(|of| of.of_floor.is_some()) {
            writeln!(
                f,
                "roofline: ns to read and sum the same frames by the same port, with two random cache lines for each.\n\
                 ratio: to it, of the times on a core."
            )?;
        }
        let total = Share::sum(self.measurements.iter().map(Measurement::total));
        if !self.measurements.is_empty() && total.cpu_share() < CPU_SHARE_MIN {
            writeln!(
                f,
                "The workers had a core for {:.0} % of the time only: other programs ran, and the machine can do more than this.",
                total.cpu_share() * 100.0
            )?;
        }
        for note in &self.notes {
            writeln!(f, "{note}")?;
        }
        if self.interrupted {
            writeln!(f, "Interrupted.")?;
        }
        Ok(())
    }
}
