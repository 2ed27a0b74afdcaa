//! A director inside a program of its own, with a scheduler of its own: `cargo run -p control --example own_scheduler`.
//!
//! The scheduler sends the clients of one network of 256 addresses to the same server. It is registered under a name, and the
//! configuration selects it by that name like any other. The port is a memory port: what a NIC would do is done here.

use control::Director;
use control::config::Configuration;
use dataplane::packet::{arp, checksum};
use dataplane::port::memory::{MemoryPort, MemoryWire};
use dataplane::port::{Mac, PortId, PortInfo};
use scheduler::{Flow, RealServer, Scheduler};
use std::error::Error;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

const DIRECTOR: Mac = Mac([2, 0, 0, 0, 0, 1]);
const CLIENT: Mac = Mac([2, 0, 0, 0, 0, 2]);
const SERVER: Mac = Mac([2, 0, 0, 0, 0, 3]);

const CONFIGURATION: &str = r#"
[director]
workers = 1
connections = 1000
[port.lan]
driver = "memory"
addresses = ["10.0.0.1/8"]
[[service]]
listen = "udp 10.1.0.100:53"
scheduler = "by-network"
method = "nat"
server = [{ address = "10.2.0.1" }, { address = "10.2.0.2" }, { address = "10.2.0.3" }]
"#;

/// Clients of one /24 (IPv4) or /48 (IPv6) get the same server while the list stays as it is.
struct ByNetwork;

impl Scheduler for ByNetwork {
    /// On the packet path: nothing is allocated here.
    fn pick(&mut self, flow: &Flow, servers: &[RealServer]) -> Option<usize> {
        let network = match flow.client {
            IpAddr::V4(client) => u64::from(client.to_bits() >> 8),
            #[allow(clippy::cast_possible_truncation, reason = "48 bits")]
            IpAddr::V6(client) => (client.to_bits() >> 80) as u64,
        };
        let usable = servers.iter().filter(|server| server.is_usable()).count();
        let which = network.checked_rem(usable as u64)?;
        let mut usable = (0..servers.len()).filter(|&place| servers[place].is_usable());
        usable.nth(usize::try_from(which).ok()?)
    }

    fn servers_changed(&mut self, _: &[RealServer]) {}
}

/// Registers the scheduler, starts a director and sends a query of each of these clients; which server got it.
///
/// # Errors
/// When something of it fails.
pub(crate) fn run(clients: &[Ipv4Addr]) -> Result<Vec<Ipv4Addr>, Box<dyn Error>> {
    scheduler::register("by-network", |_| Box::new(ByNetwork))?;
    let accepted = Configuration::parse("example", CONFIGURATION)?;
    let info = PortInfo {
        name: "lan".to_owned(),
        mac: DIRECTOR,
        mtu: 1500,
        driver: "memory",
    };
    let (port, wire) = MemoryPort::new(PortId(0), info, 64, 2048);
    let director = Director::start_with(accepted.configuration, vec![vec![port]])?;
    let mut servers = Vec::new();
    for client in clients {
        wire.inject(&query(*client));
        servers.push(server_of_next(&wire).ok_or("no packet came out within five seconds")?);
    }
    director.stop();
    Ok(servers)
}

/// The next packet's destination; asked for a hardware address meanwhile, the servers' answer is given.
fn server_of_next(wire: &MemoryWire) -> Option<Ipv4Addr> {
    let end = Instant::now() + Duration::from_secs(5);
    while Instant::now() < end {
        for (frame, _) in wire.take() {
            if frame[12..14] == [0x08, 0x00] {
                return Some(Ipv4Addr::new(frame[30], frame[31], frame[32], frame[33]));
            }
            if let Ok(asked) = arp::parse(&frame)
                && !asked.is_gratuitous()
            {
                wire.inject(&arp::reply(SERVER, &asked));
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    None
}

/// A frame with an empty UDP datagram to the service.
fn query(client: Ipv4Addr) -> Vec<u8> {
    let mut ip = vec![0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0, 0];
    ip.extend(client.octets());
    ip.extend([10, 1, 0, 100]);
    let sum = checksum::ipv4_header(&ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let udp = [0x9c, 0x40, 0, 53, 0, 8, 0, 0];
    [&DIRECTOR.0[..], &CLIENT.0, &[0x08, 0x00], &ip, &udp].concat()
}

/// See the file's text.
///
/// # Errors
/// When something of it fails.
pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    let clients = [
        "10.9.1.1",
        "10.9.1.77",
        "10.9.2.1",
        "10.9.3.1",
        "10.9.2.200",
    ];
    let clients: Vec<Ipv4Addr> = clients
        .iter()
        .map(|text| text.parse())
        .collect::<Result<_, _>>()?;
    for (client, server) in clients.iter().zip(run(&clients)?) {
        println!("{client} is served by {server}");
    }
    Ok(())
}
