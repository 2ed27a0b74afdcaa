//! From single settings to what the workers read of them.

use super::numbers::Known;
use crate::config::{
    AnsweredBy, Configuration, Granularity, GueChecksum, LipPool, Listen, Mark,
    Persistence as PersistenceSettings, PortSettings, Prefix, Protocol, Service as ServiceSettings,
    TunnelKind,
};
use conntrack::{Method, Ticks};
use dataplane::mark::{MarkRule, Network};
use dataplane::neighbour::NeighbourId;
use dataplane::port::{PortId, PortInfo};
use dataplane::rewrite::tunnel::{Encapsulation, Outer, Tunnel};
use dataplane::snapshot::{
    LocalAddress, NextHop, Owned, Persistence, PortView, Server, ServiceId, ServiceKey,
};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

pub(super) fn service_key(listen: &Listen) -> ServiceKey {
    match *listen {
        Listen::Address { protocol, address } => ServiceKey {
            protocol: protocol.number(),
            address: address.ip(),
            port: address.port(),
        },
        Listen::Mark { mark, ipv6 } => ServiceKey::of_mark(mark, ipv6),
    }
}

pub(super) fn persistence(settings: &PersistenceSettings) -> Persistence {
    Persistence {
        timeout: Ticks::from_seconds(settings.timeout),
        mask: match settings.granularity {
            Granularity::Address => u128::MAX,
            Granularity::Netmask(mask) => mask.to_bits().into(),
            Granularity::Prefix(len) => u128::MAX
                .checked_shl(128 - u32::from(len.min(128)))
                .unwrap_or(0),
        },
        engine: settings.engine,
    }
}

pub(super) fn mark_rule(mark: &Mark, ports: &[PortSettings]) -> MarkRule {
    let named = |name: &String| {
        let mut numbered = (0u16..).map(PortId).zip(ports);
        numbered.find(|(_, port)| port.name == *name)
    };
    let network = |prefix: Prefix| Network::new(prefix.address, prefix.len);
    let range = |ports: Option<(u16, u16)>| ports.map_or(0..=u16::MAX, |(low, high)| low..=high);
    let port = mark.port.as_ref().map(|name| {
        named(name)
            .expect("a checked configuration has every port that it names")
            .0
    });
    MarkRule {
        mark: mark.mark,
        port,
        source: mark.source.map(network),
        destination: mark.destination.map(network),
        protocol: mark.protocol.map(Protocol::number),
        source_ports: range(mark.source_ports),
        destination_ports: range(mark.destination_ports),
        ipv6: mark
            .source
            .or(mark.destination)
            .map(|prefix| prefix.address.is_ipv6()),
    }
}

pub(super) fn port_view((info, settings): (&PortInfo, &PortSettings)) -> PortView {
    PortView {
        name: info.name.clone(),
        mac: info.mac,
        mtu: info.mtu,
        addresses: settings
            .addresses
            .iter()
            .map(|prefix| (prefix.address, prefix.len))
            .collect(),
    }
}

/// The addresses that the director answers for. What the kernel answers for stays with it, even where it is a VIP.
pub(super) fn owned(configuration: &Configuration) -> HashMap<IpAddr, Owned> {
    let mut owned: HashMap<IpAddr, Owned> = configuration
        .services
        .iter()
        .flat_map(|service| {
            service
                .listen
                .ip()
                .into_iter()
                .chain(service.addresses.clone())
        })
        .map(|address| (address, Owned::Virtual))
        .collect();
    for pool in &configuration.lip_pools {
        owned.extend(
            pool.addresses
                .iter()
                .map(|address| (*address, Owned::Local)),
        );
    }
    for port in &configuration.ports {
        let why = match port.answered_by {
            AnsweredBy::Uvs => Owned::Director,
            AnsweredBy::Kernel => Owned::Kernel,
        };
        owned.extend(port.addresses.iter().map(|prefix| (prefix.address, why)));
    }
    owned
}

/// The FULLNAT sources of a service: those of its pool that are of its family.
pub(super) fn local_addresses(service: &ServiceSettings, pools: &[LipPool]) -> Vec<LocalAddress> {
    let pool = service
        .lip_pool
        .as_ref()
        .and_then(|name| pools.iter().find(|pool| pool.name == *name));
    let addresses = pool
        .into_iter()
        .flat_map(|pool| pool.addresses.iter().map(move |address| (pool, *address)));
    addresses
        .filter(|(_, address)| address.is_ipv4() == service.listen.is_ipv4())
        .map(|(pool, address)| LocalAddress {
            address,
            first_port: pool.first_port,
            last_port: pool.last_port,
        })
        .collect()
}

pub(super) fn tunnel(source: IpAddr, destination: IpAddr, kind: TunnelKind) -> Option<Tunnel> {
    let outer = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => Outer::V4 {
            source,
            destination,
        },
        (IpAddr::V6(source), IpAddr::V6(destination)) => Outer::V6 {
            source,
            destination,
        },
        _ => return None,
    };
    Some(Tunnel {
        outer,
        copy_dont_fragment: true,
        encapsulation: encapsulation(kind),
    })
}

fn encapsulation(kind: TunnelKind) -> Encapsulation {
    match kind {
        TunnelKind::Ipip => Encapsulation::Ipip,
        TunnelKind::Gre { checksum } => Encapsulation::Gre { checksum },
        TunnelKind::Gue { port, checksum } => Encapsulation::Gue {
            port,
            checksum: checksum != GueChecksum::None,
        },
    }
}

/// A server that was removed while no director ran: connections of the one before refer to it.
pub(super) fn unknown(server: SocketAddr, known: &Known) -> Arc<Server> {
    Arc::new(Server {
        id: known.id,
        service: ServiceId(u32::MAX),
        address: server.ip(),
        port: server.port(),
        method: Method::Local,
        load: Arc::clone(&known.load),
        next_hop: NextHop {
            port: PortId(0),
            address: server.ip(),
            neighbour: NeighbourId::NONE,
        },
        tunnel: None,
        path_mtu: Arc::clone(&known.path_mtu),
        present: false,
    })
}

/// A server as it was, but gone.
pub(super) fn removed(server: &Server) -> Arc<Server> {
    Arc::new(Server {
        id: server.id,
        service: server.service,
        address: server.address,
        port: server.port,
        method: server.method,
        load: Arc::clone(&server.load),
        next_hop: server.next_hop,
        tunnel: server.tunnel,
        path_mtu: Arc::clone(&server.path_mtu),
        present: false,
    })
}
