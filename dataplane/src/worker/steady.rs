//! The way of nearly all packets: plain, of a connection that stays in its state, to a neighbour that is known. Whatever is
//! otherwise takes the long way (`connection.rs`), which does the same for all packets; a packet of this kind would come
//! out of it alike.

use super::Flows;
use super::connection::{Found, TIMER_GRAIN, prolong};
use super::defence;
use super::egress::Egress;
use super::family::Ip;
use super::helped::HELPED;
use super::onward::to_server;
use super::persistence::UNASSURED;
use super::services::Services;
use super::transition::path;
use crate::frame::Frame;
use crate::neighbour::NeighbourId;
use crate::packet::TcpFlags;
use crate::packet::checksum::Delta;
use crate::packet::plain::Plain;
use crate::packet::wire::{ETHERNET_LEN, TCP};
use crate::port::{Mac, Port, PortId};
use crate::rewrite::plain::{Change, has_no_checksum, step, translate};
use crate::rewrite::set_macs;
use crate::stats::count_bytes;
use conntrack::{Direction, Entry, Method, State, TEMPLATE, tcp_next};
use scheduler::RealServerId;

/// Connections with one of these marks take the long way.
const UNSTEADY: u16 = TEMPLATE | HELPED | UNASSURED;

impl<F: Ip> Flows<F> {
    /// Forwards a plain packet whose key was found.
    #[inline]
    pub(super) fn forward_plain<P: Port>(
        &mut self,
        services: &mut Services,
        egress: &mut Egress<P>,
        mut frame: Frame,
        plain: &Plain<F>,
        found: Found,
    ) {
        let Flows { table, owner, .. } = self;
        let entry = table.entry(found.id);
        let Some(link) = steady_link(services, egress, &frame, plain, (entry, found.direction))
        else {
            return self.unsteady(services, egress, frame, plain, found);
        };
        let deadline = egress.now.after(egress.snapshot.timeouts.of(entry.state()));
        if deadline.distance(entry.expires_at()).0 >= TIMER_GRAIN.0 {
            prolong(owner, entry, found.id, deadline);
        }
        if found.direction == Direction::Request && egress.defence.counts_packets() {
            defence::count_packet(entry);
        }
        let server = RealServerId(entry.server());
        count_bytes(&egress.stats, server, found.direction, len(plain));
        let bytes = frame.bytes_mut();
        match entry.method() {
            Method::Nat | Method::FullNat => {
                translate::<F>(bytes, plain.tuple.protocol, &change(entry, found.direction));
            }
            Method::Tun => {
                let packet = F::whole(bytes, plain);
                return to_server(services, egress, frame, &packet, entry);
            }
            Method::Dr | Method::Local => step::<F>(bytes),
        }
        set_macs(bytes, link.destination, link.source);
        egress.transmit(frame, link.port);
    }

    /// Forwards any other plain packet whose key was found.
    #[inline(never)]
    fn unsteady<P: Port>(
        &mut self,
        services: &mut Services,
        egress: &mut Egress<P>,
        frame: Frame,
        plain: &Plain<F>,
        found: Found,
    ) {
        let packet = F::whole(frame.bytes(), plain);
        // Templates of calls stand at ports that a client may speak from.
        if self.table.entry(found.id).is_template() {
            return self.new_flow(services, egress, frame, &packet);
        }
        self.forward(services, egress, frame, &packet, found);
    }
}

/// The way to the next hop.
struct Link {
    destination: Mac,
    source: Mac,
    port: PortId,
}

/// Where a steady packet goes next; `None` for any other.
#[inline]
fn steady_link<F: Ip, P: Port>(
    services: &mut Services,
    egress: &Egress<P>,
    frame: &Frame,
    plain: &Plain<F>,
    (entry, direction): (&Entry<F>, Direction),
) -> Option<Link> {
    let (state, method) = (entry.state(), entry.method());
    let is_marked = entry.flags() & UNSTEADY != 0;
    if is_marked || plain.ttl <= 1 || method == Method::Local {
        return None;
    }
    if plain.tuple.protocol == TCP {
        let rules = egress.defence.tcp_rules();
        let stays = plain.tcp_flags.is_mere_ack() && state == State::Established
            || !plain.tcp_flags.has(TcpFlags::SYN)
                && tcp_next(rules, state, path(method, direction), plain.tcp_flags) == state;
        if !stays {
            return None;
        }
    } else if method.sees_replies() && has_no_checksum::<F>(frame.bytes()) {
        return None;
    }
    let server = services
        .server(RealServerId(entry.server()))
        .filter(|server| server.present)?;
    let neighbour = match direction {
        Direction::Request => server.neighbour,
        Direction::Reply => {
            let (neighbour, generation) = entry.reply_neighbour();
            if generation != egress.snapshot.route_generation {
                return None;
            }
            NeighbourId::from_bits(neighbour)
        }
    };
    let (destination, port) = egress.known(neighbour)?;
    let view = &egress.snapshot.ports[usize::from(port.0)];
    (len(plain) <= view.mtu).then_some(Link {
        destination,
        source: view.mac,
        port,
    })
}

/// The length of the IP packet.
#[inline]
#[allow(clippy::cast_possible_truncation, reason = "14")]
fn len<F: Ip>(plain: &Plain<F>) -> u32 {
    plain.end - ETHERNET_LEN as u32
}

/// What NAT and FULLNAT write: both ends, also where one of them stays as it is.
#[inline]
fn change<F: Ip>(entry: &Entry<F>, direction: Direction) -> Change<F> {
    let (ip_delta, l4_delta) = (Delta(entry.ip_delta()), Delta(entry.l4_delta()));
    match direction {
        Direction::Request => Change {
            source: entry.local_end(),
            destination: (entry.real_address(), entry.real_port()),
            ip_delta,
            l4_delta,
        },
        Direction::Reply => Change {
            source: (entry.virtual_address(), entry.virtual_port()),
            destination: (entry.client(), entry.client_port()),
            ip_delta: ip_delta.negated(),
            l4_delta: l4_delta.negated(),
        },
    }
}
