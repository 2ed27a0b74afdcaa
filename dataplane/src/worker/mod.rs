//! A worker: one thread, one queue pair of every port, run to completion.
//!
//! ```text
//!   run_once ─▶ adopt a newer snapshot, if there is one
//!            ─▶ for each port: receive a burst ─▶ stage (burst.rs) ─▶ decide (connection.rs, new_flow.rs, icmp.rs, local.rs)
//!                                                                        └─▶ Egress (egress.rs): forward, wait, reply, drop
//!            ─▶ quiescent ─▶ timers, at most once a tick: waiting packets, neighbours, announcements
//! ```
//! A worker shares with the others only the connection tables, the neighbour table and the servers' load. Nothing it
//! does waits for anybody.

mod announce;
mod asked;
mod burst;
mod connection;
mod cut;
mod defence;
mod egress;
mod expected;
mod explain;
mod family;
mod fragments;
mod helped;
mod hops;
mod icmp;
mod lips;
mod local;
mod lookup;
mod new_flow;
mod newcomers;
mod onward;
mod persistence;
mod run;
mod services;
mod sip;
mod steady;
mod sweep;
mod takeover;
mod tap;
#[cfg(test)]
mod tests;
mod transition;
mod tunnel_errors;
mod upkeep;
mod waiting;

pub use explain::{Prospect, Question, prospect, server_port};
pub use lookup::FoundBy;
pub use run::{Idle, ticks_since};
pub use takeover::{Burden, TakenOver, file_words};

use crate::calls::Calls;
use crate::helper::Records;
use crate::neighbour::NeighbourTable;
use crate::port::{Burst, Port};
use crate::snapshot::{Ipvs, Publisher, Snapshot};
use crate::stats::{WorkerStats, add};
use conntrack::{
    ConnectionId, Direction, Entry, Expiry, Owner, State, Table, Ticks, Tuple, V4, V6,
};
use defence::Room;
use egress::Egress;
use family::Ip;
use fragments::Fragments;
use lips::LipPools;
use newcomers::Newcomers;
use scheduler::RealServerId;
use services::Services;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Connections whose timers may fire between two bursts.
const TIMER_BUDGET: usize = 64;
/// Ticks in a second.
const SECOND: u32 = Ticks::from_seconds(1).0;

/// The connection tables that all workers share.
#[derive(Clone, Debug)]
pub struct Tables {
    /// Connections of IPv4 clients.
    pub ipv4: Arc<Table<V4>>,
    /// Connections of IPv6 clients.
    pub ipv6: Arc<Table<V6>>,
    /// What helpers remember of connections of both.
    pub helpers: Arc<Records>,
    /// What their templates are about, where persistence looks into packets.
    pub calls: Arc<Calls>,
}

/// What a worker is made of.
#[derive(Debug)]
pub struct WorkerParts<P> {
    /// Its number, from 0.
    pub index: u16,
    /// How many workers there are.
    pub workers: u16,
    /// Its queue pair of each port, by [`PortId`](crate::port::PortId).
    pub ports: Vec<P>,
    /// Shared with the other workers.
    pub tables: Tables,
    /// Shared with the other workers.
    pub neighbours: Arc<NeighbourTable>,
    /// Where the snapshots come from.
    pub publisher: Arc<Publisher>,
    /// Its counters.
    pub stats: Arc<WorkerStats>,
}

/// The connections of one family, as one worker has them.
struct Flows<F: Ip> {
    table: Arc<Table<F>>,
    owner: Owner<F>,
    lips: LipPools<F>,
    helpers: Arc<Records>,
    fragments: Fragments<F>,
    calls: Arc<Calls>,
    newcomers: Newcomers<F>,
    /// The place of the table that `drop_entry` looked at last.
    defence_hand: u32,
    /// More timers were due than the last call had room for.
    timers_behind: bool,
    /// The same of what somebody beside the workers asks for.
    asked_behind: bool,
    /// Where the walk over connections of removed servers goes on, while there is one.
    sweep_at: Option<u32>,
}

/// See the module's text.
pub struct Worker<P: Port> {
    ipv4: Flows<V4>,
    ipv6: Flows<V6>,
    services: Services,
    egress: Egress<P>,
    publisher: Arc<Publisher>,
    last_tick: Ticks,
}

impl<P: Port> Worker<P> {
    /// A worker that has seen no snapshot yet.
    #[must_use]
    pub fn new(parts: WorkerParts<P>, now: Ticks) -> Worker<P> {
        let WorkerParts {
            index,
            workers,
            ports,
            tables,
            neighbours,
            publisher,
            stats,
        } = parts;
        Worker {
            ipv4: Flows::new(tables.ipv4.clone(), &tables, index, workers),
            ipv6: Flows::new(tables.ipv6.clone(), &tables, index, workers),
            services: Services::new(index),
            egress: Egress::new(index, ports, neighbours, stats, now),
            publisher,
            last_tick: now,
        }
    }

    /// One round: at most one burst of each port. Returns how many frames there were.
    ///
    /// `now` must not go back.
    pub fn run_once(&mut self, now: Ticks) -> usize {
        self.egress.now = now;
        if let Some(snapshot) = self.publisher.newer_than(self.egress.snapshot.version) {
            self.adopt(snapshot);
        }
        if let Some(newer) = self
            .publisher
            .captures()
            .newer_than(self.egress.captures_seen)
        {
            self.adopt_capture(newer);
        }
        if let Some(tap) = &mut self.egress.tap {
            tap.tell_time();
        }
        let mut frames = 0;
        for port in 0..self.egress.ports.len() {
            let mut burst = Burst::new();
            let count = self.egress.ports[port].receive(&mut burst);
            if count > 0 {
                frames += count;
                add(&self.egress.stats.verdicts.received, count as u64);
                add(&self.egress.stats.bursts, 1);
                match self.egress.tap {
                    None => self.handle(&mut burst),
                    Some(_) => self.handle_tapped(&mut burst),
                }
                let (services, egress) = (&mut self.services, &mut self.egress);
                self.ipv4.decide_newcomers(services, egress);
                self.ipv6.decide_newcomers(services, egress);
            }
        }
        let ticked = now != self.last_tick;
        if ticked {
            self.tick();
        }
        if ticked || self.ipv4.timers_behind || self.ipv6.timers_behind {
            self.ipv4.expire(&mut self.services, now);
            self.ipv6.expire(&mut self.services, now);
        }
        if ticked || self.is_asked() {
            self.ipv4.serve_asked(&self.services);
            self.ipv6.serve_asked(&self.services);
        }
        self.ipv4.sweep(&self.services);
        self.ipv6.sweep(&self.services);
        if frames > 0 || ticked {
            self.egress.flush();
        }
        self.ipv4.owner.quiescent();
        self.ipv6.owner.quiescent();
        frames
    }

    /// The ports, for whoever made them.
    pub fn ports_mut(&mut self) -> &mut [P] {
        &mut self.egress.ports
    }

    /// Takes a new snapshot over. Off the packet path; may allocate.
    fn adopt(&mut self, snapshot: Arc<Snapshot>) {
        let some_are_gone = self.services.adopt(&snapshot);
        let is_first = self.egress.snapshot.version == 0;
        if (some_are_gone || is_first) && snapshot.ipvs.expire_nodest_conn {
            self.ipv4.begin_sweep();
            self.ipv6.begin_sweep();
        }
        self.ipv4.lips.adopt(&snapshot);
        self.ipv6.lips.adopt(&snapshot);
        if is_first {
            self.ipv4.hold_ports();
            self.ipv6.hold_ports();
        }
        self.ipv4.fragments.adopt(&snapshot);
        self.ipv6.fragments.adopt(&snapshot);
        // What the modes go by is looked at once a second.
        let modes = |ipvs: &Ipvs| [ipvs.secure_tcp, ipvs.drop_packet, ipvs.drop_entry];
        let are_same = modes(&snapshot.ipvs) == modes(&self.egress.snapshot.ipvs);
        self.egress.adopt(snapshot);
        if !are_same {
            self.update_defence();
        }
        self.publisher.mark_seen(
            usize::from(self.egress.worker),
            self.egress.snapshot.version,
        );
    }

    /// What is due with time, once a tick at most.
    fn tick(&mut self) {
        let now = self.egress.now;
        self.egress.stats.ticked.store(now.0, Relaxed);
        let second = now.0 / SECOND;
        let passed = second.wrapping_sub(self.last_tick.0 / SECOND);
        if passed > 0 {
            self.services.tick(passed);
            self.egress.refill_icmp();
            self.egress.tell_losses();
            self.update_defence();
            let (all, used) = [self.ipv4.lips.usage(), self.ipv6.lips.usage()]
                .into_iter()
                .fold((0, 0), |(all, used), (more, more_used)| {
                    (all + more, used + more_used)
                });
            self.egress.stats.lip_ports.store(all, Relaxed);
            self.egress.stats.lip_ports_in_use.store(used, Relaxed);
        }
        self.egress.tick(self.last_tick);
        self.ipv4.fragments.tick(&self.egress);
        self.ipv6.fragments.tick(&self.egress);
        self.drop_entries();
        self.last_tick = now;
    }

    /// What the defence does until the next second.
    fn update_defence(&mut self) {
        let tables = [&self.ipv4.table.statistics(), &self.ipv6.table.statistics()];
        let ipvs = &self.egress.snapshot.ipvs;
        let room = Room::of(tables, ipvs.amemthresh);
        self.egress.defence.update(ipvs, room);
    }

    /// The defence's way through the tables since the last tick.
    fn drop_entries(&mut self) {
        let Egress {
            defence,
            stats,
            snapshot,
            now,
            ..
        } = &mut self.egress;
        let span = (self.last_tick, *now);
        let (services, timeouts) = (&self.services, &snapshot.timeouts);
        self.ipv4
            .drop_entries(services, defence, stats, timeouts, span);
        self.ipv6
            .drop_entries(services, defence, stats, timeouts, span);
    }
}

impl<F: Ip> Flows<F> {
    fn new(table: Arc<Table<F>>, shared: &Tables, index: u16, workers: u16) -> Flows<F> {
        Flows {
            owner: Owner::new(Arc::clone(&table), index),
            lips: LipPools::new(index, workers),
            helpers: Arc::clone(&shared.helpers),
            fragments: Fragments::new(),
            calls: Arc::clone(&shared.calls),
            table,
            newcomers: Newcomers::new(),
            defence_hand: 0,
            timers_behind: false,
            asked_behind: false,
            sweep_at: None,
        }
    }

    /// The connection that a packet with `tuple` belongs to. Templates stand under keys of client port 0.
    fn connection_of(&self, tuple: &Tuple<F>) -> Option<(ConnectionId, Direction)> {
        let found = self.table.lookup(tuple);
        found.filter(|(id, _)| !self.table.entry(*id).is_template())
    }

    /// Ends connections whose time is over, a bounded number of them.
    fn expire(&mut self, services: &mut Services, now: Ticks) {
        let (table, lips) = (&self.table, &mut self.lips);
        let (calls, helpers) = (&*self.calls, &*self.helpers);
        let mut on_expiry = |id: ConnectionId, entry: &Entry<F>| {
            if let Some(again) = persistence::renewal(entry) {
                return Expiry::Renew(again);
            }
            if helped::is_held(helpers, id, entry) {
                return Expiry::Renew(helped::HELD);
            }
            if let Some(state) = table.end(entry) {
                settle(table, (calls, helpers), lips, services, (id, entry), state);
            }
            Expiry::Remove
        };
        let fired = self.owner.advance_timers(now, TIMER_BUDGET, &mut on_expiry);
        self.timers_behind = fired >= TIMER_BUDGET;
    }
}

/// Gives back and counts off what a connection had, once it has ended in `state`.
fn settle<F: Ip>(
    table: &Table<F>,
    records: (&Calls, &Records),
    lips: &mut LipPools<F>,
    services: &Services,
    (id, entry): (ConnectionId, &Entry<F>),
    state: State,
) {
    let server = RealServerId(entry.server());
    if entry.is_template() {
        services.template_ended(server);
    } else {
        services.connection_ended(server, state);
    }
    give_back(table, records, lips, (id, entry));
}

/// Gives back what a connection or a template had that has ended, and leaves it counted.
fn give_back<F: Ip>(
    table: &Table<F>,
    (calls, helpers): (&Calls, &Records),
    lips: &mut LipPools<F>,
    (id, entry): (ConnectionId, &Entry<F>),
) {
    if entry.is_template() {
        return calls.give_back(entry.template_record());
    }
    lips.give_back(entry);
    helped::let_go(helpers, table, id, entry);
    let control = entry.control().and_then(|id| table.get(id));
    if let Some(control) = control.filter(|control| control.is_template()) {
        control.release();
    }
}
