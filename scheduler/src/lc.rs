//! `lc`: the server with the fewest connections.

use crate::wlc::connection_overhead;
use crate::{Flow, RealServer, Scheduler};

/// Least connection. Weights do not matter, except zero; of equals the first in the list is taken.
///
/// Source: Linux net/netfilter/ipvs/ip_vs_lc.c
#[derive(Debug)]
pub(crate) struct LeastConnection;

impl Scheduler for LeastConnection {
    fn pick(&mut self, _flow: &Flow, servers: &[RealServer]) -> Option<usize> {
        servers
            .iter()
            .enumerate()
            .filter(|(_, server)| server.is_usable())
            .min_by_key(|(_, server)| connection_overhead(server))
            .map(|(index, _)| index)
    }

    fn servers_changed(&mut self, _servers: &[RealServer]) {}
}
