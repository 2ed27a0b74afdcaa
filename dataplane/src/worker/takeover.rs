//! Taking over the connections that the process before left in a file: what the connection table cannot know of them.
//!
//! Their servers have to be those of the directory under their numbers, and what helpers and persistence remembered
//! beside the table has to be there. Checksum differences follow from the addresses and are made anew.

use super::asked::RESET;
use super::family::Ip;
use super::helped::{self, EXPECTED, HELPED};
use super::persistence::CALLS_OF_ONE_PLACE;
use super::{Flows, Tables};
use crate::calls::{self, CALLS};
use crate::helper::{self, RECORD_WORDS, RECORDS, Records};
use crate::rewrite::Translation;
use conntrack::{
    Adopted, Cause, ConnectionId, Deltas, Entry, Method, Table, TableConfig, TableError, TableFile,
    Ticks,
};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Words of the file that are the helpers'.
const OF_HELPERS: usize = RECORDS * RECORD_WORDS;

/// Words that [`Tables::in_file`] needs of a file, beside the tables.
#[must_use]
pub const fn file_words() -> u64 {
    (OF_HELPERS + CALLS as usize * calls::WORDS) as u64
}

/// The connections of a server that were taken over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Burden {
    /// Those that count as active.
    pub active: u32,
    /// The others.
    pub inactive: u32,
    /// Persistence templates.
    pub persistent: u32,
}

/// What was taken over.
#[derive(Debug)]
pub struct TakenOver {
    /// Of IPv4 and of IPv6 clients.
    pub adopted: [Adopted; 2],
    /// By server number.
    pub burdens: Vec<Burden>,
}

impl Tables {
    /// The tables of a file, with those of its connections that can be believed; empty where the file is. `servers` are
    /// those of the directory by their numbers; the times are as for [`Table::in_file`].
    ///
    /// # Errors
    /// A number out of range, or no memory.
    pub fn in_file(
        config: &TableConfig,
        file: &TableFile,
        times: (Ticks, Ticks),
        servers: &[Option<SocketAddr>],
    ) -> Result<(Tables, TakenOver), TableError> {
        let words = |first: usize, count: usize| {
            let memory = |source| TableError::Memory {
                capacity: config.capacity,
                source,
            };
            file.words(first, count).map_err(memory)
        };
        let of_helpers = words(0, OF_HELPERS)?;
        let of_calls = words(OF_HELPERS, CALLS as usize * calls::WORDS)?;
        // Other seeds than the table's: who knows where a call stands knows nothing of that.
        let seeds = file.seeds().map(|seed| seed.rotate_left(32));
        let mut judge = Judge {
            servers,
            helpers: helper::Left::new(of_helpers),
            calls: calls::Left::new(of_calls, seeds),
            burdens: vec![Burden::default(); servers.len()],
            has_helped: false,
        };
        let (ipv4, adopted_v4) =
            Table::in_file(config, file, times, &mut |id, entry, has_reply| {
                judge.look(id, entry, has_reply)
            })?;
        let (ipv6, adopted_v6) =
            Table::in_file(config, file, times, &mut |id, entry, has_reply| {
                judge.look(id, entry, has_reply)
            })?;
        let tables = Tables {
            ipv4,
            ipv6,
            helpers: Arc::new(judge.helpers.finish()),
            calls: Arc::new(judge.calls.finish()),
        };
        if judge.has_helped {
            hold(&tables.ipv4, &tables.helpers);
            hold(&tables.ipv6, &tables.helpers);
        }
        let taken = TakenOver {
            adopted: [adopted_v4, adopted_v6],
            burdens: judge.burdens,
        };
        Ok((tables, taken))
    }
}

/// Lets control connections have their data connections again.
fn hold<F: Ip>(table: &Table<F>, helpers: &Records) {
    table.for_each(|_, view| {
        if view.flags & EXPECTED != 0 {
            helpers.expect();
        }
        if let Some(control) = view.control
            && let Some(entry) = table.get(control)
            && let Some(record) = helped::record(helpers, control, entry)
        {
            record.hold();
        }
    });
}

/// Decides over entries, and counts them.
struct Judge<'s> {
    servers: &'s [Option<SocketAddr>],
    helpers: helper::Left,
    calls: calls::Left,
    burdens: Vec<Burden>,
    has_helped: bool,
}

impl Judge<'_> {
    fn look<F: Ip>(
        &mut self,
        id: ConnectionId,
        entry: &Entry<F>,
        has_reply: bool,
    ) -> Result<Option<Deltas>, Cause> {
        let number = usize::try_from(entry.server()).map_err(|_| Cause::Server)?;
        let server = self.servers.get(number).copied().flatten();
        if !server.is_some_and(|server| is_of_server(entry, server, has_reply)) {
            return Err(Cause::Server);
        }
        let is_template = entry.is_template();
        let has_all = if is_template {
            let call = entry.template_record();
            let port = entry.client_port();
            let is_plain = call == 0 && port == 0;
            is_plain || self.calls.claim(call, port, CALLS_OF_ONE_PLACE)
        } else if entry.flags() & HELPED != 0 {
            let word = entry.extension();
            entry.method() == Method::Nat && self.helpers.claim(word, helped::owner::<F>(id))
        } else {
            entry.extension() == 0
        };
        if !has_all {
            return Err(Cause::Helper);
        }
        // Who asked for a reset is gone with the process before, and nothing else in the file tells that somebody did.
        entry.clear_flags(RESET);
        self.has_helped |= entry.flags() & (HELPED | EXPECTED) != 0;
        let burden = &mut self.burdens[number];
        *match () {
            () if is_template => &mut burden.persistent,
            () if entry.state().is_active() => &mut burden.active,
            () => &mut burden.inactive,
        } += 1;
        Ok((!is_template).then(|| deltas(entry)))
    }
}

/// Whether an entry leads to the server whose number it has. A port that no reply key tells has to be the server's, or
/// what the client asked for.
fn is_of_server<F: Ip>(entry: &Entry<F>, server: SocketAddr, has_reply: bool) -> bool {
    let is_there = match F::from_ip(server.ip()) {
        Some(address) => entry.real_address() == address,
        // A tunnel leads to the other family.
        None => entry.method() == Method::Tun && is_unspecified(entry),
    };
    let port = entry.real_port();
    let is_known = port == server.port() || port == entry.virtual_port();
    is_there && (has_reply || is_known || (port == 0 && entry.is_template()))
}

fn is_unspecified<F: Ip>(entry: &Entry<F>) -> bool {
    let address: IpAddr = entry.real_address().into();
    address.is_unspecified()
}

/// What rewriting a request adds to the checksums.
fn deltas<F: Ip>(entry: &Entry<F>) -> Deltas {
    let real_server = (entry.real_address(), entry.real_port());
    let translation =
        Translation::<F>::new(&entry.request_tuple(), entry.local(), Some(real_server));
    (translation.ip_delta.0, translation.l4_delta.0)
}

impl<F: Ip> Flows<F> {
    /// Takes note of the local ports that connections of the process before have.
    pub(super) fn hold_ports(&mut self) {
        let lips = &mut self.lips;
        let mut from = 0;
        let mut on_visit = |_, entry: &Entry<F>| {
            if !entry.is_template() {
                lips.hold(entry);
            }
            false
        };
        while let Some(next) = self.owner.walk(from, u32::MAX, &mut on_visit) {
            from = next;
        }
    }
}
