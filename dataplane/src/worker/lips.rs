//! One worker's share of the FULLNAT source ports: a pool for each local address and real server.

use super::family::Ip;
use crate::Map;
use crate::snapshot::{LocalAddress, Service, Snapshot};
use conntrack::{Entry, Method, PortPool};
use std::net::IpAddr;

/// Ports of a local address may be used once towards each real server: this is what tells replies apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct PoolKey<A> {
    local: A,
    server: A,
    server_port: u16,
    protocol: u8,
}

/// See the module's text.
pub(super) struct LipPools<F: Ip> {
    worker: u16,
    workers: u16,
    pools: Map<PoolKey<F::Address>, PortPool>,
}

impl<F: Ip> LipPools<F> {
    pub(super) fn new(worker: u16, workers: u16) -> LipPools<F> {
        LipPools {
            worker,
            workers,
            pools: Map::default(),
        }
    }

    /// Makes the pools that the snapshot's services want. One that is no longer wanted stays while ports are in use.
    pub(super) fn adopt(&mut self, snapshot: &Snapshot) {
        let mut old = std::mem::take(&mut self.pools);
        for service in snapshot.services.values() {
            for server in &service.servers {
                let method = snapshot.servers[server.id.0 as usize]
                    .as_ref()
                    .map(|server| server.method);
                if method != Some(Method::FullNat) {
                    continue;
                }
                for local in &service.local_addresses {
                    let Some(key) = key::<F>(service, local, server.address, server.port) else {
                        continue;
                    };
                    let pool = old.remove(&key).unwrap_or_else(|| {
                        PortPool::new(local.first_port, local.last_port, self.worker, self.workers)
                    });
                    self.pools.entry(key).or_insert(pool);
                }
            }
        }
        self.pools
            .extend(old.into_iter().filter(|(_, pool)| pool.in_use() > 0));
    }

    /// A source for a new connection to a server: local addresses in turn, beginning with the one at index `first`.
    pub(super) fn take(
        &mut self,
        service: &Service,
        first: usize,
        server: IpAddr,
        server_port: u16,
    ) -> Option<(F::Address, u16)> {
        let (before, after) = service.local_addresses.split_at_checked(first)?;
        after.iter().chain(before).find_map(|local| {
            let key = key::<F>(service, local, server, server_port)?;
            let port = self.pools.get_mut(&key)?.take()?;
            Some((key.local, port))
        })
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
        if let Some(pool) = self.pools.get_mut(&key) {
            pool.give_back(port);
        }
    }

    /// How many ports there are, and how many of them are in use.
    pub(super) fn usage(&self) -> (u64, u64) {
        self.pools.values().fold((0, 0), |(all, used), pool| {
            (
                all + u64::from(pool.capacity()),
                used + u64::from(pool.in_use()),
            )
        })
    }
}

fn key<F: Ip>(
    service: &Service,
    local: &LocalAddress,
    server: IpAddr,
    server_port: u16,
) -> Option<PoolKey<F::Address>> {
    Some(PoolKey {
        local: F::from_ip(local.address)?,
        server: F::from_ip(server)?,
        server_port,
        protocol: service.key.protocol,
    })
}
