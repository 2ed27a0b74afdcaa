//! Data connections that a helper expects: in the table before their first packet, in LISTEN.
//!
//! ```text
//!   active    client:port ◀─ VIP:20 ── RIP:20     known entirely: the server's SYN is a reply
//!   passive   client:0 ──▶ VIP:port ─▶ RIP:port   the client's port is not known: a second lookup with port 0, after
//!                                                 which a connection with the port takes the place of this one
//! ```
//! Source: observed; Linux net/netfilter/ipvs/ip_vs_ftp.c, ip_vs_conn.c (`ip_vs_conn_in_get`, `ip_vs_conn_fill_cport`).

use super::Flows;
use super::connection::Found;
use super::egress::Egress;
use super::family::Ip;
use super::helped::{self, EXPECTED};
use super::services::Services;
use crate::packet::wire::TCP;
use crate::packet::{Packet, Tuple};
use crate::port::Port;
use crate::reason::Reason;
use crate::rewrite::Translation;
use crate::rewrite::translate::Endpoint;
use conntrack::{
    ConnectionId, Direction, Entry, InsertError, Method, NewConnection, Path, State, TEMPLATE,
    tcp_next,
};
use scheduler::RealServerId;

/// A data connection to come.
pub(super) struct Expectation<F: Ip> {
    client: Endpoint<F>,
    virtual_server: Endpoint<F>,
    real_server: Endpoint<F>,
    server: u32,
    flags: u16,
}

impl<F: Ip> Expectation<F> {
    /// The client will connect to `server`, under the virtual address and the same port.
    pub(super) fn of_client(control: &Entry<F>, server: Endpoint<F>) -> Expectation<F> {
        Expectation {
            client: (control.client(), 0),
            virtual_server: (control.virtual_address(), server.1),
            real_server: server,
            server: control.server(),
            flags: EXPECTED,
        }
    }

    /// The server will connect to `client`, from the port below that of its control connection.
    pub(super) fn of_server(control: &Entry<F>, client: Endpoint<F>) -> Expectation<F> {
        let below = |port: u16| port.wrapping_sub(1);
        Expectation {
            client,
            virtual_server: (control.virtual_address(), below(control.virtual_port())),
            real_server: (control.real_address(), below(control.real_port())),
            server: control.server(),
            flags: 0,
        }
    }
}

impl<F: Ip> Flows<F> {
    /// Puts an expected connection into the table, or one that is there already back into LISTEN. Returns the virtual
    /// end that it has.
    ///
    /// Differs from IPVS: a connection put back into LISTEN counts as inactive from then on; there it goes on counting
    /// as what it was.
    pub(super) fn expect<P: Port>(
        &mut self,
        services: &Services,
        egress: &mut Egress<P>,
        control: ConnectionId,
        expectation: &Expectation<F>,
    ) -> Result<Endpoint<F>, Reason> {
        let client = expectation.client.0.into();
        let neighbour = egress.neighbour_towards(client)?;
        let translation =
            Translation::<F>::request_nat(expectation.virtual_server, expectation.real_server);
        let timeout = egress.snapshot.timeouts.of(State::Listen);
        let new = NewConnection {
            protocol: TCP,
            client: expectation.client,
            virtual_server: expectation.virtual_server,
            real_server: expectation.real_server,
            local: None,
            method: Method::Nat,
            server: expectation.server,
            control: Some(control),
            state: State::Listen,
            timeout,
            ip_delta: translation.ip_delta.0,
            l4_delta: translation.l4_delta.0,
            reply_neighbour: neighbour.to_bits(),
            route_generation: egress.snapshot.route_generation,
            flags: expectation.flags,
        };
        match self.owner.insert(&new, egress.now) {
            Ok(_) => {
                self.began(services, &new);
                Ok(expectation.virtual_server)
            }
            Err(InsertError::Exists(id) | InsertError::ReplyExists(id)) => {
                let entry = self.table.get(id).ok_or(Reason::TableFull)?;
                let is_like = entry.flags() & (EXPECTED | TEMPLATE) == expectation.flags;
                if !is_like || entry.method() != Method::Nat {
                    return Err(Reason::ReplyTupleTaken);
                }
                let end = (entry.virtual_address(), entry.virtual_port());
                self.listen_again(services, egress, id);
                Ok(end)
            }
            Err(error) => Err(refusal(error)),
        }
    }

    /// Counts a data connection, and that its control connection must outlive it.
    fn began(&self, services: &Services, new: &NewConnection<F>) {
        services.connection_began(RealServerId(new.server), new.state);
        if new.flags & EXPECTED != 0 {
            self.helpers.expect();
        }
        if let Some(control) = new.control
            && let Some(entry) = self.table.get(control)
            && let Some(record) = helped::record(&self.helpers, control, entry)
        {
            record.hold();
        }
    }

    fn listen_again<P: Port>(&mut self, services: &Services, egress: &Egress<P>, id: ConnectionId) {
        let entry = self.table.entry(id);
        let state = entry.state();
        if state != State::Listen {
            self.change_state(services, egress, id, state, State::Listen);
        }
        let timeout = egress.snapshot.timeouts.of(State::Listen);
        let deadline = egress.now.after(timeout);
        self.owner.shorten(id, deadline);
    }

    /// The data connection that a client's packet of no known connection begins, if one is expected.
    #[inline]
    pub(super) fn expected<P: Port>(
        &mut self,
        services: &Services,
        egress: &Egress<P>,
        packet: &Packet<F>,
    ) -> Option<Result<Found, Reason>> {
        if packet.tuple.protocol != TCP || !self.helpers.expects() {
            return None;
        }
        self.meet(services, egress, packet)
    }

    #[cold]
    fn meet<P: Port>(
        &mut self,
        services: &Services,
        egress: &Egress<P>,
        packet: &Packet<F>,
    ) -> Option<Result<Found, Reason>> {
        let without_port = Tuple {
            source_port: 0,
            ..packet.tuple
        };
        let (id, direction) = self.table.lookup(&without_port)?;
        let entry = self.table.entry(id);
        if direction != Direction::Request || entry.flags() & EXPECTED == 0 {
            return None;
        }
        if !services.is_present(RealServerId(entry.server())) {
            // As for any connection whose server was removed.
            return Some(Ok(Found { id, direction }));
        }
        let path = Path::TwoWay(Direction::Request);
        let state = tcp_next(
            egress.defence.tcp_rules(),
            State::Listen,
            path,
            packet.tcp_flags,
        );
        let (reply_neighbour, route_generation) = entry.reply_neighbour();
        let new = NewConnection {
            protocol: TCP,
            client: (packet.tuple.source, packet.tuple.source_port),
            virtual_server: (entry.virtual_address(), entry.virtual_port()),
            real_server: (entry.real_address(), entry.real_port()),
            local: None,
            method: Method::Nat,
            server: entry.server(),
            control: entry.control(),
            state,
            timeout: egress.snapshot.timeouts.of(state),
            ip_delta: entry.ip_delta(),
            l4_delta: entry.l4_delta(),
            reply_neighbour,
            route_generation,
            flags: 0,
        };
        Some(self.replace_expected(services, egress, id, &new))
    }

    /// Puts `new` in the place of the expected connection `id`. Of two workers whose packets come at the same moment,
    /// one does so.
    fn replace_expected<P: Port>(
        &mut self,
        services: &Services,
        egress: &Egress<P>,
        id: ConnectionId,
        new: &NewConnection<F>,
    ) -> Result<Found, Reason> {
        let made = match self.owner.insert(new, egress.now) {
            Ok(made) => made,
            Err(InsertError::Exists(_)) => {
                let found = self.table.lookup(&new.request_tuple());
                let (id, direction) = found.ok_or(Reason::TableFull)?;
                return Ok(Found { id, direction });
            }
            Err(error) => return Err(refusal(error)),
        };
        self.began(services, new);
        let won = self.end(services, id);
        if !won {
            self.end(services, made);
            return Err(Reason::NoConnection);
        }
        Ok(Found {
            id: made,
            direction: Direction::Request,
        })
    }

    /// Ends a data connection; false when another worker did.
    fn end(&mut self, services: &Services, id: ConnectionId) -> bool {
        let Some(state) = self.owner.remove(id) else {
            return false;
        };
        let entry = self.table.entry(id);
        services.connection_ended(RealServerId(entry.server()), state);
        helped::let_go(&self.helpers, &self.table, id, entry);
        true
    }
}

fn refusal(error: InsertError) -> Reason {
    match error {
        InsertError::HalfOpenFull => Reason::HalfOpenFull,
        InsertError::Exists(_) | InsertError::ReplyExists(_) => Reason::ReplyTupleTaken,
        InsertError::Full | InsertError::ChainFull | InsertError::Contended => Reason::TableFull,
    }
}
