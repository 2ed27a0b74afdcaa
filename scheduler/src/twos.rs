//! `twos`: two servers drawn at random, and of them the less loaded.

use crate::hash::{mix, scale};
use crate::wlc::connection_overhead;
use crate::{Flow, RealServer, Scheduler};

/// Power of two choices. Two servers are drawn, each with chances by weight among all usable ones, so both draws may
/// name the same. Of the two the one with the lower overhead for its weight gets the flow, where an active connection
/// counts 256 and an inactive one 1, as in `wlc`, and the new flow does not count. Of equals the first drawn is taken.
///
/// The kernel (5.12 on) draws from 0 to the sum of weights, both included, and a server has all numbers up to its part
/// of the running sum; so the first usable server of the list has one chance more than its weight.
///
/// Differs from IPVS: the random numbers are a fixed sequence, another for each worker, so that a run can be repeated.
///
/// Source: Linux net/netfilter/ipvs/ip_vs_twos.c
#[derive(Debug)]
pub(crate) struct TwoChoices {
    state: u64,
}

impl TwoChoices {
    pub(crate) fn new(stagger: usize) -> Self {
        Self {
            state: mix(stagger as u64),
        }
    }

    /// A number from 0 to `last`.
    fn draw(&mut self, last: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        scale(mix(self.state), last + 1)
    }
}

impl Scheduler for TwoChoices {
    fn pick(&mut self, _flow: &Flow, servers: &[RealServer]) -> Option<usize> {
        let usable = || {
            servers
                .iter()
                .enumerate()
                .filter(|(_, server)| server.is_usable())
        };
        let total = usable().map(|(_, server)| u64::from(server.weight.0)).sum();
        let draws = [self.draw(total), self.draw(total)];
        let mut sum = 0;
        let mut drawn = [None; 2];
        let mut last = None;
        for (index, server) in usable() {
            sum += u64::from(server.weight.0);
            for (server, _) in drawn
                .iter_mut()
                .zip(draws)
                .filter(|(server, draw)| server.is_none() && *draw <= sum)
            {
                *server = Some(index);
            }
            last = Some(index);
            if drawn.iter().all(Option::is_some) {
                break;
            }
        }
        // Another worker may have marked a server overloaded meanwhile, and the sum end short of a draw.
        let [first, second] = drawn.map(|drawn| drawn.or(last));
        let (first, second) = (first?, second?);
        // a/b < c/d is a·d < c·b without the division. No product overflows: an overhead has 41 bits, a weight 16.
        let cost = |one: usize, other: usize| {
            connection_overhead(&servers[one]) * u64::from(servers[other].weight.0)
        };
        Some(if cost(second, first) < cost(first, second) {
            second
        } else {
            first
        })
    }

    fn servers_changed(&mut self, _servers: &[RealServer]) {}
}
