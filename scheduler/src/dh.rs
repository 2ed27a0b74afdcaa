//! `dh`: the destination's address decides.

use crate::hash::{fold, to_byte};
use crate::{Flow, RealServer, Scheduler};

/// Destination hashing, for services by firewall mark in front of caches: a table of 256 slots that the servers fill in
/// turn. Weights do not matter, except zero. A server that is not usable refuses its destinations.
///
/// Source: Linux net/netfilter/ipvs/ip_vs_dh.c
#[derive(Debug, Default)]
pub(crate) struct DestinationHash {
    /// Indices of servers; empty when there are none.
    slots: Vec<usize>,
}

impl Scheduler for DestinationHash {
    fn pick(&mut self, flow: &Flow, servers: &[RealServer]) -> Option<usize> {
        let slot = to_byte(fold(flow.virtual_address));
        let index = *self.slots.get(usize::from(slot))?;
        servers.get(index)?.is_usable().then_some(index)
    }

    fn servers_changed(&mut self, servers: &[RealServer]) {
        self.slots.clear();
        self.slots.extend((0..servers.len()).cycle().take(256));
    }
}
