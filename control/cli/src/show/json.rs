//! Status and services as JSON.

use crate::endpoint::{joined, named};
use proto::v1::{
    GetStatusResponse, Link, Method, Port, Rates, RealServer, Service, Traffic, Worker,
};
use serde_json::{Map, Value, json};

/// `uvs list --json`.
pub(super) fn services(services: &[Service]) -> Value {
    services.iter().map(service).collect()
}

fn service(service: &Service) -> Value {
    let key = service.key.clone().unwrap_or_default();
    json!({
        "service": named(&key),
        "protocol": key.protocol().as_str_name().trim_start_matches("PROTOCOL_").to_lowercase(),
        "address": (key.mark == 0).then_some(&key.address),
        "port": (key.mark == 0).then_some(key.port),
        "mark": (key.mark != 0).then_some(key.mark),
        "scheduler": service.scheduler,
        "flags": service.flags,
        "one_packet": service.one_packet,
        "persistence": service.persistence.as_ref().map(|persistence| json!({
            "timeout_s": persistence.timeout_s,
            "granularity": persistence.granularity,
            "engine": persistence.engine,
        })),
        "helper": service.helper,
        "slow_start_s": service.slow_start_s,
        "traffic": service.traffic.as_ref().map(traffic),
        "rates": rates(service.rates.as_ref()),
        "servers": service.servers.iter().map(server).collect::<Vec<_>>(),
    })
}

fn server(server: &RealServer) -> Value {
    let counted = Traffic {
        connections: server.connections,
        in_packets: server.in_packets,
        in_bytes: server.in_bytes,
        out_packets: server.out_packets,
        out_bytes: server.out_bytes,
    };
    json!({
        "server": joined(&server.address, server.port),
        "method": match server.method() {
            Method::Nat => "nat",
            Method::Dr => "dr",
            Method::Tun => "tun",
            Method::Fullnat => "fullnat",
            Method::Unspecified => "",
        },
        "weight": server.weight,
        "active": server.active,
        "inactive": server.inactive,
        "persistent": server.persistent,
        "upper": server.upper,
        "lower": server.lower,
        "traffic": traffic(&counted),
        "rates": rates(server.rates.as_ref()),
    })
}

fn traffic(traffic: &Traffic) -> Value {
    json!({
        "connections": traffic.connections,
        "in_packets": traffic.in_packets,
        "in_bytes": traffic.in_bytes,
        "out_packets": traffic.out_packets,
        "out_bytes": traffic.out_bytes,
    })
}

fn rates(rates: Option<&Rates>) -> Value {
    let rates = rates.copied().unwrap_or_default();
    json!({
        "connections": rates.connections,
        "in_packets": rates.in_packets,
        "in_bytes": rates.in_bytes,
        "out_packets": rates.out_packets,
        "out_bytes": rates.out_bytes,
    })
}

/// `uvs status --json`.
pub(super) fn status(status: &GetStatusResponse) -> Value {
    let drops = status.drops.iter();
    let drops: Map<_, _> = drops
        .map(|drop| (drop.reason.clone(), drop.packets.into()))
        .collect();
    json!({
        "version": status.version,
        "uptime_ms": status.uptime_ms,
        "configuration_version": status.configuration_version,
        "workers": status.workers.iter().map(worker).collect::<Vec<_>>(),
        "ports": status.ports.iter().map(port).collect::<Vec<_>>(),
        "tables": status.tables.iter().map(|table| json!({
            "family": table.family,
            "capacity": table.capacity,
            "connections": table.connections,
            "half_open": table.half_open,
            "half_open_limit": table.half_open_limit,
            "refused_full": table.refused_full,
            "refused_half_open": table.refused_half_open,
            "bytes": table.bytes,
        })).collect::<Vec<_>>(),
        "drops": drops,
        "lip_ports": status.lip_ports.as_ref().map(|ports| json!({
            "capacity": ports.capacity,
            "in_use": ports.in_use,
        })),
        "neighbours": status.neighbours.iter().map(|neighbour| json!({
            "port": neighbour.port,
            "address": neighbour.address,
            "mac": neighbour.mac,
            "state": neighbour.state,
        })).collect::<Vec<_>>(),
        "warnings": status.warnings,
        "table_file": status.table_file.as_ref().map(|file| json!({
            "path": file.path,
            "adopted": file.adopted,
            "refused": file.refused,
            "took_ms": file.took_ms,
        })),
    })
}

fn worker(worker: &Worker) -> Value {
    json!({
        "index": worker.index,
        "running": worker.running,
        "received": worker.received,
        "forwarded": worker.forwarded,
        "replied": worker.replied,
        "exceptions": worker.exceptions,
        "waiting": worker.waiting,
        "dropped": worker.dropped,
        "connections": worker.connections,
        "bursts": worker.bursts,
        "sleeps": worker.sleeps,
        "receive_missed": worker.receive_missed,
        "transmit_errors": worker.transmit_errors,
    })
}

fn port(port: &Port) -> Value {
    let statistics = port.statistics.iter();
    let statistics: Map<_, _> = statistics
        .map(|one| (one.name.clone(), one.value.into()))
        .collect();
    json!({
        "name": port.name,
        "driver": port.driver,
        "mac": port.mac,
        "mtu": port.mtu,
        "addresses": port.addresses,
        "mode": port.mode,
        "link": match port.link() {
            Link::Up => "up",
            Link::Down => "down",
            Link::Gone => "gone",
            Link::Unspecified => "",
        },
        "receive_missed": port.receive_missed,
        "transmit_errors": port.transmit_errors,
        "statistics": statistics,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::v1::{Drop, ServiceKey};

    #[test]
    fn what_programs_look_for_is_there() {
        let service = Service {
            key: Some(ServiceKey {
                protocol: proto::v1::Protocol::Tcp.into(),
                address: "10.0.0.100".to_owned(),
                port: 80,
                ..ServiceKey::default()
            }),
            servers: vec![RealServer {
                address: "fd00::11".to_owned(),
                port: 80,
                rates: Some(Rates {
                    in_packets: 7,
                    ..Rates::default()
                }),
                ..RealServer::default()
            }],
            ..Service::default()
        };
        let value = services(&[service]);
        assert_eq!(value[0]["protocol"], "tcp");
        assert_eq!(value[0]["servers"][0]["server"], "[fd00::11]:80");
        assert_eq!(value[0]["servers"][0]["rates"]["in_packets"], 7);
        let value = status(&GetStatusResponse {
            drops: vec![Drop {
                reason: "no-server".to_owned(),
                packets: 3,
            }],
            ..GetStatusResponse::default()
        });
        assert_eq!(value["drops"]["no-server"], 3);
    }
}
