//! ICMP errors that belong to a connection: the packet they quote is looked up, and they go on to the other end.

use super::egress::{Egress, Hop, Way};
use super::family::Ip;
use super::lookup::asked;
use super::onward::{Ready, ready, reply_translation, request_translation, to_server_unchanged};
use super::services::Services;
use super::{Flows, Worker};
use crate::frame::Frame;
use crate::packet::Packet;
use crate::packet::icmp::{Quoted, has_right_checksum, parse_error};
use crate::packet::wire::{IPIP, SCTP, TCP, UDP};
use crate::port::{Port, PortId};
use crate::reason::Reason;
use crate::rewrite::{Translation, translate_error};
use crate::snapshot::Owned;
use crate::stats::count_bytes;
use conntrack::{ConnectionId, Direction, Entry, Method, State, Ticks, V4, V6};
use scheduler::RealServerId;

/// An error and the connection that it is about.
struct Related<'a, F: Ip> {
    packet: &'a Packet<F>,
    quoted: &'a Quoted<F>,
    entry: &'a Entry<F>,
    /// Which way the error goes.
    direction: Direction,
    /// Whether the server is one of its service's still: nothing counts for the others.
    counts: bool,
}

impl<P: Port> Worker<P> {
    /// Relays an ICMP error about a packet of a connection, or about a tunnel's packet around it.
    pub(super) fn error_v4(&mut self, frame: Frame, packet: &Packet<V4>) {
        let (services, egress) = (&mut self.services, &mut self.egress);
        match parse_error(frame.bytes(), packet) {
            Err(reason) => not_related(egress, frame, packet, reason),
            Ok(quoted) => match self.ipv4.carried(frame.bytes(), &quoted) {
                Some((IPIP, l3)) => self
                    .ipv4
                    .tunnel_error(services, egress, frame, packet, &quoted, l3),
                Some((_, l3)) => self
                    .ipv6
                    .tunnel_error(services, egress, frame, packet, &quoted, l3),
                None if !services.has_family(false) => {
                    not_related(egress, frame, packet, Reason::IcmpUnrelated);
                }
                None => self.ipv4.related(services, egress, frame, packet, &quoted),
            },
        }
    }

    /// The same for ICMPv6.
    pub(super) fn error_v6(&mut self, frame: Frame, packet: &Packet<V6>) {
        let (services, egress) = (&mut self.services, &mut self.egress);
        match parse_error(frame.bytes(), packet) {
            Err(reason) => not_related(egress, frame, packet, reason),
            Ok(quoted) => match self.ipv6.carried(frame.bytes(), &quoted) {
                Some((IPIP, l3)) => self
                    .ipv4
                    .tunnel_error(services, egress, frame, packet, &quoted, l3),
                Some((_, l3)) => self
                    .ipv6
                    .tunnel_error(services, egress, frame, packet, &quoted, l3),
                None if !services.has_family(true) => {
                    not_related(egress, frame, packet, Reason::IcmpUnrelated);
                }
                None => self.ipv6.related(services, egress, frame, packet, &quoted),
            },
        }
    }
}

impl<F: Ip> Flows<F> {
    fn related<P: Port>(
        &mut self,
        services: &mut Services,
        egress: &mut Egress<P>,
        frame: Frame,
        packet: &Packet<F>,
        quoted: &Quoted<F>,
    ) {
        // The quoted packet went the other way than one that would be looked up here.
        let found = self.connection_of(&quoted.tuple.reversed());
        let found = found.or_else(|| self.scheduled_for(services, egress, frame.port, quoted));
        let Some((id, direction)) = found else {
            return not_related(egress, frame, packet, Reason::IcmpUnrelated);
        };
        let entry = self.table.entry(id);
        let related = Related {
            packet,
            quoted,
            entry,
            direction,
            counts: services.is_present(RealServerId(entry.server())),
        };
        match direction {
            Direction::Request => error_to_server(services, egress, frame, &related),
            Direction::Reply if !has_right_checksum(frame.bytes(), packet) => {
                egress.drop(frame, Reason::BadIcmpChecksum);
            }
            Direction::Reply => match egress.hop_to_client(related.entry) {
                Ok(hop) => translated_error(egress, frame, &related, hop),
                Err(reason) => egress.drop(frame, reason),
            },
        }
    }
}

/// How long a connection lasts that an error began, unless a packet follows.
const SCHEDULED: Ticks = Ticks::from_seconds(3);

impl<F: Ip> Flows<F> {
    /// With `schedule_icmp`, the connection that an error begins which a client's side sent about a packet of a service.
    ///
    /// Source: Linux net/netfilter/ipvs/ip_vs_core.c (`ip_vs_in_icmp`, `ip_vs_try_to_schedule`).
    #[cold]
    fn scheduled_for<P: Port>(
        &mut self,
        services: &mut Services,
        egress: &mut Egress<P>,
        port: PortId,
        quoted: &Quoted<F>,
    ) -> Option<(ConnectionId, Direction)> {
        if !egress.snapshot.ipvs.schedule_icmp {
            return None;
        }
        let tuple = quoted.tuple.reversed();
        let state = match tuple.protocol {
            TCP | SCTP => State::None,
            UDP => State::Udp,
            _ => return None,
        };
        let asked = asked(&egress.snapshot, port, &tuple)?;
        let plan = self
            .schedule(services, egress, &tuple, &asked, || None)
            .ok()?;
        let found = self
            .connect(services, egress, &tuple, &plan, state, SCHEDULED)
            .ok()?
            .found();
        Some((found.id, found.direction))
    }
}

fn error_to_server<F: Ip, P: Port>(
    services: &mut Services,
    egress: &mut Egress<P>,
    frame: Frame,
    related: &Related<'_, F>,
) {
    let method = related.entry.method();
    if method == Method::Local {
        return egress.exception(frame);
    }
    let id = RealServerId(related.entry.server());
    // One that was removed still hears of what it sent.
    let Some(state) = services.server(id) else {
        return egress.drop(frame, Reason::ServerGone);
    };
    match egress.hop_to_server(id, state) {
        Ok(hop) if method.sees_replies() => translated_error(egress, frame, related, hop),
        Ok(hop) => {
            count(egress, related);
            to_server_unchanged(egress, frame, related.packet, method, state, hop);
        }
        Err(reason) => egress.drop(frame, reason),
    }
}

/// Relays an error by NAT or FULLNAT. Nobody is told of one that cannot go on.
fn translated_error<F: Ip, P: Port>(
    egress: &mut Egress<P>,
    frame: Frame,
    related: &Related<'_, F>,
    hop: Hop,
) {
    let packet = related.packet;
    if related.direction == Direction::Request {
        count(egress, related);
    }
    let (mut frame, fragment_to) = match ready(
        egress,
        frame,
        packet,
        hop,
        Way::PLAIN,
        Some(packet.tuple.destination),
    ) {
        Ready::Whole(frame) => (frame, None),
        Ready::Fragments(frame, mtu) => (frame, Some(mtu)),
        Ready::Refused { .. } => return,
    };
    // As any packet from the servers' side: what goes no further does not count.
    if related.direction == Direction::Reply {
        count(egress, related);
    }
    let (source, destination, inner) = relayed(related.entry, related.direction);
    translate_error(
        frame.bytes_mut(),
        packet,
        related.quoted,
        source,
        destination,
        &inner,
    );
    match fragment_to {
        None => egress.forward(frame, hop),
        Some(mtu) => egress.forward_fragments(frame, hop, mtu),
    }
}

/// Errors count as their connection's packets do.
fn count<F: Ip, P: Port>(egress: &Egress<P>, related: &Related<'_, F>) {
    if related.counts {
        count_bytes(
            &egress.stats,
            RealServerId(related.entry.server()),
            related.direction,
            related.packet.end - u32::from(related.packet.l3),
        );
    }
}

/// New source and destination of an error, and what changes in the packet it quotes: that one went the other way.
fn relayed<F: Ip>(
    entry: &Entry<F>,
    direction: Direction,
) -> (Option<F::Address>, Option<F::Address>, Translation<F>) {
    let undo = match direction {
        // From the client's side, about a packet of ours to the client: the server once sent it.
        Direction::Request => request_translation(entry),
        // From the servers' side, about a packet of ours to the server: the client once sent it. Whatever router
        // speaks, the client knows the VIP alone.
        Direction::Reply => reply_translation(entry),
    };
    let source = undo.source.map(|(address, _)| address);
    let destination = undo.destination.map(|(address, _)| address);
    (source, destination, swapped(undo))
}

/// The translation of the packet that went the other way: what is the source here is the destination there.
fn swapped<F: Ip>(translation: Translation<F>) -> Translation<F> {
    Translation {
        source: translation.destination,
        destination: translation.source,
        ..translation
    }
}

/// An error that belongs to no connection: ours to drop when it was sent to us, or else the kernel's.
pub(super) fn not_related<F: Ip, P: Port>(
    egress: &mut Egress<P>,
    frame: Frame,
    packet: &Packet<F>,
    reason: Reason,
) {
    let owned = egress.snapshot.owned.get(&packet.tuple.destination.into());
    if owned.is_some_and(|&owned| owned != Owned::Kernel) {
        egress.drop(frame, reason);
    } else {
        egress.exception(frame);
    }
}
