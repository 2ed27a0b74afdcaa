//! `fo`: the heaviest server takes all.

use crate::{Flow, RealServer, Scheduler};

/// Weighted failover. Of equals the first in the list is taken.
///
/// Source: Linux net/netfilter/ipvs/ip_vs_fo.c
#[derive(Debug)]
pub(crate) struct Failover;

impl Scheduler for Failover {
    fn pick(&mut self, _flow: &Flow, servers: &[RealServer]) -> Option<usize> {
        heaviest(servers, RealServer::is_usable)
    }

    fn servers_changed(&mut self, _servers: &[RealServer]) {}
}

/// The first of the heaviest servers among those that `eligible` accepts.
pub(crate) fn heaviest(servers: &[RealServer], eligible: fn(&RealServer) -> bool) -> Option<usize> {
    let mut best: Option<usize> = None;
    for (index, server) in servers.iter().enumerate() {
        // The weight is at hand, the load is behind a pointer.
        if best.is_none_or(|best| server.weight > servers[best].weight) && eligible(server) {
            best = Some(index);
        }
    }
    best
}
