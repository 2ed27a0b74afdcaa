//! Packets as the simulated hosts send and see them.

use crate::frame::Offload;
use crate::packet::sample::{self, Sample, assert_valid, fix_header};
use crate::packet::wire::{GRE, ICMP, ICMPV6, SCTP, TCP, UDP, Wire};
use crate::packet::{Packet, Parsed, TcpFlags, Tuple, V4, V6, checksum, parse};
use crate::port::Mac;
use std::net::{IpAddr, SocketAddr};

pub(super) const SYN: TcpFlags = TcpFlags(2);
pub(super) const SYN_ACK: TcpFlags = TcpFlags(0x12);
pub(super) const ACK: TcpFlags = TcpFlags(0x10);
pub(super) const DATA: TcpFlags = TcpFlags(0x18);
pub(super) const FIN: TcpFlags = TcpFlags(0x11);
pub(super) const RST: TcpFlags = TcpFlags(4);

/// One direction of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Talk {
    pub(super) protocol: u8,
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
}

impl Talk {
    pub(super) fn new(protocol: u8, source: &str, destination: &str) -> Talk {
        Talk {
            protocol,
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
        }
    }

    pub(super) fn tcp(source: &str, destination: &str) -> Talk {
        Talk::new(TCP, source, destination)
    }

    pub(super) fn udp(source: &str, destination: &str) -> Talk {
        Talk::new(UDP, source, destination)
    }

    pub(super) fn sctp(source: &str, destination: &str) -> Talk {
        Talk::new(SCTP, source, destination)
    }

    pub(super) fn back(&self) -> Talk {
        Talk {
            source: self.destination,
            destination: self.source,
            ..*self
        }
    }

    pub(super) fn at_port(mut self, port: u16) -> Talk {
        // From the port of active FTP data nothing begins.
        let port = if port == 20 { 60_020 } else { port };
        self.source.set_port(port);
        self
    }

    /// A frame with TTL 64 and right checksums; the flags are for TCP alone. An SCTP packet's payload is its
    /// chunks.
    pub(super) fn packet(&self, flags: TcpFlags, payload: &[u8]) -> Vec<u8> {
        match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                build::<V4>(&self.tuple(source, destination), flags, payload)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                build::<V6>(&self.tuple(source, destination), flags, payload)
            }
            _ => panic!("two families in {self:?}"),
        }
    }

    /// The same with "don't fragment".
    pub(super) fn whole(&self, flags: TcpFlags, payload: &[u8]) -> Vec<u8> {
        let mut frame = self.packet(flags, payload);
        if self.source.is_ipv4() {
            frame[20] |= 0x40;
            fix_header(&mut frame);
        }
        frame
    }

    fn tuple<F: Wire>(&self, source: F::Address, destination: F::Address) -> Tuple<F> {
        Tuple {
            source,
            destination,
            source_port: self.source.port(),
            destination_port: self.destination.port(),
            protocol: self.protocol,
        }
    }
}

fn build<F: Sample>(tuple: &Tuple<F>, flags: TcpFlags, payload: &[u8]) -> Vec<u8> {
    match tuple.protocol {
        TCP => sample::tcp(tuple, flags, payload),
        SCTP => sample::sctp(tuple, payload),
        _ => sample::udp(tuple, payload),
    }
}

/// The TTL or hop limit becomes `ttl`.
pub(super) fn with_ttl(mut frame: Vec<u8>, ttl: u8) -> Vec<u8> {
    if frame[12..14] == [8, 0] {
        frame[22] = ttl;
        fix_header(&mut frame);
    } else {
        frame[21] = ttl;
    }
    frame
}

/// An ICMP error of `from` about `quoted`, a frame of which the IP packet is quoted.
pub(super) fn icmp_error(
    from: &str,
    to: IpAddr,
    (kind, code, rest): (u8, u8, u32),
    quoted: &[u8],
) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0];
    message.extend(rest.to_be_bytes());
    message.extend(&quoted[14..]);
    icmp(from.parse().unwrap(), to, message)
}

/// A frame with an ICMP or ICMPv6 message, its checksum made here.
pub(super) fn icmp(from: IpAddr, to: IpAddr, mut message: Vec<u8>) -> Vec<u8> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let checksum = !sample::reference_sum(&message);
            message[2..4].copy_from_slice(&checksum.to_be_bytes());
            V4::frame(from, to, ICMP, &message)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let checksum = sample::reference_l4(&V6::octets(from, to), ICMPV6, &message);
            message[2..4].copy_from_slice(&checksum.to_be_bytes());
            V6::frame(from, to, ICMPV6, &message)
        }
        _ => panic!("two families"),
    }
}

/// Leaves the checksum to the NIC, as a local sender does.
pub(super) fn partial(frame: &mut [u8]) -> Offload {
    if frame[12..14] == [8, 0] {
        sample::make_partial::<V4>(frame)
    } else {
        sample::make_partial::<V6>(frame)
    }
}

/// A frame that came out of the director.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) worker: usize,
    pub(super) side: usize,
    pub(super) frame: Vec<u8>,
    pub(super) offload: Offload,
}

impl Seen {
    pub(super) fn to(&self) -> Mac {
        Mac(self.frame[..6].try_into().unwrap())
    }

    pub(super) fn from(&self) -> Mac {
        Mac(self.frame[6..12].try_into().unwrap())
    }

    /// Its packet as the receiver gets it, every checksum checked; a partial one is completed before.
    pub(super) fn packet(&self) -> Got {
        let mut frame = self.frame.clone();
        if self.offload.partial_checksum {
            checksum::complete(&mut frame, &self.offload);
        }
        Got::of(&frame)
    }
}

/// A packet that arrived somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Got {
    pub(super) talk: Talk,
    pub(super) flags: TcpFlags,
    pub(super) ttl: u8,
    pub(super) tos: u8,
    pub(super) id: u32,
    pub(super) dont_fragment: bool,
    /// Bytes of the IP packet.
    pub(super) len: usize,
    /// What follows the transport header; the whole transport of other protocols than TCP, UDP and
    /// SCTP.
    pub(super) payload: Vec<u8>,
}

impl Got {
    pub(super) fn of(frame: &[u8]) -> Got {
        match parse(frame, &Offload::NONE) {
            Parsed::Ipv4(_) => Got::from_packet(&assert_valid::<V4>(frame), frame),
            Parsed::Ipv6(_) => Got::from_packet(&assert_valid::<V6>(frame), frame),
            other => panic!("not an IP packet: {other:?} {frame:02x?}"),
        }
    }

    fn from_packet<F: Wire>(packet: &Packet<F>, frame: &[u8]) -> Got {
        let tuple = &packet.tuple;
        let transport = &frame[packet.l4()..packet.end()];
        let header_len = match tuple.protocol {
            _ if packet.fragment != crate::packet::Fragment::None => 0,
            TCP => usize::from(transport[12] >> 4) * 4,
            UDP => 8,
            SCTP => 12,
            _ => 0,
        };
        Got {
            talk: Talk {
                protocol: tuple.protocol,
                source: SocketAddr::new(tuple.source.into(), tuple.source_port),
                destination: SocketAddr::new(tuple.destination.into(), tuple.destination_port),
            },
            flags: packet.tcp_flags,
            ttl: packet.ttl,
            tos: packet.tos,
            id: packet.fragment_id,
            dont_fragment: packet.dont_fragment,
            len: packet.end() - packet.l3(),
            payload: transport[header_len..].to_vec(),
        }
    }

    /// Type, code and the word after the checksum of an ICMP error, and the flow of the packet that it quotes. That one's
    /// transport checksum need not be right.
    pub(super) fn error(&self) -> ((u8, u8, u32), Talk) {
        let message = &self.payload;
        let rest = u32::from_be_bytes(message[4..8].try_into().unwrap());
        let ether_type = match self.talk.protocol {
            ICMP => [8, 0],
            ICMPV6 => [0x86, 0xdd],
            other => panic!("protocol {other} is not ICMP"),
        };
        let frame = [&[0; 12], ether_type.as_slice(), &message[8..]].concat();
        let talk = match self.talk.protocol {
            ICMP => quoted::<V4>(&frame),
            _ => quoted::<V6>(&frame),
        };
        ((message[0], message[1], rest), talk)
    }

    /// The packet that a tunnel's packet carries.
    pub(super) fn inner(&self) -> Got {
        let (ether_type, header_len) = match (self.talk.protocol, &self.payload[..4]) {
            (4, _) => ([8, 0], 0),
            (41, _) => ([0x86, 0xdd], 0),
            (UDP, [0, 4, 0, 0]) => ([8, 0], 4),
            (UDP, [0, 41, 0, 0]) => ([0x86, 0xdd], 4),
            (GRE, &[0, 0, high, low]) => ([high, low], 4),
            (GRE, &[0x80, 0, high, low]) => {
                assert_eq!(sample::reference_sum(&self.payload), 0xffff);
                ([high, low], 8)
            }
            other => panic!("protocol {other:?} is no tunnel"),
        };
        Got::of(&[&[0; 12], ether_type.as_slice(), &self.payload[header_len..]].concat())
    }
}

/// The flow of a quoted packet.
fn quoted<F: Sample>(frame: &[u8]) -> Talk {
    let quoted = crate::packet::icmp::parse_quoted::<F>(frame, 14, frame.len()).unwrap();
    let tuple = quoted.tuple;
    Talk {
        protocol: tuple.protocol,
        source: SocketAddr::new(tuple.source.into(), tuple.source_port),
        destination: SocketAddr::new(tuple.destination.into(), tuple.destination_port),
    }
}
