//! `nq`: an idle server, or else the one with the shortest expected delay.

use crate::sed::expected_overhead;
use crate::wlc::least_by_weight;
use crate::{Flow, RealServer, Scheduler};

/// Never queue: the first usable server of the list without an active connection; when there is none, as `sed`.
///
/// Source: Linux net/netfilter/ipvs/ip_vs_nq.c
#[derive(Debug)]
pub(crate) struct NeverQueue;

impl Scheduler for NeverQueue {
    fn pick(&mut self, _flow: &Flow, servers: &[RealServer]) -> Option<usize> {
        servers
            .iter()
            .position(|server| server.is_usable() && server.load.active() == 0)
            .or_else(|| least_by_weight(servers, expected_overhead))
    }

    fn servers_changed(&mut self, _servers: &[RealServer]) {}
}
