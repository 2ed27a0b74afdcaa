//! With `expire_nodest_conn`, the removal of a server ends the connections of all servers that are gone. Each worker
//! walks over its own, templates among them, some entries a round.
//!
//! Source: Linux net/netfilter/ipvs/ip_vs_conn.c (`ip_vs_expire_nodest_conn_flush`).

use super::family::Ip;
use super::services::Services;
use super::{Flows, Worker, settle};
use crate::port::Port;
use conntrack::{ConnectionId, Entry};
use scheduler::RealServerId;

/// Entries looked at between two bursts.
pub(super) const SWEEP_BUDGET: u32 = 512;

impl<P: Port> Worker<P> {
    /// Whether there is a walk to go on with.
    pub(super) fn is_sweeping(&self) -> bool {
        self.ipv4.sweep_at.is_some() || self.ipv6.sweep_at.is_some()
    }
}

impl<F: Ip> Flows<F> {
    /// Begins a walk; one that is under way begins again.
    pub(super) fn begin_sweep(&mut self) {
        self.sweep_at = Some(0);
    }

    /// Goes on with the walk. A server counts as gone if it is so when its connection's turn comes: one that was added
    /// again in the meantime keeps what is left, and what is new.
    pub(super) fn sweep(&mut self, services: &Services) {
        let Some(from) = self.sweep_at else {
            return;
        };
        let (table, lips) = (&self.table, &mut self.lips);
        let (calls, helpers) = (&*self.calls, &*self.helpers);
        let mut on_visit = |id: ConnectionId, entry: &Entry<F>| {
            let server = RealServerId(entry.server());
            if services.is_present(server) {
                return false;
            }
            if let Some(state) = table.end(entry) {
                settle(table, (calls, helpers), lips, services, (id, entry), state);
            }
            true
        };
        self.sweep_at = self.owner.walk(from, SWEEP_BUDGET, &mut on_visit);
    }
}
