//! What uvsd is told, as an operator would write it.

use crate::driver::Driver;
use cli::lab::topology::server_address;
use cli::lab::{Family, Host, Method};
use std::fmt::{Display, Write as _};
use std::net::SocketAddr;
use std::path::Path;

/// The virtual port of nginx.
pub const HTTP_PORT: u16 = 1080;
/// The virtual UDP port of the echo servers.
pub const ECHO_PORT: u16 = 1007;
/// The virtual port of iperf3, which has one server: both of a run's connections must reach the same.
pub const IPERF_PORT: u16 = 1201;

/// A real server of the services.
#[derive(Clone, Copy, Debug)]
pub struct Server {
    /// Its place in the topology, from 0.
    pub index: u8,
    /// Its share.
    pub weight: u16,
}

/// A director between the client and the servers of a topology.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// How it forwards.
    pub method: Method,
    /// The services' address family.
    pub family: Family,
    /// The address family by which servers are reached: another one with TUN alone.
    pub server_family: Family,
    /// Packet threads.
    pub workers: u8,
    /// What workers do without packets, where the file says so.
    pub idle: Option<String>,
    /// How packets come and go: by the port towards the client, and by the one towards the servers.
    pub drivers: [Driver; 2],
    /// More lines for both ports.
    pub port_keys: &'static str,
    /// Of HTTP and echo.
    pub scheduler: &'static str,
    /// Of HTTP and echo; iperf3 has the first of them.
    pub servers: Vec<Server>,
    /// Local ports of FULLNAT's two local addresses, first and last.
    pub lip_ports: (u16, u16),
    /// Seconds that a TCP connection is remembered after its first FIN.
    pub tcp_fin: u32,
    /// Seconds that a UDP flow is remembered.
    pub udp: u32,
    /// More lines of `[director]`.
    pub director: String,
    /// More text for the file's end.
    pub more: String,
}

impl Configuration {
    /// Two servers of equal weight in turn.
    #[must_use]
    pub fn new(method: Method, family: Family, workers: u8) -> Configuration {
        Configuration {
            method,
            family,
            server_family: family,
            workers,
            idle: None,
            drivers: [Driver::of_tests(); 2],
            port_keys: "",
            scheduler: "rr",
            servers: [0, 1].map(|index| Server { index, weight: 1 }).to_vec(),
            lip_ports: (1024, 65_535),
            tcp_fin: 120,
            udp: 300,
            director: String::new(),
            more: String::new(),
        }
    }

    /// What clients ask.
    #[must_use]
    pub fn virtual_address(&self, port: u16) -> SocketAddr {
        SocketAddr::new(Host::Vip.address(self.family), port)
    }

    /// The families it needs of the network.
    #[must_use]
    pub fn families(&self) -> Vec<Family> {
        let mut families = vec![self.family, self.server_family];
        families.dedup();
        families
    }

    /// Queues that it needs of the director's interfaces: with AF_XDP one for each worker.
    #[must_use]
    pub fn queues(&self) -> u32 {
        if self.drivers.iter().any(|driver| {
            matches!(
                driver,
                Driver::AfXdp | Driver::Automatic | Driver::DpdkAfXdp
            )
        }) {
            self.workers.into()
        } else {
            1
        }
    }

    /// What the tests must bear with although it is no mistake, by the name of a drop's reason: the one list of it.
    ///
    /// A veth chooses the queue by its sender's socket, where a NIC and a packet socket's fanout go by addresses and ports. So
    /// with AF_XDP, several workers and FULLNAT a new connection from a port that was in use may meet another worker than its
    /// predecessor did, and when that one's server was removed, the first packets wait until the owner of its local port has
    /// ended it.
    #[must_use]
    pub fn tolerated_drops(&self) -> &'static [&'static str] {
        if self.queues() > 1 && self.method == Method::FullNat {
            &["server-gone"]
        } else {
            &[]
        }
    }

    /// Packet sockets that uvsd has: with AF_PACKET one for each worker, with AF_XDP one beside.
    #[must_use]
    pub fn packet_sockets(&self) -> usize {
        let sockets = |driver: &Driver| match driver {
            Driver::AfXdp | Driver::Automatic => 1,
            _ => self.workers.into(),
        };
        self.drivers.iter().map(sockets).sum()
    }

    /// As TOML.
    #[must_use]
    pub fn text(&self, socket: &Path) -> String {
        let family = self.family;
        let own = |host: Host| {
            let prefixes = self
                .families()
                .into_iter()
                .map(|family| host.prefix(family));
            let quoted = prefixes.map(|prefix| format!("\"{prefix}\""));
            quoted.collect::<Vec<_>>().join(", ")
        };
        let mut text = format!(
            "[director]\n\
             workers = {workers}\n\
             connections = 65_536\n\
             {idle}\
             control = \"unix:{socket}\"\n\
             {director}\
             [timeouts]\n\
             tcp_fin = {tcp_fin}\n\
             udp = {udp}\n\
             [port.wan]\n\
             {wan_driver}\
             {port_keys}\
             addresses = [{wan}]\n\
             [port.lan]\n\
             {lan_driver}\
             {port_keys}\
             addresses = [{lan}]\n",
            workers = self.workers,
            idle = self
                .idle
                .as_ref()
                .map(|idle| format!("idle = \"{idle}\"\n"))
                .unwrap_or_default(),
            director = self.director,
            socket = socket.display(),
            tcp_fin = self.tcp_fin,
            udp = self.udp,
            wan_driver = self.drivers[0].port("eth0", self.workers),
            lan_driver = self.drivers[1].port("eth1", self.workers),
            port_keys = self.port_keys,
            wan = own(Host::DirectorWan),
            lan = own(Host::DirectorLan),
        );
        if self.method == Method::FullNat {
            let (first, last) = self.lip_ports;
            let [a, b] = [0, 1].map(|index| Host::Lip(index).address(family));
            write!(
                text,
                "[[lip_pool]]\nname = \"lips\"\naddresses = [\"{a}\", \"{b}\"]\nports = \"{first}-{last}\"\n"
            )
            .unwrap();
        }
        text.push_str(self.drivers[0].more());
        text.push_str(&self.own_service("tcp", HTTP_PORT, &self.servers));
        text.push_str(&self.own_service("udp", ECHO_PORT, &self.servers));
        text.push_str(&self.own_service("tcp", IPERF_PORT, &self.servers[..1]));
        text.push_str(&self.more);
        text
    }

    /// A service with the scene's way of forwarding, as text for [`more`](Self::more). Servers are addresses, with a port
    /// or without, and weights; `keys` are more lines.
    #[must_use]
    pub fn service(&self, listen: &str, servers: &[(impl Display, u16)], keys: &str) -> String {
        let (method, scheduler) = (self.method, self.scheduler);
        let mut text = format!(
            "[[service]]\nlisten = \"{listen}\"\nscheduler = \"{scheduler}\"\nmethod = \"{method}\"\n{keys}\n"
        );
        if method == Method::FullNat {
            text.push_str("lip_pool = \"lips\"\n");
        }
        for (address, weight) in servers {
            write!(
                text,
                "[[service.server]]\naddress = \"{address}\"\nweight = {weight}\n"
            )
            .unwrap();
        }
        text
    }

    /// Where the director reaches a server for what clients ask at the virtual address's `port`.
    #[must_use]
    pub fn real_address(&self, index: u8, port: u16) -> SocketAddr {
        let port = server_address(self.method, self.family, index, port).port();
        SocketAddr::new(Host::Server(index).address(self.server_family), port)
    }

    fn own_service(&self, protocol: &str, port: u16, servers: &[Server]) -> String {
        let listen = format!("{protocol} {}", self.virtual_address(port));
        let servers = servers
            .iter()
            .map(|server| (self.real_address(server.index, port), server.weight));
        self.service(&listen, &servers.collect::<Vec<_>>(), "")
    }
}
