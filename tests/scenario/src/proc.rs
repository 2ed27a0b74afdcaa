//! The kernel's files about IPVS below `/proc`, as text.

use crate::tables::TABLE_SIZE;
use cli::ipvsadm::listing::{ListedConnection, ListedService};
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
