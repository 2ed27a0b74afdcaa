//! `rr`: the next usable server in turn.

use crate::change::Roll;
use crate::{Flow, RealServer, Scheduler};

/// Round robin. Weights do not matter, except zero.
///
/// Source: Linux net/netfilter/ipvs/ip_vs_rr.c
#[derive(Debug)]
pub(crate) struct RoundRobin {
    roll: Roll,
    /// The server that the last flow got. `None`: before the first of the list.
    last: Option<usize>,
    stagger: usize,
}

impl RoundRobin {
    /// Begins with the server number `stagger` of the list, counted round.
    pub(crate) fn new(stagger: usize) -> Self {
        Self {
            roll: Roll::default(),
            last: None,
            stagger,
        }
    }
}

impl Scheduler for RoundRobin {
    fn pick(&mut self, _flow: &Flow, servers: &[RealServer]) -> Option<usize> {
        let start = match self.last {
            Some(last) => last + 1,
            // Divides until a flow found a server, not for each flow.
            None => self.stagger.checked_rem(servers.len())?,
        };
        let (passed, ahead) = servers.split_at(start.min(servers.len()));
        let found = ahead
            .iter()
            .position(RealServer::is_usable)
            .map(|index| start + index)
            .or_else(|| passed.iter().position(RealServer::is_usable));
        // With no server found the place is kept.
        self.last = found.or(self.last);
        found
    }

    fn servers_changed(&mut self, servers: &[RealServer]) {
        let change = self.roll.update(servers);
        // Where the last server was deleted, the one before it in the list counts as the last.
        self.last = self
            .last
            .and_then(|last| change.moved[..=last].iter().rev().find_map(|&index| index));
    }
}
