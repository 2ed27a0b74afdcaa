//! The numbers of services and servers, which they keep from one configuration to the next, and what is known of each
//! server beside: its load, its traffic, whether it is still configured.

use super::Compiler;
use crate::config::{Configuration, Listen};
use crate::connections::Referred;
use crate::traffic::Traffic;
use dataplane::path_mtu::PathMtu;
use dataplane::snapshot::ServiceId;
use dataplane::worker::Burden;
use scheduler::{Activity, Load, RealServerId, Weight};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

/// What a server is known by from one configuration to the next.
pub(crate) type ServerKey = (Listen, SocketAddr);

/// There is no number left for a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{wanted} servers and {lingering} removed ones that connections still refer to are too many; accepted: {limit} in \
     all (director.servers), or wait for those connections to end"
)]
pub struct NoRoom {
    /// Servers of the new configuration.
    pub wanted: usize,
    /// Removed servers that connections refer to.
    pub lingering: usize,
    /// Numbers there are.
    pub limit: usize,
}

/// A server that has a number.
pub(super) struct Known {
    pub(super) id: RealServerId,
    pub(super) load: Arc<Load>,
    pub(super) path_mtu: Arc<PathMtu>,
    /// What had been counted under the number before the server got it.
    before: Traffic,
    /// The version of the first snapshot that has it no more; 0 while it is configured.
    pub(super) removed_in: u64,
    /// The round of numbering that found it in a configuration last.
    wanted_in: u64,
}

impl Known {
    fn is_in_use(&self) -> bool {
        self.load.active() > 0 || self.load.inactive() > 0 || self.load.persistent() > 0
    }
}

/// Numbers, the lowest free one first.
#[derive(Default)]
pub(super) struct Numbers {
    free: BTreeSet<u32>,
    pub(super) next: u32,
}

impl Numbers {
    fn take(&mut self) -> u32 {
        self.free.pop_first().unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        })
    }

    /// Takes a certain number. False where it is taken.
    fn claim(&mut self, number: u32) -> bool {
        self.free.extend(self.next..=number);
        self.next = self.next.max(number + 1);
        self.free.remove(&number)
    }

    fn give_back(&mut self, number: u32) {
        self.free.insert(number);
    }
}

impl Compiler {
    /// The number and load of a configured server, and its traffic so far.
    pub(crate) fn server_facts(
        &self,
        key: &ServerKey,
    ) -> Option<(RealServerId, Arc<Load>, Traffic)> {
        let known = self.servers.get(key)?;
        Some((known.id, Arc::clone(&known.load), self.traffic(known)))
    }

    /// What each service counted since it was added.
    pub(crate) fn services_traffic(&self) -> HashMap<Listen, Traffic> {
        let services = self.services.keys();
        let mut sums: HashMap<_, _> = services
            .map(|listen| (*listen, self.ledger.of(listen)))
            .collect();
        for ((listen, _), known) in &self.servers {
            if let Some(sum) = sums.get_mut(listen) {
                *sum = sum.and(self.traffic(known));
            }
        }
        sums
    }

    pub(super) fn traffic(&self, known: &Known) -> Traffic {
        Traffic::of(&self.stats, known.id).since(known.before)
    }

    /// Gives a server the number that connections of the process before know it by. Before the first compilation.
    pub(crate) fn restore(&mut self, number: u32, key: ServerKey, burden: Burden) {
        if (number as usize) < self.server_limit
            && !self.servers.contains_key(&key)
            && self.server_ids.claim(number)
        {
            let load = Arc::new(Load::default());
            load.add(Activity::Active, burden.active);
            load.add(Activity::Inactive, burden.inactive);
            load.add(Activity::Persistent, burden.persistent);
            let known = Known {
                id: RealServerId(number),
                load,
                path_mtu: Arc::default(),
                before: Traffic::default(),
                removed_in: 0,
                wanted_in: 0,
            };
            self.servers.insert(key, known);
        }
    }

    /// Every server that has a number, also removed ones.
    pub(crate) fn numbered(&self) -> impl Iterator<Item = (u32, &ServerKey)> {
        self.servers.iter().map(|(key, known)| (known.id.0, key))
    }

    /// The servers by their numbers, also removed ones that connections may refer to.
    pub(crate) fn referred(&self) -> Vec<Option<Referred>> {
        let mut referred = vec![None; self.server_ids.next as usize];
        for ((listen, address), known) in &self.servers {
            referred[known.id.0 as usize] = Some(Referred {
                listen: *listen,
                address: *address,
                has_service: self.services.contains_key(listen),
            });
        }
        referred
    }

    /// Frees the numbers of removed servers that no connection refers to, nor can any more: every worker has seen that
    /// they are gone.
    pub(crate) fn forget(&mut self, seen_by_all: u64) {
        let Compiler {
            servers,
            server_ids,
            ledger,
            stats,
            ..
        } = self;
        servers.retain(|key, known| {
            let stays =
                known.removed_in == 0 || known.removed_in > seen_by_all || known.is_in_use();
            if !stays {
                ledger.part(*key, Traffic::of(stats, known.id).since(known.before));
                server_ids.give_back(known.id.0);
            }
            stays
        });
    }

    /// Gives numbers to what is new, and marks what is no longer configured. Each server is there once.
    pub(super) fn renumber(
        &mut self,
        configuration: &Configuration,
        version: u64,
    ) -> Result<(), NoRoom> {
        self.round += 1;
        let mut wanted = 0;
        let mut new = Vec::new();
        for key in keys(configuration) {
            wanted += 1;
            match self.servers.get_mut(&key) {
                Some(known) => known.wanted_in = self.round,
                None => new.push(key),
            }
        }
        let lingering = self.servers.len() + new.len() - wanted;
        if wanted + lingering > self.server_limit {
            return Err(NoRoom {
                wanted,
                lingering,
                limit: self.server_limit,
            });
        }
        for known in self.servers.values_mut() {
            match known.wanted_in == self.round {
                true => {
                    if known.removed_in != 0 {
                        known.load.set_last_weight(Weight(0));
                    }
                    known.removed_in = 0;
                }
                false if known.removed_in == 0 => known.removed_in = version,
                false => {}
            }
        }
        self.renumber_services(configuration);
        for key in new {
            let id = RealServerId(self.server_ids.take());
            let known = Known {
                id,
                load: Arc::default(),
                path_mtu: Arc::default(),
                before: Traffic::of(&self.stats, id).since(self.ledger.rejoin(&key)),
                removed_in: 0,
                wanted_in: self.round,
            };
            self.servers.insert(key, known);
        }
        Ok(())
    }

    /// The same for services. One that comes counts from now on, also where connections stay of one before it.
    fn renumber_services(&mut self, configuration: &Configuration) {
        let services = configuration.services.iter();
        let listens: HashSet<Listen> = services.map(|service| service.listen).collect();
        let (ids, ledger) = (&mut self.service_ids, &mut self.ledger);
        self.services.retain(|listen, id| {
            let stays = listens.contains(listen);
            if !stays {
                ids.give_back(id.0);
                ledger.close(listen);
            }
            stays
        });
        let mut new = HashSet::new();
        for listen in listens {
            self.services.entry(listen).or_insert_with(|| {
                new.insert(listen);
                ledger.open(listen);
                ServiceId(ids.take())
            });
        }
        for ((listen, _), known) in &mut self.servers {
            if new.contains(listen) {
                known.before = Traffic::of(&self.stats, known.id);
            }
        }
    }
}

fn keys(configuration: &Configuration) -> impl Iterator<Item = ServerKey> {
    configuration.services.iter().flat_map(|service| {
        service
            .servers
            .iter()
            .map(|server| (service.listen, server.address))
    })
}
