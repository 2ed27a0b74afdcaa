//! A table in a file, with connections of all kinds, and who judges them when they are taken over.

use crate::flows::{LIP, Numbered, VIP, flow};
use conntrack::{
    Adopted, Cause, ConnectionId, ConnectionView, Deltas, Entry, Family, FileConfig, Found, Method,
    NewConnection, Owner, State, TEMPLATE, Table, TableConfig, TableFile, Ticks,
};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

pub(crate) const NOW: Ticks = Ticks(5000);
pub(crate) const LONGEST: Ticks = Ticks::from_seconds(2000);
pub(crate) const SERVERS: u32 = 8;

/// A path in memory that nothing is at, and that nothing is left at.
pub(crate) struct Place(PathBuf);

impl Place {
    pub(crate) fn new() -> Place {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Relaxed);
        Place(PathBuf::from(format!(
            "/dev/shm/uvs-conntrack-{}-{number}",
            std::process::id()
        )))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

pub(crate) fn file_config(capacity: u32) -> FileConfig {
    FileConfig {
        capacity,
        directory_len: 1000,
        words: 16,
        nodes: Vec::new(),
    }
}

pub(crate) fn open(path: &Path, capacity: u32) -> (TableFile, Found) {
    TableFile::open(path, file_config(capacity)).unwrap()
}

/// Servers 6 and 7 are of the other family: connections have no address of theirs.
pub(crate) fn server_address<F: Numbered>(server: u32) -> F::Address {
    if server >= 6 {
        F::UNSPECIFIED
    } else {
        F::address(0x100 + server)
    }
}

/// As control judges: the server has to be known, with that address.
pub(crate) fn judge<F: Numbered>(
    _: ConnectionId,
    entry: &Entry<F>,
    has_reply: bool,
) -> Result<Option<Deltas>, Cause> {
    let server = entry.server();
    if server >= SERVERS || server_address::<F>(server) != entry.real_address() {
        return Err(Cause::Server);
    }
    if !has_reply && !matches!(entry.real_port(), 0 | 80 | 8080) {
        return Err(Cause::Server);
    }
    Ok((!entry.is_template()).then_some((0x1234, 0x5678)))
}

pub(crate) fn adopt<F: Numbered>(
    file: &TableFile,
    capacity: u32,
    workers: u16,
) -> (Arc<Table<F>>, Adopted) {
    let config = TableConfig {
        capacity,
        half_open_percent: 50,
        workers,
        seeds: [0; 4],
    };
    Table::in_file(&config, file, (NOW, LONGEST), &mut judge::<F>).unwrap()
}

/// Connections of all kinds, by number.
pub(crate) fn kind<F: Numbered>(number: u32) -> NewConnection<F> {
    let methods = [Method::Nat, Method::Dr, Method::Tun, Method::FullNat];
    let method = methods[number as usize % 4];
    // Shares of three and of two workers alike.
    let port = u16::try_from(10_000 + number * 6).unwrap();
    let mut new = flow::<F>(number, method, port);
    new.server = match method {
        Method::Tun => 6 + number / 4 % 2,
        _ => number % 6,
    };
    new.real_server.0 = server_address::<F>(new.server);
    new.state = match number % 5 {
        0 => State::SynRecv,
        1 => State::FinWait,
        _ => State::Established,
    };
    if number % 7 == 6 {
        // A persistence template.
        new.client.1 = 0;
        new.local = None;
        new.flags = TEMPLATE;
        new.state = State::Assured;
        new.reply_neighbour = 30_000;
        (new.ip_delta, new.l4_delta) = (0, 0);
    } else if number % 11 == 3 {
        new.protocol = 17;
        new.state = State::Udp;
    }
    new
}

/// Whether a connection ends again.
pub(crate) fn is_removed(number: u32) -> bool {
    number % 13 == 12 && number % 7 != 6
}

/// Fills a table with `count` connections of all kinds, some of which end again.
pub(crate) fn fill<F: Numbered>(table: &Arc<Table<F>>, workers: u16, count: u32) {
    let mut owners: Vec<_> = (0..workers)
        .map(|worker| Owner::new(Arc::clone(table), worker))
        .collect();
    let mut templates = HashMap::new();
    for number in 0..count {
        let mut new = kind::<F>(number);
        let owner = match new.local {
            Some((_, port)) => usize::from(port % workers),
            None => number as usize % usize::from(workers),
        };
        if new.flags == 0 && number % 3 == 0 {
            new.control = templates.get(&new.server).copied();
        }
        let id = owners[owner].insert(&new, NOW).unwrap();
        if let Some(control) = new.control {
            table.entry(control).hold();
        }
        if new.flags != 0 {
            templates.insert(new.server, id);
        }
        if is_removed(number) {
            owners[owner].remove(id);
        }
    }
    for owner in &mut owners {
        owner.quiescent();
    }
}

/// What of a connection never changes, by its place.
pub(crate) fn facts<F: Family>(table: &Table<F>) -> HashMap<ConnectionId, ConnectionView<F>> {
    let mut facts = HashMap::new();
    table.for_each(|id, view| {
        facts.insert(id, view);
    });
    facts
}

pub(crate) fn is_of_the_vip<F: Numbered>(view: &ConnectionView<F>) -> bool {
    view.virtual_server == (F::address(VIP), 80)
        && view
            .local
            .is_none_or(|(address, _)| address == F::address(LIP))
}
