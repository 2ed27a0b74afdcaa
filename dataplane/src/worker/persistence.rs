//! Persistence: a client's connections go to the server that its first one went to. What is remembered is a template, an
//! entry of the connection table under the client's address (as much of it as counts) and port 0.
//!
//! ```text
//!   new flow ─▶ the client's template? ─ yes, its server takes connections ─▶ that server
//!                        │                yes, but its server is gone ─▶ voided: it shows port 65535, nobody finds it
//!                        no ─▶ scheduler ─▶ new template
//! ```
//! A template lasts for the service's timeout after each use, and for another minute at a time while it has connections.
//!
//! Source: Linux net/netfilter/ipvs/ip_vs_core.c (`ip_vs_sched_persist`), ip_vs_conn.c (`ip_vs_check_template`,
//! `ip_vs_conn_expire`).

use super::Flows;
use super::egress::Egress;
use super::family::Ip;
use super::lookup::{Asked, FTP};
use super::services::{Picked, Services};
use crate::packet::Packet;
use crate::port::Port;
use crate::reason::Reason;
use crate::snapshot::{Persistence, Snapshot};
use conntrack::{ConnectionId, Entry, InsertError, NewConnection, State, TEMPLATE, Ticks, Tuple};
use scheduler::{Flow, RealServerId};

/// Flag of a connection: nothing yet has shown that its template is in earnest use.
pub(super) const UNASSURED: u16 = 1;
/// How long a template lasts whose time is over while it has connections, and after each later use.
const RENEWAL: Ticks = Ticks::from_seconds(60);

/// For an entry whose time is over: how long it stays all the same, if it controls connections.
pub(super) fn renewal<F: Ip>(entry: &Entry<F>) -> Option<Ticks> {
    let stays = entry.is_template() && entry.extension() != 0;
    stays.then(|| {
        entry.set_template_timeout(RENEWAL);
        RENEWAL
    })
}

/// A client's server, and the template that says so.
pub(super) struct Remembered {
    pub(super) template: ConnectionId,
    pub(super) server: Picked,
}

impl<F: Ip> Flows<F> {
    /// The server that a client's new flow belongs to: the one it had, or the scheduler's choice, to be remembered.
    pub(super) fn remembered<P: Port>(
        &mut self,
        services: &mut Services,
        egress: &mut Egress<P>,
        packet: &Packet<F>,
        asked: &Asked,
        persistence: &Persistence,
        flow: &Flow,
    ) -> Result<Remembered, Reason> {
        let key = template_key(packet, asked, persistence);
        if let Some(remembered) = self.template(services, &egress.snapshot, &key) {
            self.use_template(egress.now, remembered.template);
            return Ok(remembered);
        }
        let server = services.pick(asked.id, flow).ok_or(Reason::NoServer)?;
        let address = F::from_ip(server.address).unwrap_or(F::UNSPECIFIED);
        let is_own_port = packet.tuple.destination_port == asked.key.port && !is_any_port(asked);
        let new = NewConnection {
            protocol: key.protocol,
            client: (key.source, key.source_port),
            virtual_server: (key.destination, key.destination_port),
            real_server: (address, if is_own_port { server.port } else { 0 }),
            local: None,
            method: server.method,
            server: server.id.0,
            control: None,
            state: State::None,
            timeout: persistence.timeout,
            ip_delta: 0,
            l4_delta: 0,
            reply_neighbour: persistence.timeout.0,
            route_generation: 0,
            flags: TEMPLATE,
        };
        match self.owner.insert(&new, egress.now) {
            Ok(template) => {
                services.template_began(server.id);
                Ok(Remembered { template, server })
            }
            // Another worker was faster with a flow of the same client.
            Err(InsertError::Exists(_)) => self
                .template(services, &egress.snapshot, &key)
                .ok_or(Reason::NoClientPort),
            Err(_) => Err(Reason::TableFull),
        }
    }

    /// The template of a key, unless its server takes no connections: then it is voided.
    fn template(
        &mut self,
        services: &Services,
        snapshot: &Snapshot,
        key: &Tuple<F>,
    ) -> Option<Remembered> {
        let (template, _) = self.table.lookup(key)?;
        let entry = self.table.entry(template);
        if !entry.is_template() {
            return None;
        }
        let id = RealServerId(entry.server());
        let quiescent = snapshot.ipvs.expire_quiescent_template && services.is_drained(id);
        let server = snapshot.servers.get(id.0 as usize).and_then(Option::as_ref);
        match server.filter(|server| server.present && !quiescent) {
            Some(server) => Some(Remembered {
                template,
                server: Picked {
                    id,
                    address: server.address,
                    port: server.port,
                    method: server.method,
                },
            }),
            None => {
                self.owner.void_template(template);
                None
            }
        }
    }

    /// Lets a template last from now on.
    fn use_template(&self, now: Ticks, template: ConnectionId) {
        let entry = self.table.entry(template);
        entry.touch(now.after(entry.template_timeout()));
    }

    /// Counts a connection that a template controls.
    pub(super) fn hold_template(&self, connection: ConnectionId, template: ConnectionId) {
        let Some(template) = self.table.get(template) else {
            return;
        };
        template.hold();
        if template.state() == State::None {
            self.table.entry(connection).set_flags(UNASSURED);
        }
    }

    /// A connection of a template was established.
    #[cold]
    pub(super) fn assure(&self, entry: &Entry<F>) {
        entry.clear_flags(UNASSURED);
        if let Some(template) = entry.control().and_then(|id| self.table.get(id))
            && template.is_template()
        {
            self.table.advance(template, State::None, State::Assured);
        }
    }
}

/// The port of the server that a client's flow goes to.
pub(super) fn real_port(asked: &Asked, server: &Picked, virtual_port: u16) -> u16 {
    let stays = asked.persistence.is_some() && virtual_port != asked.key.port;
    if server.port == 0 || stays {
        virtual_port
    } else {
        server.port
    }
}

/// Whether a template of the service is for all of its ports.
fn is_any_port(asked: &Asked) -> bool {
    matches!(asked.key.port, 0 | FTP)
}

/// What a client's template stands under: of a mark, the mark; of a service of all ports or of FTP, the address; otherwise
/// address and port.
fn template_key<F: Ip>(packet: &Packet<F>, asked: &Asked, persistence: &Persistence) -> Tuple<F> {
    let tuple = &packet.tuple;
    let port = if is_any_port(asked) {
        0
    } else {
        asked.key.port
    };
    let (protocol, destination) = if asked.key.is_mark() {
        let mark = F::from_ip(asked.key.address).unwrap_or(F::UNSPECIFIED);
        (0, mark)
    } else {
        (tuple.protocol, tuple.destination)
    };
    Tuple {
        source: F::masked(tuple.source, persistence.mask),
        source_port: 0,
        destination,
        destination_port: port,
        protocol,
    }
}
