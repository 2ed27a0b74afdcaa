//! Which connections are meant.

use super::{ConnectionView, lies_in};
use crate::config::{Prefix, Protocol};
use conntrack::{Method, State};

/// Lets a connection through that is all of this; what is not set matches every one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of templates of marks it is none.
    pub protocol: Option<Protocol>,
    /// Where the client is.
    pub client: Option<Prefix>,
    /// Its port.
    pub client_port: Option<u16>,
    /// What it addressed.
    pub virtual_address: Option<Prefix>,
    /// And at which port.
    pub virtual_port: Option<u16>,
    /// The real server.
    pub server: Option<Prefix>,
    /// And its port.
    pub server_port: Option<u16>,
    /// A name of [`states`].
    pub state: Option<&'static str>,
    /// How packets reach the server.
    pub method: Option<Method>,
    /// The worker that made it, from 0.
    pub owner: Option<u16>,
    /// Whether templates are let through.
    pub templates: Templates,
    /// The service and the server that it was made by: of a drain.
    pub made_by: Option<crate::compile::ServerKey>,
}

/// Whether entries that only remember where a client belongs are let through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Templates {
    /// With the connections.
    #[default]
    With,
    /// Connections only.
    Without,
    /// Templates only.
    Only,
}

impl Filter {
    /// Whether it lets everything through.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Filter::default()
    }

    pub(super) fn lets_through(&self, view: &ConnectionView) -> bool {
        let is_port = |wanted: Option<u16>, port| wanted.is_none_or(|wanted| wanted == port);
        let is_kind = match self.templates {
            Templates::With => true,
            Templates::Without => !view.template,
            Templates::Only => view.template,
        };
        is_kind
            && self
                .protocol
                .is_none_or(|wanted| wanted.number() == view.protocol)
            && is_port(self.client_port, view.client.port())
            && is_port(self.virtual_port, view.virtual_server.port())
            && is_port(self.server_port, view.real_server.port())
            && self.state.is_none_or(|wanted| wanted == view.state_name())
            && self.method.is_none_or(|wanted| wanted == view.method)
            && is_port(self.owner, view.owner)
            && lies_in(self.client, view.client.ip())
            && lies_in(self.virtual_address, view.virtual_server.ip())
            && lies_in(self.server, view.real_server.ip())
            && self.made_by.is_none_or(|(listen, address)| {
                view.listen == Some(listen) && view.server == Some(address)
            })
    }
}

/// The names of states, each once.
pub fn states() -> impl Iterator<Item = &'static str> {
    let all = State::ALL.iter().filter(|state| **state != State::Dead);
    let mut told = Vec::new();
    all.map(|state| state.name()).filter(move |name| {
        let is_new = !told.contains(name);
        told.push(*name);
        is_new
    })
}

/// A state's name, in whatever case it is written.
#[must_use]
pub fn state_named(text: &str) -> Option<&'static str> {
    states().find(|name| name.eq_ignore_ascii_case(text))
}
