//! The listings of `ipvsadm` 1.31, byte for byte, from plain values.
//!
//! Names are looked up by the caller ([`Names`]). Services come by mark, family, protocol, address and port,
//! servers by address and port.
//!
//! Differs from IPVS: ipvsadm 1.31 subtracts addresses to compare them, so that two that lie half of the address space apart
//! come in the wrong order, and in none that can be relied on; here they are in order.

pub use super::counts::Counters;

use super::counts::fields;
use super::{
    Columns, Daemon, List, Mask, Method, Names, Protocol, Role, Server, Service, ServiceKey,
    Subject, Tunnel, TunnelChecksum,
};
use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// A service with what it counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedService {
    /// As it was configured.
    pub service: Service,
    /// Since it was added.
    pub total: Counters,
    /// In a second.
    pub rate: Counters,
    /// In the order that `--nosort` shows them in: newest first.
    pub servers: Vec<ListedServer>,
}

/// A server with what it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedServer {
    /// As it was configured.
    pub server: Server,
    /// ActiveConn.
    pub active: u32,
    /// InActConn.
    pub inactive: u32,
    /// Templates.
    pub persistent: u32,
    /// Since it was added.
    pub total: Counters,
    /// In a second.
    pub rate: Counters,
}

/// A connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedConnection {
    /// "TCP", "UDP", "SCTP", "ICMP", or "IP" for a mark's template.
    pub protocol: &'static str,
    /// Seconds left.
    pub expires_s: u32,
    /// Its state.
    pub state: Cow<'static, str>,
    /// Client.
    pub client: SocketAddr,
    /// Virtual service.
    pub virtual_server: SocketAddr,
    /// Real server.
    pub real_server: SocketAddr,
    /// What the server takes for its client: with FULLNAT.
    pub local: Option<SocketAddr>,
    /// The persistence engine, and what it made of the packet.
    pub engine: Option<(String, String)>,
}

/// `-L`: services with their servers. `table_size` is that of the connection table, which the first line tells.
///
/// Where one service was asked for, `services` is that one alone, and the first line is left out.
#[must_use]
pub fn services(
    list: &List,
    services: &[ListedService],
    table_size: usize,
    names: &Names,
) -> String {
    let mut text = String::new();
    if list.subject == Subject::Services(None) {
        line(
            &mut text,
            format_args!("IP Virtual Server version 1.2.1 (size={table_size})"),
        );
    }
    text.push_str(titles(list.columns));
    let mut services: Vec<_> = services.iter().collect();
    if list.sorted {
        services.sort_by_key(|listed| service_order(&listed.service.key));
    }
    for listed in services {
        let name = service_name(&listed.service.key, names);
        match counters(list.columns, &listed.total, &listed.rate) {
            Some(counters) => line(
                &mut text,
                format_args!("{name:<33}{}", fields(counters, list.exact)),
            ),
            None => line(
                &mut text,
                format_args!("{name} {}", service_words(&listed.service)),
            ),
        }
        let protocol = listed.service.key.protocol();
        for server in ordered_servers(&listed.servers, list.sorted) {
            let name = names.of(server.server.address, protocol);
            line(
                &mut text,
                format_args!("{}", server_row(list, server, &name)),
            );
        }
    }
    text
}

/// `-S`: the commands that make the services again; with `full`, the servers' thresholds too, which ipvsadm 1.31 leaves out.
#[must_use]
pub fn save(services: &[ListedService], full: bool, names: &Names) -> String {
    let mut text = String::new();
    let mut services: Vec<_> = services.iter().collect();
    services.sort_by_key(|listed| service_order(&listed.service.key));
    for listed in services {
        let service = service_argument(&listed.service.key, names);
        line(
            &mut text,
            format_args!("-A {service} {}", service_options(&listed.service)),
        );
        let protocol = listed.service.key.protocol();
        for listed in ordered_servers(&listed.servers, true) {
            let Server {
                address,
                method,
                weight,
                upper,
                lower,
            } = listed.server;
            let address = names.of(address, protocol);
            let (option, tunnel) = method_options(method);
            let mut row = format!("-a {service} -r {address} {option} -w {weight}{tunnel}");
            for (option, threshold) in [("-x", upper), ("-y", lower)] {
                if full && threshold > 0 {
                    // Writing to a String cannot fail.
                    let _ = write!(row, " {option} {threshold}");
                }
            }
            line(&mut text, format_args!("{row}"));
        }
    }
    text
}

/// `-L -c`: connections, in the order given.
#[must_use]
pub fn connections(list: &List, connections: &[ListedConnection], names: &Names) -> String {
    let mut text = String::from("IPVS connection entries\n");
    text.push_str("pro expire state       source             virtual            destination");
    text.push_str(if list.engines {
        "        pe name          pe_data\n"
    } else {
        "\n"
    });
    for connection in connections {
        let ListedConnection {
            protocol, state, ..
        } = connection;
        let [client, virtual_server, mut real_server] = [
            connection.client,
            connection.virtual_server,
            connection.real_server,
        ]
        .map(|end| names.of(end, named_protocol(protocol)));
        if let Some(local) = connection.local {
            let _ = write!(real_server, " laddr {local}");
        }
        let (minutes, seconds) = (connection.expires_s / 60, connection.expires_s % 60);
        let expire = format!("{minutes:02}:{seconds:02}");
        let row =
            format!("{protocol:<3} {expire:<6} {state:<11} {client:<18} {virtual_server:<18}");
        match &connection.engine {
            Some((engine, data)) if list.engines => {
                line(
                    &mut text,
                    format_args!("{row} {real_server:<16} {engine:<18} {data}"),
                );
            }
            _ => line(&mut text, format_args!("{row} {real_server}")),
        }
    }
    text
}

fn named_protocol(name: &str) -> Option<Protocol> {
    match name {
        "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        "SCTP" => Some(Protocol::Sctp),
        _ => None,
    }
}

/// `-L --timeout`, seconds.
#[must_use]
pub fn timeouts(tcp: u32, tcp_fin: u32, udp: u32) -> String {
    format!("Timeout (tcp tcpfin udp): {tcp} {tcp_fin} {udp}\n")
}

/// `-L --daemon`: daemons that run, with everything that was left to the director filled in.
#[must_use]
pub fn daemons(daemons: &[Daemon]) -> String {
    let mut text = String::new();
    for daemon in daemons {
        let role = match daemon.role {
            Role::Master => "master",
            Role::Backup => "backup",
        };
        let group = daemon
            .group
            .unwrap_or(IpAddr::V4(Ipv4Addr::new(224, 0, 0, 81)));
        let Daemon {
            interface,
            sync_id,
            len_max,
            port,
            ttl,
            ..
        } = daemon;
        line(
            &mut text,
            format_args!(
                "{role} sync daemon (mcast={interface}, syncid={sync_id}, maxlen={len_max}, group={group}, port={port}, ttl={ttl})"
            ),
        );
    }
    text
}

fn line(text: &mut String, row: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{row}");
}

fn titles(columns: Columns) -> &'static str {
    match columns {
        Columns::Plain => {
            "Prot LocalAddress:Port Scheduler Flags\n  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n"
        }
        Columns::Statistics => {
            "Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes\n  -> RemoteAddress:Port\n"
        }
        Columns::Rates => {
            "Prot LocalAddress:Port                 CPS    InPPS   OutPPS    InBPS   OutBPS\n  -> RemoteAddress:Port\n"
        }
        Columns::Thresholds => {
            "Prot LocalAddress:Port            Uthreshold Lthreshold ActiveConn InActConn \n  -> RemoteAddress:Port\n"
        }
        Columns::Persistent => {
            "Prot LocalAddress:Port            Weight    PersistConn ActiveConn InActConn \n  -> RemoteAddress:Port\n"
        }
        Columns::Tunnels => {
            "Prot LocalAddress:Port Scheduler Flags\n  -> RemoteAddress:Port           Forward TunnelInfo    Weight ActiveConn InActConn\n"
        }
    }
}

/// The protocol as a listing names it.
fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
    }
}

/// A mark as ipvsadm 1.31 shows and sorts it: as a signed number.
fn signed(mark: u32) -> i32 {
    i32::from_ne_bytes(mark.to_ne_bytes())
}

fn service_name(key: &ServiceKey, names: &Names) -> String {
    match key {
        ServiceKey::Address(protocol, address) => {
            let address = names.of(*address, Some(*protocol));
            format!("{:<4} {address}", protocol_name(*protocol))
        }
        ServiceKey::Mark { mark, ipv6: false } => format!("FWM  {}", signed(*mark)),
        ServiceKey::Mark { mark, ipv6: true } => format!("FWM  {} IPv6", signed(*mark)),
    }
}

fn service_order(key: &ServiceKey) -> (i32, bool, Option<(Protocol, SocketAddr)>) {
    match key {
        ServiceKey::Address(protocol, address) => {
            (0, address.is_ipv6(), Some((*protocol, *address)))
        }
        ServiceKey::Mark { mark, ipv6 } => (signed(*mark), *ipv6, None),
    }
}

/// Scheduler, flags, persistence, engine: what stands behind a service's name.
fn service_words(service: &Service) -> String {
    let mut words = service.scheduler.clone();
    if let Some(flags) = flag_names(service) {
        let _ = write!(words, " ({flags})");
    }
    if let Some(persistence) = service.persistence {
        let _ = write!(words, " persistent {}", persistence.timeout_s);
        if let Some(mask) = partial_mask(persistence.mask) {
            let _ = write!(words, " mask {mask}");
        }
        if let Some(engine) = &service.engine {
            let _ = write!(words, " pe {engine}");
        }
    }
    if service.one_packet {
        words.push_str(" ops");
    }
    if let Some(local) = &service.local {
        let _ = write!(words, " laddr {local}");
    }
    words
}

/// The names of the flags that are set; none, but a list, where the scheduler has no name for them.
fn flag_names(service: &Service) -> Option<String> {
    if service.flags == [false; 3] {
        return None;
    }
    let names: &[&str] = match service.scheduler.as_str() {
        "sh" => &["sh-fallback", "sh-port"],
        "mh" => &["mh-fallback", "mh-port"],
        _ => &["flag-1", "flag-2", "flag-3"],
    };
    let set = names.iter().zip(service.flags).filter(|(_, set)| *set);
    Some(set.map(|(name, _)| *name).collect::<Vec<_>>().join(","))
}

/// The mask, where it is not the whole address.
fn partial_mask(mask: Mask) -> Option<String> {
    match mask {
        Mask::Ipv4(u32::MAX) | Mask::Ipv6(128) => None,
        Mask::Ipv4(mask) => Some(Ipv4Addr::from_bits(mask).to_string()),
        Mask::Ipv6(len) => Some(len.to_string()),
    }
}

fn service_argument(key: &ServiceKey, names: &Names) -> String {
    let (option, address) = match key {
        ServiceKey::Address(Protocol::Tcp, address) => ("-t", address),
        ServiceKey::Address(Protocol::Udp, address) => ("-u", address),
        ServiceKey::Address(Protocol::Sctp, address) => ("--sctp-service", address),
        ServiceKey::Mark { mark, ipv6: false } => return format!("-f {}", signed(*mark)),
        ServiceKey::Mark { mark, ipv6: true } => return format!("-f {} -6", signed(*mark)),
    };
    format!("{option} {}", names.of(*address, key.protocol()))
}

fn service_options(service: &Service) -> String {
    let mut options = format!("-s {}", service.scheduler);
    if let Some(persistence) = service.persistence {
        let _ = write!(options, " -p {}", persistence.timeout_s);
        if let Some(mask) = partial_mask(persistence.mask) {
            let _ = write!(options, " -M {mask}");
        }
    }
    if let Some(engine) = &service.engine {
        let _ = write!(options, " --pe {engine}");
    }
    if service.one_packet {
        options.push_str(" -o");
    }
    if let Some(flags) = flag_names(service) {
        let _ = write!(options, " -b {flags}");
    }
    if let Some(local) = &service.local {
        let _ = write!(options, " --laddr {local}");
    }
    options
}

fn ordered_servers(servers: &[ListedServer], sorted: bool) -> Vec<&ListedServer> {
    let mut servers: Vec<_> = servers.iter().collect();
    if sorted {
        servers.sort_by(|a, b| server_order(&a.server.address, &b.server.address));
    }
    servers
}

/// IPv6 before IPv4, as ipvsadm 1.31 shows the addresses that are in use.
fn server_order(a: &SocketAddr, b: &SocketAddr) -> Ordering {
    let key = |address: &SocketAddr| (address.is_ipv4(), address.ip(), address.port());
    key(a).cmp(&key(b))
}

fn server_row(list: &List, listed: &ListedServer, name: &str) -> String {
    let Server {
        method,
        weight,
        upper,
        lower,
        ..
    } = listed.server;
    let name = format!("  -> {name:<28}");
    if let Some(counters) = counters(list.columns, &listed.total, &listed.rate) {
        return format!("{name}{}", fields(counters, list.exact));
    }
    let ListedServer {
        active,
        inactive,
        persistent,
        ..
    } = *listed;
    let forward = method_name(method);
    match list.columns {
        Columns::Thresholds => {
            format!("{name} {upper:<10} {lower:<10} {active:<10} {inactive:<10}")
        }
        Columns::Persistent => {
            format!("{name} {weight:<9} {persistent:<11} {active:<10} {inactive:<10}")
        }
        Columns::Tunnels => {
            let tunnel = tunnel_words(method);
            format!("{name} {forward:<7} {tunnel:<13} {weight:<6} {active:<10} {inactive:<10}")
        }
        _ => format!("{name} {forward:<7} {weight:<6} {active:<10} {inactive:<10}"),
    }
}

fn method_name(method: Method) -> &'static str {
    match method {
        Method::Nat => "Masq",
        Method::Dr => "Route",
        Method::Tun(_) => "Tunnel",
        Method::FullNat => "FullNat",
    }
}

fn tunnel_words(method: Method) -> String {
    let checksum = |checksum| match checksum {
        TunnelChecksum::None => "-c",
        TunnelChecksum::Plain => "+c",
        TunnelChecksum::Remote => "r+c",
    };
    match method {
        Method::Tun(Tunnel::Ipip) => "ipip".to_owned(),
        Method::Tun(Tunnel::Gre(sum)) => format!("gre:{}", checksum(sum)),
        Method::Tun(Tunnel::Gue {
            port,
            checksum: sum,
        }) => format!("gue:{port}:{}", checksum(sum)),
        Method::Nat | Method::Dr | Method::FullNat => "n/a".to_owned(),
    }
}

/// The options that stand before and behind the weight.
fn method_options(method: Method) -> (&'static str, String) {
    let checksum = |checksum| match checksum {
        TunnelChecksum::None => "--tun-nocsum",
        TunnelChecksum::Plain => "--tun-csum",
        TunnelChecksum::Remote => "--tun-remcsum",
    };
    match method {
        Method::Nat => ("-m", String::new()),
        Method::Dr => ("-g", String::new()),
        Method::FullNat => ("--fullnat", String::new()),
        Method::Tun(Tunnel::Ipip) => ("-i", " --tun-type ipip".to_owned()),
        Method::Tun(Tunnel::Gre(sum)) => ("-i", format!(" --tun-type gre {}", checksum(sum))),
        Method::Tun(Tunnel::Gue {
            port,
            checksum: sum,
        }) => (
            "-i",
            format!(" --tun-type gue --tun-port {port} {}", checksum(sum)),
        ),
    }
}

fn counters(columns: Columns, total: &Counters, rate: &Counters) -> Option<Counters> {
    match columns {
        Columns::Statistics => Some(*total),
        Columns::Rates => Some(*rate),
        _ => None,
    }
}
