//! The kernel's files about IPVS below `/proc`, as text.

use crate::tables::TABLE_SIZE;
use cli::ipvsadm::listing::{Counters, ListedConnection, ListedService};
use cli::ipvsadm::{Mask, Method, Protocol, ServiceKey};
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

/// The kernel counts persistence in these, a second has so many.
const TICKS_PER_SECOND: u32 = 100;

/// `/proc/net/ip_vs`. The kernel's services come in the order of its hash table.
///
/// Source: Linux net/netfilter/ipvs/ip_vs_ctl.c (`ip_vs_info_seq_show`).
#[must_use]
pub fn services(listed: &[ListedService]) -> Vec<String> {
    let mut lines = vec![
        format!("IP Virtual Server version 1.2.1 (size={TABLE_SIZE})"),
        "Prot LocalAddress:Port Scheduler Flags".to_owned(),
        "  -> RemoteAddress:Port Forward Weight ActiveConn InActConn".to_owned(),
    ];
    for listed in listed {
        lines.push(service(listed));
        for found in &listed.servers {
            let forward = match found.server.method {
                Method::Nat | Method::FullNat => "Masq",
                Method::Dr => "Route",
                Method::Tun(_) => "Tunnel",
            };
            let (weight, active, inactive) = (found.server.weight, found.active, found.inactive);
            lines.push(format!(
                "  -> {}      {forward:<7} {weight:<6} {active:<10} {inactive:<10}",
                end(found.server.address)
            ));
        }
    }
    lines
}

fn service(listed: &ListedService) -> String {
    let service = &listed.service;
    let one_packet = if service.one_packet { "ops " } else { "" };
    let mut line = match service.key {
        ServiceKey::Address(protocol, address) => {
            let protocol = match protocol {
                Protocol::Tcp => "TCP",
                Protocol::Udp => "UDP",
                Protocol::Sctp => "SCTP",
            };
            let blank = if address.is_ipv4() { " " } else { "" };
            let flags = if address.is_ipv4() { one_packet } else { "" };
            let name = &service.scheduler;
            format!("{protocol}  {} {name} {flags}{blank}", end(address))
        }
        ServiceKey::Mark { mark, .. } => {
            format!("FWM  {mark:08X} {} {one_packet}", service.scheduler)
        }
    };
    if let Some(persistence) = service.persistence {
        let timeout = persistence.timeout_s * TICKS_PER_SECOND;
        let mask = match persistence.mask {
            Mask::Ipv4(mask) => mask,
            Mask::Ipv6(len) => u32::from(len).swap_bytes(),
        };
        write!(line, "persistent {timeout} {mask:08X}").expect("a string takes everything");
    }
    line
}

/// `/proc/net/ip_vs_conn`, or `/proc/net/ip_vs_conn_sync` with `origin`.
///
/// Source: Linux net/netfilter/ipvs/ip_vs_conn.c (`ip_vs_conn_seq_show`, `ip_vs_conn_sync_seq_show`).
#[must_use]
pub fn connections(listed: &[ListedConnection], origin: bool) -> Vec<String> {
    let title = "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       ";
    let more = if origin {
        "Origin Expires"
    } else {
        "Expires PEName PEData"
    };
    let mut lines = vec![format!("{title}{more}")];
    lines.extend(listed.iter().map(|found| {
        let word = |end: SocketAddr| format!("{} {:04X}", address(end.ip()), end.port());
        let ends = [found.client, found.virtual_server, found.real_server].map(word);
        let start = format!(
            "{:<3} {} {:<11}",
            found.protocol,
            ends.join(" "),
            found.state
        );
        let expires = found.expires_s;
        match &found.engine {
            _ if origin => format!("{start} {:<6} {expires:>7}", "LOCAL"),
            Some((engine, data)) => format!("{start} {expires:>7} {engine} {data}"),
            None => format!("{start} {expires:>7}"),
        }
    }));
    lines
}

/// `/proc/net/ip_vs_stats`: all services together. What passes in a second is not told.
///
/// Source: Linux net/netfilter/ipvs/ip_vs_ctl.c (`ip_vs_stats_show`).
#[must_use]
pub fn statistics(listed: &[ListedService]) -> Vec<String> {
    let sum = |of: fn(&Counters) -> u64| listed.iter().map(|listed| of(&listed.total)).sum::<u64>();
    let row = |packets: [u64; 3], bytes: [u64; 2]| {
        let [connections, input, output] = packets;
        let [in_bytes, out_bytes] = bytes;
        format!("{connections:8X} {input:8X} {output:8X} {in_bytes:16X} {out_bytes:16X}")
    };
    vec![
        "   Total Incoming Outgoing         Incoming         Outgoing".to_owned(),
        "   Conns  Packets  Packets            Bytes            Bytes".to_owned(),
        row(
            [
                sum(|of| of.connections),
                sum(|of| of.in_packets),
                sum(|of| of.out_packets),
            ],
            [sum(|of| of.in_bytes), sum(|of| of.out_bytes)],
        ),
        String::new(),
        " Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s".to_owned(),
        row([0; 3], [0; 2]),
    ]
}

fn end(end: SocketAddr) -> String {
    match end.ip() {
        IpAddr::V4(_) => format!("{}:{:04X}", address(end.ip()), end.port()),
        IpAddr::V6(_) => format!("[{}]:{:04X}", address(end.ip()), end.port()),
    }
}

fn address(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => format!("{:08X}", address.to_bits()),
        IpAddr::V6(address) => address
            .segments()
            .map(|segment| format!("{segment:04x}"))
            .join(":"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cli::ipvsadm::listing::ListedServer;
    use cli::ipvsadm::{Command, parse};

    /// A service and a server, as their commands say.
    fn listed(service: &str, server: &str) -> ListedService {
        let words =
            |line: &str| -> Vec<String> { line.split_whitespace().map(str::to_owned).collect() };
        let Ok(Command::AddService(service)) = parse(&words(service)) else {
            panic!("{service}");
        };
        let Ok(Command::AddServer(_, server)) = parse(&words(server)) else {
            panic!("{server}");
        };
        let server = ListedServer {
            server,
            active: 2,
            inactive: 0,
            persistent: 0,
            total: Counters::default(),
            rate: Counters::default(),
        };
        ListedService {
            service,
            total: Counters::default(),
            rate: Counters::default(),
            servers: vec![server],
        }
    }

    #[test]
    fn services_are_shown_as_the_kernel_shows_them() {
        let services = [
            listed(
                "-A -u 10.0.0.100:53 -s rr -o",
                "-a -u 10.0.0.100:53 -r 10.2.0.11 -g",
            ),
            listed(
                "-A -t [fd00:a::100]:443 -s wlc -p 360",
                "-a -t [fd00:a::100]:443 -r [fd00:2::5]:443 -m -w 10",
            ),
            listed(
                "-A -f 1 -s sh -p 60 -M 255.255.0.0",
                "-a -f 1 -r 10.2.0.11 -i",
            ),
        ];
        let lines = super::services(&services);
        assert_eq!(
            lines[3..],
            [
                "UDP  0A000064:0035 rr ops  ",
                "  -> 0A02000B:0035      Route   1      2          0         ",
                "TCP  [fd00:000a:0000:0000:0000:0000:0000:0100]:01BB wlc persistent 36000 80000000",
                "  -> [fd00:0002:0000:0000:0000:0000:0000:0005]:01BB      Masq    10     2          0         ",
                "FWM  00000001 sh persistent 6000 FFFF0000",
                "  -> 0A02000B:0000      Tunnel  1      2          0         ",
            ]
        );
    }

    #[test]
    fn connections_are_shown_as_the_kernel_shows_them() {
        let found = ListedConnection {
            local: None,
            protocol: "UDP",
            expires_s: 118,
            state: "UDP".into(),
            client: "10.64.0.1:10002".parse().expect("an address"),
            virtual_server: "10.0.0.100:80".parse().expect("an address"),
            real_server: "10.2.0.12:80".parse().expect("an address"),
            engine: Some(("sip".to_owned(), "c1".to_owned())),
        };
        let start = "UDP 0A400001 2712 0A000064 0050 0A02000C 0050 UDP        ";
        let lines = connections(std::slice::from_ref(&found), false);
        assert_eq!(lines[1], format!("{start}     118 sip c1"));
        let lines = connections(&[found], true);
        assert_eq!(lines[1], format!("{start} LOCAL      118"));
    }
}
