//! A packet of a known connection: its state, then on to the server or back to the client.

use super::egress::{Egress, Hop, largest_packet};
use super::family::Ip;
use super::services::Services;
use super::{Flows, egress};
use crate::frame::{Frame, Gso};
use crate::packet::checksum::{self, Delta};
use crate::packet::icmp::ErrorKind;
use crate::packet::wire::TCP;
use crate::packet::{Packet, TcpFlags};
use crate::port::Port;
use crate::reason::Reason;
use crate::rewrite::{self, Translation, tunnel};
use crate::stats::add;
use conntrack::{ConnectionId, Direction, Entry, Method, Path, State, tcp_next};
use scheduler::RealServerId;

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
        if state.is_over() && starts_anew(packet, found) {
            return self.replace(services, egress, frame, packet, found.id);
        }
        let next = next_state(entry, state, packet, found.direction);
        let timeout = egress.snapshot.timeouts.of(next);
        if next != state {
            self.change_state(services, egress, found.id, state, next);
        }
        let entry = self.table.entry(found.id);
        entry.touch(egress.now.after(timeout));

        let server = RealServerId(entry.server());
        let len = (packet.end - u32::from(packet.l3)).into();
        if let Some(stats) = egress.stats.server(server) {
            let (packets, bytes) = match found.direction {
                Direction::Request => (&stats.in_packets, &stats.in_bytes),
                Direction::Reply => (&stats.out_packets, &stats.out_bytes),
            };
            add(packets, 1);
            add(bytes, len);
        }
        match found.direction {
            Direction::Request => to_server(services, egress, frame, packet, entry),
            Direction::Reply => to_client(egress, frame, packet, entry),
        }
    }

    #[cold]
    fn change_state<P: Port>(
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
            let timeouts = &egress.snapshot.timeouts;
            if timeouts.of(to) < timeouts.of(from) {
                self.owner.shorten(id, egress.now.after(timeouts.of(to)));
            }
        }
    }

    /// A SYN on a connection that has ended: the client uses its port again, and is scheduled again.
    ///
    /// Source: Linux net/netfilter/ipvs/ip_vs_core.c, conn_reuse_mode 1.
    #[cold]
    fn replace<P: Port>(
        &mut self,
        services: &mut Services,
        egress: &mut Egress<P>,
        frame: Frame,
        packet: &Packet<F>,
        id: ConnectionId,
    ) {
        if let Some(state) = self.owner.remove(id) {
            let entry = self.table.entry(id);
            services.connection_ended(RealServerId(entry.server()), state);
            self.lips.give_back(entry);
        }
        self.new_flow(services, egress, frame, packet);
    }
}

/// The state after a packet.
#[inline]
fn next_state<F: Ip>(entry: &Entry<F>, state: State, packet: &Packet<F>, direction: Direction) -> State {
    if packet.tuple.protocol != TCP {
        return state;
    }
    let path = match entry.method() {
        Method::Dr | Method::Tun => Path::OneWay,
        _ => Path::TwoWay(direction),
    };
    tcp_next(state, path, packet.tcp_flags)
}

/// Whether a packet of a client begins a connection where one has ended.
#[inline]
fn starts_anew<F: Ip>(packet: &Packet<F>, found: Found) -> bool {
    found.direction == Direction::Request
        && packet.tuple.protocol == TCP
        && packet.tcp_flags.0 & (TcpFlags::SYN | TcpFlags::ACK | TcpFlags::RST) == TcpFlags::SYN
}

/// Sends a client's packet to the connection's server.
#[inline]
fn to_server<F: Ip, P: Port>(
    services: &mut Services,
    egress: &mut Egress<P>,
    frame: Frame,
    packet: &Packet<F>,
    entry: &Entry<F>,
) {
    let id = RealServerId(entry.server());
    let Some(state) = services.server(id).filter(|state| state.present) else {
        return egress.drop(frame, Reason::ServerGone);
    };
    let hop = match egress.hop_to_server(id, state) {
        Ok(hop) => hop,
        Err(reason) => return egress.drop(frame, reason),
    };
    match entry.method() {
        Method::Tun => tunnel(egress, frame, packet, id, hop),
        Method::Dr => {
            if let Some(frame) = ready(egress, frame, packet, hop, packet.tuple.destination) {
                egress.forward(frame, hop);
            }
        }
        Method::Nat | Method::FullNat => {
            if let Some(mut frame) = ready(egress, frame, packet, hop, packet.tuple.destination) {
                let offload = frame.offload;
                rewrite::translate(frame.bytes_mut(), packet, &request_translation(entry), &offload);
                egress.forward(frame, hop);
            }
        }
    }
}

/// Sends a server's packet to the connection's client (NAT and FULLNAT; the others' replies do not pass here).
#[inline]
fn to_client<F: Ip, P: Port>(egress: &mut Egress<P>, frame: Frame, packet: &Packet<F>, entry: &Entry<F>) {
    let hop = match egress.hop_to_client(entry) {
        Ok(hop) => hop,
        Err(reason) => return egress.drop(frame, reason),
    };
    // Errors about replies go to the server, from the address it believes to talk to.
    if let Some(mut frame) = ready(egress, frame, packet, hop, packet.tuple.destination) {
        let offload = frame.offload;
        rewrite::translate(frame.bytes_mut(), packet, &reply_translation(entry), &offload);
        egress.forward(frame, hop);
    }
}

/// What NAT and FULLNAT change in a client's packet.
#[inline]
pub(super) fn request_translation<F: Ip>(entry: &Entry<F>) -> Translation<F> {
    Translation {
        source: (entry.method() == Method::FullNat).then(|| entry.local()),
        destination: Some((entry.real_address(), entry.real_port())),
        ip_delta: Delta(entry.ip_delta()),
        l4_delta: Delta(entry.l4_delta()),
    }
}

/// What NAT and FULLNAT change in a server's packet.
#[inline]
pub(super) fn reply_translation<F: Ip>(entry: &Entry<F>) -> Translation<F> {
    Translation {
        source: Some((entry.virtual_address(), entry.virtual_port())),
        destination: (entry.method() == Method::FullNat).then(|| (entry.client(), entry.client_port())),
        ip_delta: Delta(entry.ip_delta()).negated(),
        l4_delta: Delta(entry.l4_delta()).negated(),
    }
}

/// One hop less to live, and not too large for the next link; or else the sender is told by `speaker`, or the packet
/// leaves in fragments, and `None` is the answer.
#[inline]
pub(super) fn ready<F: Ip, P: Port>(
    egress: &mut Egress<P>,
    mut frame: Frame,
    packet: &Packet<F>,
    hop: Hop,
    speaker: F::Address,
) -> Option<Frame> {
    if rewrite::decrement_ttl(frame.bytes_mut(), packet).is_err() {
        egress.refuse(frame, packet, ErrorKind::TimeExceeded, speaker, Reason::TtlExpired);
        return None;
    }
    if let Some(mtu) = egress.exceeded_mtu(largest_packet(&frame, packet), hop.port()) {
        egress.refuse(frame, packet, ErrorKind::TooBig { mtu }, speaker, Reason::TooBig);
        return None;
    }
    Some(frame)
}

/// Sends a packet through the tunnel to a server.
fn tunnel<F: Ip, P: Port>(
    egress: &mut Egress<P>,
    mut frame: Frame,
    packet: &Packet<F>,
    server: RealServerId,
    hop: Hop,
) {
    let Some(tunnel) = egress.snapshot.servers[server.0 as usize].as_ref().and_then(|server| server.tunnel) else {
        return egress.drop(frame, Reason::ServerGone);
    };
    let speaker = packet.tuple.destination;
    if rewrite::decrement_ttl(frame.bytes_mut(), packet).is_err() {
        return egress.refuse(frame, packet, ErrorKind::TimeExceeded, speaker, Reason::TtlExpired);
    }
    let overhead = tunnel.overhead();
    if let Some(mtu) = egress.exceeded_mtu(largest_packet(&frame, packet) + overhead, hop.port()) {
        let mtu = mtu.saturating_sub(u32::try_from(overhead).unwrap_or(0));
        return egress.refuse(frame, packet, ErrorKind::TooBig { mtu }, speaker, Reason::TooBig);
    }
    if frame.offload.gso != Gso::None {
        return tunnel_segments(egress, frame, packet, &tunnel, hop);
    }
    // The next director, router or server sees only the outer header: the inner packet must be complete.
    if frame.offload.partial_checksum {
        let offload = frame.offload;
        checksum::complete(frame.bytes_mut(), &offload);
        frame.offload = crate::frame::Offload::NONE;
    }
    let identification = egress.next_identification();
    match tunnel::encapsulate(&mut frame, packet, &tunnel, identification) {
        Ok(()) => egress.forward(frame, hop),
        Err(reason) => egress.drop(frame, reason),
    }
}
