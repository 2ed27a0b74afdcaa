//! The defence against floods, as the kernel's IPVS has it: secure_tcp, drop_packet and drop_entry.
//!
//! ```text
//!   mode 0: never      1, 2: while the table is short of room (the kernel shows 2 meanwhile)      3: always
//!   once a second, and when a mode changes:  room in the table ─▶ Defence::update
//!        │ tcp_rules()       which table of TCP states holds
//!        │ drops_packet()    a packet would begin a connection: is it the one of many to be dropped?
//!        └ drops_entries     a 32nd of the worker's connections is looked at each second: half open or idle ones end
//! ```
//! Differs from IPVS: room is that for connections, not the machine's memory; each worker counts for itself; and the
//! table is looked at in order, so that every connection's turn comes each 32 s, where the kernel picks at random. It also
//! tries to end the template of a connection that it ends; here that has a turn of its own.
//!
//! Source: Linux net/netfilter/ipvs/ip_vs_ctl.c (`update_defense_level`), ip_vs_conn.c (`ip_vs_random_dropentry`),
//! include/net/ip_vs.h (`ip_vs_todrop`).

use super::family::Ip;
use super::newcomers::is_unanswered;
use super::services::Services;
use super::{Flows, settle};
use crate::snapshot::Ipvs;
use crate::stats::{WorkerStats, add};
use conntrack::{Entry, State, TableStatistics, TcpRules, Ticks, Timeouts};

/// The kernel's modes. 2 is 1 under another name: what it becomes while there is little room.
const ALWAYS: u8 = 3;
/// The share of the table that is short of room, where nothing else is configured: one in so many.
const SHORT_SHARE: u32 = 64;
/// A table is gone through once in so many seconds.
const ROUND_SECONDS: u32 = 32;
/// Ticks in a second.
const TICKS: u32 = Ticks::from_seconds(1).0;
/// Places of the table looked at in a tick, whatever its size. A table of more than three million takes longer than
/// [`ROUND_SECONDS`].
pub(super) const PLACES_PER_TICK: u32 = 1024;
/// An established connection, or one of UDP, may be ended after so long a silence.
const IDLE: Ticks = Ticks::from_seconds(60);
/// One that had more packets of its client is kept.
const FEW_PACKETS: u16 = 8;

/// How much room there is for connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Room {
    free: u32,
    threshold: u32,
}

impl Room {
    /// Of the fuller one of two tables.
    pub(super) fn of(tables: [&TableStatistics; 2], amemthresh: u32) -> Room {
        let [one, other] = tables.map(|table| Room::in_table(table, amemthresh));
        if one.free <= other.free { one } else { other }
    }

    fn in_table(table: &TableStatistics, amemthresh: u32) -> Room {
        let used = u32::try_from(table.entries).unwrap_or(u32::MAX);
        let threshold = match amemthresh {
            0 => (table.capacity / SHORT_SHARE).max(1),
            threshold => threshold,
        };
        Room {
            free: table.capacity.saturating_sub(used),
            threshold,
        }
    }

    fn is_short(self) -> bool {
        self.free < self.threshold
    }

    /// Of so many packets that would begin connections one is dropped: the fewer, the less room there is.
    fn drop_rate(self) -> u32 {
        self.threshold / (self.threshold - self.free)
    }
}

/// What holds at the moment, and the worker's counts.
#[derive(Debug, Default)]
pub(super) struct Defence {
    tcp_rules: TcpRules,
    /// Of so many packets that would begin connections one is dropped; 0: none.
    drop_rate: u32,
    /// How many more come before the next one is dropped.
    drop_counter: u32,
    drops_entries: bool,
    counts_packets: bool,
    /// By the packets that a connection had: how many more such connections come before one ends.
    entry_counters: [u8; FEW_PACKETS as usize + 1],
}

impl Defence {
    /// Takes the modes and the room of this second.
    pub(super) fn update(&mut self, ipvs: &Ipvs, room: Room) {
        let is_on = |mode| mode == ALWAYS || (mode != 0 && room.is_short());
        self.tcp_rules = if is_on(ipvs.secure_tcp) {
            TcpRules::Secure
        } else {
            TcpRules::Normal
        };
        self.drops_entries = is_on(ipvs.drop_entry);
        self.counts_packets = ipvs.drop_entry != 0;
        self.drop_rate = match ipvs.drop_packet {
            ALWAYS => ipvs.am_droprate,
            mode if is_on(mode) => {
                self.drop_counter = room.drop_rate();
                self.drop_counter
            }
            _ => 0,
        };
    }

    /// The table of TCP states that holds.
    #[inline]
    pub(super) fn tcp_rules(&self) -> TcpRules {
        self.tcp_rules
    }

    /// Whether connections must know how many packets their clients sent.
    #[inline]
    pub(super) fn counts_packets(&self) -> bool {
        self.counts_packets
    }

    /// Whether this packet, which would begin a connection, is the one to be dropped. Counts it.
    pub(super) fn drops_packet(&mut self) -> bool {
        if self.drop_rate == 0 {
            return false;
        }
        if self.drop_counter > 1 {
            self.drop_counter -= 1;
            return false;
        }
        self.drop_counter = self.drop_rate;
        true
    }

    /// Whether a connection ends before its time.
    fn drops_entry<F: Ip>(&mut self, entry: &Entry<F>, timeouts: &Timeouts, now: Ticks) -> bool {
        let state = entry.state();
        if entry.is_template() {
            // One that nothing confirmed, and on which no connection hangs.
            return state == State::None && entry.extension() == 0;
        }
        match state {
            state if is_unanswered(state) => true,
            State::Established | State::SctpEstablished | State::Udp => {
                let silent_since = Ticks(entry.expires_at().0.wrapping_sub(timeouts.of(state).0));
                silent_since.after(IDLE).has_passed(now) && self.counts_down(entry.packets())
            }
            _ => false,
        }
    }

    /// Of idle connections whose clients sent one packet every one ends, of those with two packets every second, and so
    /// on up to eight.
    fn counts_down(&mut self, packets: u16) -> bool {
        if packets == 0 || packets > FEW_PACKETS {
            return false;
        }
        let counter = &mut self.entry_counters[usize::from(packets)];
        if *counter > 1 {
            *counter -= 1;
            return false;
        }
        *counter = u8::try_from(packets).expect("eight at most");
        true
    }
}

/// Counts a client's packet, as far as the count matters: most packets of most connections write nothing.
#[inline]
pub(super) fn count_packet<F: Ip>(entry: &Entry<F>) {
    if entry.packets() <= FEW_PACKETS {
        entry.count_packet();
    }
}

impl<F: Ip> Flows<F> {
    /// Looks at the next places of the table, as many as are due in the ticks since `last`, and ends those of the
    /// worker's connections that the defence gives up.
    pub(super) fn drop_entries(
        &mut self,
        services: &Services,
        defence: &mut Defence,
        stats: &WorkerStats,
        timeouts: &Timeouts,
        (last, now): (Ticks, Ticks),
    ) {
        if !defence.drops_entries {
            return;
        }
        let ticks = now.0.wrapping_sub(last.0).min(TICKS);
        let per_tick = (self.table.places() / (ROUND_SECONDS * TICKS) + 1).min(PLACES_PER_TICK);
        for _ in 0..ticks.saturating_mul(per_tick).min(PLACES_PER_TICK) {
            let Some(id) = self.owner.next_place(&mut self.defence_hand) else {
                continue;
            };
            if !defence.drops_entry(self.table.entry(id), timeouts, now) {
                continue;
            }
            if let Some(state) = self.owner.remove(id) {
                let entry = self.table.entry(id);
                let shared = (&*self.calls, &*self.helpers);
                let ended = (id, entry);
                settle(&self.table, shared, &mut self.lips, services, ended, state);
                add(&stats.entries_dropped, 1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use conntrack::{Method, NewConnection, Owner, TEMPLATE, Table, TableConfig, V4};
    use std::net::Ipv4Addr;
    use std::sync::Arc;

    fn room(free: u32) -> Room {
        Room {
            free,
            threshold: 100,
        }
    }

    fn ipvs(drop_packet: u8) -> Ipvs {
        Ipvs {
            drop_packet,
            am_droprate: 4,
            ..Ipvs::default()
        }
    }

    /// Which of the next packets are dropped.
    fn dropped(defence: &mut Defence, count: usize) -> Vec<usize> {
        (0..count).filter(|_| defence.drops_packet()).collect()
    }

    #[test]
    fn the_first_packet_is_dropped_and_then_every_fourth_as_in_the_recording() {
        let mut defence = Defence::default();
        defence.update(&ipvs(3), room(1000));
        assert_eq!(dropped(&mut defence, 6), [0, 4]);
        // The count goes on over the seconds.
        defence.update(&ipvs(3), room(1000));
        assert_eq!(dropped(&mut defence, 13), [2, 6, 10]);
        // It stands still while nothing is dropped.
        defence.update(&ipvs(0), room(1000));
        assert_eq!(dropped(&mut defence, 8), [0; 0]);
        let every = Ipvs {
            am_droprate: 1,
            ..ipvs(3)
        };
        defence.update(&every, room(1000));
        assert_eq!(dropped(&mut defence, 4), [1, 2, 3]);
        let none = Ipvs {
            am_droprate: 0,
            ..ipvs(3)
        };
        defence.update(&none, room(0));
        assert_eq!(dropped(&mut defence, 4), [0; 0]);
    }

    #[test]
    fn by_itself_it_drops_the_more_the_less_room_there_is() {
        for mode in [1, 2] {
            let mut defence = Defence::default();
            for (free, expected) in [
                (1000, vec![]),
                (100, vec![]),
                (80, vec![4]),
                (50, vec![1, 3, 5]),
                (1, vec![0, 1, 2, 3, 4, 5]),
                (0, vec![0, 1, 2, 3, 4, 5]),
                (100, vec![]),
            ] {
                defence.update(&ipvs(mode), room(free));
                assert_eq!(dropped(&mut defence, 6), expected, "{free}");
            }
        }
    }

    #[test]
    fn modes_are_never_automatic_twice_and_always() {
        for (mode, expected) in [
            (0, [false, false]),
            (1, [false, true]),
            (2, [false, true]),
            (3, [true, true]),
        ] {
            for (free, expected) in [100, 99].into_iter().zip(expected) {
                let ipvs = Ipvs {
                    secure_tcp: mode,
                    drop_entry: mode,
                    ..Ipvs::default()
                };
                let mut defence = Defence::default();
                defence.update(&ipvs, room(free));
                assert_eq!(defence.drops_entries, expected, "{mode} {free}");
                let secure = defence.tcp_rules() == TcpRules::Secure;
                assert_eq!(secure, expected, "{mode} {free}");
                assert_eq!(defence.counts_packets(), mode != 0);
            }
        }
    }

    #[test]
    fn a_64th_of_the_table_is_short_unless_configured() {
        let table = TableStatistics {
            capacity: 6400,
            entries: 6301,
            ..TableStatistics::default()
        };
        let short = |amemthresh| Room::in_table(&table, amemthresh).is_short();
        assert_eq!([0, 99, 100].map(short), [true, false, true]);
    }

    /// Whether the defence ends an entry that begins like this, after `silence`.
    fn is_given_up(state: State, flags: u16, holds: u32, silence: Ticks) -> bool {
        let table = Table::<V4>::new(&TableConfig {
            capacity: 16,
            half_open_percent: 100,
            workers: 1,
            seeds: [1, 2, 3, 4],
        })
        .unwrap();
        let mut owner = Owner::new(Arc::clone(&table), 0);
        let (now, timeouts) = (Ticks(1000), Timeouts::default());
        let end = (Ipv4Addr::LOCALHOST, 80);
        let new = NewConnection {
            protocol: 6,
            client: end,
            virtual_server: end,
            real_server: end,
            local: None,
            method: Method::Dr,
            server: 0,
            control: None,
            state,
            timeout: timeouts.of(state),
            ip_delta: 0,
            l4_delta: 0,
            reply_neighbour: 0,
            route_generation: 0,
            flags,
        };
        let id = owner.insert(&new, now).unwrap();
        let entry = table.entry(id);
        (0..holds).for_each(|_| entry.hold());
        count_packet(entry);
        Defence::default().drops_entry(entry, &timeouts, now.after(silence))
    }

    #[test]
    fn half_open_ones_idle_ones_and_templates_that_nothing_confirmed_are_given_up() {
        let minute = Ticks::from_seconds(60);
        let short = Ticks(minute.0 - 1);
        for &state in State::ALL {
            let at_once = matches!(
                state,
                State::SynRecv | State::SynAck | State::SctpInit1 | State::SctpInit
            );
            let idle = matches!(
                state,
                State::Established | State::SctpEstablished | State::Udp
            );
            if state != State::Dead {
                assert_eq!(is_given_up(state, 0, 0, short), at_once, "{state:?}");
                let later = is_given_up(state, 0, 0, minute);
                assert_eq!(later, at_once || idle, "{state:?}");
            }
        }
        assert!(is_given_up(State::None, TEMPLATE, 0, Ticks(0)));
        assert!(!is_given_up(State::None, TEMPLATE, 1, minute));
        assert!(!is_given_up(State::Assured, TEMPLATE, 0, minute));
    }

    #[test]
    fn idle_connections_end_the_rarer_the_more_packets_they_had() {
        let mut defence = Defence::default();
        for (packets, expected) in [
            (0, vec![]),
            (1, (0..8).collect()),
            (2, vec![0, 2, 4, 6]),
            (3, vec![0, 3, 6]),
            (8, vec![0]),
            (9, vec![]),
            (u16::MAX, vec![]),
        ] {
            let ended: Vec<usize> = (0..8).filter(|_| defence.counts_down(packets)).collect();
            assert_eq!(ended, expected, "{packets}");
        }
    }
}
