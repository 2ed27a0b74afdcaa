//! `wlc`: the server with the fewest connections for its weight.

use crate::{Flow, RealServer, Scheduler};

/// Weighted least connection. Of equals the first in the list is taken.
///
/// Source: Linux net/netfilter/ipvs/ip_vs_wlc.c
#[derive(Debug)]
pub(crate) struct WeightedLeastConnection;

impl Scheduler for WeightedLeastConnection {
    fn pick(&mut self, _flow: &Flow, servers: &[RealServer]) -> Option<usize> {
        least_by_weight(servers, connection_overhead)
    }

    fn servers_changed(&mut self, _servers: &[RealServer]) {}
}

/// What the connections of a server cost it: an active one as much as 256 inactive ones.
pub(crate) fn connection_overhead(server: &RealServer) -> u64 {
    (u64::from(server.load.active()) << 8) + u64::from(server.load.inactive())
}

/// The first usable server whose `overhead` divided by its weight is least.
pub(crate) fn least_by_weight(
    servers: &[RealServer],
    overhead: fn(&RealServer) -> u64,
) -> Option<usize> {
    let mut least: Option<(usize, u64, u64)> = None;
    for (index, server) in servers
        .iter()
        .enumerate()
        .filter(|(_, server)| server.is_usable())
    {
        let (load, weight) = (overhead(server), u64::from(server.weight.0));
        // a/b > c/d is a·d > c·b without the division. No product overflows: an overhead has 41 bits, a weight 16.
        if least
            .is_none_or(|(_, least_load, least_weight)| least_load * weight > load * least_weight)
        {
            least = Some((index, load, weight));
        }
    }
    least.map(|(index, ..)| index)
}
