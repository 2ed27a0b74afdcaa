//! ICMP errors about a tunnel's packets: a router on the way to a real server speaks to the director, whose packet it
//! was. The client is told in its stead, by the VIP, about the packet inside; where the packet was too big, the tunnel's
//! path MTU is learned besides.
//!
//! Source: Linux net/netfilter/ipvs/ip_vs_core.c (`ip_vs_in_icmp`).

use super::Flows;
use super::egress::{Egress, Hop};
use super::family::Ip;
use super::icmp::not_related;
use super::services::Services;
use crate::frame::Frame;
use crate::packet::icmp::{ErrorKind, Quoted, has_right_checksum, parse_quoted};
use crate::packet::wire::{
    ETHER_TYPE_IPV4, ETHER_TYPE_IPV6, ETHERNET_LEN, GRE, IPIP, IPV6, UDP, UDP_LEN, read_u16,
    read_u32,
};
use crate::packet::{Fragment, Packet, TcpFlags, Tuple};
use crate::port::Port;
use crate::reason::Reason;
use crate::rewrite::tunnel::{Encapsulation, Outer, Tunnel};
use crate::stats::count_bytes;
use conntrack::{Direction, Method};
use scheduler::RealServerId;
use std::net::IpAddr;

/// What every IPv6 link takes, bytes: no client is told of less.
const IPV6_MTU_MIN: u32 = 1280;
/// In the word of IPv4's fragment offset.
const DONT_FRAGMENT: u16 = 0x4000;
/// No router is believed that wants less of an IPv4 tunnel, bytes.
const IPV4_PATH_MTU_MIN: u32 = 552;
/// As the kernel, not to tell an IPv4 client of less than it must bear.
const IPV4_MTU_MIN: u32 = 68;

impl<F: Ip> Flows<F> {
    /// The protocol number (IPv4 or IPv6 inside IP) and the place of the packet inside a quoted one that may be a
    /// tunnel's: IP in IP, GRE, and UDP that is no connection's and has a GUE header.
    #[cold]
    pub(super) fn carried(&self, frame: &[u8], quoted: &Quoted<F>) -> Option<(u8, usize)> {
        let quotation = &frame[usize::from(quoted.l4)..quoted.end as usize];
        let (protocol, header_len) = match quoted.tuple.protocol {
            protocol @ (IPIP | IPV6) => (protocol, 0),
            GRE => inside_gre(quotation)?,
            UDP if self.table.lookup(&quoted.tuple.reversed()).is_none() => inside_gue(quotation)?,
            _ => return None,
        };
        Some((protocol, usize::from(quoted.l4) + header_len))
    }

    /// Passes an error of family `O` about a tunnel's packet on to the client of the connection inside, whose packet
    /// begins at `l3`.
    #[cold]
    pub(super) fn tunnel_error<O: Ip, P: Port>(
        &mut self,
        services: &mut Services,
        egress: &mut Egress<P>,
        frame: Frame,
        packet: &Packet<O>,
        quoted: &Quoted<O>,
        l3: usize,
    ) {
        if !has_right_checksum(frame.bytes(), packet) {
            return not_related(egress, frame, packet, Reason::BadIcmpChecksum);
        }
        let inside = parse_quoted::<F>(frame.bytes(), l3, quoted.end as usize);
        let inner = match inside {
            Ok(inner) => inner,
            Err(reason) => return not_related(egress, frame, packet, reason),
        };
        let server = match self.connection_of(&inner.tuple) {
            Some((id, Direction::Request)) => {
                let entry = self.table.entry(id);
                let id = RealServerId(entry.server());
                let server = services.server(id).map(|server| (id, &*server));
                server.filter(|_| entry.method() == Method::Tun)
            }
            _ => None,
        };
        // Whoever does not know where the tunnel leads has not seen its packets.
        let Some((id, server, tunnel)) = server.and_then(|(id, server)| {
            let tunnel = server.tunnel.as_ref();
            tunnel
                .filter(|tunnel| sends(tunnel, &quoted.tuple))
                .map(|tunnel| (id, server, tunnel))
        }) else {
            return not_related(egress, frame, packet, Reason::IcmpUnrelated);
        };
        let message = &frame.bytes()[packet.l4()..];
        let (kind, code, rest) = (message[0], message[1], read_u32(message, 4));
        let kind = match path_mtu::<O>(kind, code, rest) {
            Some(mtu) => {
                let mtu = server.path_mtu().map_or(mtu, |path| {
                    path.learn(mtu, least::<O, F>(tunnel), egress.now)
                });
                if !must_stay_whole(frame.bytes(), &inner) {
                    return egress.drop(frame, Reason::PathMtuLearned);
                }
                too_big_inside::<F>(mtu, tunnel)
            }
            None => seen_inside::<O, F>(kind, code, rest),
        };
        if !server.present {
            return egress.drop(frame, Reason::ServerGone);
        }
        let hop = match egress.hop_towards(inner.tuple.source.into()) {
            Ok(hop) => hop,
            Err(reason) => return egress.drop(frame, reason),
        };
        let counted = server.present.then_some(id);
        self.tell(egress, frame, &inner, kind, hop, counted);
    }

    /// Sends the client an error from the VIP, quoting its packet from the frame: the frame's verdict. The error counts
    /// for the server `counted`, and by the kernel's way of counting so does the packet that it quotes.
    fn tell<P: Port>(
        &self,
        egress: &mut Egress<P>,
        frame: Frame,
        inner: &Quoted<F>,
        kind: ErrorKind,
        hop: Hop,
        counted: Option<RealServerId>,
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
        if let (Some(server), Some(len), true) = (counted, len, sent) {
            let told = u32::try_from(len - ETHERNET_LEN).unwrap_or(0);
            for len in [told, inner.end - u32::from(inner.l3)] {
                count_bytes(&egress.stats, server, Direction::Reply, len);
            }
        }
        match len {
            Some(_) => egress.finish_pieces(frame, hop, 1, usize::from(sent)),
            None => egress.drop(frame, Reason::IcmpUnsupported),
        }
    }
}

/// What follows a GRE header and how long that is, if the director sends such headers: version 0, no flag but that of
/// the checksum.
fn inside_gre(quotation: &[u8]) -> Option<(u8, usize)> {
    let header = quotation.first_chunk::<4>()?;
    let protocol = match read_u16(header, 2) {
        ETHER_TYPE_IPV4 => IPIP,
        ETHER_TYPE_IPV6 => IPV6,
        _ => return None,
    };
    let checksum = match read_u16(header, 0) {
        0 => false,
        0x8000 => true,
        _ => return None,
    };
    let header_len = Encapsulation::Gre { checksum }.header_len();
    (quotation.len() >= header_len).then_some((protocol, header_len))
}

/// The same for UDP and GUE: variant 0, a data packet without optional fields.
fn inside_gue(quotation: &[u8]) -> Option<(u8, usize)> {
    match *quotation.get(UDP_LEN..)?.first_chunk::<4>()? {
        [0, protocol @ (IPIP | IPV6), 0, 0] => Some((protocol, UDP_LEN + 4)),
        _ => None,
    }
}

/// Whether packets of this outer flow can be the tunnel's.
fn sends<O: Ip>(tunnel: &Tunnel, outer: &Tuple<O>) -> bool {
    let end: IpAddr = match tunnel.outer {
        Outer::V4 { destination, .. } => destination.into(),
        Outer::V6 { destination, .. } => destination.into(),
    };
    let wrapped_so = match tunnel.encapsulation {
        Encapsulation::Ipip => matches!(outer.protocol, IPIP | IPV6),
        Encapsulation::Gre { .. } => outer.protocol == GRE,
        Encapsulation::Gue { port, .. } => outer.protocol == UDP && outer.destination_port == port,
    };
    end == outer.destination.into() && wrapped_so
}

/// The MTU that an error of family `O` about the tunnel's packet is about, if it is about one.
fn path_mtu<O: Ip>(kind: u8, code: u8, rest: u32) -> Option<u32> {
    match (O::AS_PAYLOAD == IPIP, kind, code) {
        (true, 3, 4) => Some(rest & 0xffff),
        (false, 2, _) => Some(rest),
        _ => None,
    }
}

/// The least path MTU that is believed, bytes. As the kernel of IPv4, and what every IPv6 link takes; but no IPv6 client
/// can be told of less than that inside either.
///
/// Source: Linux net/ipv4/route.c (`ip_rt_min_pmtu`).
fn least<O: Ip, F: Ip>(tunnel: &Tunnel) -> u32 {
    let outside = if O::AS_PAYLOAD == IPIP {
        IPV4_PATH_MTU_MIN
    } else {
        IPV6_MTU_MIN
    };
    match F::AS_PAYLOAD {
        IPIP => outside,
        _ => IPV6_MTU_MIN + u32::try_from(tunnel.overhead()).unwrap_or(0),
    }
}

/// Whether the sender of a quoted packet does not want it cut.
fn must_stay_whole<F: Ip>(frame: &[u8], quoted: &Quoted<F>) -> bool {
    let ipv4 = F::AS_PAYLOAD == IPIP;
    !ipv4 || read_u16(frame, usize::from(quoted.l3) + 6) & DONT_FRAGMENT != 0
}

/// What a tunnel's path MTU means for a packet of family `F` inside: the tunnel's header takes its part.
fn too_big_inside<F: Ip>(mtu: u32, tunnel: &Tunnel) -> ErrorKind {
    let overhead = u32::try_from(tunnel.overhead()).unwrap_or(0);
    let least = if F::AS_PAYLOAD == IPIP {
        IPV4_MTU_MIN
    } else {
        IPV6_MTU_MIN
    };
    let mtu = mtu.saturating_sub(overhead).max(least);
    ErrorKind::FragmentationNeeded {
        mtu: u16::try_from(mtu).unwrap_or(u16::MAX),
    }
}

/// What any other error about the tunnel's packet, of family `O`, means for the packet of family `F` inside.
fn seen_inside<O: Ip, F: Ip>(kind: u8, code: u8, rest: u32) -> ErrorKind {
    if O::AS_PAYLOAD == F::AS_PAYLOAD {
        ErrorKind::Relayed { kind, code, rest }
    } else {
        ErrorKind::HostUnreachable
    }
}
