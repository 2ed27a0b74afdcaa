//! Packets for the director itself: ARP, neighbour discovery, echo.

use super::Worker;
use super::burst::not_a_flow;
use crate::frame::Frame;
use crate::packet::wire::{ICMP, ICMPV6};
use crate::packet::{Fragment, Packet, arp, icmp, ndp};
use crate::port::Port;
use crate::reason::Reason;
use crate::snapshot::Owned;
use conntrack::{V4, V6};
use std::net::IpAddr;

impl<P: Port> Worker<P> {
    /// An IPv4 packet that is not looked up by its own addresses and ports.
    pub(super) fn control_v4(&mut self, frame: Frame, packet: &Packet<V4>) {
        if packet.tuple.protocol != ICMP || packet.fragment != Fragment::None {
            return not_a_flow(self, frame, packet);
        }
        match icmp::kind(frame.bytes(), packet) {
            icmp::Kind::EchoRequest if self.answers_for(packet.tuple.destination.into()) => {
                self.echo(frame, |scratch, frame| icmp::echo_reply(scratch, frame, packet));
            }
            icmp::Kind::Error => self.ipv4.related(&mut self.services, &mut self.egress, frame, packet),
            _ => self.egress.exception(frame),
        }
    }

    /// An IPv6 packet that is not looked up by its own addresses and ports.
    pub(super) fn control_v6(&mut self, frame: Frame, packet: &Packet<V6>) {
        if packet.tuple.protocol != ICMPV6 || packet.fragment != Fragment::None {
            return not_a_flow(self, frame, packet);
        }
        match icmp::kind(frame.bytes(), packet) {
            icmp::Kind::EchoRequest if self.answers_for(packet.tuple.destination.into()) => {
                self.echo(frame, |scratch, frame| icmp::echo_reply(scratch, frame, packet));
            }
            icmp::Kind::Error => self.ipv6.related(&mut self.services, &mut self.egress, frame, packet),
            icmp::Kind::Neighbour => self.ndp(frame, packet),
            _ => self.egress.exception(frame),
        }
    }

    /// Whether the director, not the kernel, answers for an address.
    fn answers_for(&self, address: IpAddr) -> bool {
        self.egress.snapshot.owned.get(&address).is_some_and(|&owned| owned != Owned::Kernel)
    }

    fn echo(&mut self, frame: Frame, build: impl FnOnce(&mut [u8], &[u8]) -> Result<usize, Reason>) {
        let mut scratch = std::mem::take(&mut self.egress.scratch);
        let built = build(&mut scratch, frame.bytes());
        match built {
            Ok(len) => {
                self.egress.reply(frame.port, &scratch[..len]);
                self.egress.release(frame);
            }
            Err(reason) => self.egress.drop(frame, reason),
        }
        self.egress.scratch = scratch;
    }

    /// Answers a request for an address of ours; learns from everything else.
    pub(super) fn arp(&mut self, frame: Frame) {
        let message = match arp::parse(frame.bytes()) {
            Ok(message) => message,
            Err(reason) => return self.egress.drop(frame, reason),
        };
        let port = frame.port;
        self.egress.learn(port, message.sender.into(), message.sender_mac);
        let asked = message.operation == arp::Operation::Request && !message.is_gratuitous();
        if asked && self.answers_for(message.target.into()) {
            let mac = self.egress.snapshot.ports[usize::from(port.0)].mac;
            self.egress.reply(port, &arp::reply(mac, &message));
            self.egress.release(frame);
        } else {
            self.egress.exception(frame);
        }
    }

    /// The same for IPv6.
    fn ndp(&mut self, frame: Frame, packet: &Packet<V6>) {
        let message = match ndp::parse(frame.bytes(), packet) {
            Ok(message) => message,
            Err(reason) => return self.egress.drop(frame, reason),
        };
        let port = frame.port;
        match message {
            ndp::Message::Solicitation { target, source_mac } => {
                let asker = packet.tuple.source;
                if let Some(mac) = source_mac {
                    self.egress.learn(port, asker.into(), mac);
                }
                // An asker without an address probes for a duplicate of its own.
                let to = source_mac.unwrap_or_else(|| crate::packet::source_mac(frame.bytes()));
                if self.answers_for(target.into()) {
                    let mac = self.egress.snapshot.ports[usize::from(port.0)].mac;
                    self.egress.reply(port, &ndp::advertisement(mac, target, asker, to));
                    return self.egress.release(frame);
                }
            }
            ndp::Message::Advertisement { target, target_mac: Some(mac), .. } => {
                self.egress.learn(port, target.into(), mac);
            }
            ndp::Message::Advertisement { .. } => {}
        }
        self.egress.exception(frame);
    }
}
