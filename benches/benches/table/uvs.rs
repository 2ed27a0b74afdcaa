//! uvs's own connection table.

use crate::structure::{BURST, Form, Found, Hand, Structure, THREADS};
use arrayvec::ArrayVec;
use conntrack::{
    InsertError, Method, NewConnection, Owner, Probe, State, Table, TableConfig, Ticks, Tuple, V4,
};
use parking_lot::{Mutex, MutexGuard};
use std::net::Ipv4Addr;
use std::sync::Arc;

const NOW: Ticks = Ticks(1000);

/// The table and an owner for each thread. Its states are its entries, which a lookup reads in any case.
pub(crate) struct Uvs {
    table: Arc<Table<V4>>,
    owners: [Mutex<Owner<V4>>; THREADS],
}

impl Structure for Uvs {
    type Key = Tuple<V4>;
    type Hand<'a> = UvsHand<'a>;
    const ROWS: &'static [(&'static str, Form)] =
        &[("uvs", Form::Burst), ("uvs-single", Form::Single)];

    fn new(room: usize) -> Uvs {
        let table = Table::new(&TableConfig {
            capacity: u32::try_from(room).expect("fewer than 2^32"),
            half_open_percent: 50,
            workers: 2,
            seeds: conntrack::random_seeds(),
        })
        .expect("memory for the table");
        let owners = [0, 1].map(|worker| {
            let mut owner = Owner::new(Arc::clone(&table), worker);
            owner.offline();
            Mutex::new(owner)
        });
        Uvs { table, owners }
    }

    fn hand(&self, thread: usize) -> UvsHand<'_> {
        let mut owner = self.owners[thread].lock();
        owner.online();
        UvsHand {
            table: &self.table,
            owner,
        }
    }
}

pub(crate) struct UvsHand<'a> {
    table: &'a Table<V4>,
    owner: MutexGuard<'a, Owner<V4>>,
}

impl Hand<Tuple<V4>> for UvsHand<'_> {
    fn lookup(&mut self, form: Form, keys: &[Tuple<V4>; BURST]) -> Found {
        let table = self.table;
        let mut found = Found::default();
        match form {
            // The stages of a worker's burst.
            Form::Burst => {
                let mut staged = ArrayVec::<_, BURST>::new();
                for key in keys {
                    let hash = table.hash(key);
                    table.prefetch(hash);
                    staged.push((hash, Probe::default()));
                }
                for (hash, probe) in &mut staged {
                    *probe = table.probe(*hash);
                }
                for (&(hash, probe), key) in staged.iter().zip(keys) {
                    if let Some((id, _)) = table.find(hash, probe, key) {
                        found.add(table.entry(id).server());
                    }
                }
            }
            Form::Single => {
                for key in keys {
                    if let Some((id, _)) = table.lookup(key) {
                        found.add(table.entry(id).server());
                    }
                }
            }
        }
        found
    }

    fn insert(&mut self, key: &Tuple<V4>, server: u32) {
        let connection = NewConnection {
            protocol: key.protocol,
            client: (key.source, key.source_port),
            virtual_server: (key.destination, key.destination_port),
            real_server: (Ipv4Addr::new(10, 1, 1, 1), 80),
            local: None,
            method: Method::Dr,
            server,
            control: None,
            state: State::Established,
            timeout: Ticks::from_seconds(900),
            ip_delta: 0,
            l4_delta: 0,
            reply_neighbour: 0,
            route_generation: 0,
            flags: 0,
        };
        while let Err(error) = self.owner.insert(&connection, NOW) {
            assert_eq!(error, InsertError::Full, "there is no such connection");
            self.owner.quiescent();
            std::thread::yield_now();
        }
    }

    fn remove(&mut self, key: &Tuple<V4>) {
        let (id, _) = self.table.lookup(key).expect("it is there");
        self.owner.remove(id).expect("it lives");
    }

    fn quiescent(&mut self) {
        self.owner.quiescent();
    }
}

impl Drop for UvsHand<'_> {
    fn drop(&mut self) {
        self.owner.offline();
    }
}
