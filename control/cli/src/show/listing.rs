//! Services and their servers, as a table in the words of LVS.

use proto::v1::{Method, Protocol, RealServer, Service};
use std::fmt::Write as _;

/// The whole of `uvs list`.
pub(super) fn table(services: &[Service]) -> String {
    let mut text = format!(
        "{:<50}{:<9}{:>6}{:>12}{:>12}{:>12}{:>12}{:>12}\n",
        "Service / -> Real server",
        "Method",
        "Weight",
        "Active",
        "Inactive",
        "Conns",
        "InPkts",
        "OutPkts"
    );
    for service in services {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}", title(service));
        for server in &service.servers {
            let _ = writeln!(text, "{}", row(server));
        }
    }
    text
}

fn title(service: &Service) -> String {
    let key = service.key.clone().unwrap_or_default();
    let protocol = match key.protocol() {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
        Protocol::Unspecified => "?",
    };
    let endpoint = endpoint(&key.address, key.port);
    let flags = if service.flags.is_empty() {
        String::new()
    } else {
        format!(" ({})", service.flags.join(","))
    };
    format!("{protocol}  {endpoint} {}{flags}", service.scheduler)
}

fn row(server: &RealServer) -> String {
    let method = match server.method() {
        Method::Nat => "Masq",
        Method::Dr => "Route",
        Method::Tun => "Tunnel",
        Method::Fullnat => "FullNat",
        Method::Unspecified => "?",
    };
    let name = format!("  -> {}", endpoint(&server.address, server.port));
    format!(
        "{name:<50}{method:<9}{:>6}{:>12}{:>12}{:>12}{:>12}{:>12}",
        server.weight,
        server.active,
        server.inactive,
        server.connections,
        server.in_packets,
        server.out_packets
    )
}

fn endpoint(address: &str, port: u32) -> String {
    if address.contains(':') {
        format!("[{address}]:{port}")
    } else {
        format!("{address}:{port}")
    }
}
