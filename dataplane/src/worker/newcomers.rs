//! Which newcomers get in while half-open connections fill their share of the table: those that come again.
//!
//! ```text
//!   a first packet that leaves its connection half open
//!     │ is there room?          below 15/16 of the share for everybody, the last 16th is for those that come again
//!     ├ yes ─▶ as always
//!     │ was it refused before?
//!     ├ no ──▶ remembered and refused, before a server is picked or anything is looked for
//!     ├ yes ─▶ a half-open connection of this worker's that was silent for a second ends in its favour
//!     └ yes, but there is none ─▶ one of the last places, or refused
//! ```
//! A flood from random sources never says the same thing twice; a client's TCP says it again after a second. See
//! `docs/decisions/0006-newcomers-that-come-again.md`.
//!
//! Differs from IPVS: there every SYN makes a connection, as long as there is memory. Here the half-open ones have a share of
//! the table, and while it is full a newcomer gets in when its client says its SYN again.

use super::egress::Egress;
use super::family::Ip;
use super::lookup::{Asked, asked};
use super::new_flow::{is_ftp_data, is_kernels};
use super::services::Services;
use super::transition::{is_reset, starts_anew};
use super::{Flows, settle};
use crate::frame::Frame;
use crate::packet::{Fragment, Packet};
use crate::port::{BURST, Port};
use crate::reason::Reason;
use crate::stats::add;
use conntrack::{Entry, Print, Refused, State, Ticks};

/// A half-open connection is left alone for so long after its client's last packet.
pub(super) const MOMENT: Ticks = Ticks::from_seconds(1);
/// Places of the table looked at in a tick, in search of connections to end.
pub(super) const PLACES_PER_TICK: u32 = 1024;
/// Lines of 31 fingerprints, as a power of two. With 16 million newcomers remembered, a worker that refuses ten million
/// in a second still knows them when their clients come again.
const LINES: u32 = 19;

/// Where a worker is with newcomers.
pub(super) struct Newcomers<F: Ip> {
    refused: Refused,
    /// Those of this burst for which there is no room, as it seems.
    waiting: Vec<(Frame, Packet<F>, Print)>,
    /// What the last one that was put aside asked for: most of a flood asks for the same.
    flooded: Option<Flooded<F>>,
    /// The place of the table that was looked at last.
    hand: u32,
    /// Places that may be looked at until the tick is over.
    places_left: u32,
    tick: Ticks,
}

/// A service's address that a flood meets, under one snapshot.
#[derive(PartialEq, Eq)]
struct Flooded<F: Ip> {
    version: u64,
    address: F::Address,
    port: u16,
    protocol: u8,
}

impl<F: Ip> Flooded<F> {
    fn of<P: Port>(egress: &Egress<P>, packet: &Packet<F>) -> Flooded<F> {
        Flooded {
            version: egress.snapshot.version,
            address: packet.tuple.destination,
            port: packet.tuple.destination_port,
            protocol: packet.tuple.protocol,
        }
    }
}

impl<F: Ip> Newcomers<F> {
    pub(super) fn new() -> Newcomers<F> {
        Newcomers {
            refused: Refused::new(LINES).expect("address space for 32 MiB"),
            waiting: Vec::with_capacity(BURST),
            flooded: None,
            hand: 0,
            places_left: PLACES_PER_TICK,
            tick: Ticks(0),
        }
    }
}

impl<F: Ip> Flows<F> {
    /// Whether a first packet is to be put aside. `asked` is what it asks for.
    #[inline]
    pub(super) fn waits<P: Port>(
        &mut self,
        egress: &Egress<P>,
        frame: &Frame,
        packet: &Packet<F>,
        asked: impl FnOnce() -> Option<Asked>,
    ) -> bool {
        let is_first = || starts_anew(frame.bytes(), packet) && !is_reset(frame.bytes(), packet);
        if self.table.has_room_for_newcomers() || !is_first() {
            return false;
        }
        let flooded = Flooded::of(egress, packet);
        if self.newcomers.flooded.as_ref() == Some(&flooded) && !is_ftp_data(packet) {
            return true;
        }
        let waits = asked().is_some_and(|asked| !is_kernels(packet, &asked));
        // A mark depends on more than that.
        if waits && egress.snapshot.marks.is_empty() {
            self.newcomers.flooded = Some(flooded);
        }
        waits
    }

    /// Puts a newcomer aside until the end of the burst, so that the line where it may be known comes meanwhile.
    #[inline]
    pub(super) fn let_wait<P: Port>(
        &mut self,
        services: &mut Services,
        egress: &mut Egress<P>,
        frame: Frame,
        packet: &Packet<F>,
    ) {
        let newcomers = &mut self.newcomers;
        let print = newcomers.refused.print(self.table.hash(&packet.tuple));
        // Whoever remembers fragments wants to know at once.
        if packet.fragment != Fragment::None || newcomers.waiting.len() == BURST {
            return self.decide(services, egress, frame, packet, print);
        }
        newcomers.refused.prefetch(print);
        newcomers.waiting.push((frame, *packet, print));
    }

    /// Decides about those that were put aside.
    #[inline]
    pub(super) fn decide_newcomers<P: Port>(
        &mut self,
        services: &mut Services,
        egress: &mut Egress<P>,
    ) {
        if self.newcomers.waiting.is_empty() {
            return;
        }
        let mut waiting = std::mem::take(&mut self.newcomers.waiting);
        for (frame, packet, print) in waiting.drain(..) {
            self.decide(services, egress, frame, &packet, print);
        }
        // Its room is used again.
        self.newcomers.waiting = waiting;
    }

    /// Whoever was refused before comes in if there can be room; others are refused and remembered.
    fn decide<P: Port>(
        &mut self,
        services: &mut Services,
        egress: &mut Egress<P>,
        frame: Frame,
        packet: &Packet<F>,
        print: Print,
    ) {
        if self.newcomers.refused.knows_or_learns(print)
            && (self.make_room(services, egress) || self.table.has_room_for_half_open())
        {
            let asked = asked(&egress.snapshot, frame.port, &packet.tuple);
            return self.new_flow_of(services, egress, frame, packet, asked);
        }
        self.owner.count_refused_half_open();
        egress.drop(frame, Reason::HalfOpenFull);
    }

    /// Ends a half-open connection of this worker's whose client has been silent for a moment. The search goes on where
    /// the last one ended, and is bounded for each tick.
    fn make_room<P: Port>(&mut self, services: &Services, egress: &Egress<P>) -> bool {
        let newcomers = &mut self.newcomers;
        if newcomers.tick != egress.now {
            newcomers.tick = egress.now;
            newcomers.places_left = PLACES_PER_TICK;
        }
        while newcomers.places_left > 0 {
            newcomers.places_left -= 1;
            let Some(id) = self.owner.next_place(&mut newcomers.hand) else {
                continue;
            };
            let entry = self.table.entry(id);
            if !is_given_up(entry, egress) {
                continue;
            }
            if let Some(state) = self.owner.remove(id) {
                let shared = (&*self.calls, &*self.helpers);
                let ended = (id, entry);
                settle(&self.table, shared, &mut self.lips, services, ended, state);
                add(&egress.stats.half_open_replaced, 1);
                return true;
            }
        }
        false
    }
}

/// Whether a connection may end for the sake of another: nobody has answered, and its client has not come again for a
/// moment.
fn is_given_up<F: Ip, P: Port>(entry: &Entry<F>, egress: &Egress<P>) -> bool {
    let state = entry.state();
    if !is_unanswered(state) {
        return false;
    }
    let timeout = egress.snapshot.timeouts.of(state);
    let silent_since = Ticks(entry.expires_at().0.wrapping_sub(timeout.0));
    silent_since.after(MOMENT).has_passed(egress.now)
}

/// Whether it is a state that a client's first packet alone leads to.
pub(super) fn is_unanswered(state: State) -> bool {
    matches!(
        state,
        State::SynRecv | State::SynAck | State::SctpInit1 | State::SctpInit
    )
}
