//! Plans and states as tables.

use super::subject::{end_text, key_text};
use proto::v1;
use std::fmt::Write as _;

/// What a change would do.
pub(super) fn planned(of: &v1::PlanChangeResponse) -> String {
    let plan = of.plan.clone().unwrap_or_default();
    format!(
        "would change revision {}: {}\n{}",
        of.revision,
        plan.summary,
        plan_table(&plan)
    )
}

/// What a change did.
pub(super) fn changed(of: &v1::ChangeResponse) -> String {
    told(of.revision, of.plan.as_ref(), of.pending.as_ref())
}

/// A revision: what it changed, and whether it waits for its confirmation.
pub(super) fn told(
    revision: u64,
    plan: Option<&v1::Plan>,
    pending: Option<&v1::Pending>,
) -> String {
    let mut text = match plan {
        Some(plan) => format!(
            "revision {revision}: {}\n{}",
            plan.summary,
            plan_table(plan)
        ),
        None => format!("revision {revision}\n"),
    };
    if let Some(pending) = pending {
        let left = pending.left.map_or(0, |left| left.seconds);
        let revision = pending.revision;
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "taken back in {left} s without `uvs confirm {revision}`, or at once by `uvs rollback {revision}`"
        );
    }
    text
}

fn plan_table(plan: &v1::Plan) -> String {
    if plan.services.is_empty() {
        return String::new();
    }
    let mut text = format!(
        "{:<8}{:<50}{:>12}{:>12}{:>12}{:>8}\n",
        "Change", "Service / Server", "Connections", "Kept", "Cut", "Moved"
    );
    for service in &plan.services {
        let key = service.key.clone().unwrap_or_default();
        let moved = service
            .slots_moved
            .map_or_else(|| "-".to_owned(), |moved| format!("{:.1} %", moved * 100.0));
        let _ = writeln!(
            text,
            "{:<8}{:<50}{:>12}{:>12}{:>12}{moved:>8}",
            action(service.action()),
            key_text(&key),
            service.connections_kept + service.connections_cut,
            service.connections_kept,
            service.connections_cut
        );
        for server in &service.servers {
            let row = format!(
                "{:<8}{:<50}{:>12}",
                action(server.action()),
                format!("  {}", end_text(&server.address, server.port)),
                server.connections
            );
            let _ = writeln!(text, "{row}");
        }
    }
    text
}

fn action(action: v1::Action) -> &'static str {
    match action {
        v1::Action::Add => "add",
        v1::Action::Edit => "edit",
        v1::Action::Remove => "remove",
        v1::Action::Unspecified => "",
    }
}

/// Services as they are configured.
pub(super) fn services(of: &[v1::ServiceSettings]) -> String {
    let mut text = String::new();
    for service in of {
        let key = service.key.clone().unwrap_or_default();
        let _ = write!(
            text,
            "{} {} {}",
            key_text(&key),
            service.scheduler,
            method(service.method())
        );
        if !service.flags.is_empty() {
            let _ = write!(text, " flags {}", service.flags.join(","));
        }
        if let Some(persistence) = &service.persistence {
            let _ = write!(text, " persistence {} s", persistence.timeout_s);
            named(&mut text, "granularity", &persistence.granularity);
            named(&mut text, "engine", &persistence.engine);
        }
        named(&mut text, "lip pool", &service.lip_pool);
        named(&mut text, "helper", &service.helper);
        named(&mut text, "addresses", &service.addresses.join(","));
        if service.one_packet {
            text.push_str(" one packet");
        }
        if service.slow_start_s > 0 {
            let _ = write!(text, " slow start {} s", service.slow_start_s);
        }
        text.push('\n');
        for server in &service.servers {
            server_line(&mut text, server);
        }
    }
    text
}

fn server_line(text: &mut String, server: &v1::ServerSettings) {
    let _ = write!(
        text,
        "  {:<48}{:<8} weight {}",
        end_text(&server.address, server.port),
        method(server.method()),
        server.weight.unwrap_or(1)
    );
    for (word, value) in [("upper", server.upper), ("lower", server.lower)] {
        if value > 0 {
            let _ = write!(text, " {word} {value}");
        }
    }
    if let Some(tunnel) = &server.tunnel {
        match tunnel.kind() {
            v1::TunnelKind::Gre => text.push_str(" gre"),
            v1::TunnelKind::Gue => {
                let _ = write!(text, " gue {}", tunnel.port);
            }
            _ => text.push_str(" ipip"),
        }
        match tunnel.checksum() {
            v1::TunnelChecksum::Full => text.push_str(" checksum"),
            v1::TunnelChecksum::Remote => text.push_str(" remote checksum"),
            _ => {}
        }
    }
    text.push('\n');
}

fn named(text: &mut String, word: &str, value: &str) {
    if !value.is_empty() {
        let _ = write!(text, " {word} {value}");
    }
}

/// A method as it is typed.
pub(super) fn method(method: v1::Method) -> &'static str {
    match method {
        v1::Method::Nat => "nat",
        v1::Method::Dr => "dr",
        v1::Method::Tun => "tun",
        v1::Method::Fullnat => "fullnat",
        v1::Method::Unspecified => "-",
    }
}

/// Pools of local addresses.
pub(super) fn pools(of: &[v1::LipPool]) -> String {
    let rows = of.iter().map(|pool| {
        let v1::LipPool {
            name,
            first_port,
            last_port,
            ..
        } = pool;
        format!(
            "{name:<34}{first_port}-{last_port} {}\n",
            pool.addresses.join(" ")
        )
    });
    rows.collect()
}

/// Routes.
pub(super) fn routes(of: &[v1::Route]) -> String {
    let rows = of.iter().map(|route| {
        let mut row = format!("{:<44}", route.to);
        named(&mut row, "via", &route.via);
        named(&mut row, "port", &route.port);
        row + "\n"
    });
    rows.collect()
}

/// Marks, with the numbers that `uvs mark remove` takes.
pub(super) fn marks(of: &[v1::Mark]) -> String {
    let rows = (1..).zip(of).map(|(number, mark)| {
        let mut row = format!("{number:>4}  mark {}", mark.mark);
        named(&mut row, "port", &mark.port);
        named(&mut row, "source", &mark.source);
        named(&mut row, "destination", &mark.destination);
        let protocol = match mark.protocol() {
            v1::Protocol::Tcp => "tcp",
            v1::Protocol::Udp => "udp",
            v1::Protocol::Sctp => "sctp",
            v1::Protocol::Unspecified => "",
        };
        named(&mut row, "protocol", protocol);
        for (word, range) in [
            ("source-ports", mark.source_ports),
            ("destination-ports", mark.destination_ports),
        ] {
            if let Some(range) = range {
                let _ = write!(row, " {word} {}-{}", range.first, range.last);
            }
        }
        row + "\n"
    });
    rows.collect()
}

/// The director's own addresses.
pub(super) fn addresses(of: &[v1::PortAddresses]) -> String {
    let rows = of
        .iter()
        .map(|port| format!("{:<16}{}\n", port.port, port.addresses.join(" ")));
    rows.collect()
}

/// Timeouts.
pub(super) fn timeouts(of: &v1::Timeouts) -> String {
    let [tcp, tcp_fin, udp] = [of.tcp_s, of.tcp_fin_s, of.udp_s].map(Option::unwrap_or_default);
    format!("tcp {tcp} s, tcp-fin {tcp_fin} s, udp {udp} s\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Option<v1::ServiceKey> {
        Some(v1::ServiceKey {
            protocol: v1::Protocol::Tcp.into(),
            address: "10.0.0.100".to_owned(),
            port: 80,
            ..v1::ServiceKey::default()
        })
    }

    #[test]
    fn a_plan_tells_what_becomes_of_connections() {
        let plan = v1::Plan {
            summary: "1 servers removed".to_owned(),
            services: vec![v1::PlannedService {
                key: key(),
                connections_kept: 3,
                connections_cut: 2,
                slots_moved: Some(0.125),
                servers: vec![v1::PlannedServer {
                    address: "fd00::11".to_owned(),
                    port: 80,
                    action: v1::Action::Remove.into(),
                    connections: 2,
                }],
                ..v1::PlannedService::default()
            }],
            ..v1::Plan::default()
        };
        let pending = v1::Pending {
            revision: 4,
            left: Some(prost_types::Duration {
                seconds: 60,
                nanos: 0,
            }),
        };
        let text = told(4, Some(&plan), Some(&pending));
        let lines: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(lines[0].join(" "), "revision 4: 1 servers removed");
        assert_eq!(lines[2].join(" "), "tcp 10.0.0.100:80 5 3 2 12.5 %");
        assert_eq!(lines[3].join(" "), "remove [fd00::11]:80 2");
        assert!(text.ends_with("`uvs rollback 4`\n"), "{text}");
    }

    #[test]
    fn a_service_is_told_with_all_that_was_set() {
        let service = v1::ServiceSettings {
            key: key(),
            scheduler: "sh".to_owned(),
            flags: vec!["sh-port".to_owned()],
            method: v1::Method::Tun.into(),
            persistence: Some(v1::Persistence {
                timeout_s: 50,
                granularity: "255.255.255.0".to_owned(),
                engine: String::new(),
            }),
            servers: vec![v1::ServerSettings {
                address: "10.2.0.11".to_owned(),
                port: 80,
                weight: Some(3),
                method: v1::Method::Tun.into(),
                upper: 9,
                tunnel: Some(v1::Tunnel {
                    kind: v1::TunnelKind::Gue.into(),
                    port: 6080,
                    checksum: v1::TunnelChecksum::Full.into(),
                }),
                ..v1::ServerSettings::default()
            }],
            ..v1::ServiceSettings::default()
        };
        let text = services(&[service]);
        let words: Vec<&str> = text.split_whitespace().collect();
        assert_eq!(
            words.join(" "),
            "tcp 10.0.0.100:80 sh tun flags sh-port persistence 50 s granularity 255.255.255.0 \
             10.2.0.11:80 tun weight 3 upper 9 gue 6080 checksum"
        );
    }
}
