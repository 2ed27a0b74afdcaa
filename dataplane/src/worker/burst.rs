//! The stages of a burst: parse and hash all, prefetching buckets; probe all, prefetching entries; decide each.

use super::connection::Found;
use super::egress::Egress;
use super::family::Ip;
use super::fragments::may_belong_to_a_flow;
use super::services::Services;
use super::{Flows, Worker};
use crate::frame::Frame;
use crate::packet::wire::has_ports;
use crate::packet::{Fragment, Packet, Parsed, parse};
use crate::port::{BURST, Burst, Port};
use crate::reason::Reason;
use arrayvec::ArrayVec;
use conntrack::{Hash, Probe, V4, V6};

/// A packet of a flow between the stages.
struct Lookup<F: Ip> {
    packet: Packet<F>,
    hash: Hash,
    probe: Probe,
}

/// A frame between the stages.
enum Staged {
    Ipv4(Lookup<V4>),
    Ipv6(Lookup<V6>),
    /// Rare enough to be looked at when its turn comes.
    Other(Parsed),
}

impl<P: Port> Worker<P> {
    /// Decides every frame of a burst, in order, and leaves it empty.
    pub(super) fn handle(&mut self, burst: &mut Burst) {
        let mut staged: ArrayVec<Staged, BURST> = ArrayVec::new();
        for frame in burst.iter() {
            staged.push(self.stage(frame));
        }
        for one in &mut staged {
            match one {
                Staged::Ipv4(lookup) => lookup.probe = self.ipv4.table.probe(lookup.hash),
                Staged::Ipv6(lookup) => lookup.probe = self.ipv6.table.probe(lookup.hash),
                Staged::Other(_) => {}
            }
        }
        for (frame, one) in burst.drain(..).zip(&staged) {
            match one {
                Staged::Ipv4(lookup) => self.flow_v4(frame, lookup),
                Staged::Ipv6(lookup) => self.flow_v6(frame, lookup),
                Staged::Other(parsed) => self.other(frame, parsed),
            }
        }
    }

    #[inline]
    fn stage(&self, frame: &Frame) -> Staged {
        match parse(frame.bytes(), &frame.offload) {
            Parsed::Ipv4(packet) if is_flow(&packet) && self.services.has_family(false) => {
                Staged::Ipv4(self.ipv4.begin(packet))
            }
            Parsed::Ipv6(packet) if is_flow(&packet) && self.services.has_family(true) => {
                Staged::Ipv6(self.ipv6.begin(packet))
            }
            other => Staged::Other(other),
        }
    }

    #[inline]
    fn flow_v4(&mut self, frame: Frame, lookup: &Lookup<V4>) {
        let found = self.ipv4.find(lookup);
        match found {
            Some(found) => self.ipv4.forward(
                &mut self.services,
                &mut self.egress,
                frame,
                &lookup.packet,
                found,
            ),
            None => self
                .ipv4
                .new_flow(&mut self.services, &mut self.egress, frame, &lookup.packet),
        }
    }

    #[inline]
    fn flow_v6(&mut self, frame: Frame, lookup: &Lookup<V6>) {
        let found = self.ipv6.find(lookup);
        match found {
            Some(found) => self.ipv6.forward(
                &mut self.services,
                &mut self.egress,
                frame,
                &lookup.packet,
                found,
            ),
            None => self
                .ipv6
                .new_flow(&mut self.services, &mut self.egress, frame, &lookup.packet),
        }
    }

    #[cold]
    fn other(&mut self, frame: Frame, parsed: &Parsed) {
        let (services, egress) = (&mut self.services, &mut self.egress);
        match parsed {
            Parsed::Ipv4(packet) if is_transport(packet) && !services.has_family(false) => {
                egress.exception(frame);
            }
            Parsed::Ipv6(packet) if is_transport(packet) && !services.has_family(true) => {
                egress.exception(frame);
            }
            Parsed::Ipv4(packet) if may_belong_to_a_flow(packet) => {
                self.ipv4.fragment(services, egress, frame, packet);
            }
            Parsed::Ipv6(packet) if may_belong_to_a_flow(packet) => {
                self.ipv6.fragment(services, egress, frame, packet);
            }
            Parsed::Ipv4(packet) if is_from_port_zero(packet) => {
                self.ipv4
                    .without_client_port(services, egress, frame, packet);
            }
            Parsed::Ipv6(packet) if is_from_port_zero(packet) => {
                self.ipv6
                    .without_client_port(services, egress, frame, packet);
            }
            Parsed::Ipv4(packet) => self.control_v4(frame, packet),
            Parsed::Ipv6(packet) => self.control_v6(frame, packet),
            Parsed::Arp => self.arp(frame),
            Parsed::Other => self.egress.exception(frame),
            Parsed::Drop(reason) => self.egress.drop(frame, *reason),
        }
    }
}

impl<F: Ip> Flows<F> {
    #[inline]
    fn begin(&self, packet: Packet<F>) -> Lookup<F> {
        let hash = self.table.hash(&packet.tuple);
        self.table.prefetch(hash);
        Lookup {
            packet,
            hash,
            probe: Probe::default(),
        }
    }

    #[cold]
    fn without_client_port<P: Port>(
        &mut self,
        services: &mut Services,
        egress: &mut Egress<P>,
        frame: Frame,
        packet: &Packet<F>,
    ) {
        match self.connection_of(&packet.tuple) {
            Some((id, direction)) => {
                self.forward(services, egress, frame, packet, Found { id, direction });
            }
            None => self.new_flow(services, egress, frame, packet),
        }
    }

    #[inline]
    fn find(&self, lookup: &Lookup<F>) -> Option<Found> {
        let (id, direction) = self
            .table
            .find(lookup.hash, lookup.probe, &lookup.packet.tuple)?;
        // Templates of calls stand at ports that a client may speak from.
        let is_template = self.table.entry(id).is_template();
        (!is_template).then_some(Found { id, direction })
    }
}

/// Whether a packet is one of those that connections carry, or may be: IPv6 fragments do not always say.
fn is_transport<F: Ip>(packet: &Packet<F>) -> bool {
    may_belong_to_a_flow(packet) || is_from_port_zero(packet)
}

/// Whether a packet is looked up by its own addresses and ports.
#[inline]
fn is_flow<F: Ip>(packet: &Packet<F>) -> bool {
    has_ports(packet.tuple.protocol)
        && packet.fragment == Fragment::None
        && packet.tuple.source_port != 0
}

/// Whether a packet is one of those from port 0: persistence templates stand under such keys.
#[inline]
fn is_from_port_zero<F: Ip>(packet: &Packet<F>) -> bool {
    has_ports(packet.tuple.protocol) && packet.fragment == Fragment::None
}

/// A fragment of ICMP, or a protocol without connections: ours to drop, or the kernel's.
pub(super) fn not_a_flow<F: Ip, P: Port>(worker: &mut Worker<P>, frame: Frame, packet: &Packet<F>) {
    let ours = worker.answers_for(packet.tuple.destination.into());
    if ours && packet.fragment != Fragment::None {
        worker.egress.drop(frame, Reason::Fragment);
    } else {
        worker.egress.exception(frame);
    }
}
