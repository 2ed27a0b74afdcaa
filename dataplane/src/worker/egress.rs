//! Where every packet ends: forwarded, put aside until its neighbour answers, answered, or dropped for a reason.

use super::family::Ip;
use super::services::ServerState;
use super::waiting::{PATIENCE, WaitingQueue};
use crate::frame::{Frame, Gso, Offload};
use crate::neighbour::{NeighbourId, NeighbourTable, Probe, Resolution};
use crate::packet::icmp::ErrorKind;
use crate::packet::wire::{TCP, UDP_LEN};
use crate::packet::{Packet, arp, ndp};
use crate::port::{Mac, Port, PortId, Sent};
use crate::reason::Reason;
use crate::rewrite::set_macs;
use crate::snapshot::{Owned, Snapshot};
use crate::stats::{WorkerStats, add};
use conntrack::{Entry, Ticks};
use scheduler::RealServerId;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

/// The largest frame a port can hand over: an Ethernet header and a GSO packet.
pub(super) const LARGEST_FRAME: usize = 14 + 65_535;
/// ICMP errors a worker may send in a second.
const ICMP_PER_SECOND: u32 = 1000;
/// How often a new address is announced, a second apart.
const ANNOUNCEMENTS: u8 = 3;
/// Slices of the neighbour table, one aged each tick: the whole table once a second.
const NEIGHBOUR_SLICES: usize = 100;

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

/// An address still to be announced.
struct Announcement {
    address: IpAddr,
    port: PortId,
    left: u8,
    due: Ticks,
}

/// See the module's text.
pub(super) struct Egress<P: Port> {
    pub(super) worker: u16,
    pub(super) ports: Vec<P>,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) stats: Arc<WorkerStats>,
    pub(super) now: Ticks,
    pub(super) scratch: Box<[u8]>,
    neighbours: Arc<NeighbourTable>,
    waiting: WaitingQueue,
    announcements: VecDeque<Announcement>,
    icmp_left: u32,
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
            announcements: VecDeque::new(),
            icmp_left: ICMP_PER_SECOND,
            identification: 0,
        }
    }

    /// Takes a new snapshot; the first worker announces the addresses that it adds.
    pub(super) fn adopt(&mut self, snapshot: Arc<Snapshot>) {
        if self.worker == 0 {
            self.announcements
                .retain(|announcement| snapshot.owned.contains_key(&announcement.address));
            for (&address, &owned) in &snapshot.owned {
                if owned != Owned::Kernel && !self.snapshot.owned.contains_key(&address) {
                    self.announcements
                        .extend(announcements(&snapshot, address, self.now));
                }
            }
        }
        self.snapshot = snapshot;
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

    /// Leaves a frame to the kernel: with the drivers there are, it has its own copy.
    #[inline]
    pub(super) fn exception(&mut self, frame: Frame) {
        add(&self.stats.verdicts.exceptions, 1);
        self.release(frame);
    }

    /// Gives a frame back to the port it came from.
    #[inline]
    pub(super) fn release(&mut self, frame: Frame) {
        self.ports[usize::from(frame.port.0)].release(frame);
    }

    /// Sends a frame, complete but for its MAC addresses, to its next hop.
    #[inline]
    pub(super) fn forward(&mut self, mut frame: Frame, hop: Hop) {
        match hop {
            Hop::Ready(mac, port) => {
                let source = self.snapshot.ports[usize::from(port.0)].mac;
                set_macs(frame.bytes_mut(), mac, source);
                self.transmit(frame, port);
            }
            Hop::Wait(neighbour, _) => self.wait(frame, neighbour),
        }
    }

    #[inline]
    fn transmit(&mut self, frame: Frame, port: PortId) {
        match self.ports[usize::from(port.0)].transmit(frame) {
            Sent::Taken => add(&self.stats.verdicts.forwarded, 1),
            Sent::Copied(frame) => {
                add(&self.stats.verdicts.forwarded, 1);
                self.release(frame);
            }
            Sent::Refused(frame) => self.drop(frame, Reason::TransmitFull),
        }
    }

    #[cold]
    fn wait(&mut self, frame: Frame, neighbour: NeighbourId) {
        if self.wait_with(frame.bytes(), frame.offload, neighbour) {
            self.release(frame);
        } else {
            self.drop(frame, Reason::NeighbourQueueFull);
        }
    }

    /// Copies a frame into the queue of those that wait, and asks for the neighbour. False when the queue is full.
    pub(super) fn wait_with(
        &mut self,
        bytes: &[u8],
        offload: Offload,
        neighbour: NeighbourId,
    ) -> bool {
        self.ask_for(neighbour);
        let taken = self.waiting.push(bytes, offload, neighbour, self.now);
        add(&self.stats.verdicts.waiting, u64::from(taken));
        taken
    }

    /// Sends a frame of our own making, complete, by `port`.
    pub(super) fn reply(&mut self, port: PortId, bytes: &[u8]) {
        if self.ports[usize::from(port.0)].send(bytes, &Offload::NONE) {
            add(&self.stats.verdicts.replied, 1);
        } else {
            self.stats.count_drop(Reason::TransmitFull);
        }
    }

    /// Tells the sender of a packet what became of it, from `source`; then drops it for `reason`.
    #[cold]
    pub(super) fn refuse<F: Ip>(
        &mut self,
        frame: Frame,
        packet: &Packet<F>,
        kind: ErrorKind,
        source: F::Address,
        reason: Reason,
    ) {
        if self.icmp_left == 0 {
            self.stats.count_drop(Reason::IcmpRateLimited);
        } else {
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
                self.reply(frame.port, &scratch[..len]);
            }
            self.scratch = scratch;
        }
        self.drop(frame, reason);
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

    /// The neighbour that packets for `destination` are handed to.
    pub(super) fn neighbour_towards(&mut self, destination: IpAddr) -> Result<NeighbourId, Reason> {
        let (port, address) = self
            .snapshot
            .routes
            .lookup(destination)
            .ok_or(Reason::NoRoute)?;
        self.intern(port, address)
    }

    #[inline]
    fn resolve(&mut self, id: NeighbourId) -> Result<Option<Hop>, Reason> {
        match self.neighbours.resolve(id, self.now) {
            Resolution::Mac(mac, port) => Ok(Some(Hop::Ready(mac, port))),
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

    /// How many bytes too large an IP packet of `len` bytes is for the port it leaves by: the MTU, if it is.
    #[inline]
    pub(super) fn exceeded_mtu(&self, len: usize, port: PortId) -> Option<u32> {
        let mtu = self.snapshot.ports[usize::from(port.0)].mtu;
        (len > mtu as usize).then_some(mtu)
    }

    // Neighbours.

    fn ask_for(&mut self, id: NeighbourId) {
        if let Some(probe) = self.neighbours.claim_probe(id, self.now) {
            self.ask(&probe);
        }
    }

    /// Sends an ARP request or a neighbour solicitation.
    fn ask(&mut self, probe: &Probe) {
        let Some(view) = self.snapshot.ports.get(usize::from(probe.port.0)) else {
            return;
        };
        let Some(source) = view.source_for(probe.address) else {
            return;
        };
        let mac = view.mac;
        match (probe.address, source) {
            (IpAddr::V4(target), IpAddr::V4(source)) => {
                self.reply(probe.port, &arp::request(mac, source, target, probe.mac));
            }
            (IpAddr::V6(target), IpAddr::V6(source)) => {
                self.reply(
                    probe.port,
                    &ndp::solicitation(mac, source, target, probe.mac),
                );
            }
            _ => unreachable!("source_for answers with an address of the target's family"),
        }
    }

    /// A neighbour told its hardware address: packets that waited for it at this worker go out.
    pub(super) fn learn(&mut self, port: PortId, address: IpAddr, mac: Mac) {
        if self.neighbours.learn(port, address, mac, self.now) {
            self.serve_waiting();
        }
    }

    /// What is due with time: packets that waited, neighbours to be asked, addresses to be announced.
    pub(super) fn tick(&mut self, last: Ticks) {
        if !self.waiting.is_empty() {
            self.serve_waiting();
        }
        if self.worker != 0 {
            return;
        }
        let neighbours = Arc::clone(&self.neighbours);
        let now = self.now;
        let slices = (now.0.wrapping_sub(last.0) as usize).min(NEIGHBOUR_SLICES);
        for back in 0..slices {
            let slice = now.0 as usize % NEIGHBOUR_SLICES + NEIGHBOUR_SLICES - back;
            neighbours.age(slice, NEIGHBOUR_SLICES, now, &mut |probe| self.ask(&probe));
        }
        self.announce();
    }

    fn serve_waiting(&mut self) {
        let mut waiting = std::mem::replace(&mut self.waiting, WaitingQueue::none());
        waiting.retain(|packet| {
            match self.neighbours.resolve(packet.neighbour, self.now) {
                Resolution::Mac(mac, port) => {
                    set_macs(
                        &mut packet.bytes,
                        mac,
                        self.snapshot.ports[usize::from(port.0)].mac,
                    );
                    if self.ports[usize::from(port.0)].send(&packet.bytes, &packet.offload) {
                        add(&self.stats.verdicts.forwarded, 1);
                    } else {
                        self.stats.count_drop(Reason::TransmitFull);
                    }
                    return false;
                }
                Resolution::Pending(_) if !packet.since.after(PATIENCE).has_passed(self.now) => {
                    return true;
                }
                _ => self.stats.count_drop(Reason::NeighbourUnreachable),
            }
            false
        });
        self.waiting = waiting;
    }

    fn announce(&mut self) {
        for _ in 0..self.announcements.len() {
            let Some(mut next) = self.announcements.pop_front() else {
                return;
            };
            if next.due.has_passed(self.now) {
                self.announce_one(next.address, next.port);
                next.left -= 1;
                next.due = self.now.after(Ticks::from_seconds(1));
            }
            if next.left > 0 {
                self.announcements.push_back(next);
            }
        }
    }

    fn announce_one(&mut self, address: IpAddr, port: PortId) {
        let Some(view) = self.snapshot.ports.get(usize::from(port.0)) else {
            return;
        };
        let mac = view.mac;
        match address {
            IpAddr::V4(address) => self.reply(port, &arp::gratuitous(mac, address)),
            IpAddr::V6(address) => self.reply(port, &ndp::unsolicited(mac, address)),
        }
    }

    /// Hands what was queued to the NICs.
    #[inline]
    pub(super) fn flush(&mut self) {
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

/// Where and when to announce an address: on the ports whose subnet it is in, or else on all.
fn announcements(snapshot: &Snapshot, address: IpAddr, now: Ticks) -> Vec<Announcement> {
    let on_link = |index: usize| {
        let subnets = &snapshot.ports[index].addresses;
        subnets
            .iter()
            .any(|(own, prefix)| crate::route::same_subnet(*own, address, *prefix))
    };
    let all = 0..snapshot.ports.len();
    let somewhere = all.clone().any(on_link);
    all.filter(|index| !somewhere || on_link(*index))
        .filter_map(|index| u16::try_from(index).ok())
        .map(|index| Announcement {
            address,
            port: PortId(index),
            left: ANNOUNCEMENTS,
            due: now,
        })
        .collect()
}
