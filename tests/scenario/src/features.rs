//! What uvs cannot do yet, a function each: whoever adds it to the director connects it here, and its complaint goes.

use crate::kernel::{KernelService, stays_here};
use cli::ipvsadm::{Daemon, Method, Protocol, Server, Service, ServiceKey, Tunnel};
use control::config;
use scheduler::Options;

/// Kernel modules, and what they do.
const MODULES: [(&str, &str); 2] = [("ip_vs_ftp", "FTP helper"), ("ip_vs_pe_sip", "")];

/// The kernel's settings that matter, and the values by which uvs behaves. All others are taken as they are.
const SETTINGS: [(&str, &str); 9] = [
    ("conn_reuse_mode", "1"),
    ("expire_nodest_conn", "0"),
    ("expire_quiescent_template", "0"),
    ("nat_icmp_send", "0"),
    ("pmtu_disc", "1"),
    ("secure_tcp", "0"),
    ("sloppy_tcp", "0"),
    ("sync_threshold", "3\t50"),
    ("sync_refresh_period", "0"),
];

/// The services that uvs is configured with, and what it cannot do of what was asked for.
#[must_use]
pub fn services(known: &[KernelService]) -> (Vec<config::Service>, Vec<String>) {
    let mut missing = Vec::new();
    let services = known
        .iter()
        .filter_map(|known| service(known, &mut missing))
        .collect();
    missing.dedup();
    (services, missing)
}

fn service(known: &KernelService, missing: &mut Vec<String>) -> Option<config::Service> {
    let service = &known.service;
    persistence(service, missing);
    one_packet(service, missing);
    engine(service, missing);
    let listen = listen(service, missing)?;
    let Some(scheduler) = scheduler::NAMES
        .iter()
        .find(|name| **name == service.scheduler)
    else {
        missing.push(format!("scheduler {}", service.scheduler));
        return None;
    };
    let [first, second, _] = service.flags;
    let (sh, mh) = (*scheduler == "sh", *scheduler == "mh");
    let servers = known
        .servers
        .iter()
        .filter_map(|known| server(known, missing))
        .collect();
    Some(config::Service {
        listen,
        scheduler,
        flags: Options {
            sh_fallback: sh && first,
            sh_port: sh && second,
            mh_fallback: mh && first,
            mh_port: mh && second,
            ..Options::default()
        },
        method: conntrack::Method::Nat,
        lip_pool: None,
        servers,
    })
}

/// What clients address: TCP or UDP, one port.
fn listen(service: &Service, missing: &mut Vec<String>) -> Option<config::Listen> {
    let (protocol, address) = match service.key {
        ServiceKey::Mark { .. } => {
            missing.push("firewall marks".to_owned());
            return None;
        }
        ServiceKey::Address(_, address) if address.port() == 0 => {
            missing.push("services of all ports".to_owned());
            return None;
        }
        ServiceKey::Address(Protocol::Sctp, _) => {
            missing.push("SCTP".to_owned());
            return None;
        }
        ServiceKey::Address(Protocol::Tcp, address) => (config::Protocol::Tcp, address),
        ServiceKey::Address(Protocol::Udp, address) => (config::Protocol::Udp, address),
    };
    Some(config::Listen { protocol, address })
}

fn persistence(service: &Service, missing: &mut Vec<String>) {
    if service.persistence.is_some() {
        missing.push("persistence".to_owned());
    }
}

fn one_packet(service: &Service, missing: &mut Vec<String>) {
    if service.one_packet {
        missing.push("one-packet scheduling".to_owned());
    }
}

fn engine(service: &Service, missing: &mut Vec<String>) {
    if let Some(engine) = &service.engine {
        missing.push(format!("persistence engine {engine}"));
    }
}

fn server(server: &Server, missing: &mut Vec<String>) -> Option<config::Server> {
    if stays_here(server) {
        missing.push("a server that is the director itself".to_owned());
        return None;
    }
    thresholds(server, missing);
    Some(config::Server {
        address: server.address,
        weight: weight(server, missing),
        method: method(server, missing)?,
    })
}

fn thresholds(server: &Server, missing: &mut Vec<String>) {
    if (server.upper, server.lower) != (0, 0) {
        missing.push("connection thresholds".to_owned());
    }
}

fn weight(server: &Server, missing: &mut Vec<String>) -> u16 {
    u16::try_from(server.weight).unwrap_or_else(|_| {
        missing.push(format!("a weight of {}", server.weight));
        u16::MAX
    })
}

fn method(server: &Server, missing: &mut Vec<String>) -> Option<conntrack::Method> {
    let kind = match server.method {
        Method::Nat => return Some(conntrack::Method::Nat),
        Method::Dr => return Some(conntrack::Method::Dr),
        Method::Tun(Tunnel::Ipip) => return Some(conntrack::Method::Tun),
        Method::Tun(Tunnel::Gre(_)) => "GRE tunnels",
        Method::Tun(Tunnel::Gue { .. }) => "GUE tunnels",
        Method::FullNat => "FULLNAT from ipvsadm",
    };
    missing.push(kind.to_owned());
    None
}

/// What uvs cannot do of a setting below `net.ipv4.vs`.
#[must_use]
pub fn setting(name: &str, value: &str) -> Option<String> {
    let known = SETTINGS.iter().find(|(known, _)| *known == name);
    known
        .filter(|(_, same)| *same != value)
        .map(|_| format!("{name} = {value}"))
}

/// The value of a setting that nobody set.
#[must_use]
pub fn default_setting(name: &str) -> Option<&'static str> {
    let known = SETTINGS.iter().find(|(known, _)| *known == name);
    let rest = [
        ("sync_version", "1"),
        ("sync_ports", "1"),
        ("sync_persist_mode", "0"),
    ];
    known
        .copied()
        .or_else(|| rest.into_iter().find(|(known, _)| *known == name))
        .map(|(_, value)| value)
}

/// What uvs cannot do of a daemon.
#[must_use]
pub fn daemon(daemon: &Daemon) -> String {
    format!("synchronisation daemon ({:?})", daemon.role)
}

/// What uvs cannot do of a kernel module.
#[must_use]
pub fn module(name: &str) -> Option<String> {
    match MODULES.iter().find(|(known, _)| *known == name) {
        // What it is needed for complains itself.
        Some((_, "")) => None,
        Some((_, what)) => Some((*what).to_owned()),
        None => Some(format!("kernel module {name}")),
    }
}
