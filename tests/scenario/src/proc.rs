//! What `/proc/net` shows of IPVS, in the kernel's form.
//!
//! Source: recorded.

use cli::ipvsadm::listing::{Counters, ListedConnection, ListedService};
use cli::ipvsadm::{Mask, Method, Protocol, ServiceKey};
use std::net::{IpAddr, SocketAddr};

/// The kernel's names of the last words.
const NO_PORTS: &str = "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       ";

/// A file's lines, or `None` where it is none that is known.
#[must_use]
pub fn lines(
    path: &str,
    table_size: usize,
    services: &[ListedService],
    connections: &[ListedConnection],
) -> Option<Vec<String>> {
    match path.strip_prefix("/proc/net/")? {
        "ip_vs" => Some(services_file(table_size, services)),
        "ip_vs_conn" => {
            let head = format!("{NO_PORTS}Expires PEName PEData");
            let rows = connections.iter().map(|connection| {
                let engine = connection.engine.as_ref();
                let engine = engine.map_or(String::new(), |(name, data)| format!(" {name} {data}"));
                format!("{} {:>7}{engine}", ends(connection), connection.expires_s)
            });
            Some(std::iter::once(head).chain(rows).collect())
        }
        "ip_vs_conn_sync" => {
            let head = format!("{NO_PORTS}Origin Expires");
            let rows = connections.iter().map(|connection| {
                format!("{} LOCAL  {:>7}", ends(connection), connection.expires_s)
            });
            Some(std::iter::once(head).chain(rows).collect())
        }
        "ip_vs_stats" => Some(statistics_file(services)),
        _ => None,
    }
}

fn services_file(table_size: usize, services: &[ListedService]) -> Vec<String> {
    let mut lines = vec![
        format!("IP Virtual Server version 1.2.1 (size={table_size})"),
        "Prot LocalAddress:Port Scheduler Flags".to_owned(),
        "  -> RemoteAddress:Port Forward Weight ActiveConn InActConn".to_owned(),
    ];
    for listed in services {
        let service = &listed.service;
        let scheduler = &service.scheduler;
        let alone = if service.one_packet { "ops " } else { "" };
        let mut line = match service.key {
            ServiceKey::Mark { mark, .. } => format!("FWM  {mark:08X} {scheduler} {alone}"),
            ServiceKey::Address(protocol, address) => {
                let protocol = match protocol {
                    Protocol::Tcp => "TCP",
                    Protocol::Udp => "UDP",
                    Protocol::Sctp => "SCTP",
                };
                let end = joined(address);
                if address.is_ipv6() {
                    format!("{protocol}  {end} {scheduler} ")
                } else {
                    format!("{protocol}  {end} {scheduler} {alone} ")
                }
            }
        };
        if let Some(persistence) = service.persistence {
            let mask = match persistence.mask {
                Mask::Ipv4(mask) => mask,
                Mask::Ipv6(len) => u32::from(len).swap_bytes(),
            };
            line += &format!("persistent {} {mask:08X}", persistence.timeout_s);
        }
        lines.push(line);
        for server in &listed.servers {
            let forward = match server.server.method {
                Method::Nat | Method::FullNat => "Masq",
                Method::Dr => "Route",
                Method::Tun(_) => "Tunnel",
            };
            lines.push(format!(
                "  -> {}      {forward:<7} {:<6} {:<10} {:<10}",
                joined(server.server.address),
                server.server.weight,
                server.active,
                server.inactive
            ));
        }
    }
    lines
}

fn statistics_file(services: &[ListedService]) -> Vec<String> {
    let total = crate::tables::sum(services.iter().map(|listed| listed.total));
    let row = |counters: Counters| {
        format!(
            "{:8X} {:8X} {:8X} {:16X} {:16X}",
            counters.connections,
            counters.in_packets,
            counters.out_packets,
            counters.in_bytes,
            counters.out_bytes
        )
    };
    vec![
        "   Total Incoming Outgoing         Incoming         Outgoing".to_owned(),
        "   Conns  Packets  Packets            Bytes            Bytes".to_owned(),
        row(total),
        String::new(),
        " Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s".to_owned(),
        row(Counters::default()),
    ]
}

/// A connection's row up to its state.
fn ends(connection: &ListedConnection) -> String {
    let [client, vip, real] = [
        connection.client,
        connection.virtual_server,
        connection.real_server,
    ]
    .map(apart);
    format!(
        "{:<3} {client} {vip} {real} {:<11}",
        connection.protocol, connection.state
    )
}

fn joined(end: SocketAddr) -> String {
    match end.ip() {
        IpAddr::V4(address) => format!("{:08X}:{:04X}", address.to_bits(), end.port()),
        IpAddr::V6(_) => format!("[{}]:{:04X}", hex(end.ip()), end.port()),
    }
}

fn apart(end: SocketAddr) -> String {
    format!("{} {:04X}", hex(end.ip()), end.port())
}

fn hex(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => format!("{:08X}", address.to_bits()),
        IpAddr::V6(address) => {
            let words = address.segments().map(|word| format!("{word:04x}"));
            words.join(":")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_stands_in_the_kernels_columns() {
        let connection = ListedConnection {
            protocol: "TCP",
            expires_s: 59,
            state: "SYN_RECV",
            client: "10.64.0.7:40001".parse().unwrap(),
            virtual_server: "10.0.0.100:80".parse().unwrap(),
            real_server: "10.2.0.11:8080".parse().unwrap(),
            engine: None,
        };
        let shown = |path: &str| lines(path, 4096, &[], std::slice::from_ref(&connection));
        assert_eq!(
            shown("/proc/net/ip_vs_conn").unwrap()[1],
            "TCP 0A400007 9C41 0A000064 0050 0A02000B 1F90 SYN_RECV         59"
        );
        assert_eq!(
            shown("/proc/net/ip_vs_conn_sync").unwrap()[1],
            "TCP 0A400007 9C41 0A000064 0050 0A02000B 1F90 SYN_RECV    LOCAL       59"
        );
        assert!(shown("/proc/net/ip_vs_conn").unwrap()[0].ends_with("PEData"));
        assert!(shown("/proc/net/tcp").is_none());
    }
}
