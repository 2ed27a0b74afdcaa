//! A packet of no known connection: find its service, let the scheduler pick a server, make the connection.

use super::Flows;
use super::connection::Found;
use super::egress::Egress;
use super::family::Ip;
use super::services::Services;
use crate::frame::Frame;
use crate::packet::Packet;
use crate::packet::icmp::ErrorKind;
use crate::packet::wire::{TCP, UDP};
use crate::port::Port;
use crate::reason::Reason;
use crate::rewrite::Translation;
use crate::snapshot::{Server, Service, ServiceKey};
use crate::stats::add;
use conntrack::{
    ConnectionId, Direction, InsertError, Method, NewConnection, Path, State, TcpFlags, tcp_next,
};
use scheduler::Flow;
use std::sync::Arc;

/// A connection after an attempt to make it.
enum Made {
    New(ConnectionId),
    Before(ConnectionId),
}

impl<F: Ip> Flows<F> {
    /// Makes a connection for a first packet and forwards it; anything else is the kernel's, or dropped.
    #[inline(never)]
    pub(super) fn new_flow<P: Port>(
        &mut self,
        services: &mut Services,
        egress: &mut Egress<P>,
        frame: Frame,
        packet: &Packet<F>,
    ) {
        let tuple = &packet.tuple;
        let key = ServiceKey {
            protocol: tuple.protocol,
            address: tuple.destination.into(),
            port: tuple.destination_port,
        };
        let Some(service) = egress.snapshot.services.get(&key).map(Arc::clone) else {
            return egress.exception(frame);
        };
        let Some(state) = first_state(packet) else {
            return egress.drop(frame, Reason::NoConnection);
        };
        let flow = Flow {
            client: tuple.source.into(),
            client_port: tuple.source_port,
            virtual_address: key.address,
            virtual_port: key.port,
            protocol: key.protocol,
        };
        let server = services
            .pick(service.id, &flow)
            .and_then(|id| egress.snapshot.servers.get(id.0 as usize))
            .and_then(|server| server.as_ref().map(Arc::clone));
        let Some(server) = server else {
            let kind = ErrorKind::PortUnreachable;
            return egress.refuse(frame, packet, kind, tuple.destination, Reason::NoServer);
        };
        match self.connect(services, egress, packet, &service, &server, state) {
            Ok(id) => {
                let found = Found {
                    id,
                    direction: Direction::Request,
                };
                self.forward(services, egress, frame, packet, found);
            }
            Err(reason) => egress.drop(frame, reason),
        }
    }

    /// Puts a connection to `server` into the table.
    fn connect<P: Port>(
        &mut self,
        services: &mut Services,
        egress: &mut Egress<P>,
        packet: &Packet<F>,
        service: &Service,
        server: &Server,
        state: State,
    ) -> Result<ConnectionId, Reason> {
        let tuple = &packet.tuple;
        let real_server = match F::from_ip(server.address) {
            Some(address) => (address, server.port),
            // TUN to the other family: the server table knows the address.
            None => (F::UNSPECIFIED, server.port),
        };
        let local = match server.method {
            Method::FullNat => {
                let first = services.next_lip(service.id);
                let source = self.lips.take(service, first, server.address, server.port);
                Some(source.ok_or(Reason::LipPortsExhausted)?)
            }
            _ => None,
        };
        let reply_neighbour = match server.method {
            Method::Nat | Method::FullNat => egress.neighbour_towards(tuple.source.into()),
            _ => Ok(crate::neighbour::NeighbourId::NONE),
        };
        let translation = Translation::new(tuple, local, Some(real_server));
        let new = reply_neighbour.and_then(|reply_neighbour| {
            let new = NewConnection {
                protocol: tuple.protocol,
                client: (tuple.source, tuple.source_port),
                virtual_server: (tuple.destination, tuple.destination_port),
                real_server,
                local,
                method: server.method,
                server: server.id.0,
                control: None,
                state,
                timeout: egress.snapshot.timeouts.of(state),
                ip_delta: translation.ip_delta.0,
                l4_delta: translation.l4_delta.0,
                reply_neighbour: reply_neighbour.to_bits(),
                route_generation: egress.snapshot.route_generation,
                flags: 0,
            };
            match self.owner.insert(&new, egress.now) {
                Ok(id) => Ok(Made::New(id)),
                // Another worker was faster with a packet of the same flow.
                Err(InsertError::Exists(id)) => Ok(Made::Before(id)),
                Err(InsertError::HalfOpenFull) => Err(Reason::HalfOpenFull),
                Err(InsertError::ReplyExists(_)) => Err(Reason::ReplyTupleTaken),
                Err(InsertError::Full | InsertError::ChainFull | InsertError::Contended) => {
                    Err(Reason::TableFull)
                }
            }
        });
        match new {
            Ok(Made::New(id)) => {
                services.connection_began(server.id, state);
                add(&egress.stats.connections, 1);
                if let Some(stats) = egress.stats.server(server.id) {
                    add(&stats.connections, 1);
                }
                Ok(id)
            }
            Ok(Made::Before(id)) => {
                self.undo(local, real_server, tuple.protocol);
                Ok(id)
            }
            Err(reason) => {
                self.undo(local, real_server, tuple.protocol);
                Err(reason)
            }
        }
    }

    fn undo(&mut self, local: Option<(F::Address, u16)>, server: (F::Address, u16), protocol: u8) {
        if let Some(local) = local {
            self.lips.give_back_source(local, server, protocol);
        }
    }
}

/// The state in which a packet begins a connection; `None` for one that may not.
///
/// Source: Linux net/netfilter/ipvs/ip_vs_proto_tcp.c (`tcp_conn_schedule`).
fn first_state<F: Ip>(packet: &Packet<F>) -> Option<State> {
    let flags = packet.tcp_flags;
    match packet.tuple.protocol {
        TCP if flags.has(TcpFlags::SYN) && !flags.has(TcpFlags::RST) => Some(tcp_next(
            State::None,
            Path::TwoWay(Direction::Request),
            flags,
        )),
        TCP => None,
        UDP => Some(State::Udp),
        _ => None,
    }
}
