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
//! Differs from IPVS: while half-open connections fill more than half of their share, as in a flood of SYNs, a new
//! template lasts little longer than a SYN does, until one of its connections is established. Otherwise a flood's templates,
//! which last longer, would fill the rest of the table. Those of UDP are left as they are: by DR and TUN nothing shows
//! whether they are in earnest use.
//!
//! Source: Linux net/netfilter/ipvs/ip_vs_core.c (`ip_vs_sched_persist`), ip_vs_conn.c (`ip_vs_check_template`,
//! `ip_vs_conn_expire`).

use super::egress::Egress;
use super::family::Ip;
use super::lookup::Asked;
use super::services::{Picked, Services};
use super::{Flows, settle};
use crate::calls::CallId;
use crate::packet::wire::UDP;
use crate::port::Port;
use crate::reason::Reason;
use crate::snapshot::{Persistence, Snapshot};
use conntrack::{ConnectionId, Entry, InsertError, NewConnection, State, TEMPLATE, Ticks, Tuple};
use scheduler::{Flow, RealServerId};

/// Flag of a connection: nothing yet has shown that its template is in earnest use.
pub(super) const UNASSURED: u16 = 1;
/// Flag of a template that was made in a flood: it does not last until it is in earnest use.
const PROVISIONAL: u16 = 2;
/// How much longer than a SYN such a template lasts.
const PROVISIONAL_MARGIN: Ticks = Ticks::from_seconds(5);
/// How long a template lasts whose time is over while it has connections, and after each later use.
const RENEWAL: Ticks = Ticks::from_seconds(60);
/// Calls of one client whose templates stand one behind the other, at most; more are refused.
pub(super) const CALLS_OF_ONE_PLACE: u16 = 16;

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
    /// It was made for this flow.
    pub(super) is_new: bool,
}

/// What there is under a template's key.
enum Place<F: Ip> {
    /// The template.
    Found(ConnectionId),
    /// Nothing, under this key.
    Free(Tuple<F>),
    /// Other calls, as far as one looks.
    Taken,
}

impl<F: Ip> Flows<F> {
    /// The server that a client's new flow belongs to: the one it had, or the scheduler's choice, to be remembered.
    pub(super) fn remembered<P: Port>(
        &mut self,
        services: &mut Services,
        egress: &Egress<P>,
        key: &Tuple<F>,
        call: Option<CallId>,
        asked: &Asked,
        flow: &Flow,
    ) -> Result<Remembered, Reason> {
        let snapshot = &egress.snapshot;
        if let Some(remembered) = self.template(services, snapshot, key, call.as_ref(), None) {
            self.use_template(egress, remembered.template);
            return Ok(remembered);
        }
        let server = services.pick(asked.id, flow).ok_or(Reason::NoServer)?;
        self.new_template(services, egress, key, call.as_ref(), asked, server)
    }

    /// The template of a call that a server speaks in: the one that leads to it, or a new one. `asks` is what the client
    /// would send.
    pub(super) fn remember_speaker<P: Port>(
        &mut self,
        services: &Services,
        egress: &Egress<P>,
        asks: &Tuple<F>,
        asked: &Asked,
        call: &CallId,
        server: RealServerId,
    ) -> Result<Remembered, Reason> {
        let snapshot = &egress.snapshot;
        let persistence = asked.persistence.ok_or(Reason::NoCallId)?;
        let key = template_key(asks, asked, &persistence);
        let call = Some(call);
        if let Some(remembered) = self.template(services, snapshot, &key, call, Some(server)) {
            self.use_template(egress, remembered.template);
            return Ok(remembered);
        }
        let server = facts(snapshot, server).ok_or(Reason::ServerGone)?;
        self.new_template(services, egress, &key, call, asked, server)
    }

    /// Remembers a client's server.
    fn new_template<P: Port>(
        &mut self,
        services: &Services,
        egress: &Egress<P>,
        key: &Tuple<F>,
        call: Option<&CallId>,
        asked: &Asked,
        server: Picked,
    ) -> Result<Remembered, Reason> {
        let Place::Free(key) = self.place(key, call) else {
            return Err(Reason::TooManyCalls);
        };
        let timeout = asked.persistence.map_or(RENEWAL, |found| found.timeout);
        let record = match call {
            None => 0,
            Some(call) => self.calls.take(call).ok_or(Reason::TooManyCalls)?,
        };
        let in_flood = asked.key.protocol != UDP && self.table.is_crowded();
        let (flags, lasts) = if in_flood {
            let lasts = provisional_timeout(&egress.snapshot);
            (TEMPLATE | PROVISIONAL, Ticks(lasts.0.min(timeout.0)))
        } else {
            (TEMPLATE, timeout)
        };
        let address = F::from_ip(server.address).unwrap_or(F::UNSPECIFIED);
        let port = if is_any_port(asked) { 0 } else { server.port };
        let new = NewConnection {
            protocol: key.protocol,
            client: (key.source, key.source_port),
            virtual_server: (key.destination, key.destination_port),
            real_server: (address, port),
            local: None,
            method: server.method,
            server: server.id.0,
            control: None,
            state: State::None,
            timeout: lasts,
            ip_delta: 0,
            l4_delta: 0,
            reply_neighbour: timeout.0,
            route_generation: 0,
            flags,
        };
        let made = self.owner.insert(&new.template_record(record), egress.now);
        if made.is_err() {
            self.calls.give_back(record);
        }
        match made {
            Ok(template) => {
                services.template_began(server.id);
                Ok(Remembered {
                    template,
                    server,
                    is_new: true,
                })
            }
            // Another worker was faster with a flow of the same client, or a packet from port 0 has its place.
            Err(InsertError::Exists(_)) => self
                .template(services, &egress.snapshot, &key, call, None)
                .ok_or(Reason::NoClientPort),
            Err(_) => Err(Reason::TableFull),
        }
    }

    /// The template of a key, and of a call. One whose server takes no connections, or is not `wanted`, is voided.
    fn template(
        &mut self,
        services: &Services,
        snapshot: &Snapshot,
        key: &Tuple<F>,
        call: Option<&CallId>,
        wanted: Option<RealServerId>,
    ) -> Option<Remembered> {
        let Place::Found(template) = self.place(key, call) else {
            return None;
        };
        let id = RealServerId(self.table.entry(template).server());
        let quiescent = snapshot.ipvs.expire_quiescent_template && services.is_drained(id);
        let is_wanted = wanted.is_none_or(|wanted| wanted == id);
        match facts(snapshot, id).filter(|_| is_wanted && !quiescent) {
            Some(server) => Some(Remembered {
                template,
                server,
                is_new: false,
            }),
            None => {
                self.owner.void_template(template);
                None
            }
        }
    }

    /// Looks for a template. Those of calls stand at ports that follow from the call, one behind the other where several
    /// follow from the same.
    fn place(&self, key: &Tuple<F>, call: Option<&CallId>) -> Place<F> {
        let Some(call) = call else {
            let found = self.table.lookup(key);
            return match found.filter(|(id, _)| self.table.entry(*id).is_template()) {
                Some((id, _)) => Place::Found(id),
                None => Place::Free(*key),
            };
        };
        let mut free = None;
        for step in 0..CALLS_OF_ONE_PLACE {
            let source_port = self.calls.place(call).wrapping_add(step);
            let key = Tuple {
                source_port,
                ..*key
            };
            let Some((id, _)) = self.table.lookup(&key) else {
                free.get_or_insert(key);
                continue;
            };
            let entry = self.table.entry(id);
            if entry.is_template() && self.calls.is(entry.template_record(), call) {
                return Place::Found(id);
            }
        }
        free.map_or(Place::Taken, Place::Free)
    }

    /// Lets a template last from now on.
    fn use_template<P: Port>(&self, egress: &Egress<P>, template: ConnectionId) {
        let entry = self.table.entry(template);
        let timeout = entry.template_timeout();
        let lasts = if entry.flags() & PROVISIONAL != 0 {
            Ticks(provisional_timeout(&egress.snapshot).0.min(timeout.0))
        } else {
            timeout
        };
        entry.touch(egress.now.after(lasts));
    }

    /// Ends a template whose first connection could not be made, so that flows that are refused take no room. One that
    /// another worker's connection hangs on by now stays.
    #[cold]
    pub(super) fn forget_template(&mut self, services: &Services, template: ConnectionId) {
        if self.table.entry(template).extension() != 0 {
            return;
        }
        if let Some(state) = self.owner.remove(template) {
            let ended = (template, self.table.entry(template));
            let shared = (&*self.calls, &*self.helpers);
            settle(&self.table, shared, &mut self.lips, services, ended, state);
        }
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
    pub(super) fn assure(&self, now: Ticks, entry: &Entry<F>) {
        entry.clear_flags(UNASSURED);
        if let Some(template) = entry.control() {
            self.assure_template(now, template);
        }
    }

    /// A template is in earnest use.
    pub(super) fn assure_template(&self, now: Ticks, template: ConnectionId) {
        let Some(template) = self.table.get(template).filter(|entry| entry.is_template()) else {
            return;
        };
        self.table.advance(template, State::None, State::Assured);
        if template.flags() & PROVISIONAL != 0 {
            template.clear_flags(PROVISIONAL);
            template.touch(now.after(template.template_timeout()));
        }
    }
}

/// How long a template lasts that was made in a flood.
fn provisional_timeout(snapshot: &Snapshot) -> Ticks {
    let Ticks(of_syn) = snapshot.timeouts.of(State::SynRecv);
    Ticks(of_syn.saturating_add(PROVISIONAL_MARGIN.0))
}

/// What new flows need of a server that is there.
fn facts(snapshot: &Snapshot, id: RealServerId) -> Option<Picked> {
    let server = snapshot.servers.get(id.0 as usize)?.as_ref()?;
    server.present.then_some(Picked {
        id,
        address: server.address,
        port: server.port,
        method: server.method,
    })
}

/// The port of the server that a client's flow goes to.
pub(super) fn real_port(asked: &Asked, server: &Picked, virtual_port: u16) -> u16 {
    real_port_of(asked, server.port, virtual_port)
}

/// The same by the port that the server has.
pub(super) fn real_port_of(asked: &Asked, server_port: u16, virtual_port: u16) -> u16 {
    let stays = asked.persistence.is_some() && virtual_port != asked.key.port;
    if server_port == 0 || stays {
        virtual_port
    } else {
        server_port
    }
}

/// Whether a template of the service is for all of its ports.
fn is_any_port(asked: &Asked) -> bool {
    asked.key.is_of_all_ports()
}

/// What a client's template stands under: of a mark, the mark; of a service of all ports or of FTP, the address; otherwise
/// address and port.
pub(super) fn template_key<F: Ip>(
    tuple: &Tuple<F>,
    asked: &Asked,
    persistence: &Persistence,
) -> Tuple<F> {
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
