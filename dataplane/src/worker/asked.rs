//! What somebody beside the workers wants done with a connection: that it ends, or that it is reset. Its owner does it, as
//! with timers, so that whatever the connection had is given back and counted once.
//!
//! A connection that is to be reset stays until a packet of either end comes: the table knows no sequence numbers. That packet
//! is answered with a RST, and goes on as a RST. The connection is in state CLOSE then, and whatever else comes in its last
//! seconds is treated alike, since an end that does not believe a RST asks again.
//!
//! When uvsd starts anew meanwhile, a connection whose RST has not been sent yet goes on as if nobody had asked (`takeover.rs`).
//!
//! Source: RFC 9293 §3.10.7, RFC 5961 §3.2 (RSTs that are not believed).

use super::connection::Found;
use super::egress::Egress;
use super::family::Ip;
use super::helped::HELPED;
use super::services::Services;
use super::transition::is_reset;
use super::{Flows, Worker, settle};
use crate::frame::{Frame, Offload};
use crate::packet::wire::TCP;
use crate::packet::{Fragment, Packet, reset};
use crate::port::Port;
use conntrack::{ConnectionId, State};

/// Connections looked at between two bursts.
const ASKED_BUDGET: usize = 64;

/// Flag of a connection: its packets are answered with RSTs.
pub(super) const RESET: u16 = 1 << 2;

impl<P: Port> Worker<P> {
    /// Whether more is asked for than was done.
    pub(super) fn is_asked(&self) -> bool {
        self.ipv4.asked_behind || self.ipv6.asked_behind
    }
}

impl<F: Ip> Flows<F> {
    /// Does what is asked for, some of it.
    pub(super) fn serve_asked(&mut self, services: &Services) {
        let mut served = 0;
        while served < ASKED_BUDGET
            && let Some((id, is_reset)) = self.owner.next_asked()
        {
            served += 1;
            self.serve_one(services, id, is_reset);
        }
        self.asked_behind = served == ASKED_BUDGET;
    }

    fn serve_one(&mut self, services: &Services, id: ConnectionId, is_reset: bool) {
        // What is somebody else's by now has ended and begun anew.
        let Some(entry) = self.table.get(id) else {
            return;
        };
        if is_reset && entry.protocol() == TCP && !entry.is_template() {
            return entry.set_flags(RESET);
        }
        if let Some(state) = self.table.end(entry) {
            let (calls, helpers) = (&*self.calls, &*self.helpers);
            let (table, lips) = (&self.table, &mut self.lips);
            settle(table, (calls, helpers), lips, services, (id, entry), state);
        }
        self.owner.remove(id);
    }

    /// A packet of a connection that is to be reset.
    #[cold]
    pub(super) fn reset<P: Port>(
        &mut self,
        services: &mut Services,
        egress: &mut Egress<P>,
        mut frame: Frame,
        packet: &Packet<F>,
        found: Found,
    ) {
        let mut packet = *packet;
        if packet.fragment == Fragment::None && !is_reset(frame.bytes(), &packet) {
            let mut scratch = std::mem::take(&mut egress.scratch);
            let len = reset::answer(&mut scratch, frame.bytes(), &packet);
            egress.originate(frame.port, &scratch[..len]);
            egress.scratch = scratch;
            packet = reset::instead(frame.bytes_mut(), &packet);
            frame.truncate(packet.end());
            frame.offload = Offload::NONE;
        }
        if self.table.entry(found.id).flags() & HELPED != 0 {
            return self.forward_helped(services, egress, frame, &packet, found);
        }
        // Once it is closed, nothing that comes keeps it longer.
        if self.table.entry(found.id).state() != State::Close {
            self.follow(services, egress, frame.bytes(), &packet, found);
        }
        self.send_on(services, egress, frame, &packet, found);
    }
}
