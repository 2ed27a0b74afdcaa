//! The stages of a burst: hash all that may be plain packets, prefetching buckets; probe, prefetching entries, and look at
//! each packet meanwhile; decide each frame, in order. A burst of both families is taken apart before.

use super::connection::Found;
use super::egress::Egress;
use super::family::Ip;
use super::fragments::may_belong_to_a_flow;
use super::services::Services;
use super::{Flows, Worker, steady};
use crate::frame::Frame;
use crate::packet::wire::{ETHER_TYPE_IPV4, ETHER_TYPE_IPV6, ETHERNET_LEN, has_ports, read_u16};
use crate::packet::{Fragment, Packet, Parsed, parse};
use crate::port::{BURST, Burst, Port, PortId};
use crate::reason::Reason;
use arrayvec::ArrayVec;
use conntrack::{ConnectionId, Direction, Entry, Hash, Probe, Table, V4, V6};

/// What is known of a frame between the stages.
#[derive(Clone, Copy, Default)]
struct Lookup {
    hash: Hash,
    probe: Probe,
    /// False: it is looked at when its turn comes.
    is_plain: bool,
}

/// Of each frame of a burst.
type Lookups = [Lookup; BURST];

/// A worker's connections of one family, beside what else it needs to forward.
trait Of<F: Ip, P: Port> {
    fn parts(&mut self) -> (&mut Flows<F>, &mut Services, &mut Egress<P>);
}

impl<P: Port> Of<V4, P> for Worker<P> {
    #[inline(always)]
    fn parts(&mut self) -> (&mut Flows<V4>, &mut Services, &mut Egress<P>) {
        (&mut self.ipv4, &mut self.services, &mut self.egress)
    }
}

impl<P: Port> Of<V6, P> for Worker<P> {
    #[inline(always)]
    fn parts(&mut self) -> (&mut Flows<V6>, &mut Services, &mut Egress<P>) {
        (&mut self.ipv6, &mut self.services, &mut self.egress)
    }
}

impl<P: Port> Worker<P> {
    /// Decides every frame of a burst and leaves it empty. Those of one family come out in order.
    pub(super) fn handle(&mut self, burst: &mut Burst) {
        self.egress.doubt_hops();
        let Some(first) = burst.first().map(ether_type) else {
            return;
        };
        if burst.iter().all(|frame| ether_type(frame) == first) {
            return self.handle_kind(first, burst);
        }
        let mut rest = Burst::new();
        while let Some(first) = burst.first().map(ether_type) {
            let mut kind = Burst::new();
            for frame in burst.drain(..) {
                if ether_type(&frame) == first {
                    kind.push(frame);
                } else {
                    rest.push(frame);
                }
            }
            self.handle_kind(first, &mut kind);
            std::mem::swap(burst, &mut rest);
        }
    }

    /// Decides frames that have all the same `EtherType`.
    #[inline(always)]
    fn handle_kind(&mut self, ether_type: u16, burst: &mut Burst) {
        match ether_type {
            ETHER_TYPE_IPV4 if self.services.has_family(false) => self.handle_family::<V4>(burst),
            ETHER_TYPE_IPV6 if self.services.has_family(true) => self.handle_family::<V6>(burst),
            _ => burst.drain(..).for_each(|frame| self.other(frame)),
        }
    }

    /// Decides frames of one family, in order.
    fn handle_family<F: Ip>(&mut self, burst: &mut Burst)
    where
        Self: Of<F, P>,
    {
        let (flows, services, egress) = self.parts();
        let mut lookups = Lookups::default();
        flows.look_up(burst, &mut lookups);
        // Up to the first frame that is not steady, all are ready where they are before any is handed over.
        let mut ready: ArrayVec<PortId, BURST> = ArrayVec::new();
        for (frame, lookup) in burst.iter_mut().zip(&lookups) {
            match flows.steady(services, egress, frame, lookup) {
                Some(port) => ready.push(port),
                None => break,
            }
        }
        if egress.tap.is_some() {
            egress.show_ready(burst, &ready);
        }
        egress.transmit_ready(burst, &ready);
        for (frame, lookup) in burst.drain(..).zip(&lookups[ready.len()..]) {
            if lookup.is_plain && F::may_speak(frame.bytes()) {
                let (flows, services, egress) = self.parts();
                flows.flow(services, egress, frame, lookup);
            } else {
                self.other(frame);
            }
        }
    }

    #[inline(never)]
    fn other(&mut self, frame: Frame) {
        let parsed = parse(frame.bytes(), &frame.offload);
        let (services, egress) = (&mut self.services, &mut self.egress);
        match &parsed {
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
            Parsed::Ipv4(packet) if is_flow(packet) => {
                self.ipv4.any_flow(services, egress, frame, packet);
            }
            Parsed::Ipv6(packet) if is_flow(packet) => {
                self.ipv6.any_flow(services, egress, frame, packet);
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
    /// The first two stages.
    #[inline(always)]
    fn look_up(&self, burst: &Burst, lookups: &mut Lookups) {
        for (frame, lookup) in burst.iter().zip(lookups.iter_mut()) {
            // One that is too short is no plain packet, whatever its hash.
            if let Some(tuple) = F::guess(frame.bytes()) {
                lookup.hash = self.table.hash(&tuple);
                self.table.prefetch(lookup.hash);
            }
        }
        for (frame, lookup) in burst.iter().zip(lookups) {
            lookup.probe = self.table.probe(lookup.hash);
            // Meanwhile the entry comes.
            lookup.is_plain = F::is_plain(frame.bytes()) && frame.offload.is_done();
        }
    }

    /// Readies a frame for the port that is returned, if it is steady; otherwise it stays as it is.
    #[inline(always)]
    fn steady<P: Port>(
        &mut self,
        services: &mut Services,
        egress: &mut Egress<P>,
        frame: &mut Frame,
        lookup: &Lookup,
    ) -> Option<PortId> {
        if !lookup.is_plain {
            return None;
        }
        let plain = &F::read(frame.bytes())?;
        let first = self.table.find_first(lookup.probe, &plain.tuple);
        let (found, entry) = match first {
            Some(found) => found,
            None => find_further(&self.table, frame, lookup.hash)?,
        };
        steady::forward(
            &mut self.owner,
            services,
            egress,
            frame,
            plain,
            (found.0, found.1, entry),
        )
    }

    /// A plain packet behind one that was not steady: decides it in any case.
    #[inline(never)]
    fn flow<P: Port>(
        &mut self,
        services: &mut Services,
        egress: &mut Egress<P>,
        mut frame: Frame,
        lookup: &Lookup,
    ) {
        if let Some(port) = self.steady(services, egress, &mut frame, lookup) {
            return egress.send_away(frame, port);
        }
        let plain = &F::read(frame.bytes()).expect("a plain packet has its headers");
        let packet = &F::whole(frame.bytes(), plain);
        let found = self.table.find(lookup.hash, lookup.probe, &plain.tuple);
        // Templates of calls stand at ports that a client may speak from.
        match found.filter(|(id, _)| !self.table.entry(*id).is_template()) {
            Some((id, direction)) => {
                let found = Found { id, direction };
                self.forward(services, egress, frame, packet, found);
            }
            None => self.new_flow(services, egress, frame, packet),
        }
    }

    /// A packet of a flow that is no plain one: of SCTP, with options, from port 0, or with something left for a NIC to do.
    fn any_flow<P: Port>(
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
}

/// The connection of a plain packet that is not the first candidate. Reads the packet again, so that what was read before can
/// stay in registers.
#[cold]
#[inline(never)]
fn find_further<'a, F: Ip>(
    table: &'a Table<F>,
    frame: &Frame,
    hash: Hash,
) -> Option<((ConnectionId, Direction), &'a Entry<F>)> {
    let plain = F::read(frame.bytes())?;
    table.find_further(hash, &plain.tuple)
}

/// The frame's `EtherType`; 0 where it has none.
#[inline]
fn ether_type(frame: &Frame) -> u16 {
    match frame.bytes() {
        bytes if bytes.len() >= ETHERNET_LEN => read_u16(bytes, ETHERNET_LEN - 2),
        _ => 0,
    }
}

/// Whether a packet is one of those that connections carry, or may be: IPv6 fragments do not always say.
fn is_transport<F: Ip>(packet: &Packet<F>) -> bool {
    may_belong_to_a_flow(packet) || is_flow(packet)
}

/// Whether a packet is looked up by its own addresses and ports.
fn is_flow<F: Ip>(packet: &Packet<F>) -> bool {
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
