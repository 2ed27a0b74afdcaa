//! One network in which every way of forwarding works.
//!
//! ```text
//!              192.0.2.0/24, 2001:db8::/64                  10.0.0.0/24, fd00::/64
//!  client .2 ──eth0┐                                              ┌eth0── server1 .11
//!                  ├─[wan]── .1 eth0 director eth1 .1 ──[lan]─────┼eth0── server2 .12
//!                  └─[wan]── .254 eth0 router eth1 .254 ──[lan]───┴eth0── server3 .13
//! ```
//!
//! `wan` and `lan` are bridges in a namespace of their own. The virtual address is 192.0.2.100, the director's local
//! addresses for FULLNAT start at 10.0.0.200; no kernel has any of the director's addresses: the director answers for
//! them itself. Where the servers send their answers depends on the method: with NAT to the director, with DR and TUN
//! past it by way of the router, and with FULLNAT they have no route beyond their own network.

use super::namespace::link_by_queues;
use super::{Decapsulator, HttpServer, LabError, Namespace, Prefix, UdpServer};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The virtual services' TCP port (HTTP).
pub const HTTP_PORT: u16 = 80;
/// The virtual services' UDP port.
pub const UDP_PORT: u16 = 7000;
/// Added to the virtual port by the servers' own port where the method translates ports.
const TRANSLATED: u16 = 8000;
const MTU: u32 = 1500;

/// How a director forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Method {
    /// The destination is rewritten; answers come back through the director.
    Nat,
    /// The packet goes to the server's hardware address as it is.
    Dr,
    /// The packet goes to the server inside another.
    Tun,
    /// Source and destination are rewritten.
    #[value(name = "fullnat")]
    FullNat,
}

impl Method {
    /// All methods.
    pub const ALL: [Method; 4] = [Method::Nat, Method::Dr, Method::Tun, Method::FullNat];

    /// Its name in a configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Method::Nat => "nat",
            Method::Dr => "dr",
            Method::Tun => "tun",
            Method::FullNat => "fullnat",
        }
    }

    /// Whether servers are asked at the virtual address, which they then have on lo.
    #[must_use]
    pub fn keeps_destination(self) -> bool {
        matches!(self, Method::Dr | Method::Tun)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

/// An IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Family {
    /// IPv4.
    #[value(name = "4")]
    V4,
    /// IPv6.
    #[value(name = "6")]
    V6,
}

impl fmt::Display for Family {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        })
    }
}

impl Family {
    /// Both versions.
    pub const ALL: [Family; 2] = [Family::V4, Family::V6];
}

/// Who has an address in the topology.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// The client (CIP).
    Client,
    /// The virtual service (VIP).
    Vip,
    /// The director towards the client.
    DirectorWan,
    /// The director towards the servers (DIP).
    DirectorLan,
    /// A local address of the director for FULLNAT (LIP), from 0.
    Lip(u8),
    /// The router towards the client.
    RouterWan,
    /// The router towards the servers.
    RouterLan,
    /// A real server (RIP), from 0.
    Server(u8),
}

impl Host {
    /// Its address, with the length of its network's prefix.
    #[must_use]
    pub fn prefix(self, family: Family) -> Prefix {
        let (is_wan, number) = match self {
            Host::DirectorWan => (true, 1),
            Host::Client => (true, 2),
            Host::Vip => (true, 100),
            Host::RouterWan => (true, 254),
            Host::DirectorLan => (false, 1),
            Host::Server(index) => (false, 11 + index),
            Host::Lip(index) => (false, 200 + index),
            Host::RouterLan => (false, 254),
        };
        match (family, is_wan) {
            (Family::V4, true) => Prefix {
                address: Ipv4Addr::new(192, 0, 2, number).into(),
                len: 24,
            },
            (Family::V4, false) => Prefix {
                address: Ipv4Addr::new(10, 0, 0, number).into(),
                len: 24,
            },
            (Family::V6, is_wan) => {
                let [first, second] = if is_wan {
                    [0x2001, 0x0db8]
                } else {
                    [0xfd00, 0]
                };
                let address = Ipv6Addr::new(first, second, 0, 0, 0, 0, 0, u16::from(number));
                Prefix {
                    address: address.into(),
                    len: 64,
                }
            }
        }
    }

    /// Its address.
    #[must_use]
    pub fn address(self, family: Family) -> IpAddr {
        self.prefix(family).address
    }
}

/// A real server at work: its namespace and what it serves.
#[derive(Debug)]
pub struct Server {
    /// Where it runs.
    pub namespace: Namespace,
    /// Unwraps what arrives, with TUN.
    pub decapsulator: Option<Decapsulator>,
    _http: Vec<HttpServer>,
    _udp: Vec<UdpServer>,
}

/// The network and its servers, without a director. All of it ends with this value.
#[derive(Debug)]
pub struct Topology {
    /// Where requests come from.
    pub client: Namespace,
    /// Where the director is to run: eth0 towards the client, eth1 towards the servers, no addresses.
    pub director: Namespace,
    /// Forwards between wan and lan, with the kernel's own means.
    pub router: Namespace,
    /// Holds the bridges `wan` and `lan`.
    pub switch: Namespace,
    /// The real servers, at [`Host::Server`] 0 and on.
    pub servers: Vec<Server>,
    method: Method,
}

impl Topology {
    /// Makes the network and starts the servers.
    ///
    /// # Errors
    /// When the kernel refuses any of it.
    ///
    /// # Panics
    /// With more than 100 servers: their addresses would meet the director's.
    pub fn new(method: Method, families: &[Family], servers: u8) -> Result<Topology, LabError> {
        Topology::with_queues(method, families, servers, 1)
    }

    /// As [`new`](Self::new), with so many queues of each of the director's interfaces.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    ///
    /// # Panics
    /// As [`new`](Self::new).
    pub fn with_queues(
        method: Method,
        families: &[Family],
        servers: u8,
        queues: u32,
    ) -> Result<Topology, LabError> {
        assert!(servers <= 100, "{servers} servers; at most 100");
        let switch = Namespace::new("switch")?;
        switch.add_bridge("wan")?;
        switch.add_bridge("lan")?;
        let client = Namespace::new("client")?;
        plug(&switch, "wan", &client, "eth0")?;
        let director = Namespace::new("director")?;
        plug_by_queues(&switch, "wan", &director, "eth0", queues)?;
        plug_by_queues(&switch, "lan", &director, "eth1", queues)?;
        let router = Namespace::new("router")?;
        plug(&switch, "wan", &router, "eth0")?;
        plug(&switch, "lan", &router, "eth1")?;
        for family in families {
            client.add_address("eth0", Host::Client.prefix(*family))?;
            client.add_route(everywhere(*family), Host::RouterWan.address(*family))?;
            router.add_address("eth0", Host::RouterWan.prefix(*family))?;
            router.add_address("eth1", Host::RouterLan.prefix(*family))?;
            router.sysctl(
                if *family == Family::V4 {
                    "net.ipv4.ip_forward"
                } else {
                    "net.ipv6.conf.all.forwarding"
                },
                "1",
            )?;
        }
        let servers = (0..servers).map(|index| Server::start(index, method, families, &switch));
        let servers = servers.collect::<Result<_, _>>()?;
        Ok(Topology {
            client,
            director,
            router,
            switch,
            servers,
            method,
        })
    }

    /// How its servers expect to be reached.
    #[must_use]
    pub fn method(&self) -> Method {
        self.method
    }

    /// Makes the director's link to the servers anew, after [`Namespace::delete_link`] of its eth1: same name, another
    /// interface.
    ///
    /// # Errors
    /// When the old one is still there.
    pub fn plug_director_lan(&self) -> Result<(), LabError> {
        plug(&self.switch, "lan", &self.director, "eth1")
    }

    /// How many packets the servers got inside others until now.
    #[must_use]
    pub fn tunnelled(&self) -> u64 {
        let decapsulators = self
            .servers
            .iter()
            .filter_map(|server| server.decapsulator.as_ref());
        decapsulators.map(Decapsulator::delivered).sum()
    }
}

/// Where a server listens for what clients ask at the virtual address's `port`.
#[must_use]
pub fn server_address(method: Method, family: Family, server: u8, port: u16) -> SocketAddr {
    if method.keeps_destination() {
        SocketAddr::new(Host::Vip.address(family), port)
    } else {
        SocketAddr::new(Host::Server(server).address(family), port + TRANSLATED)
    }
}

impl Server {
    fn start(
        index: u8,
        method: Method,
        families: &[Family],
        switch: &Namespace,
    ) -> Result<Server, LabError> {
        let namespace = Namespace::new(&format!("server{}", index + 1))?;
        if method.keeps_destination() {
            // The virtual address is the director's alone to answer for.
            namespace.sysctl("net.ipv4.conf.all.arp_ignore", "1")?;
            namespace.sysctl("net.ipv4.conf.all.arp_announce", "2")?;
        }
        plug(switch, "lan", &namespace, "eth0")?;
        let (mut http, mut udp) = (Vec::new(), Vec::new());
        for family in families {
            namespace.add_address("eth0", Host::Server(index).prefix(*family))?;
            let gateway = match method {
                Method::Nat => Some(Host::DirectorLan),
                Method::Dr | Method::Tun => Some(Host::RouterLan),
                Method::FullNat => None,
            };
            if let Some(gateway) = gateway {
                namespace.add_route(everywhere(*family), gateway.address(*family))?;
            }
            if method.keeps_destination() {
                namespace.add_address("lo", Prefix::host(Host::Vip.address(*family)))?;
            }
            http.push(HttpServer::start(
                &namespace,
                server_address(method, *family, index, HTTP_PORT),
            )?);
            udp.push(UdpServer::start(
                &namespace,
                server_address(method, *family, index, UDP_PORT),
            )?);
        }
        let decapsulator = match method {
            Method::Tun => Some(Decapsulator::start(&namespace, families)?),
            Method::Nat | Method::Dr | Method::FullNat => None,
        };
        Ok(Server {
            namespace,
            decapsulator,
            _http: http,
            _udp: udp,
        })
    }
}

/// Joins a namespace's interface to a bridge of the switch.
fn plug(switch: &Namespace, bridge: &str, to: &Namespace, interface: &str) -> Result<(), LabError> {
    plug_by_queues(switch, bridge, to, interface, 1)
}

fn plug_by_queues(
    switch: &Namespace,
    bridge: &str,
    to: &Namespace,
    interface: &str,
    queues: u32,
) -> Result<(), LabError> {
    // An interface's name has 15 bytes at most.
    let port = format!("{:.9}-{interface}", to.name());
    link_by_queues((switch, &port), (to, interface), MTU, queues)?;
    switch.set_bridge(&port, bridge)
}

fn everywhere(family: Family) -> Prefix {
    match family {
        Family::V4 => Prefix {
            address: Ipv4Addr::UNSPECIFIED.into(),
            len: 0,
        },
        Family::V6 => Prefix {
            address: Ipv6Addr::UNSPECIFIED.into(),
            len: 0,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_hosts_have_one_address() {
        let hosts = [
            Host::DirectorWan,
            Host::Client,
            Host::Vip,
            Host::RouterWan,
            Host::DirectorLan,
            Host::RouterLan,
        ];
        let servers = (0..100).map(Host::Server);
        let lips = (0..50).map(Host::Lip);
        let hosts: Vec<_> = hosts.into_iter().chain(servers).chain(lips).collect();
        for family in Family::ALL {
            let distinct: std::collections::HashSet<_> =
                hosts.iter().map(|host| host.address(family)).collect();
            assert_eq!(distinct.len(), hosts.len());
        }
    }
}
