//! The connections of a director, as somebody beside the workers sees them.
//!
//! ```text
//!   tables ─ copies of entries, some thousand at a time ─▶ Filter ─▶ ConnectionView ─▶ listings, counts
//!                                                                        └─▶ its owner, who ends it (ending.rs)
//! ```
//! Nothing here holds a lock that a worker wants, or writes where a worker reads: entries are copied, and a copy counts only
//! if its entry had the same life before and after.

mod ending;
mod filter;

pub use ending::{Ending, Stuck, end};
pub use filter::{Filter, Templates, state_named, states};

use crate::config::Listen;
use crate::director::Director;
use conntrack::{ConnectionId, Family, Method, State, TEMPLATE, Table, Ticks};
use dataplane::calls::Calls;
use dataplane::worker::ticks_since;
use std::net::{IpAddr, SocketAddr};
use std::ops::ControlFlow;
use std::time::Duration;

/// Places of a table that are looked at before other threads get their turn.
const CHUNK: u32 = 4096;

/// A connection, or a template: an entry that only remembers where a client belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionView {
    /// Its name in the table of its family, until it ends.
    pub id: ConnectionId,
    /// IP protocol number; 0 of a mark's template.
    pub protocol: u8,
    /// The client; of a template, what counts of its address, and port 0.
    pub client: SocketAddr,
    /// What the client addressed; of a mark's template, the mark as an address.
    pub virtual_server: SocketAddr,
    /// The real server.
    pub real_server: SocketAddr,
    /// What the server takes for its client, with FULLNAT.
    pub local: Option<SocketAddr>,
    /// How packets reach the server.
    pub method: Method,
    /// What it is doing.
    pub state: State,
    /// Until it is forgotten if no packet comes.
    pub left: Duration,
    /// It only remembers where a client belongs.
    pub template: bool,
    /// The worker that made it, from 0.
    pub owner: u16,
    /// The service that it was made by, unless its server is forgotten.
    pub listen: Option<Listen>,
    /// The server that it was made for, unless that is forgotten.
    pub server: Option<SocketAddr>,
    /// Whether that service is there.
    pub has_service: bool,
    /// Of a template of a persistence engine: what it goes by, such as a Call-ID.
    pub engine_data: Option<Vec<u8>>,
}

impl ConnectionView {
    /// The state's name, as in /proc/net/ip_vs_conn.
    #[must_use]
    pub fn state_name(&self) -> &'static str {
        self.state.name()
    }

    /// Of a mark's service: the mark.
    #[must_use]
    pub fn mark(&self) -> Option<u32> {
        match self.listen {
            Some(Listen::Mark { mark, .. }) => Some(mark),
            _ => None,
        }
    }

    /// Whether it is in the table of IPv6 clients.
    #[must_use]
    pub fn is_ipv6(&self) -> bool {
        self.client.is_ipv6()
    }
}

/// A server that connections refer to by its number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Referred {
    pub(crate) listen: Listen,
    pub(crate) address: SocketAddr,
    /// Whether the service is configured.
    pub(crate) has_service: bool,
}

/// Shows every connection that `filter` lets through, IPv4 first, until `visit` breaks off. In no order; the tables go on
/// changing meanwhile: what was there all the time is shown once, the rest once or not.
///
/// A walk over a million takes 22 ms and costs a worker that is busy meanwhile 4.5 % (`conntrack/examples/walk.rs`), so it is for
/// threads that may be busy (`spawn_blocking`).
pub fn for_each(
    director: &Director,
    filter: &Filter,
    mut visit: impl FnMut(ConnectionView) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let servers = director.current.lock().compiler.referred();
    let sight = Sight {
        filter,
        servers: &servers,
        calls: &director.tables.calls,
        now: ticks_since(director.epoch),
    };
    sight.walk(&director.tables.ipv4, &mut visit)?;
    sight.walk(&director.tables.ipv6, &mut visit)
}

/// How many connections `filter` lets through.
#[must_use]
pub fn count(director: &Director, filter: &Filter) -> u64 {
    let mut count = 0;
    // Nobody breaks off.
    let _ = for_each(director, filter, |_| {
        count += 1;
        ControlFlow::Continue(())
    });
    count
}

/// The connection of this name, if it is there.
pub(crate) fn one(director: &Director, ipv6: bool, id: ConnectionId) -> Option<ConnectionView> {
    let servers = director.current.lock().compiler.referred();
    let sight = Sight {
        filter: &Filter::default(),
        servers: &servers,
        calls: &director.tables.calls,
        now: ticks_since(director.epoch),
    };
    match ipv6 {
        true => sight.see(id, &director.tables.ipv6.get(id)?.view()),
        false => sight.see(id, &director.tables.ipv4.get(id)?.view()),
    }
}

/// What a walk goes by.
struct Sight<'s> {
    filter: &'s Filter,
    servers: &'s [Option<Referred>],
    calls: &'s Calls,
    now: Ticks,
}

impl Sight<'_> {
    fn walk<F: Family>(
        &self,
        table: &Table<F>,
        visit: &mut impl FnMut(ConnectionView) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let mut first = 1;
        // Read once: a table that fills faster than it is walked through does not keep the walk.
        let end = table.places();
        while first <= end {
            let last = end.min(first.saturating_add(CHUNK - 1));
            table.for_each_in(first..=last, |id, view| match self.see(id, &view) {
                Some(view) => visit(view),
                None => ControlFlow::Continue(()),
            })?;
            first = last.saturating_add(1);
            std::thread::yield_now();
        }
        ControlFlow::Continue(())
    }

    /// What is to be shown of an entry, if the filter lets it through.
    fn see<F: Family>(
        &self,
        id: ConnectionId,
        view: &conntrack::ConnectionView<F>,
    ) -> Option<ConnectionView> {
        let template = view.flags & TEMPLATE != 0;
        let end = |(address, port): (F::Address, u16)| SocketAddr::new(address.into(), port);
        let server = self.servers.get(view.server as usize).copied().flatten();
        let (real_address, real_port) = view.real_server;
        // Where a tunnel leads to the other family, the entry has no room for the address.
        let real_address = match (real_address == F::UNSPECIFIED, server) {
            (true, Some(server)) => server.address.ip(),
            _ => real_address.into(),
        };
        let seen = ConnectionView {
            id,
            protocol: view.protocol,
            client: end(view.client),
            virtual_server: end(view.virtual_server),
            real_server: SocketAddr::new(real_address, real_port),
            local: view.local.map(end),
            method: view.method,
            state: view.state,
            left: Duration::from_millis(u64::from(view.expires_at.until(self.now).0) * 10),
            template,
            owner: view.owner,
            listen: server.map(|server| server.listen),
            server: server.map(|server| server.address),
            has_service: server.is_some_and(|server| server.has_service),
            engine_data: None,
        };
        self.filter.lets_through(&seen).then(|| ConnectionView {
            engine_data: self.engine_data(view.template_record),
            ..seen
        })
    }

    fn engine_data(&self, record: u32) -> Option<Vec<u8>> {
        let call = (record != 0).then(|| self.calls.get(record)).flatten();
        call.map(|call| call.text())
    }
}

/// Whether an address lies in a network, if one is wanted.
fn lies_in(wanted: Option<crate::config::Prefix>, address: IpAddr) -> bool {
    wanted.is_none_or(|network| network.contains(address))
}
