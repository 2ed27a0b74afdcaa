//! What a packet does to its connection's state, and which packets begin a connection.

use super::family::Ip;
use crate::packet::wire::{SCTP, TCP, UDP};
use crate::packet::{Packet, sctp};
use crate::snapshot::Ipvs;
use conntrack::{
    Direction, Method, Path, SctpEvent, State, TcpFlags, TcpRules, sctp_next, tcp_next,
};

/// Whether a packet for a service may begin a connection.
///
/// Source: Linux net/netfilter/ipvs/ip_vs_proto_tcp.c (`tcp_conn_schedule`), ip_vs_proto_sctp.c
/// (`sctp_conn_schedule`).
pub(super) fn may_begin<F: Ip>(frame: &[u8], packet: &Packet<F>, ipvs: &Ipvs) -> bool {
    let flags = packet.tcp_flags;
    match packet.tuple.protocol {
        TCP => (flags.has(TcpFlags::SYN) || ipvs.sloppy_tcp) && !flags.has(TcpFlags::RST),
        UDP => true,
        SCTP => match sctp::event(frame, packet) {
            Some(SctpEvent::Init) => true,
            Some(SctpEvent::Abort) | None => false,
            Some(_) => ipvs.sloppy_sctp,
        },
        _ => false,
    }
}

/// The state in which a packet that may do so begins a connection.
pub(super) fn first_state<F: Ip>(
    frame: &[u8],
    packet: &Packet<F>,
    method: Method,
    rules: TcpRules,
) -> State {
    let path = path(method, Direction::Request);
    match packet.tuple.protocol {
        TCP => tcp_next(rules, State::None, path, packet.tcp_flags),
        SCTP => sctp::event(frame, packet)
            .map_or(State::None, |event| sctp_next(State::None, path, event)),
        _ => State::Udp,
    }
}

/// The state after a packet.
#[inline]
pub(super) fn next_state<F: Ip>(
    frame: &[u8],
    packet: &Packet<F>,
    state: State,
    (method, direction): (Method, Direction),
    rules: TcpRules,
) -> State {
    match packet.tuple.protocol {
        TCP => tcp_next(rules, state, path(method, direction), packet.tcp_flags),
        SCTP => match sctp::event(frame, packet) {
            Some(event) => sctp_next(state, path(method, direction), event),
            None => state,
        },
        _ => state,
    }
}

/// Whether a client's packet asks for a new connection.
///
/// Source: Linux net/netfilter/ipvs/ip_vs_core.c (`is_new_conn`).
#[inline]
pub(super) fn starts_anew<F: Ip>(frame: &[u8], packet: &Packet<F>) -> bool {
    match packet.tuple.protocol {
        // Whatever other flags it has: a SYN with RST ends what was, and begins nothing.
        TCP => packet.tcp_flags.has(TcpFlags::SYN),
        SCTP => sctp::event(frame, packet) == Some(SctpEvent::Init),
        _ => false,
    }
}

/// Whether the state shows that the client is in earnest.
pub(super) fn is_established(state: State) -> bool {
    matches!(state, State::Established | State::SctpEstablished)
}

/// Whether a packet ends what it belongs to, so that no answer to it is wanted.
pub(super) fn is_reset<F: Ip>(frame: &[u8], packet: &Packet<F>) -> bool {
    match packet.tuple.protocol {
        TCP => packet.tcp_flags.has(TcpFlags::RST),
        SCTP => sctp::event(frame, packet) == Some(SctpEvent::Abort),
        _ => false,
    }
}

#[inline]
pub(super) fn path(method: Method, direction: Direction) -> Path {
    match method {
        Method::Dr | Method::Tun => Path::OneWay,
        _ => Path::TwoWay(direction),
    }
}
