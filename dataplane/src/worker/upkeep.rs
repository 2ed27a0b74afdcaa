//! What the way out needs from time to time: neighbours' hardware addresses, the packets that wait for them, and
//! announcements of our own.

use super::egress::Egress;
use super::waiting::PATIENCE;
use crate::capture::Fate;
use crate::frame::Offload;
use crate::neighbour::{NeighbourId, Probe, Resolution};
use crate::packet::{arp, ndp};
use crate::port::{Mac, Port, PortId};
use crate::reason::Reason;
use crate::rewrite::set_macs;
use crate::stats::{add, subtract};
use conntrack::Ticks;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Slices of the neighbour table, one aged each tick: the whole table once a second.
const NEIGHBOUR_SLICES: usize = 100;

impl<P: Port> Egress<P> {
    /// Asks for a neighbour, unless it was asked for within the last second.
    pub(super) fn ask_for(&mut self, id: NeighbourId) {
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
                self.originate(probe.port, &arp::request(mac, source, target, probe.mac));
            }
            (IpAddr::V6(target), IpAddr::V6(source)) => {
                self.originate(
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

    /// Before a packet is sent: those that waited for a neighbour which told another worker its address meanwhile leave
    /// first, so that a flow's packets stay in order.
    #[cold]
    pub(super) fn let_go_first(&mut self) {
        if self.neighbours.learnt() != self.learnt {
            self.serve_waiting();
        }
    }

    /// Copies a frame into the queue of those that wait, and asks for the neighbour. False when the queue is full.
    /// `counts` where the copy stands for a whole frame: its end is that frame's verdict.
    pub(super) fn wait_with(
        &mut self,
        bytes: &[u8],
        offload: Offload,
        neighbour: NeighbourId,
        counts: bool,
    ) -> bool {
        self.ask_for(neighbour);
        self.waiting
            .push(bytes, offload, neighbour, self.now, counts)
    }

    /// What is due with time: packets that waited, neighbours to be asked, addresses to be announced.
    pub(super) fn tick(&mut self, last: Ticks) {
        self.serve_waiting();
        // Neighbours grow old, too.
        self.hops.forget();
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

    /// What drivers lost of this worker's frames, for whoever asks for its counters.
    pub(super) fn tell_losses(&mut self) {
        let (mut missed, mut errors) = (0, 0);
        for (index, port) in self.ports.iter_mut().enumerate() {
            let counters = port.counters();
            if let Some(told) = self.stats.ports.get(index) {
                told.receive_missed.store(counters.receive_missed, Relaxed);
                told.transmit_errors
                    .store(counters.transmit_errors, Relaxed);
            }
            missed += counters.receive_missed;
            errors += counters.transmit_errors;
        }
        self.stats.receive_missed.store(missed, Relaxed);
        self.stats.transmit_errors.store(errors, Relaxed);
    }

    fn serve_waiting(&mut self) {
        self.learnt = self.neighbours.learnt();
        let Egress {
            waiting,
            neighbours,
            ports,
            snapshot,
            stats,
            now,
            tap,
            ..
        } = self;
        waiting.retain(|packet| {
            let refused = match neighbours.resolve(packet.neighbour, *now) {
                Resolution::Mac(mac, port) => {
                    let id = port;
                    let port = usize::from(port.0);
                    set_macs(&mut packet.bytes, mac, snapshot.ports[port].mac);
                    let sent = ports[port].send(&packet.bytes, &packet.offload);
                    if let Some(tap) = tap
                        && sent
                    {
                        tap.leaves(&packet.bytes, &packet.offload, id, Fate::Waited);
                    }
                    (!sent).then_some(Reason::TransmitFull)
                }
                Resolution::Pending(_) if !packet.since.after(PATIENCE).has_passed(*now) => {
                    return true;
                }
                _ => Some(Reason::NeighbourUnreachable),
            };
            if packet.counts {
                subtract(&stats.verdicts.waiting_now, 1);
                match refused {
                    None => {
                        add(&stats.verdicts.forwarded, 1);
                        if let Some(tap) = tap {
                            tap.count_other();
                        }
                    }
                    Some(reason) => stats.count_drop(reason),
                }
            }
            false
        });
    }

    fn announce(&mut self) {
        for _ in 0..super::announce::PER_TICK {
            let Some((address, port)) = self.announcements.next(self.now) else {
                return;
            };
            let Some(view) = self.snapshot.ports.get(usize::from(port.0)) else {
                continue;
            };
            let mac = view.mac;
            match address {
                IpAddr::V4(address) => self.originate(port, &arp::gratuitous(mac, address)),
                IpAddr::V6(address) => self.originate(port, &ndp::unsolicited(mac, address)),
            }
        }
    }
}
