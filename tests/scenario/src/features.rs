//! What uvs cannot do yet, a function each: whoever adds it to the director connects it here, and its complaint goes.

use crate::kernel::{KernelService, stays_here};
use cli::ipvsadm::{
    Daemon, LocalAddresses, Mask, Method, Protocol, Server, Service, ServiceKey, Tunnel,
    TunnelChecksum,
};
use control::config::{self, Granularity, GueChecksum};
use dataplane::helper::Helper;
use dataplane::snapshot::{Engine, Ipvs};
use scheduler::Options;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Kernel modules, and what they do.
const MODULES: [(&str, &str); 2] = [("ip_vs_ftp", ""), ("ip_vs_pe_sip", "")];

/// The port that ip_vs_ftp is made for, unless told otherwise.
const FTP: u16 = 21;

/// The kernel's settings with their values when nobody sets them.
const DEFAULTS: [(&str, &str); 29] = [
    ("am_droprate", "10"),
    ("amemthresh", "1024"),
    ("backup_only", "0"),
    ("cache_bypass", "0"),
    ("conn_reuse_mode", "1"),
    ("conntrack", "0"),
    ("drop_entry", "0"),
    ("drop_packet", "0"),
    ("expire_nodest_conn", "0"),
    ("expire_quiescent_template", "0"),
    ("ignore_tunneled", "0"),
    ("lblc_expiration", "86400"),
    ("lblcr_expiration", "86400"),
    ("nat_icmp_send", "0"),
    ("pmtu_disc", "1"),
    ("run_estimation", "1"),
    ("schedule_icmp", "0"),
    ("secure_tcp", "0"),
    ("sloppy_sctp", "0"),
    ("sloppy_tcp", "0"),
    ("snat_reroute", "1"),
    ("sync_persist_mode", "0"),
    ("sync_ports", "1"),
    ("sync_qlen_max", "1810"),
    ("sync_refresh_period", "0"),
    ("sync_retries", "0"),
    ("sync_sock_size", "0"),
    ("sync_threshold", "3\t50"),
    ("sync_version", "1"),
];

/// The services that uvs is configured with, and what it cannot do of what was asked for. `vips` are the host's further
/// addresses: marks are for what goes there.
#[must_use]
pub fn services(
    known: &[KernelService],
    vips: &BTreeSet<IpAddr>,
) -> (Vec<config::Service>, Vec<String>) {
    let mut missing = Vec::new();
    let services = known
        .iter()
        .filter_map(|known| {
            let mut service = service(known, &mut missing)?;
            if let config::Listen::Mark { ipv6, .. } = service.listen {
                let of_family = vips.iter().filter(|vip| vip.is_ipv6() == ipv6);
                service.addresses = of_family.copied().collect();
            }
            Some(service)
        })
        .collect();
    missing.dedup();
    (services, missing)
}

/// A pool for each list of local addresses that services have; those who say the same share it.
#[must_use]
pub fn lip_pools(known: &[KernelService]) -> Vec<config::LipPool> {
    let mut pools: Vec<config::LipPool> = Vec::new();
    for local in known.iter().filter_map(local_addresses) {
        let name = local.to_string();
        if pools.iter().all(|pool| pool.name != name) {
            pools.push(config::LipPool {
                name,
                addresses: local.addresses.clone(),
                first_port: local.ports.0,
                last_port: local.ports.1,
            });
        }
    }
    pools
}

/// Local addresses that servers use: a pool is only for those.
fn local_addresses(known: &KernelService) -> Option<&LocalAddresses> {
    let mut servers = known.servers.iter();
    let is_used = servers.any(|server| server.method == Method::FullNat);
    known.service.local.as_ref().filter(|_| is_used)
}

fn service(known: &KernelService, missing: &mut Vec<String>) -> Option<config::Service> {
    let service = &known.service;
    let listen = listen(service);
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
        lip_pool: local_addresses(known).map(ToString::to_string),
        one_packet: service.one_packet,
        helper: None,
        persistence: persistence(service, missing),
        addresses: Vec::new(),
        servers,
        idle_edits: known.edits,
    })
}

/// What the module ip_vs_ftp looks into: TCP services of port 21, or of all ports.
pub fn help(services: &mut [config::Service]) {
    for service in services {
        let is_ftp = service.listen.protocol() == Some(config::Protocol::Tcp)
            && matches!(service.listen.port(), 0 | FTP);
        service.helper = is_ftp.then_some(Helper::Ftp);
    }
}

/// What clients address.
fn listen(service: &Service) -> config::Listen {
    let (protocol, address) = match service.key {
        ServiceKey::Mark { mark, ipv6 } => return config::Listen::Mark { mark, ipv6 },
        ServiceKey::Address(Protocol::Tcp, address) => (config::Protocol::Tcp, address),
        ServiceKey::Address(Protocol::Udp, address) => (config::Protocol::Udp, address),
        ServiceKey::Address(Protocol::Sctp, address) => (config::Protocol::Sctp, address),
    };
    config::Listen::Address { protocol, address }
}

fn persistence(service: &Service, missing: &mut Vec<String>) -> Option<config::Persistence> {
    let persistence = service.persistence?;
    let granularity = match persistence.mask {
        mask if mask == Mask::whole(service.key.is_ipv6()) => Granularity::Address,
        Mask::Ipv4(mask) => Granularity::Netmask(mask.into()),
        Mask::Ipv6(len) => Granularity::Prefix(len),
    };
    let engine = match service.engine.as_deref() {
        None => None,
        Some("sip") => Some(Engine::Sip),
        Some(engine) => {
            missing.push(format!("persistence engine {engine}"));
            None
        }
    };
    Some(config::Persistence {
        timeout: persistence.timeout_s,
        granularity,
        engine,
    })
}

fn server(server: &Server, missing: &mut Vec<String>) -> Option<config::Server> {
    if stays_here(server) {
        missing.push("a server that is the director itself".to_owned());
        return None;
    }
    let (method, tunnel) = method(server);
    Some(config::Server {
        address: server.address,
        weight: weight(server, missing),
        method,
        upper: server.upper,
        lower: server.lower,
        tunnel,
    })
}

fn weight(server: &Server, missing: &mut Vec<String>) -> u16 {
    u16::try_from(server.weight).unwrap_or_else(|_| {
        missing.push(format!("a weight of {}", server.weight));
        u16::MAX
    })
}

fn method(server: &Server) -> (conntrack::Method, config::TunnelKind) {
    let no_tunnel = config::TunnelKind::Ipip;
    match server.method {
        Method::Nat => (conntrack::Method::Nat, no_tunnel),
        Method::Dr => (conntrack::Method::Dr, no_tunnel),
        Method::Tun(tunnel) => (conntrack::Method::Tun, tunnel_kind(tunnel)),
        Method::FullNat => (conntrack::Method::FullNat, no_tunnel),
    }
}

fn tunnel_kind(tunnel: Tunnel) -> config::TunnelKind {
    match tunnel {
        Tunnel::Ipip => config::TunnelKind::Ipip,
        Tunnel::Gre(checksum) => config::TunnelKind::Gre {
            checksum: checksum != TunnelChecksum::None,
        },
        Tunnel::Gue { port, checksum } => config::TunnelKind::Gue {
            port,
            checksum: match checksum {
                TunnelChecksum::None => GueChecksum::None,
                TunnelChecksum::Plain => GueChecksum::Full,
                TunnelChecksum::Remote => GueChecksum::Remote,
            },
        },
    }
}

/// Takes a setting below `net.ipv4.vs` over; what uvs cannot do of it.
pub fn setting(ipvs: &mut Ipvs, name: &str, value: &str) -> Option<String> {
    let number: u8 = value.parse().unwrap_or(0);
    match name {
        "conn_reuse_mode" => ipvs.conn_reuse_mode = number,
        "expire_nodest_conn" => ipvs.expire_nodest_conn = number != 0,
        "expire_quiescent_template" => ipvs.expire_quiescent_template = number != 0,
        "sloppy_tcp" => ipvs.sloppy_tcp = number != 0,
        "schedule_icmp" => ipvs.schedule_icmp = number != 0,
        "nat_icmp_send" => ipvs.nat_icmp_send = number != 0,
        "pmtu_disc" => ipvs.pmtu_disc = number != 0,
        "sloppy_sctp" => ipvs.sloppy_sctp = number != 0,
        "secure_tcp" => ipvs.secure_tcp = number,
        "drop_packet" => ipvs.drop_packet = number,
        "drop_entry" => ipvs.drop_entry = number,
        "am_droprate" => ipvs.am_droprate = value.parse().unwrap_or(0),
        "lblc_expiration" => ipvs.lblc_expiration = value.parse().unwrap_or(0),
        "lblcr_expiration" => ipvs.lblcr_expiration = value.parse().unwrap_or(0),
        // What it shall be anyway, the kernel writing tabs for blanks.
        _ if default_setting(name) == Some(&*value.replace(' ', "\t")) => {}
        _ => return Some(format!("{name} = {value}")),
    }
    None
}

/// The value of a setting that nobody set.
#[must_use]
pub fn default_setting(name: &str) -> Option<&'static str> {
    let known = DEFAULTS.iter().find(|(known, _)| *known == name);
    known.map(|(_, value)| *value)
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
