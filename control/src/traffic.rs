//! What services and servers counted, also those that have left.

use crate::compile::ServerKey;
use crate::config::Listen;
use dataplane::stats::WorkerStats;
use scheduler::RealServerId;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Removed servers whose counts are kept in case they return, at most; of others, only their services' stay.
const PARTED: usize = 65_536;

/// What clients and a server exchanged, all workers together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Connections scheduled.
    pub connections: u64,
    /// Packets from clients.
    pub in_packets: u64,
    /// Bytes of IP packets from clients.
    pub in_bytes: u64,
    /// Packets to clients that passed through the director.
    pub out_packets: u64,
    /// Bytes of IP packets to clients that passed through the director.
    pub out_bytes: u64,
}

impl Traffic {
    /// Everything that was ever counted under an id, whoever had it.
    pub(crate) fn of(stats: &[Arc<WorkerStats>], id: RealServerId) -> Traffic {
        let get = |counter: &AtomicU64| counter.load(Relaxed);
        let servers = stats.iter().filter_map(|worker| worker.server(id));
        servers.fold(Traffic::default(), |sum, server| {
            sum.and(Traffic {
                connections: get(&server.connections),
                in_packets: get(&server.in_packets),
                in_bytes: get(&server.in_bytes),
                out_packets: get(&server.out_packets),
                out_bytes: get(&server.out_bytes),
            })
        })
    }

    /// Both together. Counters wrap.
    pub(crate) fn and(self, other: Traffic) -> Traffic {
        self.with(other, u64::wrapping_add)
    }

    /// Without what was counted `before`. Counters wrap.
    pub(crate) fn since(self, before: Traffic) -> Traffic {
        self.with(before, u64::wrapping_sub)
    }

    fn with(self, other: Traffic, join: fn(u64, u64) -> u64) -> Traffic {
        Traffic {
            connections: join(self.connections, other.connections),
            in_packets: join(self.in_packets, other.in_packets),
            in_bytes: join(self.in_bytes, other.in_bytes),
            out_packets: join(self.out_packets, other.out_packets),
            out_bytes: join(self.out_bytes, other.out_bytes),
        }
    }
}

/// What was counted by servers that have no number any more. A service counts from when it was added, whatever becomes of
/// its servers; a server that is put back goes on from where it was.
///
/// Source: Linux net/netfilter/ipvs/ip_vs_ctl.c (`ip_vs_trash_get_dest`), recorded. There, a removed server is remembered
/// for two minutes.
#[derive(Default)]
pub(crate) struct Ledger {
    services: HashMap<Listen, Traffic>,
    parted: HashMap<ServerKey, Traffic>,
}

impl Ledger {
    /// A service begins.
    pub(crate) fn open(&mut self, listen: Listen) {
        self.services.insert(listen, Traffic::default());
    }

    /// A service ends, and nothing of it is remembered.
    pub(crate) fn close(&mut self, listen: &Listen) {
        self.services.remove(listen);
        self.parted.retain(|(of, _), _| of != listen);
    }

    /// A server of a service loses its number.
    pub(crate) fn part(&mut self, key: ServerKey, counted: Traffic) {
        let Some(service) = self.services.get_mut(&key.0) else {
            return;
        };
        *service = service.and(counted);
        if self.parted.len() < PARTED {
            self.parted.insert(key, counted);
        }
    }

    /// What a server that gets a number counted before.
    pub(crate) fn rejoin(&mut self, key: &ServerKey) -> Traffic {
        let counted = self.parted.remove(key).unwrap_or_default();
        if let Some(service) = self.services.get_mut(&key.0) {
            *service = service.since(counted);
        }
        counted
    }

    /// What was counted for a service by servers without a number.
    pub(crate) fn of(&self, listen: &Listen) -> Traffic {
        self.services.get(listen).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Protocol;
    use std::net::SocketAddr;

    fn listen(port: u16) -> Listen {
        Listen::Address {
            protocol: Protocol::Tcp,
            address: SocketAddr::from(([10, 0, 0, 100], port)),
        }
    }

    fn server(number: u32) -> SocketAddr {
        SocketAddr::from((std::net::Ipv4Addr::from_bits(number), 80))
    }

    fn packets(in_packets: u64) -> Traffic {
        Traffic {
            in_packets,
            ..Traffic::default()
        }
    }

    #[test]
    fn a_server_that_returns_takes_its_counts_along_and_the_services_stay() {
        let mut ledger = Ledger::default();
        ledger.open(listen(80));
        let key = (listen(80), server(1));
        ledger.part(key, packets(7));
        assert_eq!(ledger.of(&listen(80)), packets(7));
        assert_eq!(ledger.rejoin(&key), packets(7));
        assert_eq!(ledger.of(&listen(80)), packets(0));
        ledger.part(key, packets(9));
        ledger.close(&listen(80));
        ledger.open(listen(80));
        assert_eq!(
            (ledger.rejoin(&key), ledger.of(&listen(80))),
            (packets(0), packets(0))
        );
    }

    #[test]
    fn beyond_the_limit_only_the_services_counts_stay() {
        let mut ledger = Ledger::default();
        ledger.open(listen(80));
        let numbers = 0..u32::try_from(PARTED).unwrap() + 1;
        for number in numbers.clone() {
            ledger.part((listen(80), server(number)), packets(1));
        }
        let all = packets(u64::from(numbers.end));
        assert_eq!(ledger.of(&listen(80)), all);
        assert_eq!(
            ledger.rejoin(&(listen(80), server(numbers.end - 1))),
            packets(0)
        );
        assert_eq!(ledger.of(&listen(80)), all);
        assert_eq!(ledger.rejoin(&(listen(80), server(0))), packets(1));
    }
}
