//! The far end of IP-in-IP tunnels, for kernels without the tunnel drivers.
//!
//! Raw sockets receive what is inside the outer packets (IPv4 and IPv6 in either), and a raw socket that brings its
//! own IP header hands each inner packet to the host's own address, whose stack takes it as if it had arrived by
//! itself. Checksums are not touched: the kernel checks those that the director left.

use super::stop::{Serving, Stop};
use super::{Family, LabError, Namespace};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const IPV4_IN_IP: i32 = 4;
const IPV6_IN_IP: i32 = 41;
/// Any protocol, only to send from (IPPROTO_RAW).
const RAW: i32 = 255;
const PACKET_MAX: usize = 65_535;
/// How much may wait to be unwrapped, bytes of kernel memory.
const RECEIVE_BUFFER: usize = 4 << 20;

/// Unwraps IP-in-IP packets that reach a namespace, until it is dropped.
#[derive(Debug)]
pub struct Decapsulator {
    counters: Arc<Counters>,
    _serving: Serving,
}

#[derive(Debug, Default)]
struct Counters {
    delivered: AtomicU64,
    refused: AtomicU64,
}

impl Decapsulator {
    /// Starts to unwrap, whatever the outer packet's family is among `families`. The namespace should have the
    /// virtual address on lo: other inner packets go where its routes say.
    ///
    /// # Errors
    /// When the process lacks CAP_NET_RAW in the namespace.
    pub fn start(namespace: &Namespace, families: &[Family]) -> Result<Decapsulator, LabError> {
        let sockets = namespace
            .run(|| Sockets::open(families))
            .map_err(|source| LabError::Listen {
                service: "decapsulator",
                address: namespace.name().to_owned(),
                source,
            })?;
        let counters = Arc::new(Counters::default());
        let counted = Arc::clone(&counters);
        let serve = move |stop: &Stop| sockets.serve(stop, &counted);
        Ok(Decapsulator {
            counters,
            _serving: Serving::start(namespace, "decapsulator", serve)?,
        })
    }

    /// Inner packets handed to the host.
    #[must_use]
    pub fn delivered(&self) -> u64 {
        self.counters.delivered.load(Relaxed)
    }

    /// Outer packets that held nothing the host takes.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.counters.refused.load(Relaxed)
    }
}

struct Sockets {
    outer: Vec<Outer>,
    inner: Vec<(Family, Socket)>,
}

/// A socket that receives the packets of one protocol.
struct Outer {
    socket: Socket,
    /// IPv4 raw sockets deliver the outer header too, IPv6 ones do not.
    has_header: bool,
}

impl Sockets {
    fn open(families: &[Family]) -> io::Result<Sockets> {
        let mut sockets = Sockets {
            outer: Vec::new(),
            inner: Vec::new(),
        };
        for family in families {
            let domain = if *family == Family::V4 {
                Domain::IPV4
            } else {
                Domain::IPV6
            };
            for protocol in [IPV4_IN_IP, IPV6_IN_IP] {
                let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(protocol)))?;
                socket.set_nonblocking(true)?;
                socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
                sockets.outer.push(Outer {
                    socket,
                    has_header: *family == Family::V4,
                });
            }
            // IPPROTO_RAW means for both families: the sender brings the IP header.
            let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(RAW)))?;
            sockets.inner.push((*family, socket));
        }
        Ok(sockets)
    }

    fn serve(&self, stop: &Stop, counters: &Counters) {
        let fds: Vec<_> = self
            .outer
            .iter()
            .map(|outer| outer.socket.as_fd())
            .collect();
        let mut buffer = vec![0; PACKET_MAX];
        while stop.wait(&fds) {
            for outer in &self.outer {
                // Nothing waits on this one: it would block.
                let Ok(len) = (&outer.socket).read(&mut buffer) else {
                    continue;
                };
                let packet = &buffer[..len];
                let inner = if outer.has_header {
                    without_ipv4_header(packet)
                } else {
                    Some(packet)
                };
                let sent = inner.is_some_and(|inner| self.deliver(inner).is_ok());
                let counter = if sent {
                    &counters.delivered
                } else {
                    &counters.refused
                };
                counter.fetch_add(1, Relaxed);
            }
        }
    }

    fn deliver(&self, packet: &[u8]) -> io::Result<usize> {
        let destination = destination(packet).ok_or(io::ErrorKind::InvalidData)?;
        let family = if destination.is_ipv4() {
            Family::V4
        } else {
            Family::V6
        };
        let socket = self
            .inner
            .iter()
            .find(|(of, _)| *of == family)
            .ok_or(io::ErrorKind::Unsupported)?;
        socket
            .1
            .send_to(packet, &SockAddr::from(SocketAddr::new(destination, 0)))
    }
}

fn without_ipv4_header(packet: &[u8]) -> Option<&[u8]> {
    let len = usize::from(packet.first()? & 0x0f) * 4;
    packet.get(len..)
}

fn destination(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => packet
            .get(16..20)?
            .try_into()
            .ok()
            .map(|octets: [u8; 4]| Ipv4Addr::from(octets).into()),
        6 => packet
            .get(24..40)?
            .try_into()
            .ok()
            .map(|octets: [u8; 16]| Ipv6Addr::from(octets).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_destination_is_read_from_either_family_and_short_packets_have_none() {
        let mut packet = vec![0; 40];
        packet[0] = 0x45;
        packet[16..20].copy_from_slice(&[192, 0, 2, 100]);
        assert_eq!(destination(&packet), Some("192.0.2.100".parse().unwrap()));
        assert_eq!(destination(&packet[..19]), None);
        packet[0] = 0x60;
        packet[24..40].copy_from_slice(&"2001:db8::64".parse::<Ipv6Addr>().unwrap().octets());
        assert_eq!(destination(&packet), Some("2001:db8::64".parse().unwrap()));
        assert_eq!(destination(&packet[..39]), None);
        assert_eq!(destination(&[]), None);
    }

    #[test]
    fn options_belong_to_the_outer_header() {
        let mut packet = vec![0; 28];
        packet[0] = 0x46;
        packet[24] = 0x45;
        assert_eq!(without_ipv4_header(&packet), Some(&[0x45, 0, 0, 0][..]));
        packet[0] = 0x4f;
        assert_eq!(without_ipv4_header(&packet), None);
    }
}
