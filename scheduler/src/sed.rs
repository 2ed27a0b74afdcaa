//! `sed`: the server with the shortest expected delay.

use crate::wlc::least_by_weight;
use crate::{Flow, RealServer, Scheduler};

/// Shortest expected delay: fewest active connections for its weight, with the new one counted. Of equals the first in
/// the list is taken.
///
/// Source: Linux net/netfilter/ipvs/ip_vs_sed.c
#[derive(Debug)]
pub(crate) struct ShortestExpectedDelay;

impl Scheduler for ShortestExpectedDelay {
    fn pick(&mut self, _flow: &Flow, servers: &[RealServer]) -> Option<usize> {
        least_by_weight(servers, expected_overhead)
    }

    fn servers_changed(&mut self, _servers: &[RealServer]) {}
}

/// The active connections that the server would have.
pub(crate) fn expected_overhead(server: &RealServer) -> u64 {
    u64::from(server.load.active()) + 1
}
