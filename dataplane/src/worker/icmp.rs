//! ICMP errors that belong to a connection: the packet they quote is looked up, and they go on to the other end.

use super::Flows;
use super::connection::{reply_translation, request_translation, to_server_unchanged};
use super::egress::Egress;
use super::family::Ip;
use super::services::Services;
use crate::frame::Frame;
use crate::packet::Packet;
use crate::packet::icmp::parse_error;
use crate::port::Port;
use crate::reason::Reason;
use crate::rewrite::{self, Translation, translate_error};
use crate::snapshot::Owned;
use crate::stats::count_bytes;
use conntrack::{Direction, Entry, Method};
use scheduler::RealServerId;

impl<F: Ip> Flows<F> {
    /// Relays an ICMP error about a packet of a connection.
    pub(super) fn related<P: Port>(
        &mut self,
        services: &mut Services,
        egress: &mut Egress<P>,
        frame: Frame,
        packet: &Packet<F>,
    ) {
        let quoted = match parse_error(frame.bytes(), packet) {
            Ok(quoted) => quoted,
            Err(reason) => return not_related(egress, frame, packet, reason),
        };
        // The quoted packet went the other way than one that would be looked up here.
        let Some((id, direction)) = self.table.lookup(&quoted.tuple.reversed()) else {
            return not_related(egress, frame, packet, Reason::IcmpUnrelated);
        };
        let entry = self.table.entry(id);
        let server = RealServerId(entry.server());
        let hop = match direction {
            Direction::Request => match services.server(server).filter(|state| state.present) {
                Some(state) => egress.hop_to_server(server, state),
                None => Err(Reason::ServerGone),
            },
            Direction::Reply => egress.hop_to_client(entry),
        };
        let hop = match hop {
            Ok(hop) => hop,
            Err(reason) => return egress.drop(frame, reason),
        };
        count_bytes(
            &egress.stats,
            server,
            direction,
            packet.end - u32::from(packet.l3),
        );
        if matches!(entry.method(), Method::Dr | Method::Tun | Method::Local) {
            return to_server_unchanged(egress, frame, packet, entry, hop);
        }
        let mut frame = frame;
        if rewrite::decrement_ttl(frame.bytes_mut(), packet).is_err() {
            return egress.drop(frame, Reason::TtlExpired);
        }
        let (source, destination, inner) = relayed(entry, direction);
        translate_error(
            frame.bytes_mut(),
            packet,
            &quoted,
            source,
            destination,
            &inner,
        );
        egress.forward(frame, hop);
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
fn not_related<F: Ip, P: Port>(
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
