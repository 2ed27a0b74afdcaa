//! The stages of a burst: hash all that may be plain packets, prefetching buckets; probe, prefetching entries, and look at
//! each packet meanwhile; decide each frame, in order.

use super::connection::Found;
use super::egress::Egress;
use super::family::Ip;
use super::fragments::may_belong_to_a_flow;
use super::services::Services;
use super::{Flows, Worker, steady};
use crate::capture::Fate;
use crate::frame::Frame;
use crate::packet::plain::Plain;
use crate::packet::wire::{ETHER_TYPE_IPV4, ETHER_TYPE_IPV6, ETHERNET_LEN, has_ports, read_u16};
use crate::packet::{Fragment, Packet, Parsed, parse};
use crate::port::{BURST, Burst, Port, PortId};
use crate::reason::Reason;
use arrayvec::ArrayVec;
use conntrack::{Hash, Probe, V4, V6};

/// A plain packet between the stages.
struct Lookup<F: Ip> {
    plain: Plain<F>,
    hash: Hash,
    probe: Probe,
}

/// What a frame may be, before anybody looked at it.
#[derive(Clone, Copy)]
enum Guess {
    /// A plain IPv4 packet.
    Ipv4(Hash),
    /// A plain IPv6 packet.
    Ipv6(Hash),
    /// Neither.
    Other,
}

/// What a frame is to the stages.
#[derive(Clone, Copy)]
enum Kind {
    /// The plain IPv4 packet of this number.
    Ipv4(u8),
    /// The plain IPv6 packet of this number.
    Ipv6(u8),
    /// Rare enough to be looked at when its turn comes.
    Other,
}

/// The plain packets of a burst.
type Lookups<F> = ArrayVec<Lookup<F>, BURST>;

impl<P: Port> Worker<P> {
    /// Decides every frame of a burst, in order, and leaves it empty.
    pub(super) fn handle(&mut self, burst: &mut Burst) {
        let mut guesses: ArrayVec<Guess, BURST> = ArrayVec::new();
        let has = [false, true].map(|ipv6| self.services.has_family(ipv6));
        for frame in burst.iter() {
            let guess = match ether_type(frame) {
                ETHER_TYPE_IPV4 if has[0] => self.ipv4.begin(frame).map(Guess::Ipv4),
                ETHER_TYPE_IPV6 if has[1] => self.ipv6.begin(frame).map(Guess::Ipv6),
                _ => None,
            };
            guesses.push(guess.unwrap_or(Guess::Other));
        }
        let mut kinds: ArrayVec<Kind, BURST> = ArrayVec::new();
        let (mut ipv4, mut ipv6) = (Lookups::<V4>::new(), Lookups::<V6>::new());
        for (frame, guess) in burst.iter().zip(&guesses) {
            let kind = match *guess {
                Guess::Ipv4(hash) if self.ipv4.look(frame, hash, &mut ipv4) => {
                    Kind::Ipv4(last(&ipv4))
                }
                Guess::Ipv6(hash) if self.ipv6.look(frame, hash, &mut ipv6) => {
                    Kind::Ipv6(last(&ipv6))
                }
                _ => Kind::Other,
            };
            kinds.push(kind);
        }
        // Up to the first frame that is not steady, all are ready where they are before any is handed over.
        let mut ready: ArrayVec<PortId, BURST> = ArrayVec::new();
        for (frame, kind) in burst.iter_mut().zip(&kinds) {
            let (services, egress) = (&mut self.services, &mut self.egress);
            let port = match kind {
                Kind::Ipv4(at) => self
                    .ipv4
                    .steady(services, egress, frame, &ipv4[*at as usize]),
                Kind::Ipv6(at) => self
                    .ipv6
                    .steady(services, egress, frame, &ipv6[*at as usize]),
                Kind::Other => None,
            };
            match port {
                Some(port) => ready.push(port),
                None => break,
            }
        }
        if self.egress.tap.is_some() {
            self.show_ready(burst, &ready);
        }
        for (frame, &port) in burst.drain(..ready.len()).zip(&ready) {
            self.egress.transmit(frame, port);
        }
        for (frame, kind) in burst.drain(..).zip(&kinds[ready.len()..]) {
            let (services, egress) = (&mut self.services, &mut self.egress);
            match kind {
                Kind::Ipv4(at) => self.ipv4.flow(services, egress, frame, &ipv4[*at as usize]),
                Kind::Ipv6(at) => self.ipv6.flow(services, egress, frame, &ipv6[*at as usize]),
                Kind::Other => self.other(frame),
            }
        }
    }

    /// Shows the frames that leave next to the capture that is on.
    #[cold]
    fn show_ready(&mut self, burst: &Burst, ready: &[PortId]) {
        for (frame, &port) in burst.iter().zip(ready) {
            let fate = Fate::Forwarded(None);
            self.egress.show(frame.bytes(), &frame.offload, port, fate);
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
    /// Asks for the bucket of what may be a plain packet.
    #[inline(always)]
    fn begin(&self, frame: &Frame) -> Option<Hash> {
        let tuple = F::guess(frame.bytes())?;
        let hash = self.table.hash(&tuple);
        self.table.prefetch(hash);
        Some(hash)
    }

    /// Asks for the entry, and looks at the packet while it comes. Whether it is a plain one, with nothing left to do for
    /// a NIC, and not from port 0.
    #[inline(always)]
    fn look(&self, frame: &Frame, hash: Hash, lookups: &mut Lookups<F>) -> bool {
        let probe = self.table.probe(hash);
        let Some(plain) = F::plain(frame.bytes()) else {
            return false;
        };
        if !frame.offload.is_done() || plain.tuple.source_port == 0 {
            return false;
        }
        lookups.push(Lookup { plain, hash, probe });
        true
    }

    /// Readies a frame for the port that is returned, if it is steady; otherwise it stays as it is.
    #[inline(always)]
    fn steady<P: Port>(
        &mut self,
        services: &mut Services,
        egress: &mut Egress<P>,
        frame: &mut Frame,
        lookup: &Lookup<F>,
    ) -> Option<PortId> {
        let plain = &lookup.plain;
        let (found, entry) = self
            .table
            .find_entry(lookup.hash, lookup.probe, &plain.tuple)?;
        steady::forward(
            &mut self.owner,
            services,
            egress,
            frame,
            plain,
            (found.0, found.1, entry),
        )
    }

    /// The same for a frame behind one that was not steady; decides it in any case.
    #[inline(never)]
    fn flow<P: Port>(
        &mut self,
        services: &mut Services,
        egress: &mut Egress<P>,
        mut frame: Frame,
        lookup: &Lookup<F>,
    ) {
        if let Some(port) = self.steady(services, egress, &mut frame, lookup) {
            return egress.send_away(frame, port);
        }
        let plain = &lookup.plain;
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

/// The number of the last of them.
#[inline]
#[allow(clippy::cast_possible_truncation, reason = "below BURST")]
fn last<F: Ip>(lookups: &Lookups<F>) -> u8 {
    (lookups.len() - 1) as u8
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
