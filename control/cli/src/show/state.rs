//! How a director does, as a table.

use proto::v1::{ConnectionTable, GetStatusResponse, Link, Port, Worker};
use std::fmt::Write as _;

/// Neighbours told at most.
const NEIGHBOURS_TOLD: usize = 32;

/// Counters of a port in a line.
const STATISTICS_IN_LINE: usize = 6;

/// What is told, summed over the workers, only if there is any.
type Loss = (&'static str, fn(&Worker) -> u64);
const LOSSES: [Loss; 4] = [
    ("frames that came faster than they were taken", |worker| {
        worker.receive_missed
    }),
    ("frames that a driver took and could not send", |worker| {
        worker.transmit_errors
    }),
    ("first fragments forgotten for newer ones", |worker| {
        worker.fragments_forgotten
    }),
    (
        "half-open connections ended for clients that came again",
        |worker| worker.half_open_replaced,
    ),
];

/// The whole of `uvs status`.
pub(super) fn table(status: &GetStatusResponse) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write(&mut text, status);
    text
}

fn write(text: &mut String, status: &GetStatusResponse) -> std::fmt::Result {
    let uptime = status.uptime_ms / 1000;
    let (hours, minutes, seconds) = (uptime / 3600, uptime / 60 % 60, uptime % 60);
    writeln!(
        text,
        "uvsd {}, up {hours}:{minutes:02}:{seconds:02}, configuration {}",
        status.version, status.configuration_version
    )?;
    writeln!(text)?;
    for port in &status.ports {
        write_port(text, port)?;
    }
    writeln!(text)?;
    write_workers(text, status)?;
    write_tables(text, status)?;
    for (what, count) in LOSSES {
        let sum: u64 = status.workers.iter().map(count).sum();
        if sum > 0 {
            writeln!(text, "{what}: {sum}")?;
        }
    }
    if let Some(ports) = &status.lip_ports
        && ports.capacity > 0
    {
        writeln!(
            text,
            "LIP ports: {} of {} in use",
            ports.in_use, ports.capacity
        )?;
    }
    write_drops(text, status)?;
    write_neighbours(text, status)
}

/// How a port is, and below it whatever was counted.
fn write_port(text: &mut String, port: &Port) -> std::fmt::Result {
    let link = match port.link() {
        Link::Up => "link up, ",
        Link::Down => "LINK DOWN, ",
        Link::Gone => "INTERFACE GONE, ",
        Link::Unspecified => "",
    };
    let mode = if port.mode.is_empty() {
        String::new()
    } else {
        format!(" ({})", port.mode)
    };
    writeln!(
        text,
        "port {}: {}{mode}, {link}{}, MTU {}, {}",
        port.name,
        port.driver,
        port.mac,
        port.mtu,
        port.addresses.join(", ")
    )?;
    let losses = [
        ("receive-missed", port.receive_missed),
        ("transmit-errors", port.transmit_errors),
    ];
    let statistics = port
        .statistics
        .iter()
        .map(|statistic| (statistic.name.as_str(), statistic.value));
    let counted: Vec<_> = losses
        .into_iter()
        .chain(statistics)
        .filter(|(_, value)| *value > 0)
        .map(|(name, value)| format!("{name} {value}"))
        .collect();
    for line in counted.chunks(STATISTICS_IN_LINE) {
        writeln!(text, "    {}", line.join(", "))?;
    }
    Ok(())
}

fn write_workers(text: &mut String, status: &GetStatusResponse) -> std::fmt::Result {
    writeln!(
        text,
        "{:<8}{:>14}{:>14}{:>12}{:>12}{:>12}{:>12}{:>12}",
        "Worker", "Received", "Forwarded", "Replied", "To kernel", "Waited", "Dropped", "New conns"
    )?;
    for worker in &status.workers {
        let gone = if worker.running { "" } else { "   NOT RUNNING" };
        writeln!(
            text,
            "{:<8}{:>14}{:>14}{:>12}{:>12}{:>12}{:>12}{:>12}{gone}",
            worker.index,
            worker.received,
            worker.forwarded,
            worker.replied,
            worker.exceptions,
            worker.waiting,
            worker.dropped,
            worker.connections
        )?;
    }
    writeln!(text)
}

fn write_tables(text: &mut String, status: &GetStatusResponse) -> std::fmt::Result {
    for table in &status.tables {
        let tenths = (table.bytes * 10).checked_div(table.capacity).unwrap_or(0);
        writeln!(
            text,
            "{} connections: {} of {}, half open {} of {}, refused {} + {}, {} MiB ({}.{} bytes each) in {}",
            table.family,
            table.connections,
            table.capacity,
            table.half_open,
            table.half_open_limit,
            table.refused_full,
            table.refused_half_open,
            table.bytes >> 20,
            tenths / 10,
            tenths % 10,
            pages(table)
        )?;
    }
    if let Some(file) = &status.table_file {
        writeln!(text, "{}", file.summary)?;
    }
    for warning in &status.warnings {
        writeln!(text, "WARNING: {warning}")?;
    }
    Ok(())
}

/// The kinds of pages that a table lies in, with how much, but for less than a hundredth.
fn pages(table: &ConnectionTable) -> String {
    let large = table.bytes_in_gigantic_pages
        + table.bytes_in_huge_pages
        + table.bytes_in_transparent_huge_pages;
    let kinds = [
        ("pages of 1 GiB", table.bytes_in_gigantic_pages),
        ("pages of 2 MiB", table.bytes_in_huge_pages),
        (
            "transparent huge pages",
            table.bytes_in_transparent_huge_pages,
        ),
        ("ordinary pages", table.bytes.saturating_sub(large)),
    ];
    let kinds: Vec<_> = kinds
        .iter()
        .filter(|(_, bytes)| *bytes > table.bytes / 100)
        .collect();
    match kinds[..] {
        [(kind, _)] => (*kind).to_owned(),
        _ => kinds
            .iter()
            .map(|(kind, bytes)| format!("{kind} ({} MiB)", bytes >> 20))
            .collect::<Vec<_>>()
            .join(", "),
    }
}

fn write_drops(text: &mut String, status: &GetStatusResponse) -> std::fmt::Result {
    let met: Vec<_> = status
        .drops
        .iter()
        .filter(|drop| drop.packets > 0)
        .collect();
    if !met.is_empty() {
        writeln!(text, "\n{:<28}{:>14}", "Drop reason", "Packets")?;
        for drop in met {
            writeln!(text, "{:<28}{:>14}", drop.reason, drop.packets)?;
        }
    }
    Ok(())
}

fn write_neighbours(text: &mut String, status: &GetStatusResponse) -> std::fmt::Result {
    if !status.neighbours.is_empty() {
        writeln!(
            text,
            "\n{:<12}{:<40}{:<20}State",
            "Port", "Neighbour", "MAC"
        )?;
        for neighbour in status.neighbours.iter().take(NEIGHBOURS_TOLD) {
            writeln!(
                text,
                "{:<12}{:<40}{:<20}{}",
                neighbour.port, neighbour.address, neighbour.mac, neighbour.state
            )?;
        }
        let more = status.neighbours.len().saturating_sub(NEIGHBOURS_TOLD);
        if more > 0 {
            writeln!(text, "and {more} more")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_told_summed_over_the_workers_and_not_if_there_are_none() {
        let worker = |count| Worker {
            fragments_forgotten: count,
            receive_missed: count + 10,
            transmit_errors: count + 20,
            half_open_replaced: count + 30,
            ..Worker::default()
        };
        let mut status = GetStatusResponse {
            workers: vec![worker(3), worker(4)],
            ..GetStatusResponse::default()
        };
        let lines = "frames that came faster than they were taken: 27\n\
                     frames that a driver took and could not send: 47\n\
                     first fragments forgotten for newer ones: 7\n\
                     half-open connections ended for clients that came again: 67\n";
        assert!(table(&status).contains(lines), "{}", table(&status));
        status.workers.clear();
        let text = table(&status);
        assert!(
            LOSSES.iter().all(|(what, _)| !text.contains(what)),
            "{text}"
        );
    }

    #[test]
    fn a_port_tells_its_mode_its_link_and_what_was_counted() {
        let statistic = |name: &str, value| proto::v1::Statistic {
            name: name.to_owned(),
            value,
        };
        let mut port = Port {
            name: "wan".into(),
            driver: "af_packet".into(),
            mode: "small slots".into(),
            link: Link::Up.into(),
            mac: "02:00:00:00:00:01".into(),
            mtu: 1500,
            addresses: vec!["10.0.0.1/8".into(), "fd00::1/64".into()],
            receive_missed: 3,
            statistics: vec![statistic("rx_bytes", 7), statistic("rx_dropped", 0)],
            ..Port::default()
        };
        let told = |port: &Port| {
            let status = GetStatusResponse {
                ports: vec![port.clone()],
                ..GetStatusResponse::default()
            };
            table(&status)
        };
        let lines = "port wan: af_packet (small slots), link up, 02:00:00:00:00:01, MTU 1500, 10.0.0.1/8, fd00::1/64\n    \
                     receive-missed 3, rx_bytes 7\n\n";
        assert!(told(&port).contains(lines), "{}", told(&port));
        port.link = Link::Gone.into();
        assert!(
            told(&port).contains(", INTERFACE GONE, "),
            "{}",
            told(&port)
        );
        port.link = Link::Down.into();
        port.mode.clear();
        assert!(
            told(&port).contains("af_packet, LINK DOWN, "),
            "{}",
            told(&port)
        );
        // Of an older uvsd, which does not tell.
        port = Port {
            name: "lan".into(),
            driver: "memory".into(),
            mac: "02:00:00:00:00:01".into(),
            mtu: 1500,
            ..Port::default()
        };
        let line = "port lan: memory, 02:00:00:00:00:01, MTU 1500, \n\n";
        assert!(told(&port).contains(line), "{}", told(&port));
    }

    #[test]
    fn a_table_tells_what_a_connection_takes_and_of_which_pages() {
        let mut ipv4 = ConnectionTable {
            family: "ipv4".into(),
            capacity: 1_000_000,
            bytes: 99_667_256,
            bytes_in_transparent_huge_pages: 99_000_000,
            ..ConnectionTable::default()
        };
        let told = |table: &ConnectionTable, warnings: &[&str]| {
            let status = GetStatusResponse {
                tables: vec![table.clone()],
                warnings: warnings.iter().map(ToString::to_string).collect(),
                ..GetStatusResponse::default()
            };
            super::table(&status)
        };
        let text = told(&ipv4, &[]);
        let line = "95 MiB (99.6 bytes each) in transparent huge pages\n";
        assert!(text.contains(line) && !text.contains("WARNING"), "{text}");
        ipv4.bytes_in_transparent_huge_pages = 0;
        let text = told(&ipv4, &["mind the pages"]);
        assert!(
            text.contains("in ordinary pages\nWARNING: mind the pages\n"),
            "{text}"
        );
        ipv4.bytes_in_gigantic_pages = 40 << 20;
        ipv4.bytes_in_huge_pages = 20 << 20;
        let text = told(&ipv4, &[]);
        let line = "in pages of 1 GiB (40 MiB), pages of 2 MiB (20 MiB), ordinary pages (35 MiB)\n";
        assert!(text.contains(line), "{text}");
    }
}
