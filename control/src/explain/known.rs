//! A packet of a connection that is there.

use super::{Walk, words};
use crate::config::Protocol;
use crate::connections::ConnectionView;
use conntrack::{ConnectionId, Direction, Method, State};
use dataplane::reason::Reason;
use dataplane::snapshot::Server;
use scheduler::RealServerId;
use std::sync::Arc;

impl Walk<'_> {
    /// A packet of a connection. False where it is one of none after all.
    pub(super) fn of_connection(&mut self, view: ConnectionView, direction: Direction) -> bool {
        let is_reply = direction == Direction::Reply;
        self.say(words::connection(&view, is_reply));
        self.told.service = view.listen;
        self.told.server = Some(view.real_server);
        self.told.method = Some(view.method);
        let (client, is_gone) = (view.client.ip(), !self.is_present(&view));
        let server = self.server_of(view.id, view.is_ipv6());
        self.told.connection = Some(view.clone());
        if is_reply {
            self.towards(client);
            return true;
        }
        if is_gone {
            return self.of_a_removed_server(&view);
        }
        if let Some(server) = server {
            self.may_be_replaced(&view, &server);
            self.towards_server(&server);
        }
        true
    }

    /// A client's packet whose server is no longer of the service. False where it may begin another connection.
    fn of_a_removed_server(&mut self, view: &ConnectionView) -> bool {
        if !self.snapshot.ipvs.expire_nodest_conn {
            let why = "Its server was removed from the service";
            self.drop(Reason::ServerGone, why);
            return true;
        }
        self.say("Its server was removed, and expire_nodest_conn is on: it ends the connection, and may begin another.");
        if view.method == Method::FullNat {
            self.say(format!(
                "Only worker {} can do so: another one drops the packet (server-gone).",
                view.owner
            ));
        }
        (self.told.server, self.told.method) = (None, None);
        false
    }

    /// Whether the packet is scheduled anew if it begins a connection, as `Flows::is_replaced` decides.
    fn may_be_replaced(&mut self, view: &ConnectionView, server: &Server) {
        let ipvs = &self.snapshot.ipvs;
        let has_ended = match view.state {
            State::TimeWait | State::Close | State::SctpClosed => ipvs.conn_reuse_mode != 0,
            State::FinWait => {
                ipvs.conn_reuse_mode & 2 != 0 && matches!(view.method, Method::Dr | Method::Tun)
            }
            _ => false,
        };
        // A connection that another one controls stays with it.
        let why = if has_ended && !self.is_controlled(view) {
            let mode = ipvs.conn_reuse_mode;
            format!("this one has ended, and conn_reuse_mode is {mode}")
        } else if ipvs.expire_nodest_conn && self.is_drained(server) {
            "its server has weight 0, and expire_nodest_conn is on".to_owned()
        } else {
            return;
        };
        if self.question.protocol == Protocol::Udp {
            return;
        }
        let by = match view.method {
            Method::FullNat => format!(" by worker {}", view.owner),
            _ => String::new(),
        };
        let beginning = words::beginning(self.question.protocol);
        self.say(format!(
            "If it begins a connection ({beginning}), it is scheduled anew{by}: {why}. What follows is about any other packet."
        ));
    }

    fn is_controlled(&self, view: &ConnectionView) -> bool {
        let tables = &self.director.tables;
        let control = if view.is_ipv6() {
            let entry = tables.ipv6.get(view.id);
            entry.and_then(conntrack::Entry::control)
        } else {
            let entry = tables.ipv4.get(view.id);
            entry.and_then(conntrack::Entry::control)
        };
        control.is_some()
    }

    fn is_drained(&self, server: &Server) -> bool {
        let mut services = self.snapshot.services.values();
        let service = services.find(|service| service.id == server.service);
        let mut servers = service.iter().flat_map(|service| &service.servers);
        servers.any(|at| at.id == server.id && at.weight.0 == 0)
    }

    fn is_present(&self, view: &ConnectionView) -> bool {
        let server = self.server_of(view.id, view.is_ipv6());
        server.is_some_and(|server| server.present)
    }

    /// The server that a connection refers to.
    pub(super) fn server_of(&self, id: ConnectionId, ipv6: bool) -> Option<Arc<Server>> {
        let tables = &self.director.tables;
        let server = if ipv6 {
            tables.ipv6.get(id)?.server()
        } else {
            tables.ipv4.get(id)?.server()
        };
        self.server(RealServerId(server))
    }
}
