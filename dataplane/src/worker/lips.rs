//! One worker's share of the FULLNAT source ports: a pool for each local address and real server.
//!
//! A server at any port (of a mark's service, one of port 0, or a persistent one of all ports) has one pool for all its
//! ports, and services that know the same server at a certain port take from that one too: else two of them could leave from the same port to the same
//! server, and its replies would belong to both.

use super::family::Ip;
use crate::Map;
use crate::packet::wire::{SCTP, TCP, UDP};
use crate::snapshot::{LocalAddress, Service, Snapshot};
use conntrack::{Entry, Method, PortPool};
use scheduler::RealServer;
use std::net::IpAddr;
use std::ops::RangeInclusive;

/// Ports of a local address may be used once towards each real server: this is what tells replies apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct PoolKey<A> {
    local: A,
    server: A,
    /// 0: of all ports.
    server_port: u16,
    protocol: u8,
}

impl<A: Copy> PoolKey<A> {
    /// The pool for all ports of the server.
    fn of_any_port(self) -> PoolKey<A> {
        PoolKey {
            server_port: 0,
            ..self
        }
    }
}

/// The ports of one local address towards one server, as the configuration wants them.
struct Pool {
    first: u16,
    last: u16,
    ports: PortPool,
    /// Ports that connections hold from ranges of before, all of which it has: nobody is given one.
    retired: Option<PortPool>,
}

/// See the module's text.
pub(super) struct LipPools<F: Ip> {
    worker: u16,
    workers: u16,
    pools: Map<PoolKey<F::Address>, Pool>,
    /// Whether there is a pool for all ports of a server.
    any_port: bool,
    /// Ports of all pools.
    capacity: u64,
    /// Those in use.
    in_use: u64,
}

impl<F: Ip> LipPools<F> {
    pub(super) fn new(worker: u16, workers: u16) -> LipPools<F> {
        LipPools {
            worker,
            workers,
            pools: Map::default(),
            any_port: false,
            capacity: 0,
            in_use: 0,
        }
    }

    /// Makes the pools that the snapshot's services want. One that is no longer wanted stays while ports are in use.
    pub(super) fn adopt(&mut self, snapshot: &Snapshot) {
        let mut old = std::mem::take(&mut self.pools);
        // Pools for all ports come first, as those for one port are not wanted beside them.
        for any_port in [true, false] {
            for (service, server) in fullnat_servers(snapshot) {
                let server_port = service.server_port(server);
                if (server_port == 0) != any_port {
                    continue;
                }
                for local in &service.local_addresses {
                    for key in keys::<F>(service, local, server.address, server_port) {
                        self.want(key, local, &mut old);
                    }
                }
            }
        }
        let left = old.into_iter().filter(|(_, pool)| pool.in_use() > 0);
        self.pools.extend(left);
        self.any_port = self.pools.keys().any(|key| key.server_port == 0);
        let pools = || self.pools.values();
        self.capacity = pools().map(|pool| u64::from(pool.ports.capacity())).sum();
        self.in_use = pools().map(|pool| u64::from(pool.in_use())).sum();
    }

    /// Of two services that share a local address and a server, the first one's range of ports holds.
    fn want(
        &mut self,
        key: PoolKey<F::Address>,
        local: &LocalAddress,
        old: &mut Map<PoolKey<F::Address>, Pool>,
    ) {
        if self.pools.contains_key(&key) || self.pools.contains_key(&key.of_any_port()) {
            return;
        }
        // Nor is one beside connections that are left of a pool for all ports.
        let any = key.of_any_port();
        let is_used = old.get(&any).is_some_and(|pool| pool.in_use() > 0);
        let key = if is_used { any } else { key };
        let before = old.remove(&key);
        let is_same = before
            .as_ref()
            .is_some_and(|pool| (pool.first, pool.last) == (local.first_port, local.last_port));
        let mut pool = match before {
            Some(pool) if is_same => pool,
            Some(pool) => self.new_pool(local).inherit(pool, self.new_retired()),
            None => self.new_pool(local),
        };
        if key.server_port == 0 && !is_same {
            // Connections to certain ports of the server hold local ports that this pool does not know of.
            let of_one_port = old.iter().filter(|(other, _)| other.of_any_port() == key);
            of_one_port.for_each(|(_, other)| pool.avoid(other));
        }
        self.pools.insert(key, pool);
    }

    fn new_pool(&self, local: &LocalAddress) -> Pool {
        let (first, last) = (local.first_port, local.last_port);
        Pool {
            first,
            last,
            ports: PortPool::new(first, last, self.worker, self.workers),
            retired: None,
        }
    }

    fn new_retired(&self) -> PortPool {
        PortPool::new(0, u16::MAX, self.worker, self.workers)
    }

    /// A source for a new connection to a server: local addresses in turn, beginning with the one at index `first`.
    pub(super) fn take(
        &mut self,
        (addresses, first): (&[LocalAddress], usize),
        (server, server_port): (F::Address, u16),
        protocol: u8,
    ) -> Option<(F::Address, u16)> {
        let (before, after) = addresses.split_at_checked(first)?;
        let (local, port) = after.iter().chain(before).find_map(|local| {
            let key = PoolKey {
                local: F::from_ip(local.address)?,
                server,
                server_port,
                protocol,
            };
            let any = key.of_any_port();
            let has_any = self.any_port && self.pools.contains_key(&any);
            let key = if has_any { any } else { key };
            let port = self.pools.get_mut(&key)?.ports.take()?;
            Some((key.local, port))
        })?;
        self.in_use += 1;
        Some((local, port))
    }

    /// Marks the source of a connection of the process before as used. To be called once the pools are there.
    pub(super) fn hold(&mut self, entry: &Entry<F>) {
        let Some((local, port)) = entry.local() else {
            return;
        };
        let key = PoolKey {
            local,
            server: entry.real_address(),
            server_port: entry.real_port(),
            protocol: entry.protocol(),
        };
        let any = key.of_any_port();
        let has_any = self.any_port && self.pools.contains_key(&any);
        let key = if has_any { any } else { key };
        let (worker, workers) = (self.worker, self.workers);
        // One that nobody wants any more has no ports but those that connections hold.
        let pool = self.pools.entry(key).or_insert_with(|| Pool {
            first: 1,
            last: 0,
            ports: PortPool::new(1, 0, worker, workers),
            retired: None,
        });
        let mut retired = || {
            let all = || PortPool::new(0, u16::MAX, worker, workers);
            pool.retired.get_or_insert_with(all).mark_used(port)
        };
        if pool.ports.mark_used(port) || retired() {
            self.in_use += 1;
        }
    }

    /// Gives the source of a connection that ended, or was not made after all, back to its pool.
    pub(super) fn give_back(&mut self, entry: &Entry<F>) {
        if let Some(local) = entry.local() {
            let server = (entry.real_address(), entry.real_port());
            self.give_back_source(local, server, entry.protocol());
        }
    }

    /// As [`give_back`](Self::give_back), for a connection that did not come to be.
    pub(super) fn give_back_source(
        &mut self,
        (local, port): (F::Address, u16),
        (server, server_port): (F::Address, u16),
        protocol: u8,
    ) {
        let key = PoolKey {
            local,
            server,
            server_port,
            protocol,
        };
        self.free(key, port);
        if self.any_port && server_port != 0 {
            // What a pool for one port gave out before there was this one, this one holds too.
            self.free(key.of_any_port(), port);
        }
    }

    fn free(&mut self, key: PoolKey<F::Address>, port: u16) {
        let pool = self.pools.get_mut(&key);
        let was_taken = pool.is_some_and(|pool| pool.give_back(port));
        self.in_use -= u64::from(was_taken);
    }

    /// How many ports there are, and how many of them are in use.
    pub(super) fn usage(&self) -> (u64, u64) {
        (self.capacity, self.in_use)
    }
}

impl Pool {
    /// How many ports connections hold.
    fn in_use(&self) -> u32 {
        self.ports.in_use() + self.retired.as_ref().map_or(0, PortPool::in_use)
    }

    /// Frees a port. False when it was not in use.
    fn give_back(&mut self, port: u16) -> bool {
        let is_retired = |retired: &mut PortPool| retired.give_back(port);
        self.ports.give_back(port) || self.retired.as_mut().is_some_and(is_retired)
    }

    /// The ports among which those in use are.
    fn all_ports(&self) -> RangeInclusive<u16> {
        match self.retired {
            Some(_) => 0..=u16::MAX,
            None => self.first..=self.last,
        }
    }

    /// Takes over the ports that are in use in `old`, whose range was another one: those that this range does not have
    /// go to `retired`.
    fn inherit(mut self, mut old: Pool, mut retired: PortPool) -> Pool {
        for port in old.all_ports() {
            if old.give_back(port) && !self.ports.mark_used(port) {
                let free = retired.mark_used(port);
                debug_assert!(free, "the share of a worker does not depend on the range");
            }
        }
        self.retired = Some(retired).filter(|retired| retired.in_use() > 0);
        self
    }

    /// Marks the ports as used that are in use in `other`, as far as this range has them.
    fn avoid(&mut self, other: &Pool) {
        let mut ports = other.ports.clone();
        let mut retired = other.retired.clone();
        for port in other.all_ports() {
            let is_retired = |retired: &mut PortPool| retired.give_back(port);
            if ports.give_back(port) || retired.as_mut().is_some_and(is_retired) {
                // One that is used here already stays so.
                let _ = self.ports.mark_used(port);
            }
        }
    }
}

/// Every server by FULLNAT, with its service.
fn fullnat_servers(snapshot: &Snapshot) -> impl Iterator<Item = (&Service, &RealServer)> {
    let services = snapshot.services.values();
    let servers = services.flat_map(|service| {
        let servers = service.servers.iter();
        servers.map(move |server| (&**service, server))
    });
    servers.filter(|(_, server)| {
        let known = snapshot.servers[server.id.0 as usize].as_ref();
        known.is_some_and(|known| known.method == Method::FullNat)
    })
}

/// The pools of a service for one local address and server: one for each protocol that it may have.
fn keys<F: Ip>(
    service: &Service,
    local: &LocalAddress,
    server: IpAddr,
    server_port: u16,
) -> impl Iterator<Item = PoolKey<F::Address>> + use<F> {
    let ends = F::from_ip(local.address).zip(F::from_ip(server));
    let is_mark = service.key.is_mark();
    let of_service = service.key.protocol;
    let protocols = [TCP, UDP, SCTP]
        .into_iter()
        .filter(move |_| is_mark)
        .chain((!is_mark).then_some(of_service));
    ends.into_iter().flat_map(move |(local, server)| {
        protocols.clone().map(move |protocol| PoolKey {
            local,
            server,
            server_port,
            protocol,
        })
    })
}
