//! Services and their servers, as a table in the words of LVS.

use crate::endpoint::joined;
use proto::v1::{Method, Protocol, Rates, RealServer, Service};
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

/// The whole of `uvs list --rate`.
pub(super) fn rates(services: &[Service]) -> String {
    let mut text = format!(
        "{:<50}{:>12}{:>12}{:>12}{:>14}{:>14}\n",
        "Service / -> Real server", "Conns/s", "InPkts/s", "OutPkts/s", "InBytes/s", "OutBytes/s"
    );
    let mut row = |name: &str, rates: Option<&Rates>| {
        let rates = rates.copied().unwrap_or_default();
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{name:<50}{:>12}{:>12}{:>12}{:>14}{:>14}",
            rates.connections, rates.in_packets, rates.out_packets, rates.in_bytes, rates.out_bytes
        );
    };
    for service in services {
        row(&title(service), service.rates.as_ref());
        for server in &service.servers {
            let name = format!("  -> {}", joined(&server.address, server.port));
            row(&name, server.rates.as_ref());
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
        (0, _) => joined(&key.address, key.port),
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
    let name = format!("  -> {}", joined(&server.address, server.port));
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

#[cfg(test)]
mod tests {
    use super::*;
    use proto::v1::{Persistence, ServiceKey};

    #[test]
    fn rates_stand_under_their_heads() {
        let rates = |in_packets| {
            Some(Rates {
                in_packets,
                out_bytes: 9_999_999,
                ..Rates::default()
            })
        };
        let service = Service {
            rates: rates(1_234_567),
            servers: vec![RealServer {
                address: "10.0.0.11".to_owned(),
                port: 80,
                rates: rates(7),
                ..RealServer::default()
            }],
            ..Service::default()
        };
        let text = self::rates(&[service]);
        let ends: Vec<_> = ["InPkts/s\n", "1234567\n", "7\n"]
            .iter()
            .zip(text.lines())
            .map(|(word, line)| line.find(word.trim()).map(|at| at + word.trim().len()))
            .collect();
        assert_eq!(ends, [Some(74); 3], "{text}");
        assert!(text.lines().all(|line| line.len() == 114), "{text}");
    }

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
