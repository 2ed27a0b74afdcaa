//! A configuration in few words, and the snapshot it compiles to.
//!
//! ```text
//!   clients 10.64.0.0/16 ── 10.1.0.254 ──[0] the director [1]── 10.2.0.0/16, fd00:2::/64 real servers
//!           fd00:64::/64 ── fd00:1::fe        10.1.0.1  10.2.0.1
//!                                             fd00:1::1 fd00:2::1
//! ```

use crate::helper::Helper;
use crate::mark::MarkRule;
use crate::neighbour::{NeighbourId, NeighbourTable};
use crate::packet::wire::{TCP, UDP};
use crate::path_mtu::PathMtu;
use crate::port::{Mac, PortId};
use crate::rewrite::tunnel::{Encapsulation, Outer, Tunnel};
use crate::route::Route;
use crate::snapshot::{
    Ipvs, LocalAddress, NextHop, Owned, Persistence, PortView, Server, Service, ServiceId,
    ServiceKey, Snapshot,
};
use conntrack::{Method, Ticks, Timeouts};
use scheduler::{Load, Options, RealServer, RealServerId, Weight};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts edits where a test does not.
static EDITS: AtomicU64 = AtomicU64::new(1);

pub(super) const CLIENTS: usize = 0;
pub(super) const SERVERS: usize = 1;

pub(super) const CLIENT_GATEWAYS: [&str; 2] = ["10.1.0.254", "fd00:1::fe"];
pub(super) const DIRECTOR: [[&str; 2]; 2] = [["10.1.0.1", "fd00:1::1"], ["10.2.0.1", "fd00:2::1"]];

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(super) fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// The director's own hardware addresses.
pub(super) fn director_mac(side: usize) -> Mac {
    Mac([2, 0, 0, 0, u8::try_from(side).unwrap() + 1, 1])
}

/// Every other host's follows from its address.
pub(super) fn mac_of(address: IpAddr) -> Mac {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            Mac([2, 4, a, b, c, d])
        }
        IpAddr::V6(address) => {
            let [.., a, b, c, d] = address.octets();
            Mac([2, 6, a, b, c, d])
        }
    }
}

/// A real server, from `"10.2.0.11:8080"`.
#[derive(Clone, Debug)]
pub(super) struct ServerConfig {
    pub(super) id: u32,
    pub(super) address: SocketAddr,
    pub(super) method: Method,
    pub(super) weight: u16,
    pub(super) present: bool,
    pub(super) copy_dont_fragment: bool,
    pub(super) encapsulation: Encapsulation,
    pub(super) load: Arc<Load>,
    pub(super) path_mtu: Arc<PathMtu>,
}

#[derive(Clone, Debug)]
pub(super) struct ServiceConfig {
    pub(super) id: u32,
    pub(super) protocol: u8,
    pub(super) address: SocketAddr,
    pub(super) scheduler: &'static str,
    pub(super) options: Options,
    pub(super) servers: Vec<ServerConfig>,
    /// None: every snapshot counts as an edit.
    pub(super) edits: Option<u64>,
    pub(super) lips: Vec<LocalAddress>,
    pub(super) one_packet: bool,
    pub(super) helper: Option<Helper>,
    pub(super) persistence: Option<Persistence>,
}

#[derive(Clone, Debug)]
pub(super) struct Config {
    pub(super) services: Vec<ServiceConfig>,
    pub(super) mtu: [u32; 2],
    pub(super) owned: Vec<(IpAddr, Owned)>,
    pub(super) timeouts: Timeouts,
    pub(super) ipvs: Ipvs,
    pub(super) default_route: bool,
    pub(super) route_generation: u16,
    pub(super) marks: Vec<MarkRule>,
}

impl Config {
    pub(super) fn new() -> Config {
        let directors = DIRECTOR.iter().flatten();
        Config {
            services: Vec::new(),
            mtu: [1500; 2],
            owned: directors.map(|text| (ip(text), Owned::Director)).collect(),
            timeouts: Timeouts::default(),
            ipvs: Ipvs::default(),
            default_route: true,
            route_generation: 1,
            marks: Vec::new(),
        }
    }

    /// One service of one server.
    pub(super) fn of(protocol: u8, address: &str, method: Method, server: &str) -> Config {
        Config::new().with(protocol, address, method, &[server])
    }

    /// Adds a round-robin service of servers of weight 1. The list is as the scheduler gets it.
    pub(super) fn with(
        mut self,
        protocol: u8,
        address: &str,
        method: Method,
        servers: &[&str],
    ) -> Config {
        let address = socket(address);
        let id = u32::try_from(self.services.len()).unwrap();
        let first = self
            .services
            .iter()
            .map(|service| service.servers.len())
            .sum::<usize>();
        let servers = servers.iter().zip(u32::try_from(first).unwrap()..);
        let lip = if address.is_ipv4() {
            "10.2.0.200"
        } else {
            "fd00:2::200"
        };
        let lip = LocalAddress {
            address: ip(lip),
            first_port: 1024,
            last_port: 65535,
        };
        self.services.push(ServiceConfig {
            id,
            protocol,
            address,
            scheduler: "rr",
            options: Options::default(),
            servers: servers
                .map(|(server, id)| ServerConfig {
                    id,
                    address: socket(server),
                    method,
                    weight: 1,
                    present: true,
                    copy_dont_fragment: true,
                    encapsulation: Encapsulation::Ipip,
                    load: Arc::default(),
                    path_mtu: Arc::default(),
                })
                .collect(),
            edits: None,
            lips: if method == Method::FullNat {
                vec![lip]
            } else {
                Vec::new()
            },
            one_packet: false,
            helper: None,
            persistence: None,
        });
        self
    }

    /// Every mode for both families and both protocols: ports 8000 (NAT), 8001 (DR), 8002 (TUN), 8003 (FULLNAT).
    pub(super) fn everything() -> Config {
        let mut config = Config::new();
        for (vip, server) in [
            ("10.0.0.100", "10.2.0.11"),
            ("[fd00:a::100]", "[fd00:2::11]"),
        ] {
            for protocol in [TCP, UDP] {
                for (offset, method) in METHODS.into_iter().enumerate() {
                    let port = 8000 + offset;
                    let inside = if method.sees_replies() {
                        9000 + offset
                    } else {
                        port
                    };
                    let server = format!("{server}:{inside}");
                    config = config.with(protocol, &format!("{vip}:{port}"), method, &[&server]);
                }
            }
        }
        config
    }

    pub(super) fn server(&mut self, id: u32) -> &mut ServerConfig {
        self.services
            .iter_mut()
            .flat_map(|service| &mut service.servers)
            .find(|server| server.id == id)
            .expect("configured")
    }

    pub(super) fn load(&self, id: u32) -> (u32, u32) {
        let load = Arc::clone(&self.clone().server(id).load);
        (load.active(), load.inactive())
    }

    pub(super) fn snapshot(&self, neighbours: &NeighbourTable, now: Ticks) -> Snapshot {
        let mut snapshot = Snapshot {
            ports: (0..2).map(|side| self.port(side)).collect(),
            owned: self.owned.iter().copied().collect(),
            route_generation: self.route_generation,
            timeouts: self.timeouts.clone(),
            ipvs: self.ipvs,
            marks: self.marks.clone(),
            ..Snapshot::default()
        };
        for (side, prefixes) in [(0, ["10.1.0.0", "fd00:1::"]), (1, ["10.2.0.0", "fd00:2::"])] {
            for (prefix, len) in prefixes.into_iter().zip([16, 64]) {
                let route = Route {
                    port: PortId(side),
                    gateway: None,
                };
                snapshot.routes.insert(ip(prefix), len, route);
            }
        }
        if self.default_route {
            for (prefix, gateway) in [("0.0.0.0", 0), ("::", 1)] {
                let gateway = Some(ip(CLIENT_GATEWAYS[gateway]));
                snapshot.routes.insert(
                    ip(prefix),
                    0,
                    Route {
                        port: PortId(0),
                        gateway,
                    },
                );
            }
        }
        for service in &self.services {
            self.compile(service, &mut snapshot, neighbours, now);
        }
        snapshot
    }

    fn port(&self, side: usize) -> PortView {
        PortView {
            name: ["clients", "servers"][side].into(),
            mac: director_mac(side),
            mtu: self.mtu[side],
            addresses: DIRECTOR[side].into_iter().map(ip).zip([16, 64]).collect(),
        }
    }

    fn compile(
        &self,
        service: &ServiceConfig,
        snapshot: &mut Snapshot,
        neighbours: &NeighbourTable,
        now: Ticks,
    ) {
        let key = ServiceKey {
            protocol: service.protocol,
            address: service.address.ip(),
            port: service.address.port(),
        };
        snapshot.owned.entry(key.address).or_insert(Owned::Virtual);
        for lip in &service.lips {
            snapshot.owned.entry(lip.address).or_insert(Owned::Local);
        }
        for server in &service.servers {
            let (index, address) = (server.id as usize, server.address.ip());
            if snapshot.servers.len() <= index {
                snapshot.servers.resize(index + 1, None);
            }
            let (port, hop) = snapshot
                .routes
                .lookup(address)
                .expect("servers are on the link");
            let neighbour = neighbours
                .intern(port, hop, now)
                .unwrap_or(NeighbourId::NONE);
            snapshot.servers[index] = Some(Arc::new(Server {
                id: RealServerId(server.id),
                service: ServiceId(service.id),
                address,
                port: server.address.port(),
                method: server.method,
                load: Arc::clone(&server.load),
                next_hop: NextHop {
                    port,
                    address: hop,
                    neighbour,
                },
                tunnel: Some(tunnel(address, server)),
                path_mtu: Arc::clone(&server.path_mtu),
                present: server.present,
            }));
        }
        let listed = service.servers.iter().filter(|server| server.present);
        let compiled = Service {
            id: ServiceId(service.id),
            key,
            scheduler: service.scheduler.into(),
            scheduler_options: service.options,
            servers: listed
                .map(|server| RealServer {
                    id: RealServerId(server.id),
                    address: server.address.ip(),
                    port: server.address.port(),
                    weight: Weight(server.weight),
                    load: Arc::clone(&server.load),
                })
                .collect(),
            edits: service.edits.unwrap_or_else(|| EDITS.fetch_add(1, Relaxed)),
            local_addresses: service.lips.clone(),
            one_packet: service.one_packet,
            helper: service.helper,
            persistence: service.persistence,
        };
        snapshot.services.insert(key, Arc::new(compiled));
    }
}

/// All that lies between a tunnel's headers, where the receiver has a checksum to check or needs none.
pub(super) const ENCAPSULATIONS: [Encapsulation; 4] = [
    Encapsulation::Ipip,
    Encapsulation::Gre { checksum: false },
    Encapsulation::Gre { checksum: true },
    Encapsulation::Gue {
        port: 6080,
        checksum: true,
    },
];

pub(super) const METHODS: [Method; 4] = [Method::Nat, Method::Dr, Method::Tun, Method::FullNat];

fn tunnel(address: IpAddr, server: &ServerConfig) -> Tunnel {
    let [v4, v6] = DIRECTOR[SERVERS].map(ip);
    let outer = match (address, v4, v6) {
        (IpAddr::V4(destination), IpAddr::V4(source), _) => Outer::V4 {
            source,
            destination,
        },
        (IpAddr::V6(destination), _, IpAddr::V6(source)) => Outer::V6 {
            source,
            destination,
        },
        _ => unreachable!("the director has an address of each family"),
    };
    Tunnel {
        outer,
        copy_dont_fragment: server.copy_dont_fragment,
        encapsulation: server.encapsulation,
    }
}
