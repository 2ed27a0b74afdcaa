//! ICMP and ICMPv6: errors and echo replies that the director sends; those that it relays are read by
//! [`parse_error`].

mod quoted;

pub use quoted::{Quote, Quoted, QuotedTransport, has_right_checksum, parse_error, parse_quoted};

use super::wire::{
    self, ETHERNET_LEN, ICMP_LEN, IPV4_LEN, IPV6_LEN, Wire, write_ipv4_checksum, write_u16,
    write_u32,
};
use super::{Fragment, Packet, V4, V6, checksum};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Bytes of the largest ICMP error, Ethernet header included.
pub const ERROR_V4_LEN: usize = ETHERNET_LEN + 576;
/// Bytes of the largest ICMPv6 error, Ethernet header included: what every IPv6 link takes.
pub const ERROR_V6_LEN: usize = ETHERNET_LEN + 1280;

/// TTL and hop limit of what the director sends.
const TTL: u8 = 64;

/// What went wrong with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Its TTL or hop limit was used up.
    TimeExceeded,
    /// It does not fit the next link and must not be fragmented (ICMPv6: packet too big).
    FragmentationNeeded {
        /// The largest packet that would, bytes.
        mtu: u16,
    },
    /// No server for it.
    PortUnreachable,
    /// The next hop does not answer (ICMPv6: address unreachable).
    HostUnreachable,
    /// No route to it.
    NetUnreachable,
    /// An error that another host reported, passed on in its own words (a tunnel's router, about the outer packet).
    Relayed {
        /// The ICMP type of the packet's family.
        kind: u8,
        /// The code.
        code: u8,
        /// The word after the checksum, host byte order.
        rest: u32,
    },
}

impl ErrorKind {
    /// Type, code and the word after the checksum. Source: RFC 792, RFC 1191.
    const fn v4(self) -> (u8, u8, u32) {
        match self {
            ErrorKind::TimeExceeded => (11, 0, 0),
            ErrorKind::FragmentationNeeded { mtu } => (3, 4, mtu as u32),
            ErrorKind::PortUnreachable => (3, 3, 0),
            ErrorKind::HostUnreachable => (3, 1, 0),
            ErrorKind::NetUnreachable => (3, 0, 0),
            ErrorKind::Relayed { kind, code, rest } => (kind, code, rest),
        }
    }

    /// Type, code and the word after the checksum. Source: RFC 4443.
    const fn v6(self) -> (u8, u8, u32) {
        match self {
            ErrorKind::TimeExceeded => (3, 0, 0),
            ErrorKind::FragmentationNeeded { mtu } => (2, 0, mtu as u32),
            ErrorKind::PortUnreachable => (1, 4, 0),
            ErrorKind::HostUnreachable => (1, 3, 0),
            ErrorKind::NetUnreachable => (1, 0, 0),
            ErrorKind::Relayed { kind, code, rest } => (kind, code, rest),
        }
    }
}

/// Builds in `scratch` the frame that tells the sender of a packet what went wrong, from `source`, back to the MAC it
/// came from; returns the frame's length. The packet is quoted as it stands in `frame`. `id` is the IPv4 identification.
///
/// `None` where RFC 1122 §3.2.2 forbids an error: about an ICMP error (or unknown ICMP), a fragment but the first, to a
/// group or from no single host. The kernel's form: TOS of the packet with precedence 6, TTL 64, 576 bytes in all.
///
/// Source: RFC 792, RFC 1122 §3.2.2, Linux net/ipv4/icmp.c (`icmp_send`).
///
/// # Panics
/// When `scratch` is shorter than [`ERROR_V4_LEN`], or `packet` is not what `parse` made of this frame.
pub fn error_v4(
    scratch: &mut [u8],
    kind: ErrorKind,
    frame: &[u8],
    packet: &Packet<V4>,
    source: Ipv4Addr,
    id: u16,
) -> Option<usize> {
    let to_one =
        !(packet.tuple.destination.is_multicast() || packet.tuple.destination.is_broadcast());
    let queries_only = |kind| matches!(kind, 0 | 8 | 13..=18);
    if !to_one || !may_be_answered(frame, packet, queries_only) {
        return None;
    }
    let l3 = ETHERNET_LEN;
    let l4 = l3 + IPV4_LEN;
    let quote = &frame[packet.l3()..packet.end()];
    let quote = &quote[..quote.len().min(ERROR_V4_LEN - l4 - ICMP_LEN)];
    let len = l4 + ICMP_LEN + quote.len();
    let reply = &mut scratch[..len];
    reply[l4 + ICMP_LEN..].copy_from_slice(quote);
    turn_macs(reply, frame);
    write_u16(reply, 12, V4::ETHER_TYPE);
    reply[l3] = 0x45;
    reply[l3 + 1] = (V4::tos(frame, packet.l3()) & 0x1e) | 0xc0;
    write_u16(reply, l3 + 2, u16::try_from(len - l3).expect("at most 576"));
    write_u16(reply, l3 + 4, id);
    write_u16(reply, l3 + 6, 0);
    reply[l3 + V4::TTL] = TTL;
    reply[l3 + 9] = wire::ICMP;
    V4::write_address(reply, l3 + V4::SOURCE, source);
    V4::write_address(reply, l3 + V4::DESTINATION, packet.tuple.source);
    write_ipv4_checksum(reply, l3);
    write_error_header::<V4>(&mut reply[l4..], kind.v4(), source, packet.tuple.source);
    Some(len)
}

/// [`error_v4`] for IPv6: 1280 bytes in all, traffic class and flow label 0. None about multicast packets either:
/// the director does not forward them.
///
/// Source: RFC 4443 §2.4, Linux net/ipv6/icmp.c (`icmp6_send`).
///
/// # Panics
/// When `scratch` is shorter than [`ERROR_V6_LEN`], or `packet` is not what `parse` made of this frame.
pub fn error_v6(
    scratch: &mut [u8],
    kind: ErrorKind,
    frame: &[u8],
    packet: &Packet<V6>,
    source: Ipv6Addr,
) -> Option<usize> {
    let to_one = !packet.tuple.destination.is_multicast() && !packet.tuple.source.is_unspecified();
    // A redirect (137) is none of the errors by number, but is not to be answered either.
    let queries_only = |kind| kind >= 128 && kind != 137;
    if !to_one || !may_be_answered(frame, packet, queries_only) {
        return None;
    }
    let l3 = ETHERNET_LEN;
    let l4 = l3 + IPV6_LEN;
    let quote = &frame[packet.l3()..packet.end()];
    let quote = &quote[..quote.len().min(ERROR_V6_LEN - l4 - ICMP_LEN)];
    let len = l4 + ICMP_LEN + quote.len();
    let reply = &mut scratch[..len];
    reply[l4 + ICMP_LEN..].copy_from_slice(quote);
    turn_macs(reply, frame);
    write_u16(reply, 12, V6::ETHER_TYPE);
    write_u32(reply, l3, 0x6000_0000);
    write_u16(
        reply,
        l3 + 4,
        u16::try_from(len - l4).expect("at most 1240"),
    );
    reply[l3 + 6] = wire::ICMPV6;
    reply[l3 + V6::TTL] = TTL;
    V6::write_address(reply, l3 + V6::SOURCE, source);
    V6::write_address(reply, l3 + V6::DESTINATION, packet.tuple.source);
    write_error_header::<V6>(&mut reply[l4..], kind.v6(), source, packet.tuple.source);
    Some(len)
}

/// Whether an error may be sent about the packet; `is_query` says which ICMP types are no errors themselves.
fn may_be_answered<F: Wire>(
    frame: &[u8],
    packet: &Packet<F>,
    is_query: impl Fn(u8) -> bool,
) -> bool {
    let to_group = frame[0] & 1 != 0;
    let is_error = packet.tuple.protocol == F::ICMP && !is_query(frame[packet.l4()]);
    packet.fragment != Fragment::Later && !to_group && !is_error
}

/// The reply goes to where the frame came from.
fn turn_macs(reply: &mut [u8], frame: &[u8]) {
    reply[..6].copy_from_slice(&frame[6..12]);
    reply[6..12].copy_from_slice(&frame[..6]);
}

fn write_error_header<F: Wire>(
    message: &mut [u8],
    (kind, code, rest): (u8, u8, u32),
    source: F::Address,
    destination: F::Address,
) {
    message[0] = kind;
    message[1] = code;
    write_u16(message, 2, 0);
    write_u32(message, 4, rest);
    let checksum = checksum::icmp::<F>(source, destination, message);
    write_u16(message, 2, checksum);
}

/// Turns an echo request for one of the director's addresses into its reply, in place: addresses and MACs change
/// places, TTL 64, no DF; the code, whatever it is, stays, and Ethernet padding too. False, and nothing changed, when it
/// is no valid echo request to a single host, or is a fragment.
///
/// IPv4 options become no-operations. Differs from IPVS: the kernel would echo and extend some of them.
///
/// Source: RFC 792, RFC 1122 §3.2.2.6.
///
/// # Panics
/// When `packet` is not what `parse` made of this frame.
pub fn echo_reply_v4(frame: &mut [u8], packet: &Packet<V4>) -> bool {
    let group = packet.tuple.destination.is_multicast() || packet.tuple.destination.is_broadcast();
    if group || !is_echo_request(frame, packet, 8) {
        return false;
    }
    let (l3, l4) = (packet.l3(), packet.l4());
    frame[l3 + IPV4_LEN..l4].fill(1);
    write_u16(frame, l3 + 6, 0);
    turn_echo(frame, packet, 0);
    write_ipv4_checksum(frame, l3);
    true
}

/// [`echo_reply_v4`] for IPv6; the flow label becomes 0. Requests behind extension headers are not answered.
///
/// Source: RFC 4443 §4.2.
///
/// # Panics
/// When `packet` is not what `parse` made of this frame.
pub fn echo_reply_v6(frame: &mut [u8], packet: &Packet<V6>) -> bool {
    let l3 = packet.l3();
    let plain = packet.l4() == l3 + IPV6_LEN;
    let group = packet.tuple.destination.is_multicast() || packet.tuple.source.is_unspecified();
    if !plain || group || !is_echo_request(frame, packet, 128) {
        return false;
    }
    frame[l3 + 1] &= 0xf0;
    write_u16(frame, l3 + 2, 0);
    turn_echo(frame, packet, 129);
    true
}

fn is_echo_request<F: Wire>(frame: &[u8], packet: &Packet<F>, kind: u8) -> bool {
    let tuple = &packet.tuple;
    let message = &frame[packet.l4()..packet.end()];
    tuple.protocol == F::ICMP
        && packet.fragment == Fragment::None
        && frame[0] & 1 == 0
        && message[0] == kind
        && checksum::icmp::<F>(tuple.source, tuple.destination, message) == 0
}

/// Swaps both ends and sets the type and TTL. The pseudo-header's sum does not mind the swap.
fn turn_echo<F: Wire>(frame: &mut [u8], packet: &Packet<F>, kind: u8) {
    let (l3, l4) = (packet.l3(), packet.l4());
    let (to, from) = frame[..12].split_at_mut(6);
    to.swap_with_slice(from);
    F::write_address(frame, l3 + F::SOURCE, packet.tuple.destination);
    F::write_address(frame, l3 + F::DESTINATION, packet.tuple.source);
    frame[l3 + F::TTL] = TTL;
    frame[l4] = kind;
    write_u16(frame, l4 + 2, 0);
    let message = &frame[l4..packet.end()];
    let checksum = checksum::icmp::<F>(packet.tuple.destination, packet.tuple.source, message);
    write_u16(frame, l4 + 2, checksum);
}
