//! The real servers: the way there, and whether what they answer comes back.

use super::report::Report;
use crate::explain;
use control::config::Configuration;
use proto::v1;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Packets to a server after which something should have come back.
const ENOUGH: u64 = 10;
/// Findings of one kind that are told one by one.
const TOLD: usize = 8;

/// The way to each of them.
pub(super) fn ways(configuration: &Configuration, report: &mut Report) {
    let routes = configuration.routing();
    let services = configuration.services.iter();
    let servers = services.flat_map(|service| &service.servers);
    let servers: BTreeSet<IpAddr> = servers.map(|server| server.address.ip()).collect();
    let mut ways: BTreeMap<String, usize> = BTreeMap::new();
    for server in servers {
        match routes.lookup(server) {
            None => report.fail(
                "servers",
                format!("no way to {server}"),
                "an address in its network for a port, or a [[route]] to it",
            ),
            Some((port, next)) => {
                let port = &configuration.ports[usize::from(port.0)].name;
                let how = match next == server {
                    true => format!("on the link of port {port}"),
                    false => format!("by port {port} and {next}"),
                };
                *ways.entry(how).or_default() += 1;
            }
        }
    }
    for (how, count) in ways {
        let servers = if count == 1 { "server" } else { "servers" };
        report.ok("servers", format!("{count} {servers} {how}"));
    }
}

/// Whether what they answer comes back by the director, where the method needs that: as its counters tell.
pub(super) fn answers(services: &[v1::Service], report: &mut Report) {
    let mut silent = Vec::new();
    let mut heard = 0;
    for service in services {
        let key = service.key.as_ref().map(explain::service);
        let key = key.unwrap_or_default();
        for server in &service.servers {
            let is_needed = matches!(server.method(), v1::Method::Nat | v1::Method::Fullnat);
            if !is_needed || server.in_packets < ENOUGH {
                continue;
            }
            if server.out_packets > 0 {
                heard += 1;
            } else {
                silent.push(format!(
                    "{key}: {} got {} packets, and none came back by the director",
                    server.address, server.in_packets
                ));
            }
        }
    }
    let left = silent.len().saturating_sub(TOLD);
    for finding in silent.into_iter().take(TOLD) {
        let advice = "with method \"nat\" the server's way to the clients must be by the director's address on its network (its default route); \
                      or nothing listens there; \"fullnat\" needs no such route";
        report.warn("answers", finding, advice);
    }
    if left > 0 {
        report.note("answers", format!("and {left} servers more"));
    }
    if heard > 0 {
        report.ok(
            "answers",
            format!("of {heard} servers come back by the director"),
        );
    }
}

/// Hosts on the links that the director asked for in vain.
pub(super) fn neighbours(status: &v1::GetStatusResponse, report: &mut Report) {
    let failed = status
        .neighbours
        .iter()
        .filter(|host| host.state == "failed");
    for host in failed.take(TOLD) {
        report.warn(
            "neighbours",
            format!(
                "{} does not answer on the link of port {}",
                host.address, host.port
            ),
            "is it up, in that network, and on that link?",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    fn found(report: &Report) -> Vec<(Verdict, &str)> {
        let findings = report.findings.iter();
        findings
            .map(|of| (of.verdict, of.finding.as_str()))
            .collect()
    }

    #[test]
    fn servers_are_told_by_their_ways() {
        let text = r#"
[port.lan]
driver = "memory"
addresses = ["10.1.0.1/24"]
[[route]]
to = "10.9.0.0/16"
via = "10.1.0.254"
[[service]]
listen = "tcp 10.1.0.100:80"
method = "nat"
server = [{ address = "10.1.0.11" }, { address = "10.1.0.12" }, { address = "10.9.1.1" }]
"#;
        let configuration = Configuration::parse("t", text).unwrap().configuration;
        let mut report = Report::default();
        ways(&configuration, &mut report);
        assert_eq!(
            found(&report),
            [
                (Verdict::Ok, "1 server by port lan and 10.1.0.254"),
                (Verdict::Ok, "2 servers on the link of port lan"),
            ]
        );
    }

    #[test]
    fn a_server_by_nat_whose_answers_go_elsewhere_is_told() {
        let server = |last: u8, method: v1::Method, packets: [u64; 2]| v1::RealServer {
            address: format!("10.1.0.{last}"),
            method: method.into(),
            in_packets: packets[0],
            out_packets: packets[1],
            ..v1::RealServer::default()
        };
        let key = v1::ServiceKey {
            protocol: v1::Protocol::Tcp.into(),
            address: "10.1.0.100".to_owned(),
            port: 80,
            ..v1::ServiceKey::default()
        };
        let service = v1::Service {
            key: Some(key),
            servers: vec![
                server(11, v1::Method::Nat, [10, 0]),
                server(12, v1::Method::Nat, [9, 0]),
                server(13, v1::Method::Dr, [99, 0]),
                server(14, v1::Method::Fullnat, [99, 1]),
            ],
            ..v1::Service::default()
        };
        let mut report = Report::default();
        answers(&[service], &mut report);
        let silent =
            "tcp 10.1.0.100:80: 10.1.0.11 got 10 packets, and none came back by the director";
        let heard = "of 1 servers come back by the director";
        assert_eq!(
            found(&report),
            [(Verdict::Warning, silent), (Verdict::Ok, heard)]
        );
    }

    #[test]
    fn a_host_that_was_asked_for_in_vain_is_told() {
        let host = |state: &str| v1::Neighbour {
            port: "lan".to_owned(),
            address: "10.1.0.11".to_owned(),
            state: state.to_owned(),
            ..v1::Neighbour::default()
        };
        let status = v1::GetStatusResponse {
            neighbours: vec![host("reachable"), host("failed"), host("stale")],
            ..v1::GetStatusResponse::default()
        };
        let mut report = Report::default();
        neighbours(&status, &mut report);
        let told = "10.1.0.11 does not answer on the link of port lan";
        assert_eq!(found(&report), [(Verdict::Warning, told)]);
    }
}
