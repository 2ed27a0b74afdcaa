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
        Protocol::Unspecified if key.mark != 0 => "FWM",
        Protocol::Unspecified => "?",
    };
    let endpoint = match (key.mark, key.mark_ipv6) {
        (0, _) => endpoint(&key.address, key.port),
        (mark, false) => mark.to_string(),
        (mark, true) => format!("{mark} IPv6"),
    };
    let flags = if service.flags.is_empty() {
        String::new()
    } else {
        format!(" ({})", service.flags.join(","))
    };
    let mut title = format!("{protocol}  {endpoint} {}{flags}", service.scheduler);
    if let Some(persistence) = &service.persistence {
        // Writing to a String cannot fail.
        let _ = write!(title, " persistent {}", persistence.timeout_s);
        for (word, value) in [
            ("mask", &persistence.granularity),
            ("pe", &persistence.engine),
        ] {
            if !value.is_empty() {
                let _ = write!(title, " {word} {value}");
            }
        }
    }
    if service.one_packet {
        title.push_str(" ops");
    }
    if !service.helper.is_empty() {
        let _ = write!(title, " helper {}", service.helper);
    }
    if service.slow_start_s > 0 {
        let _ = write!(title, " slow start {} s", service.slow_start_s);
    }
    title
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

#[cfg(test)]
mod tests {
    use super::*;
    use proto::v1::{Persistence, ServiceKey};

    #[test]
    fn a_services_title_says_what_makes_it_special() {
        let service = Service {
            key: Some(ServiceKey {
                mark: 7,
                mark_ipv6: true,
                ..ServiceKey::default()
            }),
            scheduler: "wlc".to_owned(),
            persistence: Some(Persistence {
                timeout_s: 360,
                granularity: "64".to_owned(),
                engine: String::new(),
            }),
            one_packet: true,
            ..Service::default()
        };
        assert_eq!(
            title(&service),
            "FWM  7 IPv6 wlc persistent 360 mask 64 ops"
        );
        let service = Service {
            key: Some(ServiceKey {
                protocol: Protocol::Tcp.into(),
                address: "fd00::100".to_owned(),
                port: 21,
                ..ServiceKey::default()
            }),
            scheduler: "sh".to_owned(),
            flags: vec!["sh-port".to_owned()],
            helper: "ftp".to_owned(),
            slow_start_s: 30,
            ..Service::default()
        };
        assert_eq!(
            title(&service),
            "TCP  [fd00::100]:21 sh (sh-port) helper ftp slow start 30 s"
        );
    }
}
