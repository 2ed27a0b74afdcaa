//! `sh`: the client's address decides.

use crate::hash::{client_port, fold, to_byte};
use crate::{Flow, Options, RealServer, Scheduler};
use std::iter::repeat_n;

/// Source hashing, over a table of 256 slots that the servers fill in list order, as many in a row as their weight.
///
/// A server that is not usable refuses its clients, unless `sh-fallback` is set: then other slots are tried, so that
/// only its own clients move. A server of weight zero keeps one slot.
///
/// Source: Linux net/netfilter/ipvs/ip_vs_sh.c
#[derive(Debug)]
pub(crate) struct SourceHash {
    /// Indices of servers; empty when there are none.
    slots: Vec<usize>,
    port: bool,
    fallback: bool,
}

impl SourceHash {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            slots: Vec::with_capacity(256),
            port: options.sh_port,
            fallback: options.sh_fallback,
        }
    }

    /// The server in that slot, and whether it is usable.
    fn at(&self, slot: u8, servers: &[RealServer]) -> Option<(usize, bool)> {
        let index = *self.slots.get(usize::from(slot))?;
        Some((index, servers.get(index)?.is_usable()))
    }
}

impl Scheduler for SourceHash {
    fn pick(&mut self, flow: &Flow, servers: &[RealServer]) -> Option<usize> {
        let port = if self.port { client_port(flow) } else { 0 };
        let hash = to_byte(fold(flow.client).wrapping_add(u32::from(port)));
        let (index, usable) = self.at(hash, servers)?;
        if usable {
            return Some(index);
        }
        if !self.fallback {
            return None;
        }
        // The kernel's order: begin at twice the hash, since the offset is the first slot and is added to it.
        (0..=u8::MAX).find_map(|offset| {
            let slot = offset.wrapping_add(hash).wrapping_add(hash);
            self.at(slot, servers)
                .filter(|&(_, usable)| usable)
                .map(|(index, _)| index)
        })
    }

    fn servers_changed(&mut self, servers: &[RealServer]) {
        let runs = servers
            .iter()
            .enumerate()
            .flat_map(|(index, server)| repeat_n(index, usize::from(server.weight.0.max(1))));
        self.slots.clear();
        self.slots.extend(runs.cycle().take(256));
    }

    fn set_options(&mut self, options: &Options) {
        (self.port, self.fallback) = (options.sh_port, options.sh_fallback);
    }
}
