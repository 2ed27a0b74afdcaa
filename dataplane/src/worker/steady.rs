//! The way of nearly all packets: plain, of a connection that stays in its state, to a neighbour that is known. Whatever is
//! otherwise takes the long way (`connection.rs`), which does the same for all packets; a packet of this kind would come
//! out of it alike.

use super::asked::RESET;
use super::connection::{TIMER_GRAIN, prolong};
use super::defence;
use super::egress::Egress;
use super::family::Ip;
use super::helped::HELPED;
use super::onward::may_fragment_outside;
use super::persistence::UNASSURED;
use super::services::{ServerState, Services};
use super::transition::path;
use crate::frame::Frame;
use crate::neighbour::NeighbourId;
use crate::packet::checksum::Delta;
use crate::packet::plain::Plain;
use crate::packet::wire::{ETHERNET_LEN, TCP};
use crate::packet::{Packet, TcpFlags};
use crate::port::{Port, PortId};
use crate::rewrite::plain::{Change, has_no_checksum, step, step_to, translate};
use crate::rewrite::{encapsulate, write_macs};
use crate::stats::count_bytes;
use conntrack::{ConnectionId, Direction, Entry, Method, Owner, State, TEMPLATE, tcp_next};
use scheduler::RealServerId;

/// Connections with one of these marks take the long way.
const UNSTEADY: u16 = TEMPLATE | HELPED | UNASSURED | RESET;

/// Readies a plain packet of the connection at `entry` for the port that is returned: all that is left is to hand it over.
/// `None`, and nothing was done, where it is not steady.
#[inline(always)]
pub(super) fn forward<F: Ip, P: Port>(
    owner: &mut Owner<F>,
    services: &mut Services,
    egress: &mut Egress<P>,
    frame: &mut Frame,
    plain: &Plain<F>,
    (id, direction, entry): (ConnectionId, Direction, &Entry<F>),
) -> Option<PortId> {
    let (state, method) = (entry.state(), entry.method());
    let server = RealServerId(entry.server());
    if !is_steady(egress, frame, plain, (entry, state, method, direction)) {
        return None;
    }
    let kept = services.server(server).filter(|server| server.present)?;
    // Which way the packet goes is as good as random: no branch may depend on it but those that hardly ever part.
    let is_reply = direction == Direction::Reply;
    let (towards_client, generation) = entry.reply_neighbour();
    if is_reply & (generation != egress.snapshot.route_generation) {
        return None;
    }
    let towards_client = NeighbourId::from_bits(towards_client);
    let neighbour = std::hint::select_unpredictable(is_reply, towards_client, kept.neighbour);
    let hop = egress.known(neighbour)?;
    let (macs, port, mtu) = (hop.macs, hop.port, hop.mtu);
    if len(plain) > mtu {
        return None;
    }
    if method == Method::Dr {
        step_to::<F>(frame.bytes_mut(), macs);
    } else {
        match method {
            Method::Nat | Method::FullNat => {
                let change = change(entry, direction);
                translate::<F>(frame.bytes_mut(), plain.tuple.protocol, &change);
            }
            Method::Tun => into_tunnel::<F, P>(egress, frame, kept, mtu)?,
            Method::Dr | Method::Local => return None,
        }
        write_macs(frame.bytes_mut(), macs);
    }
    let deadline = egress.now.after(egress.snapshot.timeouts.of(state));
    if deadline.distance(entry.expires_at()).0 >= TIMER_GRAIN.0 {
        prolong(owner, entry, id, deadline);
    }
    if egress.defence.counts_packets() && !is_reply {
        defence::count_packet(entry);
    }
    count_bytes(&egress.stats, server, direction, len(plain));
    Some(port)
}

/// Whether a packet changes nothing but its connection's end.
#[inline]
fn is_steady<F: Ip, P: Port>(
    egress: &Egress<P>,
    frame: &Frame,
    plain: &Plain<F>,
    (entry, state, method, direction): (&Entry<F>, State, Method, Direction),
) -> bool {
    if entry.flags() & UNSTEADY != 0 || plain.ttl <= 1 {
        return false;
    }
    let flags = plain.tcp_flags;
    match plain.tuple.protocol {
        TCP if flags.is_mere_ack() && state == State::Established => true,
        TCP => {
            let rules = egress.defence.tcp_rules();
            !flags.has(TcpFlags::SYN)
                && tcp_next(rules, state, path(method, direction), flags) == state
        }
        _ => !(method.sees_replies() && has_no_checksum::<F>(frame.bytes())),
    }
}

/// Puts a packet into its server's tunnel, if that takes it whole. Reads it again, so that what was read before can stay in
/// registers where there is no tunnel.
#[inline(never)]
fn into_tunnel<F: Ip, P: Port>(
    egress: &mut Egress<P>,
    frame: &mut Frame,
    server: &ServerState,
    mtu: u32,
) -> Option<()> {
    let plain = &F::read(frame.bytes())?;
    let tunnel = server.tunnel.as_ref()?;
    let way = server.way(egress.now);
    let outer_len = len(plain) as usize + way.overhead;
    // No outer header says more than 65535.
    let limit = mtu.min(way.path_mtu).min(u32::from(u16::MAX));
    if outer_len > limit as usize || frame.headroom() < way.overhead {
        return None;
    }
    let packet = F::whole(frame.bytes(), plain);
    let packet = Packet {
        dont_fragment: packet.dont_fragment && !may_fragment_outside::<F>(tunnel),
        ..packet
    };
    step::<F>(frame.bytes_mut());
    let identification = egress.next_identification();
    encapsulate(frame, &packet, tunnel, identification)
        .expect("there is room, and the link takes it");
    Some(())
}

/// The length of the IP packet.
#[inline]
#[allow(clippy::cast_possible_truncation, reason = "14")]
fn len<F: Ip>(plain: &Plain<F>) -> u32 {
    plain.end - ETHERNET_LEN as u32
}

/// What NAT and FULLNAT write: both ends, also where one of them stays as it is.
#[inline(always)]
fn change<F: Ip>(entry: &Entry<F>, direction: Direction) -> Change<F> {
    let [source, destination] = entry.translated_ends(direction);
    // Negated for a reply, without a branch.
    let sign = 0_u16.wrapping_sub(u16::from(direction == Direction::Reply));
    Change {
        source,
        destination,
        ip_delta: Delta(entry.ip_delta() ^ sign),
        l4_delta: Delta(entry.l4_delta() ^ sign),
    }
}
