//! A packet of a known connection: its state, then on to the server or back to the client.

use super::asked::RESET;
use super::defence;
use super::egress::Egress;
use super::family::Ip;
use super::helped::{self, HELPED};
use super::onward::{counted_len, to_client, to_server};
use super::persistence::UNASSURED;
use super::services::Services;
use super::transition::{is_established, next_state, starts_anew};
use super::{Flows, give_back};
use crate::frame::Frame;
use crate::packet::Packet;
use crate::packet::wire::UDP;
use crate::port::Port;
use crate::reason::Reason;
use crate::stats::count_bytes;
use conntrack::{ConnectionId, Direction, Entry, Method, Owner, State, Ticks};
use scheduler::RealServerId;

/// How much later than it should a timer may be armed without being armed anew: deadlines are kept no more exactly.
pub(super) const TIMER_GRAIN: Ticks = Ticks::from_millis(500);

/// A connection that a packet belongs to, and which way the packet goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) id: ConnectionId,
    pub(super) direction: Direction,
}

impl<F: Ip> Flows<F> {
    /// Forwards a packet of a connection.
    #[inline]
    pub(super) fn forward<P: Port>(
        &mut self,
        services: &mut Services,
        egress: &mut Egress<P>,
        frame: Frame,
        packet: &Packet<F>,
        found: Found,
    ) {
        let entry = self.table.entry(found.id);
        let state = entry.state();
        let server = RealServerId(entry.server());
        // Another worker has a newer snapshot; here nothing could be counted that the packet changes.
        if !services.knows(server) {
            return egress.drop(frame, Reason::ServerGone);
        }
        if found.direction == Direction::Request
            && starts_anew(frame.bytes(), packet)
            && self.is_replaced(services, egress, entry, state)
        {
            return self.replace(services, egress, frame, packet, found.id);
        }
        if entry.flags() & RESET != 0 {
            return self.reset(services, egress, frame, packet, found);
        }
        // Nothing that clients send keeps a connection to a removed server alive.
        if found.direction == Direction::Request && !services.is_present(server) {
            return self.without_server(services, egress, frame, packet, found.id);
        }
        if found.direction == Direction::Reply && packet.ttl <= 1 {
            // It goes no further than to be answered, and changes nothing.
            return to_client(egress, frame, packet, entry, None);
        }
        if entry.flags() & HELPED != 0 {
            return self.forward_helped(services, egress, frame, packet, found);
        }
        self.follow(services, egress, frame.bytes(), packet, found);
        self.send_on(services, egress, frame, packet, found);
    }

    /// Lets a packet move its connection's state and end.
    #[inline]
    pub(super) fn follow<P: Port>(
        &mut self,
        services: &Services,
        egress: &Egress<P>,
        frame: &[u8],
        packet: &Packet<F>,
        found: Found,
    ) {
        let entry = self.table.entry(found.id);
        let state = entry.state();
        let way = (entry.method(), found.direction);
        let rules = egress.defence.tcp_rules();
        let next = next_state(frame, packet, state, way, rules);
        let timeout = egress.snapshot.timeouts.of(next);
        if next != state {
            self.change_state(services, egress, found.id, state, next);
        }
        prolong(
            &mut self.owner,
            self.table.entry(found.id),
            found.id,
            egress.now.after(timeout),
        );
    }

    /// Counts a packet whose connection has its state, and sends it to the other end.
    #[inline]
    pub(super) fn send_on<P: Port>(
        &mut self,
        services: &mut Services,
        egress: &mut Egress<P>,
        frame: Frame,
        packet: &Packet<F>,
        found: Found,
    ) {
        let entry = self.table.entry(found.id);
        if found.direction == Direction::Request && egress.defence.counts_packets() {
            defence::count_packet(entry);
        }
        // A datagram that is answered, as TCP that is established, shows that its client is in earnest.
        if found.direction == Direction::Reply
            && packet.tuple.protocol == UDP
            && entry.flags() & UNASSURED != 0
        {
            self.assure(egress.now, entry);
        }
        let server = RealServerId(entry.server());
        match found.direction {
            Direction::Request => {
                let len = counted_len(packet);
                count_bytes(&egress.stats, server, Direction::Request, len);
                to_server(services, egress, frame, packet, entry);
            }
            Direction::Reply => {
                // What a removed server says still reaches the client, and counts no more.
                let counted = services.is_present(server).then_some(server);
                to_client(egress, frame, packet, entry, counted);
            }
        }
    }

    #[cold]
    pub(super) fn change_state<P: Port>(
        &mut self,
        services: &Services,
        egress: &Egress<P>,
        id: ConnectionId,
        from: State,
        to: State,
    ) {
        let entry = self.table.entry(id);
        if self.table.advance(entry, from, to) {
            services.connection_moved(RealServerId(entry.server()), from, to);
            if to == State::SynRecv {
                helped::begin_again(&self.helpers, id, entry);
            }
            if is_established(to) && entry.flags() & UNASSURED != 0 {
                self.assure(egress.now, entry);
            }
            let timeouts = &egress.snapshot.timeouts;
            if timeouts.of(to).0 < timeouts.of(from).0 {
                self.owner.shorten(id, egress.now.after(timeouts.of(to)));
            }
        }
    }

    /// Whether a client's SYN or INIT on a connection is scheduled again instead of going to its server: where the
    /// connection has ended and the client uses its port again, by `conn_reuse_mode`, and where the server gets no new
    /// flows, with `expire_nodest_conn`. With FULLNAT only the worker that made the connection does so, since it alone can give its
    /// local port back; another one takes the SYN as the beginning of a new life with the same server.
    ///
    /// Source: Linux net/netfilter/ipvs/ip_vs_core.c (`ip_vs_in_hook`, `is_new_conn_expected`).
    #[cold]
    fn is_replaced<P: Port>(
        &self,
        services: &Services,
        egress: &Egress<P>,
        entry: &Entry<F>,
        state: State,
    ) -> bool {
        let ipvs = &egress.snapshot.ipvs;
        let has_ended = match state {
            State::TimeWait | State::Close | State::SctpClosed => ipvs.conn_reuse_mode != 0,
            State::FinWait => {
                ipvs.conn_reuse_mode & 2 != 0 && matches!(entry.method(), Method::Dr | Method::Tun)
            }
            _ => false,
        };
        // A connection that another one controls stays with it.
        let is_free = entry.control().is_none();
        let drained = ipvs.expire_nodest_conn && services.is_drained(RealServerId(entry.server()));
        (drained || (has_ended && is_free)) && may_remove(entry, egress)
    }

    /// A client's packet whose server was removed. With `expire_nodest_conn` it ends the connection, and may begin the
    /// next one; the others' turn comes by themselves (`sweep.rs`).
    ///
    /// Source: Linux net/netfilter/ipvs/ip_vs_core.c (`ip_vs_in_hook`).
    #[cold]
    fn without_server<P: Port>(
        &mut self,
        services: &mut Services,
        egress: &mut Egress<P>,
        frame: Frame,
        packet: &Packet<F>,
        id: ConnectionId,
    ) {
        if !egress.snapshot.ipvs.expire_nodest_conn {
            return egress.drop(frame, Reason::ServerGone);
        }
        if may_remove(self.table.entry(id), egress) {
            return self.replace(services, egress, frame, packet, id);
        }
        self.owner.shorten(id, egress.now);
        egress.drop(frame, Reason::ServerGone);
    }

    /// Ends a connection and takes the packet as one of none. While that is scheduled the connection still counts for its
    /// server.
    ///
    /// Source: Linux net/netfilter/ipvs/ip_vs_core.c (`ip_vs_in_hook`: the connection's timer ends it, later).
    #[cold]
    fn replace<P: Port>(
        &mut self,
        services: &mut Services,
        egress: &mut Egress<P>,
        frame: Frame,
        packet: &Packet<F>,
        id: ConnectionId,
    ) {
        let ended = self.owner.remove(id).map(|state| {
            let entry = self.table.entry(id);
            let records = (&*self.calls, &*self.helpers);
            give_back(&self.table, records, &mut self.lips, (id, entry));
            (RealServerId(entry.server()), state)
        });
        self.new_flow(services, egress, frame, packet);
        if let Some((server, state)) = ended {
            services.connection_ended(server, state);
        }
    }
}

/// Moves a connection's end.
#[inline(never)]
pub(super) fn prolong<F: Ip>(
    owner: &mut Owner<F>,
    entry: &Entry<F>,
    id: ConnectionId,
    deadline: Ticks,
) {
    if deadline.after(TIMER_GRAIN).has_passed(entry.expires_at()) {
        // The configuration has shortened the timeout: the timer is armed for later.
        owner.shorten(id, deadline);
    } else {
        entry.touch(deadline);
    }
}

/// Whether this worker may end a connection. One of FULLNAT has a local port that its owner alone can give back.
fn may_remove<F: Ip, P: Port>(entry: &Entry<F>, egress: &Egress<P>) -> bool {
    entry.owner() == egress.worker || entry.method() != Method::FullNat
}
