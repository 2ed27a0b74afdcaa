//! Where every packet ends: forwarded, put aside until its neighbour answers, answered, or dropped for a reason.

use super::announce::Announcements;
use super::cut::complete;
use super::defence::Defence;
use super::family::Ip;
use super::hops::{Hops, ReadyHop};
use super::services::ServerState;
use super::tap::Tap;
use super::waiting::WaitingQueue;
use crate::capture::{Fate, LARGEST_SNAP};
use crate::frame::{Frame, Gso, Offload};
use crate::neighbour::{NeighbourId, NeighbourTable, Resolution};
use crate::packet::Packet;
use crate::packet::icmp::ErrorKind;
use crate::packet::wire::{ETHERNET_LEN, TCP, UDP_LEN};
use crate::port::{BURST, Burst, Mac, Port, PortId, Sent};
use crate::reason::Reason;
use crate::rewrite::set_macs;
use crate::snapshot::Snapshot;
use crate::stats::{WorkerStats, add};
use arrayvec::ArrayVec;
use conntrack::{Entry, Ticks};
use scheduler::RealServerId;
use std::net::IpAddr;
use std::sync::Arc;

/// The largest frame a port can hand over: an Ethernet header and a GSO packet.
pub(super) const LARGEST_FRAME: usize = LARGEST_SNAP;
/// ICMP errors a worker may send in a second.
const ICMP_PER_SECOND: u32 = 1000;

/// Where a packet goes next.
#[derive(Clone, Copy, Debug)]
pub(super) enum Hop {
    /// To this hardware address by this port.
    Ready(Mac, PortId),
    /// By this port, once the neighbour has answered.
    Wait(NeighbourId, PortId),
}

impl Hop {
    pub(super) fn port(self) -> PortId {
        match self {
            Hop::Ready(_, port) | Hop::Wait(_, port) => port,
        }
    }
}

/// What the way to the next host takes from a packet's size.
#[derive(Clone, Copy)]
pub(super) struct Way {
    /// Bytes of the headers put around the packet.
    pub(super) overhead: usize,
    /// The largest packet with those headers that gets to the end of the tunnel, bytes; `u32::MAX` if nothing is known.
    pub(super) path_mtu: u32,
}

impl Way {
    /// No tunnel.
    pub(super) const PLAIN: Way = Way {
        overhead: 0,
        path_mtu: u32::MAX,
    };
}

/// Flushes of full rings in a round, beside the one at its end: a burst of GSO frames for tunnels is 32 times 45
/// segments, more than a queue of 1024 frames has room for.
const FLUSHES: u8 = 8;

/// See the module's text.
pub(super) struct Egress<P: Port> {
    pub(super) worker: u16,
    pub(super) ports: Vec<P>,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) stats: Arc<WorkerStats>,
    pub(super) now: Ticks,
    pub(super) scratch: Box<[u8]>,
    pub(super) neighbours: Arc<NeighbourTable>,
    pub(super) waiting: WaitingQueue,
    pub(super) hops: Hops,
    /// [`NeighbourTable::learnt`] when those that wait were last looked at.
    pub(super) learnt: u32,
    pub(super) announcements: Announcements,
    pub(super) defence: Defence,
    /// Of the capture that is on.
    pub(super) tap: Option<Box<Tap>>,
    /// The version of the captures that `tap` is of.
    pub(super) captures_seen: u64,
    icmp_left: u32,
    /// How often a full ring may still be flushed in this round.
    flushes_left: u8,
    identification: u16,
}

impl<P: Port> Egress<P> {
    pub(super) fn new(
        worker: u16,
        ports: Vec<P>,
        neighbours: Arc<NeighbourTable>,
        stats: Arc<WorkerStats>,
        now: Ticks,
    ) -> Egress<P> {
        Egress {
            worker,
            ports,
            snapshot: Arc::default(),
            stats,
            now,
            scratch: vec![0; LARGEST_FRAME].into_boxed_slice(),
            neighbours,
            waiting: WaitingQueue::new(),
            hops: Hops::new(),
            learnt: 0,
            announcements: Announcements::default(),
            defence: Defence::default(),
            tap: None,
            captures_seen: 0,
            icmp_left: ICMP_PER_SECOND,
            flushes_left: FLUSHES,
            identification: 0,
        }
    }

    /// Takes a new snapshot; the first worker announces the addresses that it adds.
    pub(super) fn adopt(&mut self, snapshot: Arc<Snapshot>) {
        if self.worker == 0 {
            self.announcements
                .adopt(&self.snapshot, &snapshot, self.now);
        }
        self.snapshot = snapshot;
        self.hops.forget();
    }

    /// An identification for an IPv4 header of our own making.
    pub(super) fn next_identification(&mut self) -> u16 {
        self.identification = self.identification.wrapping_add(1);
        self.identification
    }

    // Verdicts.

    /// Drops a frame and counts why.
    #[inline]
    pub(super) fn drop(&mut self, frame: Frame, reason: Reason) {
        self.stats.count_drop(reason);
        self.release(frame);
    }

    /// Leaves a frame to the kernel.
    #[inline]
    pub(super) fn exception(&mut self, frame: Frame) {
        add(&self.stats.verdicts.exceptions, 1);
        self.ports[usize::from(frame.port.0)].leave(frame);
    }

    /// Gives a frame back to the port it came from.
    #[inline]
    pub(super) fn release(&mut self, frame: Frame) {
        self.ports[usize::from(frame.port.0)].release(frame);
    }

    /// Sends a frame, complete but for its MAC addresses, to its next hop.
    #[inline]
    pub(super) fn forward(&mut self, mut frame: Frame, hop: Hop) {
        if frame.offload.is_partial_crc() {
            // The kernel behind AF_PACKET would finish it as an Internet checksum (observed on a veth without offload).
            complete(&mut frame);
        }
        match hop {
            Hop::Ready(mac, port) => {
                let source = self.snapshot.ports[usize::from(port.0)].mac;
                set_macs(frame.bytes_mut(), mac, source);
                self.send_away(frame, port);
            }
            Hop::Wait(neighbour, _) => self.wait(frame, neighbour),
        }
    }

    /// Sends a frame that is complete, and shows it to the capture that is on, if one is.
    #[inline]
    pub(super) fn send_away(&mut self, frame: Frame, port: PortId) {
        self.show(frame.bytes(), &frame.offload, port, Fate::Forwarded(None));
        self.transmit(frame, port);
    }

    /// Sends the first frames of a burst, each by its port, and leaves the others. Whoever captures has seen them.
    #[inline(always)]
    pub(super) fn transmit_ready(&mut self, burst: &mut Burst, ready: &[PortId]) {
        let mut frames = burst.drain(..ready.len());
        let mut rest: ArrayVec<Sent, BURST> = ArrayVec::new();
        for run in ready.chunk_by(PartialEq::eq) {
            let port = run[0];
            let frames = frames.by_ref().take(run.len());
            let taken = self.ports[usize::from(port.0)].transmit_run(frames, &mut rest);
            add(&self.stats.verdicts.forwarded, taken);
            for sent in rest.drain(..) {
                match sent {
                    Sent::Taken => {}
                    Sent::Copied(frame) => {
                        add(&self.stats.verdicts.forwarded, 1);
                        self.release(frame);
                    }
                    Sent::Refused(frame) => self.transmit(frame, port),
                }
            }
        }
    }

    /// Shows the frames that leave next to the capture that is on.
    #[cold]
    pub(super) fn show_ready(&mut self, burst: &Burst, ready: &[PortId]) {
        for (frame, &port) in burst.iter().zip(ready) {
            let fate = Fate::Forwarded(None);
            self.show(frame.bytes(), &frame.offload, port, fate);
        }
    }

    /// Sends a frame that is complete. Whoever captures has seen it.
    #[inline]
    pub(super) fn transmit(&mut self, frame: Frame, port: PortId) {
        match self.ports[usize::from(port.0)].transmit(frame) {
            Sent::Taken => add(&self.stats.verdicts.forwarded, 1),
            Sent::Copied(frame) => {
                add(&self.stats.verdicts.forwarded, 1);
                self.release(frame);
            }
            Sent::Refused(frame) => self.transmit_again(frame, port),
        }
    }

    #[cold]
    fn transmit_again(&mut self, frame: Frame, port: PortId) {
        if !self.makes_room(port) {
            return self.drop(frame, Reason::TransmitFull);
        }
        match self.ports[usize::from(port.0)].transmit(frame) {
            Sent::Refused(frame) => return self.drop(frame, Reason::TransmitFull),
            Sent::Copied(frame) => self.release(frame),
            Sent::Taken => {}
        }
        add(&self.stats.verdicts.forwarded, 1);
    }

    /// Whether a port that has refused a frame is to be asked again: what it holds was handed over at once, so that a
    /// ring which is merely short, not behind, has room. A bounded number of times in a round.
    #[cold]
    pub(super) fn makes_room(&mut self, port: PortId) -> bool {
        let Some(left) = self.flushes_left.checked_sub(1) else {
            return false;
        };
        self.flushes_left = left;
        self.ports[usize::from(port.0)].flush();
        true
    }

    #[cold]
    fn wait(&mut self, frame: Frame, neighbour: NeighbourId) {
        if self.wait_with(frame.bytes(), frame.offload, neighbour, true) {
            self.count_waiting();
            self.release(frame);
        } else {
            self.drop(frame, Reason::NeighbourQueueFull);
        }
    }

    /// Counts a frame of which a copy waits.
    pub(super) fn count_waiting(&self) {
        add(&self.stats.verdicts.waiting, 1);
        add(&self.stats.verdicts.waiting_now, 1);
    }

    /// Sends a frame of our own making, complete, by `port`: the verdict of the frame that it answers.
    pub(super) fn reply(&mut self, port: PortId, bytes: &[u8]) {
        if self.ports[usize::from(port.0)].send(bytes, &Offload::NONE) {
            add(&self.stats.verdicts.replied, 1);
            self.show(bytes, &Offload::NONE, port, Fate::Originated);
        } else {
            self.stats.count_drop(Reason::TransmitFull);
        }
    }

    /// Sends a frame of our own making that is no received frame's verdict.
    pub(super) fn originate(&mut self, port: PortId, bytes: &[u8]) {
        add(&self.stats.verdicts.originated, 1);
        self.reply(port, bytes);
    }

    /// Tells the sender of a packet what became of it, from `source`; then drops it for `reason`. Returns the length of
    /// the error, IP header included; 0 if none left.
    #[cold]
    pub(super) fn refuse<F: Ip>(
        &mut self,
        frame: Frame,
        packet: &Packet<F>,
        kind: ErrorKind,
        source: F::Address,
        reason: Reason,
    ) -> u32 {
        let mut told = 0;
        if self.may_send_icmp() {
            let mut scratch = std::mem::take(&mut self.scratch);
            let identification = self.next_identification();
            if let Some(len) = F::icmp_error(
                &mut scratch,
                kind,
                frame.bytes(),
                packet,
                source,
                identification,
            ) {
                self.icmp_left -= 1;
                self.originate(frame.port, &scratch[..len]);
                told = u32::try_from(len - ETHERNET_LEN).unwrap_or(0);
            }
            self.scratch = scratch;
        }
        self.drop(frame, reason);
        told
    }

    /// Whether the rate limit allows another ICMP error; counts one that it does not allow.
    pub(super) fn may_send_icmp(&self) -> bool {
        if self.icmp_left == 0 {
            add(&self.stats.verdicts.originated, 1);
            self.stats.count_drop(Reason::IcmpRateLimited);
        }
        self.icmp_left > 0
    }

    /// The director's own address on the port that a packet came in by; where it has none of that family, what the
    /// packet's sender talks to.
    #[cold]
    pub(super) fn own_address<F: Ip>(&self, frame: &Frame, packet: &Packet<F>) -> F::Address {
        let port = &self.snapshot.ports[usize::from(frame.port.0)];
        let own = port.source_for(packet.tuple.source.into());
        own.and_then(F::from_ip).unwrap_or(packet.tuple.destination)
    }

    pub(super) fn refill_icmp(&mut self) {
        self.icmp_left = ICMP_PER_SECOND;
    }

    // Next hops.

    /// The way to a real server.
    #[inline]
    pub(super) fn hop_to_server(
        &mut self,
        id: RealServerId,
        state: &mut ServerState,
    ) -> Result<Hop, Reason> {
        if let Some(hop) = self.resolve(state.neighbour)? {
            return Ok(hop);
        }
        let server = self
            .snapshot
            .servers
            .get(id.0 as usize)
            .and_then(Option::as_ref)
            .ok_or(Reason::ServerGone)?;
        let (port, address) = (server.next_hop.port, server.next_hop.address);
        state.neighbour = self.intern(port, address)?;
        self.resolve(state.neighbour)?
            .ok_or(Reason::NeighbourTableFull)
    }

    /// The way to the client of a connection, remembered in its entry.
    #[inline]
    pub(super) fn hop_to_client<F: Ip>(&mut self, entry: &Entry<F>) -> Result<Hop, Reason> {
        let (neighbour, route_generation) = entry.reply_neighbour();
        if route_generation == self.snapshot.route_generation
            && let Some(hop) = self.resolve(NeighbourId::from_bits(neighbour))?
        {
            return Ok(hop);
        }
        let neighbour = self.neighbour_towards(entry.client().into())?;
        entry.set_reply_neighbour(neighbour.to_bits(), self.snapshot.route_generation);
        self.resolve(neighbour)?.ok_or(Reason::NeighbourTableFull)
    }

    /// The way to an address that no connection remembers.
    pub(super) fn hop_towards(&mut self, destination: IpAddr) -> Result<Hop, Reason> {
        let neighbour = self.neighbour_towards(destination)?;
        self.resolve(neighbour)?.ok_or(Reason::NeighbourTableFull)
    }

    /// The neighbour that packets for `destination` are handed to.
    pub(super) fn neighbour_towards(&mut self, destination: IpAddr) -> Result<NeighbourId, Reason> {
        let (port, address) = self
            .snapshot
            .routes
            .lookup(destination)
            .ok_or(Reason::NoRoute)?;
        self.intern(port, address)
    }

    /// A neighbour that is known, where no packet waits for any.
    #[inline(always)]
    pub(super) fn known(&mut self, id: NeighbourId) -> Option<&ReadyHop> {
        if !self.waiting.is_empty() || !self.hops.has(id) && !self.look_for(id) {
            return None;
        }
        Some(self.hops.get(id))
    }

    /// Keeps a neighbour, if it is known.
    #[cold]
    #[inline(never)]
    fn look_for(&mut self, id: NeighbourId) -> bool {
        let Resolution::Mac(mac, port) = self.neighbours.resolve(id, self.now) else {
            return false;
        };
        let link = &self.snapshot.ports[usize::from(port.0)];
        self.hops.keep(id, (mac, port), (link.mac, link.mtu));
        true
    }

    /// Before a burst: what a neighbour has told since the last one counts.
    #[inline(always)]
    pub(super) fn doubt_hops(&mut self) {
        self.hops.doubt(self.neighbours.learnt());
    }

    #[inline]
    fn resolve(&mut self, id: NeighbourId) -> Result<Option<Hop>, Reason> {
        match self.neighbours.resolve(id, self.now) {
            Resolution::Mac(mac, port) => {
                if !self.waiting.is_empty() {
                    self.let_go_first();
                }
                Ok(Some(Hop::Ready(mac, port)))
            }
            Resolution::Pending(port) => Ok(Some(Hop::Wait(id, port))),
            Resolution::Failed => {
                self.ask_for(id);
                Err(Reason::NeighbourUnreachable)
            }
            Resolution::Gone => Ok(None),
        }
    }

    fn intern(&self, port: PortId, address: IpAddr) -> Result<NeighbourId, Reason> {
        self.neighbours
            .intern(port, address, self.now)
            .map_err(|_| Reason::NeighbourTableFull)
    }

    /// The MTU, if an IP packet of `len` bytes is larger: that of the port it leaves by, or of the path behind.
    #[inline]
    pub(super) fn exceeded_mtu(&self, len: usize, port: PortId, path_mtu: u32) -> Option<u32> {
        let mtu = self.snapshot.ports[usize::from(port.0)].mtu.min(path_mtu);
        (len > mtu as usize).then_some(mtu)
    }

    /// Hands what was queued to the NICs.
    #[inline]
    pub(super) fn flush(&mut self) {
        self.flushes_left = FLUSHES;
        for port in &mut self.ports {
            port.flush();
        }
    }
}

/// The length of the IP packet, or of the largest packet that a GSO frame is cut into.
#[inline]
pub(super) fn largest_packet<F: Ip>(frame: &Frame, packet: &Packet<F>) -> usize {
    let l3 = usize::from(packet.l3);
    if frame.offload.gso == Gso::None {
        return packet.end as usize - l3;
    }
    let l4 = usize::from(packet.l4);
    let header_len = match packet.tuple.protocol {
        TCP => usize::from(frame.bytes()[l4 + 12] >> 4) * 4,
        _ => UDP_LEN,
    };
    l4 + header_len - l3 + usize::from(frame.offload.segment_len)
}
