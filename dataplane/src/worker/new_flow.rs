//! A packet of no known connection: find its service, let the scheduler pick a server, make the connection.

use super::Flows;
use super::connection::Found;
use super::egress::Egress;
use super::family::Ip;
use super::lookup::{Asked, FTP_DATA, asked};
use super::onward::{counted_len, to_server_unchanged, translated};
use super::persistence::{real_port, template_key};
use super::services::{Picked, Services};
use super::sip::call_of;
use super::transition::{first_state, is_established, is_reset, may_begin};
use crate::calls::CallId;
use crate::frame::Frame;
use crate::neighbour::NeighbourId;
use crate::packet::icmp::ErrorKind;
use crate::packet::wire::{TCP, UDP};
use crate::packet::{Fragment, Packet};
use crate::port::Port;
use crate::reason::Reason;
use crate::rewrite::{self, Translation};
use crate::snapshot::{Engine, ServiceId, ServiceKey};
use crate::stats::{add, count_bytes};
use conntrack::{ConnectionId, Direction, InsertError, Method, NewConnection, State, Ticks, Tuple};
use scheduler::Flow;

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
        match self.expected(services, egress, packet) {
            None => {}
            Some(Ok(found)) => return self.forward(services, egress, frame, packet, found),
            Some(Err(reason)) => return egress.drop(frame, reason),
        }
        let asked = || asked(&egress.snapshot, frame.port, &packet.tuple);
        if self.waits(egress, &frame, packet, asked) {
            // Most of a flood ends here, or rather at the end of the burst.
            return self.let_wait(services, egress, frame, packet);
        }
        let asked = asked();
        self.new_flow_of(services, egress, frame, packet, asked);
    }

    /// As [`new_flow`](Self::new_flow), for what no helper expects and may leave a half-open connection behind.
    pub(super) fn new_flow_of<P: Port>(
        &mut self,
        services: &mut Services,
        egress: &mut Egress<P>,
        frame: Frame,
        packet: &Packet<F>,
        asked: Option<Asked>,
    ) {
        let tuple = &packet.tuple;
        if egress.snapshot.owned.contains_key(&tuple.source.into()) {
            // What the director says itself does not come in from outside. Source: Linux net/ipv4/fib_frontend.c
            // (`fib_validate_source`), recorded.
            return egress.drop(frame, Reason::BadSource);
        }
        let Some(asked) = asked else {
            let frame = match self.server_speaks(services, egress, frame, packet) {
                Ok(()) => return,
                Err(frame) => frame,
            };
            return not_ours(services, egress, frame, packet);
        };
        if !may_begin(frame.bytes(), packet, &egress.snapshot.ipvs) {
            if is_kernels(packet, &asked) {
                // Of a connection that the kernel has, since its first packet was left to it.
                return egress.exception(frame);
            }
            return egress.drop(frame, Reason::NoConnection);
        }
        if egress.defence.drops_packet() {
            return egress.drop(frame, Reason::DropPacket);
        }
        if is_kernels(packet, &asked) {
            return egress.exception(frame);
        }
        let plan = match self.schedule(services, egress, tuple, &asked, || {
            call_of(frame.bytes(), packet)
        }) {
            Ok(plan) => plan,
            Err(Reason::NoServer) if asked.is_beside_ftp(tuple.destination_port) => {
                return egress.exception(frame);
            }
            Err(Reason::NoServer) => {
                let kind = ErrorKind::PortUnreachable;
                egress.refuse(frame, packet, kind, tuple.destination, Reason::NoServer);
                return;
            }
            Err(reason) => return egress.drop(frame, reason),
        };
        if asked.one_packet && tuple.protocol == UDP && plan.server.method != Method::FullNat {
            if packet.fragment == Fragment::First {
                let port = plan.port;
                self.fragments.goes_alone(Picked {
                    port,
                    ..plan.server
                });
            }
            return send_alone(services, egress, frame, packet, &plan);
        }
        let rules = egress.defence.tcp_rules();
        let state = first_state(frame.bytes(), packet, plan.server.method, rules);
        let timeout = egress.snapshot.timeouts.of(state);
        match self.connect(services, egress, tuple, &plan, state, timeout) {
            // Its state is already that after this packet.
            Ok(Made::New(found)) => self.send_on(services, egress, frame, packet, found),
            Ok(Made::Before(found)) => self.forward(services, egress, frame, packet, found),
            Err(reason) => egress.drop(frame, reason),
        }
    }

    /// Finds the server of a new flow: the client's own where the service is persistent, or the scheduler's choice.
    /// `call` tells the flow's call, if a service wants to know it.
    pub(super) fn schedule<P: Port>(
        &mut self,
        services: &mut Services,
        egress: &Egress<P>,
        tuple: &Tuple<F>,
        asked: &Asked,
        call: impl FnOnce() -> Option<CallId>,
    ) -> Result<Planned, Reason> {
        let flow = Flow {
            client: tuple.source.into(),
            client_port: tuple.source_port,
            virtual_address: tuple.destination.into(),
            virtual_port: tuple.destination_port,
            protocol: tuple.protocol,
        };
        let (server, template, is_remembered) = match &asked.persistence {
            None => (
                services.pick(asked.id, &flow).ok_or(Reason::NoServer)?,
                None,
                false,
            ),
            Some(persistence) => {
                let call = match persistence.engine {
                    None => None,
                    Some(Engine::Sip) => Some(call().ok_or(Reason::NoCallId)?),
                };
                let key = template_key(tuple, asked, persistence);
                let found = self.remembered(services, egress, &key, call, asked, &flow)?;
                (found.server, Some(found.template), !found.is_new)
            }
        };
        Ok(Planned {
            service: asked.id,
            port: real_port(asked, &server, tuple.destination_port),
            server,
            template,
            is_remembered,
        })
    }

    /// Makes a connection as planned; where it cannot, its template goes too, if it is as new.
    pub(super) fn connect<P: Port>(
        &mut self,
        services: &mut Services,
        egress: &mut Egress<P>,
        tuple: &Tuple<F>,
        plan: &Planned,
        state: State,
        timeout: Ticks,
    ) -> Result<Made, Reason> {
        let made = self.connect_to(services, egress, tuple, plan, state, timeout);
        if let (Err(_), Some(template), false) = (&made, plan.template, plan.is_remembered) {
            self.forget_template(services, template);
        }
        made
    }

    fn connect_to<P: Port>(
        &mut self,
        services: &mut Services,
        egress: &mut Egress<P>,
        tuple: &Tuple<F>,
        plan: &Planned,
        state: State,
        timeout: Ticks,
    ) -> Result<Made, Reason> {
        let server = &plan.server;
        // A tunnel may lead to the other family: the state of the server has the address.
        let address = F::from_ip(server.address).unwrap_or(F::UNSPECIFIED);
        let real_server = (address, plan.port);
        let local = match server.method {
            Method::FullNat => {
                let addresses = services.local_addresses(plan.service);
                let source = self.lips.take(addresses, real_server, tuple.protocol);
                Some(source.ok_or(Reason::LipPortsExhausted)?)
            }
            _ => None,
        };
        let translation = Translation::new(tuple, local, Some(real_server));
        let new = NewConnection {
            protocol: tuple.protocol,
            client: (tuple.source, tuple.source_port),
            virtual_server: (tuple.destination, tuple.destination_port),
            real_server,
            local,
            method: server.method,
            server: server.id.0,
            control: plan.template,
            state,
            timeout,
            ip_delta: translation.ip_delta.0,
            l4_delta: translation.l4_delta.0,
            reply_neighbour: NeighbourId::NONE.to_bits(),
            route_generation: egress.snapshot.route_generation,
            flags: 0,
        };
        let made = self.insert(egress, new);
        if let Ok(Made::New(found)) = &made {
            if let Some(template) = plan.template {
                self.hold_template(found.id, template);
                if is_established(state) {
                    self.assure(egress.now, self.table.entry(found.id));
                }
            }
            services.connection_began(server.id, state);
            if tuple.protocol == TCP
                && server.method == Method::Nat
                && services
                    .helper(plan.service, tuple.destination_port)
                    .is_some()
            {
                self.help(egress, found.id);
            }
            add(&egress.stats.connections, 1);
            if let Some(stats) = egress.stats.server(server.id) {
                add(&stats.connections, 1);
            }
        } else if let Some(local) = local {
            self.lips
                .give_back_source(local, real_server, tuple.protocol);
        }
        made
    }

    /// Puts a connection into the table, the way back to its client resolved.
    fn insert<P: Port>(
        &mut self,
        egress: &mut Egress<P>,
        mut new: NewConnection<F>,
    ) -> Result<Made, Reason> {
        if new.method.sees_replies() {
            let client = new.client.0.into();
            new.reply_neighbour = egress.neighbour_towards(client)?.to_bits();
        }
        let mut made = self.owner.insert(&new, egress.now);
        if let Err(InsertError::ReplyExists(older)) = made
            && new.method == Method::Nat
            && self.owner.take_reply(older)
        {
            // The same client port to another service of the same server's: replies belong to the newer connection.
            made = self.owner.insert(&new, egress.now);
        }
        if let Err(InsertError::Exists(older)) = made
            && new.client.1 != 0
            && self.table.entry(older).is_template()
        {
            // A call's template that happens to stand at the client's port gives way, and the call is scheduled anew.
            self.owner.void_template(older);
            made = self.owner.insert(&new, egress.now);
        }
        match made {
            Ok(id) => Ok(Made::New(Found {
                id,
                direction: Direction::Request,
            })),
            // Another worker was faster with a packet of the same flow.
            Err(InsertError::Exists(_)) => {
                let found = self.table.lookup(&new.request_tuple());
                let (id, direction) = found.ok_or(Reason::TableFull)?;
                if self.table.entry(id).is_template() {
                    return Err(Reason::NoClientPort);
                }
                Ok(Made::Before(Found { id, direction }))
            }
            Err(InsertError::HalfOpenFull) => Err(Reason::HalfOpenFull),
            Err(InsertError::ReplyExists(_)) => Err(Reason::ReplyTupleTaken),
            Err(InsertError::Full | InsertError::ChainFull | InsertError::Contended) => {
                Err(Reason::TableFull)
            }
        }
    }
}

/// Whether a packet for a service is left to the kernel all the same: data of FTP that no helper expects.
pub(super) fn is_kernels<F: Ip>(packet: &Packet<F>, asked: &Asked) -> bool {
    let tuple = &packet.tuple;
    is_kernels_by((tuple.source_port, tuple.destination_port), asked)
}

/// The same by source and destination port.
#[inline]
pub(super) fn is_kernels_by((source, destination): (u16, u16), asked: &Asked) -> bool {
    let beside_ftp = asked.is_beside_ftp(destination);
    source == FTP_DATA || (beside_ftp && asked.persistence.is_none())
}

/// Whether a packet comes from the port of FTP's active transfers.
#[inline]
pub(super) fn is_ftp_data<F: Ip>(packet: &Packet<F>) -> bool {
    packet.tuple.source_port == FTP_DATA
}

/// Where a new flow goes.
pub(super) struct Planned {
    pub(super) service: ServiceId,
    pub(super) server: Picked,
    /// The server's port for this flow, host byte order.
    pub(super) port: u16,
    /// What remembers the client.
    pub(super) template: Option<ConnectionId>,
    /// The template was there before this flow.
    pub(super) is_remembered: bool,
}

/// A connection after an attempt to make it.
pub(super) enum Made {
    New(Found),
    Before(Found),
}

impl Made {
    /// The connection.
    pub(super) fn found(self) -> Found {
        match self {
            Made::New(found) | Made::Before(found) => found,
        }
    }
}

/// Sends a packet to a server without a connection to remember it by: replies by NAT are nobody's.
///
/// Source: Linux net/netfilter/ipvs/ip_vs_core.c (`ip_vs_schedule`, IP_VS_CONN_F_ONE_PACKET).
fn send_alone<F: Ip, P: Port>(
    services: &mut Services,
    egress: &mut Egress<P>,
    frame: Frame,
    packet: &Packet<F>,
    plan: &Planned,
) {
    let server = &plan.server;
    let Some(state) = services.server(server.id) else {
        return egress.drop(frame, Reason::ServerGone);
    };
    let hop = match egress.hop_to_server(server.id, state) {
        Ok(hop) => hop,
        Err(reason) => return egress.drop(frame, reason),
    };
    add(&egress.stats.connections, 1);
    if let Some(stats) = egress.stats.server(server.id) {
        add(&stats.connections, 1);
    }
    let len = counted_len(packet);
    count_bytes(&egress.stats, server.id, Direction::Request, len);
    match F::from_ip(server.address) {
        Some(address) if server.method == Method::Nat => {
            let real_server = (address, plan.port);
            let translation = Translation::new(&packet.tuple, None, Some(real_server));
            let speaker = Some(packet.tuple.destination);
            translated(egress, frame, packet, hop, speaker, &translation);
        }
        // An error that the client is sent counts for nobody: there is no connection.
        _ => {
            to_server_unchanged(egress, frame, packet, server.method, state, hop);
        }
    }
}

/// A packet for no service. With `nat_icmp_send` a NAT server that speaks without a connection is told so, unless it
/// resets; everything else is the kernel's.
///
/// Source: Linux net/netfilter/ipvs/ip_vs_core.c (`ip_vs_out_hook`).
fn not_ours<F: Ip, P: Port>(
    services: &Services,
    egress: &mut Egress<P>,
    mut frame: Frame,
    packet: &Packet<F>,
) {
    let tuple = &packet.tuple;
    if egress.snapshot.ipvs.nat_icmp_send && !is_reset(frame.bytes(), packet) {
        let end = ServiceKey {
            protocol: tuple.protocol,
            address: tuple.source.into(),
            port: tuple.source_port,
        };
        // What is for the director goes no hop further; what is for no single host is not answered.
        let is_ours = egress
            .snapshot
            .owned
            .contains_key(&tuple.destination.into());
        let view = egress.snapshot.ports.get(usize::from(frame.port.0));
        let speaker = match view {
            _ if is_ours => Some(tuple.destination),
            _ if F::is_nowhere(tuple.destination) => None,
            view => view
                .and_then(|view| view.source_for(end.address))
                .and_then(F::from_ip),
        };
        if let Some(speaker) = speaker
            && services.is_nat_end(&end)
            && (is_ours || rewrite::decrement_ttl(frame.bytes_mut(), packet).is_ok())
        {
            let kind = ErrorKind::PortUnreachable;
            egress.refuse(frame, packet, kind, speaker, Reason::NoConnection);
            return;
        }
    }
    egress.exception(frame);
}
