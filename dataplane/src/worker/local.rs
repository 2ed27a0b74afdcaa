//! Packets for the director itself: ARP, neighbour discovery, echo.

use super::Worker;
use super::burst::not_a_flow;
use super::family::Ip;
use crate::frame::Frame;
use crate::packet::wire::{ICMP, ICMPV6};
use crate::packet::{Fragment, Packet, arp, ndp};
use crate::port::{Mac, Port};
use crate::reason::Reason;
use crate::snapshot::Owned;
use conntrack::{V4, V6};
use std::net::IpAddr;

/// ICMP types. Source: RFC 792.
const V4_ECHO: u8 = 8;
/// ICMPv6 types. Source: RFC 4443, RFC 4861.
const V6_ECHO: u8 = 128;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;

impl<P: Port> Worker<P> {
    /// An IPv4 packet that is not looked up by its own addresses and ports.
    pub(super) fn control_v4(&mut self, frame: Frame, packet: &Packet<V4>) {
        if packet.tuple.protocol != ICMP || packet.fragment != Fragment::None {
            return not_a_flow(self, frame, packet);
        }
        match frame.bytes()[packet.l4()] {
            V4_ECHO if self.answers_for(packet.tuple.destination.into()) => {
                self.echo(frame, packet);
            }
            // Echo replies, router discovery, timestamps, address masks: nothing that quotes a packet.
            0 | 8..=10 | 13..=18 => self.egress.exception(frame),
            _ => self.error_v4(frame, packet),
        }
    }

    /// An IPv6 packet that is not looked up by its own addresses and ports.
    pub(super) fn control_v6(&mut self, frame: Frame, packet: &Packet<V6>) {
        if packet.tuple.protocol != ICMPV6 || packet.fragment != Fragment::None {
            return not_a_flow(self, frame, packet);
        }
        match frame.bytes()[packet.l4()] {
            V6_ECHO if self.answers_for(packet.tuple.destination.into()) => {
                self.echo(frame, packet);
            }
            0..=127 => self.error_v6(frame, packet),
            NEIGHBOUR_SOLICITATION | NEIGHBOUR_ADVERTISEMENT => self.ndp(frame, packet),
            _ => self.egress.exception(frame),
        }
    }

    /// Whether the director, not the kernel, answers for an address.
    pub(super) fn answers_for(&self, address: IpAddr) -> bool {
        self.egress
            .snapshot
            .owned
            .get(&address)
            .is_some_and(|&owned| owned != Owned::Kernel)
    }

    fn echo<F: Ip>(&mut self, mut frame: Frame, packet: &Packet<F>) {
        if !F::echo_reply(frame.bytes_mut(), packet) {
            return self.egress.drop(frame, Reason::BadIcmpChecksum);
        }
        self.egress.reply(frame.port, frame.bytes());
        self.egress.release(frame);
    }

    /// Answers a request for an address of ours; learns from everything else.
    pub(super) fn arp(&mut self, frame: Frame) {
        let message = match arp::parse(frame.bytes()) {
            Ok(message) => message,
            Err(reason) => return self.egress.drop(frame, reason),
        };
        let port = frame.port;
        self.egress
            .learn(port, message.sender.into(), message.sender_mac);
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
                let to = source_mac.unwrap_or_else(|| source_mac_of(frame.bytes()));
                if self.answers_for(target.into()) {
                    let mac = self.egress.snapshot.ports[usize::from(port.0)].mac;
                    self.egress
                        .reply(port, &ndp::advertisement(mac, target, asker, to));
                    return self.egress.release(frame);
                }
            }
            ndp::Message::Advertisement {
                target,
                target_mac: Some(mac),
                ..
            } => {
                self.egress.learn(port, target.into(), mac);
            }
            ndp::Message::Advertisement { .. } => {}
        }
        self.egress.exception(frame);
    }
}

/// Who sent a frame.
fn source_mac_of(frame: &[u8]) -> Mac {
    let mut mac = [0; 6];
    mac.copy_from_slice(&frame[6..12]);
    Mac(mac)
}
