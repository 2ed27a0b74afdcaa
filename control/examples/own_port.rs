//! A director on a port of the program's own: `cargo run -p control --example own_port`.
//!
//! Frames travel as datagrams over a Unix socket, as virtual machines' network cards can send them (`-netdev dgram` of QEMU):
//! a driver that the director does not have. Buffers come from the director's own pool, so that nothing here is unsafe.

use control::Director;
use control::config::Configuration;
use dataplane::frame::{Frame, Offload};
use dataplane::packet::arp;
use dataplane::port::pool::Pool;
use dataplane::port::{Burst, Mac, Port, PortCounters, PortId, PortInfo, Sent};
use std::error::Error;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

const DIRECTOR: Mac = Mac([2, 0, 0, 0, 0, 1]);
/// The longest frame: an Ethernet header and an IP packet of 1500 bytes.
const FRAME_LEN_MAX: u32 = 1514;

const CONFIGURATION: &str = r#"
[director]
workers = 1
connections = 1000
[port.lan]
driver = "memory"
addresses = ["10.0.0.1/8"]
[[service]]
listen = "udp 10.1.0.100:53"
method = "nat"
server = [{ address = "10.2.0.1" }]
"#;

/// A queue of a port whose frames are datagrams.
struct DatagramPort {
    info: PortInfo,
    pool: Pool,
    socket: UnixDatagram,
    counters: PortCounters,
    /// What is received, before it has a buffer.
    room: Box<[u8]>,
}

impl DatagramPort {
    fn new(id: PortId, socket: UnixDatagram) -> io::Result<DatagramPort> {
        socket.set_nonblocking(true)?;
        let info = PortInfo {
            name: "lan".to_owned(),
            mac: DIRECTOR,
            mtu: 1500,
            driver: "datagram",
        };
        Ok(DatagramPort {
            info,
            pool: Pool::new(id, 256, FRAME_LEN_MAX),
            socket,
            counters: PortCounters::default(),
            room: vec![0; 65_536].into_boxed_slice(),
        })
    }
}

impl Port for DatagramPort {
    fn info(&self) -> &PortInfo {
        &self.info
    }

    fn receive(&mut self, burst: &mut Burst) -> usize {
        let before = burst.len();
        while !burst.is_full() && !self.pool.is_exhausted() {
            let Ok(len) = self.socket.recv(&mut self.room) else {
                break;
            };
            match self.pool.lend_copy(&self.room[..len], Offload::NONE) {
                Some(frame) => burst.push(frame),
                // Longer than a buffer.
                None => self.counters.receive_missed += 1,
            }
        }
        burst.len() - before
    }

    fn transmit(&mut self, frame: Frame) -> Sent {
        if !self.send(frame.bytes(), &frame.offload) {
            return Sent::Refused(frame);
        }
        if frame.port != self.pool.port() {
            return Sent::Copied(frame);
        }
        self.pool.give_back(frame);
        Sent::Taken
    }

    fn send(&mut self, bytes: &[u8], _: &Offload) -> bool {
        self.socket.send(bytes).is_ok()
    }

    fn flush(&mut self) {}

    fn release(&mut self, frame: Frame) {
        self.pool.give_back(frame);
    }

    fn wait_on(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.as_fd())
    }

    fn counters(&mut self) -> PortCounters {
        self.counters
    }
}

/// Asks the director by ARP for the hardware address of the service, over the port.
///
/// # Errors
/// When something of it fails.
pub(crate) fn ask() -> Result<Mac, Box<dyn Error>> {
    let (directors, ours) = UnixDatagram::pair()?;
    let accepted = Configuration::parse("example", CONFIGURATION)?;
    let port = DatagramPort::new(PortId(0), directors)?;
    let director = Director::start_with(accepted.configuration, vec![vec![port]])?;
    let us = (Mac([2, 0, 0, 0, 0, 2]), Ipv4Addr::new(10, 9, 0, 1));
    let service = Ipv4Addr::new(10, 1, 0, 100);
    ours.send(&arp::request(us.0, us.1, service, None))?;
    ours.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut room = [0; 2048];
    let answer = loop {
        let len = ours.recv(&mut room)?;
        match arp::parse(&room[..len]) {
            Ok(arp) if arp.sender == service && !arp.is_gratuitous() => break arp,
            // It announces its addresses, too.
            _ => {}
        }
    };
    director.stop();
    Ok(answer.sender_mac)
}

/// See the file's text.
///
/// # Errors
/// When something of it fails.
pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    println!("10.1.0.100 is at {}", ask()?);
    Ok(())
}
