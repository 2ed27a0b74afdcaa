//! ICMP errors about a tunnel's packets: a router on the way to a real server speaks to the director, whose packet it
//! was. The client is told in its stead, by the VIP, about the packet inside.
//!
//! Source: Linux net/netfilter/ipvs/ip_vs_core.c (`ip_vs_in_icmp`).

use super::Flows;
use super::egress::{Egress, Hop};
use super::family::Ip;
use super::icmp::not_related;
use super::services::Services;
use crate::frame::Frame;
use crate::packet::icmp::{ErrorKind, Quoted, parse_quoted};
use crate::packet::wire::{IPIP, read_u32};
use crate::packet::{Fragment, Packet, TcpFlags};
use crate::port::Port;
use crate::reason::Reason;
use crate::rewrite::tunnel::{Outer, Tunnel};
use conntrack::{Direction, Method};
use scheduler::RealServerId;
use std::net::IpAddr;

/// What every IPv6 link takes, bytes: no client is told of less.
const IPV6_MTU_MIN: u32 = 1280;
/// As the kernel, not to tell an IPv4 client of less than it must bear.
const IPV4_MTU_MIN: u32 = 68;

impl<F: Ip> Flows<F> {
    /// Passes an error of family `O` about a tunnel's packet on to the client of the connection inside.
    #[cold]
    pub(super) fn tunnel_error<O: Ip, P: Port>(
        &mut self,
        services: &mut Services,
        egress: &mut Egress<P>,
        frame: Frame,
        packet: &Packet<O>,
        quoted: &Quoted<O>,
    ) {
        let inside = parse_quoted::<F>(frame.bytes(), usize::from(quoted.l4), quoted.end as usize);
        let inner = match inside {
            Ok(inner) => inner,
            Err(reason) => return not_related(egress, frame, packet, reason),
        };
        let tunnel = match self.table.lookup(&inner.tuple) {
            Some((id, Direction::Request)) => {
                let entry = self.table.entry(id);
                let server = services.server(RealServerId(entry.server()));
                server.and_then(|server| server.tunnel.filter(|_| entry.method() == Method::Tun))
            }
            _ => None,
        };
        // Whoever does not know where the tunnel leads has not seen its packets.
        let Some(tunnel) =
            tunnel.filter(|tunnel| end_of(tunnel) == quoted.tuple.destination.into())
        else {
            return not_related(egress, frame, packet, Reason::IcmpUnrelated);
        };
        let message = &frame.bytes()[packet.l4()..];
        let kind = seen_inside::<O, F>(message[0], message[1], read_u32(message, 4), &tunnel);
        let hop = match egress.hop_towards(inner.tuple.source.into()) {
            Ok(hop) => hop,
            Err(reason) => return egress.drop(frame, reason),
        };
        self.tell(egress, frame, &inner, kind, hop);
    }

    /// Sends the client an error from the VIP, quoting its packet from the frame: the frame's verdict.
    fn tell<P: Port>(
        &self,
        egress: &mut Egress<P>,
        frame: Frame,
        inner: &Quoted<F>,
        kind: ErrorKind,
        hop: Hop,
    ) {
        let about = Packet {
            tuple: inner.tuple,
            l3: inner.l3,
            l4: inner.l4,
            end: inner.end,
            ttl: 0,
            tos: 0,
            tcp_flags: TcpFlags::default(),
            fragment: Fragment::None,
            dont_fragment: false,
            fragment_id: 0,
        };
        let source = inner.tuple.destination;
        let identification = egress.next_identification();
        let mut scratch = std::mem::take(&mut egress.scratch);
        let len = F::icmp_error(
            &mut scratch,
            kind,
            frame.bytes(),
            &about,
            source,
            identification,
        );
        let sent = len.is_some_and(|len| egress.forward_piece(&mut scratch[..len], hop));
        egress.scratch = scratch;
        match len {
            Some(_) => egress.finish_pieces(frame, hop, 1, usize::from(sent)),
            None => egress.drop(frame, Reason::IcmpUnsupported),
        }
    }
}

fn end_of(tunnel: &Tunnel) -> IpAddr {
    match tunnel.outer {
        Outer::V4 { destination, .. } => destination.into(),
        Outer::V6 { destination, .. } => destination.into(),
    }
}

/// What an error about the tunnel's packet, of family `O`, means for the packet of family `F` inside. The tunnel's
/// header takes its part of a path MTU.
fn seen_inside<O: Ip, F: Ip>(kind: u8, code: u8, rest: u32, tunnel: &Tunnel) -> ErrorKind {
    let ipv4_outside = O::AS_PAYLOAD == IPIP;
    let ipv4_inside = F::AS_PAYLOAD == IPIP;
    let mtu = match (ipv4_outside, kind, code) {
        (true, 3, 4) => Some(rest & 0xffff),
        (false, 2, _) => Some(rest),
        _ => None,
    };
    if let Some(mtu) = mtu {
        let overhead = u32::try_from(tunnel.overhead()).unwrap_or(0);
        let least = if ipv4_inside {
            IPV4_MTU_MIN
        } else {
            IPV6_MTU_MIN
        };
        let mtu = mtu.saturating_sub(overhead).max(least);
        return ErrorKind::FragmentationNeeded {
            mtu: u16::try_from(mtu).unwrap_or(u16::MAX),
        };
    }
    if ipv4_outside == ipv4_inside {
        ErrorKind::Relayed { kind, code, rest }
    } else {
        ErrorKind::HostUnreachable
    }
}
