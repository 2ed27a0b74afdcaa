//! A configuration as a value: each field is within its limits; [`check`](super::check()) looks at them together.

use super::{AccessSettings, Prefix};
use conntrack::Method;
use dataplane::helper::Helper;
use dataplane::port::af_xdp::Checksums;
pub use dataplane::port::dpdk_settings::Spread;
use dataplane::snapshot::{Engine, Ipvs};
use scheduler::Options;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// Everything a director is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// What is fixed at the start.
    pub director: DirectorSettings,
    /// Of all ports of DPDK.
    pub dpdk: DpdkSettings,
    /// In the order of the file; fixed at the start.
    pub ports: Vec<PortSettings>,
    /// Static routes, beyond the subnets of the ports' addresses.
    pub routes: Vec<Route>,
    /// Local addresses for FULLNAT.
    pub lip_pools: Vec<LipPool>,
    /// Marks packets for services; the first that matches holds.
    pub marks: Vec<Mark>,
    /// Virtual services.
    pub services: Vec<Service>,
    /// How long idle connections are remembered.
    pub timeouts: TimeoutSettings,
    /// Behaviour by the kernel's names.
    pub ipvs: Ipvs,
    /// Who may do what.
    pub access: AccessSettings,
    /// Counters for Prometheus; `None`: not served.
    pub metrics: Option<MetricsSettings>,
}

/// `[metrics]`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "switches, each independent of the others"
)]
pub struct MetricsSettings {
    /// Where they are served; fixed at the start.
    pub listen: SocketAddr,
    /// Of each service.
    pub services: bool,
    /// Of each real server.
    pub servers: bool,
    /// Of each host on the links.
    pub neighbours: bool,
    /// What drivers count.
    pub port_statistics: bool,
}

impl Default for MetricsSettings {
    fn default() -> MetricsSettings {
        MetricsSettings {
            listen: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 9107),
            services: true,
            servers: true,
            neighbours: true,
            port_statistics: true,
        }
    }
}

/// `[director]`: all of it fixed at the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectorSettings {
    /// Packet threads.
    pub workers: u16,
    /// Capacity of the connection table, per family.
    pub connections: u32,
    /// Room for real servers.
    pub servers: u32,
    /// Share of the table for half-open connections, percent.
    pub half_open_percent: u8,
    /// What a worker does without packets.
    pub idle: Idle,
    /// Which worker on which CPU.
    pub pin: Pin,
    /// The Unix socket of the gRPC service.
    pub control: PathBuf,
    /// The Unix socket of clients of the kernel's IPVS; `None`: there is none.
    pub netlink: Option<PathBuf>,
    /// Where files in the format of the kernel's `/proc` are written.
    pub proc: Option<PathBuf>,
    /// The file that the connection tables lie in; `None`: memory of the process alone.
    pub table: Option<PathBuf>,
    /// The file in which changes outlive the process; `None`: they do not.
    pub state: Option<PathBuf>,
}

impl Default for DirectorSettings {
    fn default() -> DirectorSettings {
        DirectorSettings {
            workers: 1,
            connections: 1_000_000,
            servers: 4096,
            half_open_percent: 25,
            idle: Idle::Sleep,
            pin: Pin::Nowhere,
            control: PathBuf::from("/run/uvs/uvs.sock"),
            netlink: Some(PathBuf::from("/run/uvs/uvs.sock.nl")),
            proc: None,
            table: None,
            state: None,
        }
    }
}

impl DirectorSettings {
    /// Where clients of the kernel's IPVS find the director, unless the configuration says otherwise.
    #[must_use]
    pub fn netlink_beside(control: &Path) -> PathBuf {
        let mut path = control.as_os_str().to_owned();
        path.push(".nl");
        PathBuf::from(path)
    }
}

/// What a worker does without packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// Waits in the kernel.
    Sleep,
    /// Looks again at once.
    Poll,
}

impl Idle {
    /// Where the configuration does not say: a port that can only be polled is.
    #[must_use]
    pub fn by_default(ports: &[PortSettings]) -> Idle {
        let polled = ports.iter().any(|port| port.driver.idle() == Idle::Poll);
        if polled { Idle::Poll } else { Idle::Sleep }
    }
}

/// Which worker runs on which CPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pin {
    /// Wherever the kernel puts it.
    Nowhere,
    /// Worker N on CPU N.
    InOrder,
    /// Worker N on the Nth of these.
    To(Vec<u16>),
}

/// `[port.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortSettings {
    /// NAME.
    pub name: String,
    /// How frames come and go.
    pub driver: Driver,
    /// The director's own addresses (DIP).
    pub addresses: Vec<Prefix>,
    /// Who answers for them.
    pub answered_by: AnsweredBy,
}

/// How frames come and go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Driver {
    /// A kernel interface.
    AfPacket {
        /// Its name.
        interface: String,
    },
    /// A capture file.
    Pcap {
        /// What is received.
        file: PathBuf,
        /// Over and over.
        infinite: bool,
        /// Where what is sent is written.
        output: Option<PathBuf>,
    },
    /// A kernel interface by AF_XDP.
    AfXdp {
        /// Its name.
        interface: String,
        /// Whether transport checksums are finished; `None`: as the interface suggests.
        checksums: Option<Checksums>,
    },
    /// A device of DPDK.
    Dpdk(Box<DpdkDevice>),
    /// The first of these that can be had here: DPDK, AF_XDP, AF_PACKET.
    Automatic {
        /// For DPDK; `None`: not by DPDK.
        device: Option<Box<DpdkDevice>>,
        /// For AF_XDP and AF_PACKET; `None`: by DPDK or not at all.
        interface: Option<String>,
        /// Of AF_XDP.
        checksums: Option<Checksums>,
    },
    /// Nothing outside the process.
    Memory,
}

impl Driver {
    /// What workers do without packets where the configuration does not say.
    #[must_use]
    pub fn idle(&self) -> Idle {
        match self {
            Driver::AfPacket { .. }
            | Driver::AfXdp { .. }
            | Driver::Pcap { .. }
            | Driver::Memory => Idle::Sleep,
            Driver::Automatic { device: None, .. } => Idle::Sleep,
            Driver::Automatic { .. } | Driver::Dpdk(_) => Idle::Poll,
        }
    }

    /// The device of DPDK that it has for itself, if any.
    #[must_use]
    pub fn device(&self) -> Option<&DpdkDevice> {
        match self {
            Driver::Dpdk(device)
            | Driver::Automatic {
                device: Some(device),
                ..
            } => Some(device),
            _ => None,
        }
    }

    /// The kernel interface that it has for itself, if any.
    #[must_use]
    pub fn interface(&self) -> Option<&str> {
        match self {
            Driver::AfPacket { interface } | Driver::AfXdp { interface, .. } => Some(interface),
            Driver::Automatic { interface, .. } => interface.as_deref(),
            Driver::Dpdk(_) | Driver::Pcap { .. } | Driver::Memory => None,
        }
    }
}

/// A port of driver "dpdk".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DpdkDevice {
    /// Its PCI address, or a virtual device and its arguments.
    pub device: String,
    /// Largest IP packet; `None`: as the device has it.
    pub mtu: Option<u16>,
    /// How its queues share the frames.
    pub spread: Spread,
    /// The kernel's interface for frames that are the kernel's.
    pub exception: Option<String>,
}

/// `[dpdk]`: fixed at the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DpdkSettings {
    /// Whether its memory is in huge pages.
    pub huge_pages: bool,
    /// What it takes at once; `None`: what it needs.
    pub memory_mib: Option<u32>,
    /// More arguments of its environment (EAL).
    pub arguments: Vec<String>,
    /// Of each queue.
    pub receive_descriptors: u16,
    /// Of each queue.
    pub transmit_descriptors: u16,
    /// Of each queue.
    pub mbufs: u32,
}

impl Default for DpdkSettings {
    fn default() -> DpdkSettings {
        DpdkSettings {
            huge_pages: true,
            memory_mib: None,
            arguments: Vec::new(),
            receive_descriptors: 1024,
            transmit_descriptors: 1024,
            mbufs: 8192,
        }
    }
}

/// Who answers for a port's own addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnsweredBy {
    /// The director.
    Uvs,
    /// The kernel's interface, which has them too.
    Kernel,
}

/// `[[route]]`: by a gateway, or on a port's link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The destinations; no host bits.
    pub to: Prefix,
    /// The next hop; `None`: the destination itself.
    pub via: Option<IpAddr>,
    /// The port to leave by; `None`: in whose subnet `via` lies.
    pub port: Option<String>,
}

/// `[[lip_pool]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LipPool {
    /// How services refer to it.
    pub name: String,
    /// LIPs.
    pub addresses: Vec<IpAddr>,
    /// First local port.
    pub first_port: u16,
    /// Last local port, included.
    pub last_port: u16,
}

/// The protocol of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// The IP protocol number.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        })
    }
}

/// What clients address: `tcp 10.0.0.100:80`, `mark 7`, `mark 7 ipv6`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Listen {
    /// An address and its port.
    Address {
        /// TCP, UDP or SCTP.
        protocol: Protocol,
        /// VIP and port; 0: every port that no other service has.
        address: SocketAddr,
    },
    /// Whatever has a mark.
    Mark {
        /// Never 0.
        mark: u32,
        /// Of IPv6 packets, instead of IPv4 ones.
        ipv6: bool,
    },
}

impl Listen {
    /// The VIP, where there is one.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Listen::Address { address, .. } => Some(address.ip()),
            Listen::Mark { .. } => None,
        }
    }

    /// The port; 0 for all.
    #[must_use]
    pub fn port(&self) -> u16 {
        match self {
            Listen::Address { address, .. } => address.port(),
            Listen::Mark { .. } => 0,
        }
    }

    /// Whether its clients speak IPv4.
    #[must_use]
    pub fn is_ipv4(&self) -> bool {
        match self {
            Listen::Address { address, .. } => address.is_ipv4(),
            Listen::Mark { ipv6, .. } => !ipv6,
        }
    }

    /// The protocol, where it is one.
    #[must_use]
    pub fn protocol(&self) -> Option<Protocol> {
        match self {
            Listen::Address { protocol, .. } => Some(*protocol),
            Listen::Mark { .. } => None,
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Address { protocol, address } => write!(f, "{protocol} {address}"),
            Listen::Mark { mark, ipv6: false } => write!(f, "mark {mark}"),
            Listen::Mark { mark, ipv6: true } => write!(f, "mark {mark} ipv6"),
        }
    }
}

/// `[[mark]]`: packets without a connection that are all of this get a mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Never 0.
    pub mark: u32,
    /// The name of the port that they come in by.
    pub port: Option<String>,
    /// Whose they are.
    pub source: Option<Prefix>,
    /// Whom they ask.
    pub destination: Option<Prefix>,
    /// Of which protocol.
    pub protocol: Option<Protocol>,
    /// First and last of the clients' ports.
    pub source_ports: Option<(u16, u16)>,
    /// First and last of the ports that are asked.
    pub destination_ports: Option<(u16, u16)>,
}

/// Clients stay with their server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Persistence {
    /// Seconds after the last new connection.
    pub timeout: u32,
    /// Which clients are one.
    pub granularity: Granularity,
    /// What looks into their packets.
    pub engine: Option<Engine>,
}

/// Which clients a persistent service takes for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Granularity {
    /// Each is its own.
    Address,
    /// Those whose IPv4 addresses are the same in these bits.
    Netmask(Ipv4Addr),
    /// Those whose IPv6 addresses begin with so many same bits.
    Prefix(u8),
}

impl fmt::Display for Granularity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Granularity::Address => f.write_str("every client by itself"),
            Granularity::Netmask(mask) => mask.fmt(f),
            Granularity::Prefix(len) => len.fmt(f),
        }
    }
}

/// `[[service]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// What clients address.
    pub listen: Listen,
    /// One of the scheduler crate's names.
    pub scheduler: &'static str,
    /// Variations of the scheduler; `stagger` is the workers' own matter, the expirations are [`Ipvs`]'s.
    pub flags: Options,
    /// How packets reach servers that do not say it themselves.
    pub method: Method,
    /// Where FULLNAT takes local addresses from.
    pub lip_pool: Option<String>,
    /// Each UDP packet is scheduled alone.
    pub one_packet: bool,
    /// What looks into NAT connections.
    pub helper: Option<Helper>,
    /// Clients stay with their server.
    pub persistence: Option<Persistence>,
    /// Of a mark's service: the addresses that the director answers for.
    pub addresses: Vec<IpAddr>,
    /// In the order of adding, the newest last.
    pub servers: Vec<Server>,
    /// Counts edits of servers that left them as they were: some schedulers begin a round anew. Files have none.
    pub idle_edits: u64,
}

impl Service {
    /// The flags with the settings that are the same for all services. A scheduler that a setting does not concern is not
    /// told.
    #[must_use]
    pub fn scheduler_options(&self, ipvs: &Ipvs) -> Options {
        let mut options = self.flags;
        match self.scheduler {
            "lblc" => options.lblc_expiration = ipvs.lblc_expiration,
            "lblcr" => options.lblcr_expiration = ipvs.lblcr_expiration,
            _ => {}
        }
        options
    }
}

/// `[[service.server]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// RIP and port.
    pub address: SocketAddr,
    /// Share of new flows.
    pub weight: u16,
    /// How packets reach it.
    pub method: Method,
    /// At so many connections it gets no new ones; 0: no limit.
    pub upper: u32,
    /// Below so many connections it gets new ones again; 0: below three quarters of `upper`.
    pub lower: u32,
    /// How they are wrapped, with TUN.
    pub tunnel: TunnelKind,
}

/// What stands between a tunnel's outer IP header and the packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TunnelKind {
    /// Nothing.
    #[default]
    Ipip,
    /// GRE.
    Gre {
        /// With a checksum over the packet.
        checksum: bool,
    },
    /// UDP and GUE.
    Gue {
        /// UDP port at the server.
        port: u16,
        /// Over the packet.
        checksum: GueChecksum,
    },
}

/// The checksum of GUE's UDP header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GueChecksum {
    /// 0.
    #[default]
    None,
    /// Over the packet.
    Full,
    /// As the kernel sends it with remote checksum offload for a packet whose own checksum is finished: full, without
    /// an option. The director finishes every packet that goes into a tunnel.
    Remote,
}

/// `[timeouts]`, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeoutSettings {
    /// Established TCP connections.
    pub tcp: u32,
    /// TCP connections after the first FIN.
    pub tcp_fin: u32,
    /// UDP flows.
    pub udp: u32,
}

impl Default for TimeoutSettings {
    fn default() -> TimeoutSettings {
        TimeoutSettings {
            tcp: 900,
            tcp_fin: 120,
            udp: 300,
        }
    }
}
