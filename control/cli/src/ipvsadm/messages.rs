//! Between the words of ipvsadm and the messages of a director.

use super::listing::{Counters, ListedConnection, ListedServer, ListedService};
use super::{
    LocalAddresses, Mask, Method, Persistence, Protocol, Server, Service, ServiceKey, Tunnel,
    TunnelChecksum,
};
use proto::v1;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The flags of a scheduler by name; the third has none.
const FLAGS: [(&str, [&str; 2]); 2] = [
    ("sh", ["sh-fallback", "sh-port"]),
    ("mh", ["mh-fallback", "mh-port"]),
];

pub(super) fn protocol(protocol: Protocol) -> v1::Protocol {
    match protocol {
        Protocol::Tcp => v1::Protocol::Tcp,
        Protocol::Udp => v1::Protocol::Udp,
        Protocol::Sctp => v1::Protocol::Sctp,
    }
}

pub(super) fn key(key: &ServiceKey) -> v1::ServiceKey {
    match key {
        ServiceKey::Address(of, address) => v1::ServiceKey {
            protocol: protocol(*of).into(),
            address: address.ip().to_string(),
            port: address.port().into(),
            ..v1::ServiceKey::default()
        },
        ServiceKey::Mark { mark, ipv6 } => v1::ServiceKey {
            mark: *mark,
            mark_ipv6: *ipv6,
            ..v1::ServiceKey::default()
        },
    }
}

/// A service without servers, with those settings that ipvsadm knows; what the director cannot do of it, in words.
pub(super) fn settings(of: &Service) -> Result<v1::ServiceSettings, String> {
    let granularity = |persistence: &Persistence| match persistence.mask {
        mask if mask == Mask::whole(of.key.is_ipv6()) => String::new(),
        Mask::Ipv4(mask) => Ipv4Addr::from_bits(mask).to_string(),
        Mask::Ipv6(len) => len.to_string(),
    };
    Ok(v1::ServiceSettings {
        key: Some(key(&of.key)),
        scheduler: of.scheduler.clone(),
        flags: flags(of)?,
        method: v1::Method::Dr.into(),
        one_packet: of.one_packet,
        persistence: of.persistence.as_ref().map(|persistence| v1::Persistence {
            timeout_s: persistence.timeout_s,
            granularity: granularity(persistence),
            engine: of.engine.clone().unwrap_or_default(),
        }),
        ..v1::ServiceSettings::default()
    })
}

fn flags(of: &Service) -> Result<Vec<String>, String> {
    if of.flags == [false; 3] {
        return Ok(Vec::new());
    }
    let known = FLAGS
        .iter()
        .find(|(scheduler, _)| *scheduler == of.scheduler);
    match (known, of.flags) {
        (Some((_, names)), [.., false]) => {
            let set = names.iter().zip(of.flags).filter(|(_, set)| *set);
            Ok(set.map(|(name, _)| (*name).to_owned()).collect())
        }
        _ => Err(format!(
            "the scheduler {} has no such flag; accepted: flag-1 and flag-2 of sh and mh",
            of.scheduler
        )),
    }
}

/// A server; what the director cannot do of it, in words.
pub(super) fn server(of: &Server) -> Result<v1::ServerSettings, String> {
    if of.weight > u32::from(u16::MAX) {
        return Err(format!(
            "a weight of {} is too much for the director; accepted: 0 to {}",
            of.weight,
            u16::MAX
        ));
    }
    let tunnel = match of.method {
        Method::Tun(kind) => Some(tunnel(kind)),
        _ => None,
    };
    Ok(v1::ServerSettings {
        address: of.address.ip().to_string(),
        port: of.address.port().into(),
        weight: Some(of.weight),
        method: match of.method {
            Method::Nat => v1::Method::Nat,
            Method::Dr => v1::Method::Dr,
            Method::Tun(_) => v1::Method::Tun,
            Method::FullNat => v1::Method::Fullnat,
        }
        .into(),
        upper: of.upper,
        lower: of.lower,
        tunnel,
    })
}

fn tunnel(kind: Tunnel) -> v1::Tunnel {
    let (kind, port, checksum) = match kind {
        Tunnel::Ipip => (v1::TunnelKind::Ipip, 0, TunnelChecksum::None),
        Tunnel::Gre(checksum) => (v1::TunnelKind::Gre, 0, checksum),
        Tunnel::Gue { port, checksum } => (v1::TunnelKind::Gue, port, checksum),
    };
    v1::Tunnel {
        kind: kind.into(),
        port: port.into(),
        checksum: match checksum {
            TunnelChecksum::None => v1::TunnelChecksum::None,
            TunnelChecksum::Plain => v1::TunnelChecksum::Full,
            TunnelChecksum::Remote => v1::TunnelChecksum::Remote,
        }
        .into(),
    }
}

pub(super) fn pool(name: &str, local: &LocalAddresses) -> v1::LipPool {
    v1::LipPool {
        name: name.to_owned(),
        addresses: local.addresses.iter().map(ToString::to_string).collect(),
        first_port: local.ports.0.into(),
        last_port: local.ports.1.into(),
    }
}

/// The addresses of a pool that a service of a family uses.
pub(super) fn local(pool: &v1::LipPool, ipv6: bool) -> Option<LocalAddresses> {
    let addresses = pool.addresses.iter().filter_map(|text| text.parse().ok());
    let addresses: Vec<IpAddr> = addresses
        .filter(|address: &IpAddr| address.is_ipv6() == ipv6)
        .collect();
    let port = |number| u16::try_from(number).ok();
    Some(LocalAddresses {
        addresses: Some(addresses).filter(|addresses| !addresses.is_empty())?,
        ports: (port(pool.first_port)?, port(pool.last_port)?),
    })
}

pub(super) fn key_of(of: &v1::ServiceKey) -> Option<ServiceKey> {
    if of.mark != 0 {
        return Some(ServiceKey::Mark {
            mark: of.mark,
            ipv6: of.mark_ipv6,
        });
    }
    let address = end(&of.address, of.port)?;
    Some(ServiceKey::Address(protocol_of(of.protocol())?, address))
}

fn protocol_of(of: v1::Protocol) -> Option<Protocol> {
    match of {
        v1::Protocol::Tcp => Some(Protocol::Tcp),
        v1::Protocol::Udp => Some(Protocol::Udp),
        v1::Protocol::Sctp => Some(Protocol::Sctp),
        v1::Protocol::Unspecified => None,
    }
}

fn end(address: &str, port: u32) -> Option<SocketAddr> {
    Some(SocketAddr::new(
        address.parse().ok()?,
        u16::try_from(port).ok()?,
    ))
}

/// A service for a listing, unless its message makes no sense.
pub(super) fn listed(of: &v1::Service, local: Option<LocalAddresses>) -> Option<ListedService> {
    let key = key_of(of.key.as_ref()?)?;
    let names = FLAGS
        .iter()
        .find(|(scheduler, _)| *scheduler == of.scheduler);
    let has = |place: usize| {
        names.is_some_and(|(_, names)| of.flags.iter().any(|flag| flag == names[place]))
    };
    let persistence = of.persistence.as_ref().map(|persistence| Persistence {
        timeout_s: persistence.timeout_s,
        mask: mask(&persistence.granularity, key.is_ipv6()),
    });
    let engine = of
        .persistence
        .as_ref()
        .map(|persistence| persistence.engine.clone());
    let traffic = of.traffic.unwrap_or_default();
    Some(ListedService {
        service: Service {
            key,
            scheduler: of.scheduler.clone(),
            flags: [has(0), has(1), false],
            persistence,
            one_packet: of.one_packet,
            engine: engine.filter(|engine| !engine.is_empty()),
            local,
        },
        total: Counters {
            connections: traffic.connections,
            in_packets: traffic.in_packets,
            out_packets: traffic.out_packets,
            in_bytes: traffic.in_bytes,
            out_bytes: traffic.out_bytes,
        },
        rate: rates(of.rates),
        servers: of.servers.iter().rev().filter_map(listed_server).collect(),
    })
}

fn mask(granularity: &str, ipv6: bool) -> Mask {
    let mask = if ipv6 {
        granularity.parse().ok().map(Mask::Ipv6)
    } else {
        let mask = granularity.parse::<Ipv4Addr>().ok();
        mask.map(|mask| Mask::Ipv4(mask.to_bits()))
    };
    mask.unwrap_or(Mask::whole(ipv6))
}

fn rates(of: Option<v1::Rates>) -> Counters {
    let of = of.unwrap_or_default();
    Counters {
        connections: of.connections,
        in_packets: of.in_packets,
        out_packets: of.out_packets,
        in_bytes: of.in_bytes,
        out_bytes: of.out_bytes,
    }
}

fn listed_server(of: &v1::RealServer) -> Option<ListedServer> {
    let method = match of.method() {
        v1::Method::Nat => Method::Nat,
        v1::Method::Dr => Method::Dr,
        v1::Method::Tun => Method::Tun(tunnel_of(of.tunnel)),
        v1::Method::Fullnat => Method::FullNat,
        v1::Method::Unspecified => return None,
    };
    Some(ListedServer {
        server: Server {
            address: end(&of.address, of.port)?,
            method,
            weight: of.weight,
            upper: of.upper,
            lower: of.lower,
        },
        active: of.active,
        inactive: of.inactive,
        persistent: of.persistent,
        total: Counters {
            connections: of.connections,
            in_packets: of.in_packets,
            out_packets: of.out_packets,
            in_bytes: of.in_bytes,
            out_bytes: of.out_bytes,
        },
        rate: rates(of.rates),
    })
}

fn tunnel_of(of: Option<v1::Tunnel>) -> Tunnel {
    let of = of.unwrap_or_default();
    let checksum = match of.checksum() {
        v1::TunnelChecksum::Full => TunnelChecksum::Plain,
        v1::TunnelChecksum::Remote => TunnelChecksum::Remote,
        _ => TunnelChecksum::None,
    };
    match of.kind() {
        v1::TunnelKind::Gre => Tunnel::Gre(checksum),
        v1::TunnelKind::Gue => Tunnel::Gue {
            port: u16::try_from(of.port).unwrap_or(0),
            checksum,
        },
        _ => Tunnel::Ipip,
    }
}

/// A connection for a listing, unless its message makes no sense.
pub(super) fn connection(of: v1::Connection) -> Option<ListedConnection> {
    let is_marks_template = of.template && of.mark != 0;
    let engine = !of.engine.is_empty();
    Some(ListedConnection {
        protocol: match of.protocol() {
            _ if is_marks_template => "IP",
            v1::Protocol::Tcp => "TCP",
            v1::Protocol::Udp => "UDP",
            v1::Protocol::Sctp => "SCTP",
            v1::Protocol::Unspecified => "IP",
        },
        expires_s: u32::try_from(of.expires_ms / 1000).unwrap_or(u32::MAX),
        client: end(&of.client, of.client_port)?,
        virtual_server: end(&of.r#virtual, of.virtual_port)?,
        real_server: end(&of.server, of.server_port)?,
        local: end(&of.local, of.local_port),
        engine: engine.then_some((of.engine, of.engine_data)),
        state: of.state.into(),
    })
}
