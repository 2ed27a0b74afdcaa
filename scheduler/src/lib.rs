//! Which real server gets a new flow.
//!
//! One algorithm per file, one registry line each. No I/O, no `unsafe`, no clock: a scheduler sees a flow and the
//! servers of its service, and names one of them. [`create`] makes one by its IPVS name; [`NAMES`] lists them.
//!
//! | name | a new flow goes to |
//! |---|---|
//! | `rr`, `wrr` | the next server in turn, by weight with `wrr` |
//! | `lc`, `wlc` | the server with the fewest connections, relative to its weight with `wlc` |
//! | `sed`, `nq` | the shortest expected delay; with `nq` an idle server first |
//! | `fo`, `ovf` | the heaviest server; with `ovf` until it has as many connections as its weight |
//! | `sh`, `mh`, `dh` | a hash of the client's (`sh`, `mh`) or the destination's (`dh`) address |
//! | `lblc`, `lblcr` | the server (`lblcr`: one of the servers) that the destination had before |
//! | `twos` | the less loaded of two servers drawn at random |
//! | `maglev` | a consistent hash of the whole flow; uvs's own |
//!
//! Each of the kernel's decides as the kernel's does, packet for packet; the sequences in `tests/golden` were recorded
//! from one. With several workers each has its own scheduler for a service, and all share the servers' [`Load`].
//!
//! # Slow start
//!
//! With [`Options::slow_start`] a server that joins gets its share of new flows over so many seconds: after a part of
//! them, the same part of its weight, in 10 steps with `rr`, `wrr` and `maglev` and in 100 with `lc`, `wlc`, `sed` and
//! `twos`. So a server whose caches are cold is not given, by `wlc`, every new flow until it has as many as the others.
//! The weights of a ramp are worked out in [`Scheduler::tick`] and [`Scheduler::servers_changed`] and given to the
//! scheduler as if they were the servers'; while a server ramps `rr` decides as `wrr` and `lc` as `wlc`, to which all
//! other servers weigh the same. While no server ramps every decision is the kernel's. Schedulers to which a weight is
//! not a share of flows have no slow start; [`has_slow_start`] tells.
//!
//! # Adding a scheduler
//!
//! 1. A file `src/name.rs` with a type that implements [`Scheduler`]. `pick` may read weights and loads of all servers
//!    once; what can be worked out beforehand is worked out in `servers_changed`, which may allocate.
//! 2. A line in the registry in `src/registry.rs`, and the `mod` line here. The property tests take it from the registry.
//! 3. If its weights are shares of flows, a line in `RAMPS` in `src/slow_start.rs`.
//! 4. If the kernel has it, a recording in `tests/golden`.
//!
//! A program that embeds the director adds one of its own without touching this crate: [`register`], and
//! `control/examples/scheduler.rs`.

#![forbid(unsafe_code)]

mod change;
mod destinations;
mod dh;
mod fo;
mod foresight;
mod hash;
mod lblc;
mod lblcr;
mod lc;
mod maglev;
mod mh;
mod moved;
mod nq;
mod ovf;
mod registry;
mod roster;
mod rr;
mod sed;
mod sh;
mod slow_start;
mod twos;
mod wlc;
mod wrr;

pub use foresight::{Foresight, foresee};
pub use maglev::maglev_table;
pub use moved::share_moved;
pub use registry::{
    ADDED_MAX, Make, NAMES, Options, RegisterError, SchedulerError, create, names, register,
};
pub use slow_start::has_slow_start;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, Ordering::Relaxed};

/// Names a real server for as long as any connection refers to it. Dense, so that it can index arrays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RealServerId(pub u32);

/// A server's share, 0 to 65535. Zero means: no new flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Weight(pub u16);

/// How busy a server is: shared by all workers, changed only when a connection is made, changes its activity or ends.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Load {
    active: AtomicU32,
    inactive: AtomicU32,
    persistent: AtomicU32,
    overloaded: AtomicBool,
    upper: AtomicU32,
    lower: AtomicU32,
    last_weight: AtomicU16,
}

impl Load {
    /// Connections that count as active (ActiveConn).
    #[must_use]
    pub fn active(&self) -> u32 {
        self.active.load(Relaxed)
    }

    /// Connections that count as inactive (InActConn).
    #[must_use]
    pub fn inactive(&self) -> u32 {
        self.inactive.load(Relaxed)
    }

    /// Persistence templates that point at the server.
    #[must_use]
    pub fn persistent(&self) -> u32 {
        self.persistent.load(Relaxed)
    }

    /// Whether the upper connection threshold was reached and the lower not yet left.
    #[must_use]
    pub fn overloaded(&self) -> bool {
        self.overloaded.load(Relaxed)
    }

    /// Sets or clears the overloaded mark.
    pub fn set_overloaded(&self, overloaded: bool) {
        self.overloaded.store(overloaded, Relaxed);
    }

    /// Limits the connections, active and inactive together: from `upper` on the server is overloaded, until there are
    /// fewer than `lower`, or than three quarters of `upper` where `lower` is 0. With an `upper` of 0 there is no limit.
    /// A limit that was raised or lifted clears the mark.
    ///
    /// Source: Linux net/netfilter/ipvs/ip_vs_ctl.c (`__ip_vs_update_dest`).
    pub fn set_thresholds(&self, upper: u32, lower: u32) {
        let before = self.upper.swap(upper, Relaxed);
        self.lower.store(lower, Relaxed);
        if upper == 0 || upper > before {
            self.set_overloaded(false);
        }
    }

    /// The last weight above zero that the server had since it was added; zero if there was none. `mh` goes by it.
    #[must_use]
    pub fn last_weight(&self) -> Weight {
        Weight(self.last_weight.load(Relaxed))
    }

    /// Sets the last weight above zero, or zero for a server that is added anew.
    ///
    /// Source: Linux net/netfilter/ipvs/ip_vs_ctl.c (`__ip_vs_update_dest`).
    pub fn set_last_weight(&self, weight: Weight) {
        self.last_weight.store(weight.0, Relaxed);
    }

    /// Counts a connection that begins (`from` is `None`), ends (`to` is `None`) or changes its activity, and holds the
    /// number of connections against the thresholds where it changed.
    pub fn shift(&self, from: Option<Activity>, to: Option<Activity>) {
        if from == to {
            return;
        }
        if let Some(counter) = to.map(|activity| self.counter(activity)) {
            counter.fetch_add(1, Relaxed);
        }
        if let Some(counter) = from.map(|activity| self.counter(activity)) {
            counter.fetch_sub(1, Relaxed);
        }
        match (from, to) {
            (None, _) => self.connection_began(),
            (_, None) => self.connection_ended(),
            _ => {}
        }
    }

    /// Source: Linux net/netfilter/ipvs/ip_vs_conn.c (`ip_vs_bind_dest`).
    fn connection_began(&self) {
        let upper = self.upper.load(Relaxed);
        if upper != 0 && self.connections() >= u64::from(upper) {
            self.set_overloaded(true);
        }
    }

    /// Source: Linux net/netfilter/ipvs/ip_vs_conn.c (`ip_vs_unbind_dest`).
    fn connection_ended(&self) {
        if !self.overloaded() {
            return;
        }
        let upper = u64::from(self.upper.load(Relaxed));
        let lower = u64::from(self.lower.load(Relaxed));
        let is_relieved = match (lower, upper) {
            (0, 0) => true,
            (0, upper) => self.connections() * 4 < upper * 3,
            (lower, _) => self.connections() < lower,
        };
        if is_relieved {
            self.set_overloaded(false);
        }
    }

    /// Counts connections that were there before it: a director's that begins anew knows them.
    pub fn add(&self, activity: Activity, count: u32) {
        self.counter(activity).fetch_add(count, Relaxed);
    }

    fn connections(&self) -> u64 {
        u64::from(self.active()) + u64::from(self.inactive())
    }

    fn counter(&self, activity: Activity) -> &AtomicU32 {
        match activity {
            Activity::Active => &self.active,
            Activity::Inactive => &self.inactive,
            Activity::Persistent => &self.persistent,
        }
    }
}

/// Under which of a server's counts a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// ActiveConn.
    Active,
    /// InActConn.
    Inactive,
    /// A persistence template.
    Persistent,
}

/// A real server as its service's scheduler sees it.
#[derive(Clone, Debug)]
pub struct RealServer {
    /// Its name in counters and connections.
    pub id: RealServerId,
    /// Its address (RIP).
    pub address: IpAddr,
    /// Its port, host byte order.
    pub port: u16,
    /// Its share of new flows.
    pub weight: Weight,
    /// How busy it is.
    pub load: Arc<Load>,
}

impl RealServer {
    /// Whether a new flow may go there: weight above zero and not overloaded.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.weight.0 > 0 && !self.load.overloaded()
    }
}

/// What a scheduler may know of a new flow. Addresses and ports as on the wire of the client's packet, host byte order.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    /// Client address (CIP).
    pub client: IpAddr,
    /// Client port.
    pub client_port: u16,
    /// Virtual address (VIP).
    pub virtual_address: IpAddr,
    /// Virtual port.
    pub virtual_port: u16,
    /// IP protocol number.
    pub protocol: u8,
}

/// A scheduling algorithm with its state for one service on one worker.
pub trait Scheduler: Send {
    /// The index in `servers` of the server for `flow`, or `None` where none is usable.
    ///
    /// `servers` is the list last given to [`servers_changed`](Self::servers_changed): newest first, as the kernel
    /// keeps it. Runs on the packet path: no allocation.
    fn pick(&mut self, flow: &Flow, servers: &[RealServer]) -> Option<usize>;

    /// Called after each change of the list or of a weight, and once at the start. May allocate.
    ///
    /// The call at the start gives the list that the scheduler is attached to: empty for a new service, which gets its
    /// servers by later calls, and the present list when a service in use changes its scheduler. It matters to `wrr`
    /// alone, which starts elsewhere in its round. A later call whose list is as before counts as an edit of a server.
    fn servers_changed(&mut self, servers: &[RealServer]);

    /// Takes other options over and forgets nothing; the list of servers stays. `slow_start` and `stagger` are as before.
    fn set_options(&mut self, options: &Options) {
        let _ = options;
    }

    /// Lets `seconds` pass, for schedulers that forget and for slow start. The worker calls it about once a second; the
    /// work is bounded. May allocate, when a server ramps.
    fn tick(&mut self, seconds: u32) {
        let _ = seconds;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(load: &Load, count: u32) {
        for _ in 0..count {
            load.shift(None, Some(Activity::Active));
        }
    }

    fn end(load: &Load) -> bool {
        load.shift(Some(Activity::Inactive), None);
        load.overloaded()
    }

    #[test]
    fn without_a_lower_threshold_three_quarters_of_the_upper_one_relieve() {
        let load = Load::default();
        load.set_thresholds(8, 0);
        begin(&load, 7);
        assert!(!load.overloaded());
        begin(&load, 1);
        assert!(load.overloaded());
        for _ in 0..8 {
            load.shift(Some(Activity::Active), Some(Activity::Inactive));
        }
        assert!(load.overloaded(), "inactive connections count");
        assert_eq!([end(&load), end(&load), end(&load)], [true, true, false]);
    }

    #[test]
    fn a_lower_threshold_relieves_below_itself() {
        let load = Load::default();
        load.set_thresholds(4, 2);
        begin(&load, 4);
        for _ in 0..4 {
            load.shift(Some(Activity::Active), Some(Activity::Inactive));
        }
        assert_eq!([end(&load), end(&load), end(&load)], [true, true, false]);
    }

    #[test]
    fn a_raised_or_lifted_limit_holds_at_once_and_a_lowered_one_with_the_next_connection() {
        let load = Load::default();
        load.set_thresholds(2, 0);
        begin(&load, 2);
        load.set_thresholds(1, 0);
        assert!(load.overloaded());
        load.set_thresholds(3, 0);
        assert!(!load.overloaded());
        load.set_thresholds(1, 0);
        assert!(!load.overloaded());
        begin(&load, 1);
        assert!(load.overloaded());
        load.set_thresholds(0, 0);
        assert!(!load.overloaded());
        begin(&load, 100);
        assert!(!load.overloaded());
    }

    #[test]
    fn templates_do_not_count_towards_the_thresholds() {
        let load = Load::default();
        load.set_thresholds(1, 0);
        load.shift(None, Some(Activity::Persistent));
        assert!(!load.overloaded());
        assert_eq!(load.persistent(), 1);
    }
}
