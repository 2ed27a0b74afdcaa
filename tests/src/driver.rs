//! The driver that the tests run over: what the variable `UVS_DRIVER` names, `af_packet` unless it is set.

use cli::lab::{Namespace, Topology};
use std::env;

/// How frames come to the director.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// Packet sockets.
    AfPacket,
    /// AF_XDP sockets.
    AfXdp,
    /// The first that can be had.
    Automatic,
    /// DPDK over packet sockets.
    DpdkAfPacket,
    /// DPDK over AF_XDP sockets.
    DpdkAfXdp,
}

impl Driver {
    const NAMES: [(&str, Driver); 5] = [
        ("af_packet", Driver::AfPacket),
        ("af_xdp", Driver::AfXdp),
        ("auto", Driver::Automatic),
        ("dpdk:net_af_packet", Driver::DpdkAfPacket),
        ("dpdk:net_af_xdp", Driver::DpdkAfXdp),
    ];

    /// The one that the variable names.
    ///
    /// # Panics
    /// When there is no such driver.
    #[must_use]
    pub fn of_tests() -> Driver {
        let named = env::var("UVS_DRIVER").unwrap_or_else(|_| "af_packet".to_owned());
        let found = Driver::NAMES.iter().find(|(name, _)| *name == named);
        let accepted = Driver::NAMES.map(|(name, _)| name).join(", ");
        found
            .unwrap_or_else(|| panic!("UVS_DRIVER: {named:?} is no driver; accepted: {accepted}"))
            .1
    }

    /// The lines of a port on `interface`, for so many workers.
    #[must_use]
    pub fn port(self, interface: &str, workers: u8) -> String {
        let number = &interface["eth".len()..];
        let device = match self {
            Driver::AfPacket => {
                return format!("driver = \"af_packet\"\ninterface = \"{interface}\"\n");
            }
            Driver::AfXdp => {
                return format!("driver = \"af_xdp\"\ninterface = \"{interface}\"\n");
            }
            Driver::Automatic => {
                return format!("driver = \"auto\"\ninterface = \"{interface}\"\n");
            }
            Driver::DpdkAfPacket => format!(
                "net_af_packet{number},iface={interface},qpairs={workers},framesz=2048,blocksz=65536,framecnt=2048"
            ),
            Driver::DpdkAfXdp => {
                format!("net_af_xdp{number},iface={interface},start_queue=0,queue_count={workers}")
            }
        };
        format!("driver = \"dpdk\"\ndevice = \"{device}\"\n")
    }

    /// What else the configuration says.
    #[must_use]
    pub fn more(self) -> &'static str {
        match self {
            Driver::AfPacket | Driver::AfXdp | Driver::Automatic => "",
            // The machine of the tests may have no huge pages.
            Driver::DpdkAfPacket | Driver::DpdkAfXdp => "[dpdk]\nhuge_pages = false\n",
        }
    }

    /// Makes the hosts finish their frames themselves: DPDK's drivers do not see what Linux leaves to a NIC, checksums and
    /// the cutting of large segments.
    ///
    /// # Panics
    /// When ethtool is missing or fails.
    pub fn prepare(self, topology: &Topology) {
        if matches!(self, Driver::AfPacket | Driver::AfXdp | Driver::Automatic) {
            return;
        }
        let servers = topology.servers.iter().map(|server| &server.namespace);
        for host in servers.chain([&topology.client, &topology.router]) {
            for interface in ["eth0", "eth1"] {
                if host.link(interface).is_ok() {
                    finish_frames(host, interface);
                }
            }
        }
    }
}

fn finish_frames(host: &Namespace, interface: &str) {
    let mut command = host.command("ethtool");
    command.args(["-K", interface]);
    command.args(["tx", "off", "tso", "off", "gso", "off", "gro", "off"]);
    let output = command.output();
    let output = output.unwrap_or_else(|error| panic!("ethtool (Debian: ethtool): {error}"));
    assert!(output.status.success(), "{interface}: {output:?}");
}
