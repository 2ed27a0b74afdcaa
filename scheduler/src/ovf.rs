//! `ovf`: the heaviest server until it is full, then the next.

use crate::fo::heaviest;
use crate::{Flow, RealServer, Scheduler};

/// Weighted overflow: the heaviest server whose active connections are not more than its weight. Of equals the first
/// in the list is taken. When all are full there is none.
///
/// Source: Linux net/netfilter/ipvs/ip_vs_ovf.c
#[derive(Debug)]
pub(crate) struct Overflow;

impl Scheduler for Overflow {
    fn pick(&mut self, _flow: &Flow, servers: &[RealServer]) -> Option<usize> {
        heaviest(servers, |server| {
            // A server may so have one connection more than its weight, as in the kernel.
            server.is_usable() && server.load.active() <= u32::from(server.weight.0)
        })
    }

    fn servers_changed(&mut self, _servers: &[RealServer]) {}
}
