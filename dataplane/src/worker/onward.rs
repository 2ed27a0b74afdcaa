//! Sending a packet of a connection on: to its server, or back to its client. Its headers are readied for the next link,
//! translated or put into a tunnel.

use super::cut::complete;
use super::egress::{Egress, Hop, Way, largest_packet};
use super::family::Ip;
use super::services::{ServerState, Services};
use crate::frame::{Frame, Gso};
use crate::packet::checksum::Delta;
use crate::packet::icmp::ErrorKind;
use crate::packet::wire::IPIP;
use crate::packet::{Fragment, Packet};
use crate::port::Port;
use crate::reason::Reason;
use crate::rewrite::tunnel::{self, Tunnel};
use crate::rewrite::{self, Translation};
use crate::stats::count_bytes;
use conntrack::{Direction, Entry, Method};
use scheduler::RealServerId;

/// The bytes that a packet counts for. A first fragment counts as the datagram does when it is put together, without a
/// fragment header.
#[inline]
pub(super) fn counted_len<F: Ip>(packet: &Packet<F>) -> u32 {
    let len = packet.end - u32::from(packet.l3);
    match packet.fragment {
        Fragment::None => len,
        _ => len - F::FRAGMENT_HEADER_LEN,
    }
}

/// Sends a client's packet to the connection's server.
#[inline]
pub(super) fn to_server<F: Ip, P: Port>(
    services: &mut Services,
    egress: &mut Egress<P>,
    frame: Frame,
    packet: &Packet<F>,
    entry: &Entry<F>,
) {
    let id = RealServerId(entry.server());
    let Some(state) = services.server(id) else {
        return egress.drop(frame, Reason::ServerGone);
    };
    if entry.method() == Method::Local {
        return egress.exception(frame);
    }
    let hop = match egress.hop_to_server(id, state) {
        Ok(hop) => hop,
        Err(reason) => return egress.drop(frame, reason),
    };
    match entry.method() {
        Method::Nat | Method::FullNat => {
            let speaker = Some(packet.tuple.destination);
            translated(
                egress,
                frame,
                packet,
                hop,
                speaker,
                &request_translation(entry),
            );
        }
        Method::Dr | Method::Tun | Method::Local => {
            let told = to_server_unchanged(egress, frame, packet, entry.method(), state, hop);
            count_told(egress, id, told);
        }
    }
}

/// By DR and TUN, whose replies pass elsewhere, the errors that the director sends to a connection's client count as
/// packets to the client: `told` bytes, 0 for none.
///
/// Source: Linux net/netfilter/ipvs/ip_vs_core.c (`ip_vs_out_hook` on what the host itself sends), recorded.
#[inline]
fn count_told<P: Port>(egress: &Egress<P>, server: RealServerId, told: u32) {
    if told > 0 {
        count_bytes(&egress.stats, server, Direction::Reply, told);
    }
}

/// Sends a packet to a server as the client sent it: by MAC address, or through the tunnel, as the connection has it
/// whatever the server's method is by now.
///
/// Differs from IPVS: where a server has connections by NAT and by DR, the kernel may send the latter by the route that
/// it keeps for the former, and ask the link for the VIP in vain.
///
/// Returns the length of the error that the client was sent instead, IP header included; 0 if there was none.
#[inline]
pub(super) fn to_server_unchanged<F: Ip, P: Port>(
    egress: &mut Egress<P>,
    frame: Frame,
    packet: &Packet<F>,
    method: Method,
    server: &ServerState,
    hop: Hop,
) -> u32 {
    if let Some(tunnel) = server.tunnel.as_ref().filter(|_| method == Method::Tun) {
        let way = server.way(egress.now);
        return to_tunnel(egress, frame, packet, tunnel, hop, way);
    }
    let speaker = Some(packet.tuple.destination);
    match ready(egress, frame, packet, hop, Way::PLAIN, speaker) {
        Ready::Whole(frame) => egress.forward(frame, hop),
        Ready::Fragments(frame, mtu) => egress.forward_fragments(frame, hop, mtu),
        Ready::Refused { told } => return told,
    }
    0
}

/// Sends a server's packet to the connection's client (NAT and FULLNAT; the others' replies do not pass here). It counts
/// for the server `counted`, if it goes on.
#[inline]
pub(super) fn to_client<F: Ip, P: Port>(
    egress: &mut Egress<P>,
    frame: Frame,
    packet: &Packet<F>,
    entry: &Entry<F>,
    counted: Option<RealServerId>,
) {
    let hop = match egress.hop_to_client(entry) {
        Ok(hop) => hop,
        Err(reason) => return egress.drop(frame, reason),
    };
    // A server of FULLNAT talks to us; by NAT it talks to the client, in whose name nobody else may speak.
    let speaker = entry.local().map(|(address, _)| address);
    let ready = ready(egress, frame, packet, hop, Way::PLAIN, speaker);
    if let (Some(server), Ready::Whole(_) | Ready::Fragments(..)) = (counted, &ready) {
        let len = counted_len(packet);
        count_bytes(&egress.stats, server, Direction::Reply, len);
    }
    send_translated(egress, ready, packet, hop, &reply_translation(entry));
}

/// Sends a packet on under other addresses. Errors about it come from `speaker`, or from the port it came in by.
#[inline]
pub(super) fn translated<F: Ip, P: Port>(
    egress: &mut Egress<P>,
    frame: Frame,
    packet: &Packet<F>,
    hop: Hop,
    speaker: Option<F::Address>,
    translation: &Translation<F>,
) {
    let ready = ready(egress, frame, packet, hop, Way::PLAIN, speaker);
    send_translated(egress, ready, packet, hop, translation);
}

#[inline]
fn send_translated<F: Ip, P: Port>(
    egress: &mut Egress<P>,
    ready: Ready,
    packet: &Packet<F>,
    hop: Hop,
    translation: &Translation<F>,
) {
    let (mut frame, fragment_to) = match ready {
        Ready::Whole(frame) => (frame, None),
        Ready::Fragments(frame, mtu) => (frame, Some(mtu)),
        Ready::Refused { .. } => return,
    };
    let offload = frame.offload;
    rewrite::translate(frame.bytes_mut(), packet, translation, &offload);
    match fragment_to {
        None => egress.forward(frame, hop),
        Some(mtu) => egress.forward_fragments(frame, hop, mtu),
    }
}

/// What NAT and FULLNAT change in a client's packet.
#[inline]
pub(super) fn request_translation<F: Ip>(entry: &Entry<F>) -> Translation<F> {
    Translation {
        source: entry.local(),
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
        destination: entry.local().map(|_| (entry.client(), entry.client_port())),
        ip_delta: Delta(entry.ip_delta()).negated(),
        l4_delta: Delta(entry.l4_delta()).negated(),
    }
}

/// What is left to do with a packet whose headers are ready for the next link.
pub(super) enum Ready {
    /// It fits.
    Whole(Frame),
    /// It must be fragmented to packets of this many bytes.
    Fragments(Frame, u32),
    /// The frame is gone.
    Refused {
        /// The length of the error that its sender was sent, IP header included; 0 if there was none.
        told: u32,
    },
}

/// One hop less to live, and not too large for the next link: or else the sender is told, by `speaker` or in the name
/// of the port that the packet came in by.
#[inline]
pub(super) fn ready<F: Ip, P: Port>(
    egress: &mut Egress<P>,
    mut frame: Frame,
    packet: &Packet<F>,
    hop: Hop,
    way: Way,
    speaker: Option<F::Address>,
) -> Ready {
    if rewrite::decrement_ttl(frame.bytes_mut(), packet).is_err() {
        let speaker = speaker.unwrap_or_else(|| egress.own_address(&frame, packet));
        let kind = ErrorKind::TimeExceeded;
        let told = egress.refuse(frame, packet, kind, speaker, Reason::TtlExpired);
        return Ready::Refused { told };
    }
    let len = largest_packet(&frame, packet) + way.overhead;
    let Some(mtu) = egress.exceeded_mtu(len, hop.port(), way.path_mtu) else {
        return Ready::Whole(frame);
    };
    if !packet.dont_fragment && frame.offload.gso == Gso::None {
        return Ready::Fragments(frame, mtu);
    }
    let room = (mtu as usize).saturating_sub(way.overhead);
    let kind = ErrorKind::FragmentationNeeded {
        mtu: u16::try_from(room).unwrap_or(u16::MAX),
    };
    let speaker = speaker.unwrap_or_else(|| {
        // A router looks at the size first. Source: Linux net/ipv4/ip_forward.c (`ip_forward`).
        rewrite::restore_ttl(frame.bytes_mut(), packet);
        egress.own_address(&frame, packet)
    });
    let told = egress.refuse(frame, packet, kind, speaker, Reason::TooBig);
    Ready::Refused { told }
}

/// Sends a packet through the tunnel to a server. Returns as [`to_server_unchanged`].
fn to_tunnel<F: Ip, P: Port>(
    egress: &mut Egress<P>,
    frame: Frame,
    packet: &Packet<F>,
    tunnel: &Tunnel,
    hop: Hop,
    way: Way,
) -> u32 {
    let packet = &Packet {
        dont_fragment: packet.dont_fragment && !may_fragment_outside::<F>(tunnel),
        ..*packet
    };
    let speaker = Some(packet.tuple.destination);
    let (mut frame, fragment_to) = match ready(egress, frame, packet, hop, way, speaker) {
        Ready::Whole(frame) if frame.offload.gso != Gso::None => {
            egress.tunnel_segments(frame, packet, tunnel, hop);
            return 0;
        }
        Ready::Whole(frame) => (frame, None),
        Ready::Fragments(frame, mtu) => (frame, Some(mtu)),
        Ready::Refused { told } => return told,
    };
    // Whoever reads the outer header does not finish the inner checksum.
    complete(&mut frame);
    let identification = egress.next_identification();
    match (
        tunnel::encapsulate(&mut frame, packet, tunnel, identification),
        fragment_to,
    ) {
        (Ok(()), None) => egress.forward(frame, hop),
        (Ok(()), Some(mtu)) => egress.forward_fragments(frame, hop, mtu),
        (Err(reason), _) => egress.drop(frame, reason),
    }
    0
}

/// Whether the director may fragment the tunnel's packets though the packets inside must stay whole: IPv4 without
/// path MTU discovery.
///
/// Source: Linux net/netfilter/ipvs/ip_vs_xmit.c (`ensure_mtu_is_adequate`).
pub(super) fn may_fragment_outside<F: Ip>(tunnel: &Tunnel) -> bool {
    !tunnel.copy_dont_fragment && F::AS_PAYLOAD == IPIP
}
