//! `lblcr`: a destination keeps a set of servers, which grows while they are too busy.

use crate::destinations::{Destinations, USUAL};
use crate::lblc::is_congested;
use crate::roster::Roster;
use crate::wlc::{connection_overhead, least_by_weight};
use crate::{Flow, Options, RealServer, Scheduler};

/// Locality-based least connection with replication: as `lblc`, but a destination goes to the least loaded server of
/// its set. When that is congested while another server is half idle, the least loaded of all joins the set. A set
/// that has not changed for the set time, a day if nothing else is set, loses its most loaded server.
///
/// All sets together have room for four servers for each usual destination; when that is used up, no set grows.
///
/// Differs from IPVS: of the servers in a set those that were deleted count as idle in the search for the most loaded.
///
/// Source: Linux net/netfilter/ipvs/ip_vs_lblcr.c
pub(crate) struct ReplicatedLocalityLeastConnection {
    destinations: Destinations<Set>,
    members: Members,
}

/// The servers of a destination, newest member first.
#[derive(Clone, Copy)]
struct Set {
    first: u32,
    size: u32,
    /// When a server last joined or left.
    changed: u32,
}

/// All sets' members, in one pool.
struct Members {
    pool: Vec<Member>,
    limit: usize,
    /// The first of the members that left, chained.
    free: u32,
    roster: Roster,
}

#[derive(Clone, Copy)]
struct Member {
    /// In the roster.
    seat: u32,
    next: u32,
}

const NONE: u32 = u32::MAX;

impl ReplicatedLocalityLeastConnection {
    pub(crate) fn new(expiration_seconds: u32) -> Self {
        Self::with_room_for(USUAL, expiration_seconds)
    }

    fn with_room_for(usual: usize, expiration_seconds: u32) -> Self {
        Self {
            destinations: Destinations::new(usual, expiration_seconds),
            members: Members {
                pool: Vec::with_capacity(4 * usual),
                limit: 4 * usual,
                free: NONE,
                roster: Roster::default(),
            },
        }
    }

    /// The server for a destination that has a set.
    fn pick_from(&mut self, set: &mut Set, servers: &[RealServer]) -> Option<usize> {
        let now = self.destinations.now();
        let least = self.members.least_loaded(*set, servers);
        if set.size > 1
            && now.wrapping_sub(set.changed) > self.destinations.expiration_seconds()
            && let Some(most) = self.members.most_loaded(*set, servers)
        {
            self.members.remove(set, most, now);
        }
        if let Some(index) = least
            && !is_congested(&servers[index], servers)
        {
            return Some(index);
        }
        let index = least_by_weight(servers, connection_overhead)?;
        let seat = self.members.roster.seat(index);
        if self.members.seats(*set).all(|(_, member)| member != seat) {
            self.members.add(set, seat, now);
        }
        Some(index)
    }
}

impl Scheduler for ReplicatedLocalityLeastConnection {
    fn pick(&mut self, flow: &Flow, servers: &[RealServer]) -> Option<usize> {
        if let Some(entry) = self.destinations.find(flow.virtual_address) {
            let mut set = *self.destinations.value(entry);
            let picked = self.pick_from(&mut set, servers);
            *self.destinations.value(entry) = set;
            return picked;
        }
        let index = least_by_weight(servers, connection_overhead)?;
        if self.destinations.has_room() {
            let now = self.destinations.now();
            let mut set = Set {
                first: NONE,
                size: 0,
                changed: now,
            };
            let seat = self.members.roster.seat(index);
            self.members.add(&mut set, seat, now);
            self.destinations.insert(flow.virtual_address, set);
        }
        Some(index)
    }

    fn servers_changed(&mut self, servers: &[RealServer]) {
        self.members.roster.update(servers);
    }

    fn set_options(&mut self, options: &Options) {
        self.destinations.set_expiration(options.lblcr_expiration);
    }

    fn tick(&mut self, seconds: u32) {
        self.destinations
            .tick(seconds, |set| self.members.clear(set));
    }
}

impl Members {
    /// The members of a set: their places in the pool and their seats.
    fn seats(&self, set: Set) -> impl Iterator<Item = (u32, u32)> {
        let mut next = set.first;
        std::iter::from_fn(move || {
            let member = self.pool.get(next as usize)?;
            let place = std::mem::replace(&mut next, member.next);
            Some((place, member.seat))
        })
    }

    /// The index of the usable server of the set that is least loaded for its weight, the newest member of equals.
    fn least_loaded(&self, set: Set, servers: &[RealServer]) -> Option<usize> {
        let mut least: Option<(usize, u64, u64)> = None;
        for (_, seat) in self.seats(set) {
            let Some(index) = self
                .roster
                .index(seat)
                .filter(|&index| servers[index].is_usable())
            else {
                continue;
            };
            let (load, weight) = (
                connection_overhead(&servers[index]),
                u64::from(servers[index].weight.0),
            );
            if least.is_none_or(|(_, least_load, least_weight)| {
                least_load * weight > load * least_weight
            }) {
                least = Some((index, load, weight));
            }
        }
        least.map(|(index, ..)| index)
    }

    /// The place of the member that is most loaded for its weight, the newest of equals. Those of weight zero are not
    /// considered; overloaded ones are.
    fn most_loaded(&self, set: Set, servers: &[RealServer]) -> Option<u32> {
        let mut most: Option<(u32, u64, u64)> = None;
        for (place, seat) in self.seats(set) {
            let (load, weight) = match self.roster.index(seat) {
                Some(index) => (
                    connection_overhead(&servers[index]),
                    u64::from(servers[index].weight.0),
                ),
                None => (0, 1),
            };
            if weight > 0
                && most.is_none_or(|(_, most_load, most_weight)| {
                    most_load * weight < load * most_weight
                })
            {
                most = Some((place, load, weight));
            }
        }
        most.map(|(place, ..)| place)
    }

    /// Lets a server join a set, if there is room.
    fn add(&mut self, set: &mut Set, seat: u32, now: u32) {
        let member = Member {
            seat,
            next: set.first,
        };
        if self.free != NONE {
            set.first = self.free;
            self.free = self.pool[set.first as usize].next;
            self.pool[set.first as usize] = member;
        } else if self.pool.len() < self.limit {
            set.first = u32::try_from(self.pool.len()).expect("the limit has fewer bits");
            self.pool.push(member);
        } else {
            return;
        }
        set.size += 1;
        set.changed = now;
        self.roster.hold(seat);
    }

    /// Takes the member at `place` out of the set that it is in.
    fn remove(&mut self, set: &mut Set, place: u32, now: u32) {
        let next = self.pool[place as usize].next;
        if set.first == place {
            set.first = next;
        } else {
            let before = self
                .seats(*set)
                .map(|(place, _)| place)
                .find(|&other| self.pool[other as usize].next == place);
            self.pool[before.expect("the place is in the set") as usize].next = next;
        }
        set.size -= 1;
        set.changed = now;
        self.give_back(place);
    }

    /// Ends a set.
    fn clear(&mut self, set: Set) {
        let mut next = set.first;
        while next != NONE {
            let place = next;
            next = self.pool[place as usize].next;
            self.give_back(place);
        }
    }

    fn give_back(&mut self, place: u32) {
        let member = &mut self.pool[place as usize];
        member.next = std::mem::replace(&mut self.free, place);
        self.roster.release(member.seat);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::destinations::EXPIRATION_SECONDS;
    use crate::{Activity, Load, RealServerId, Weight};
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::Arc;

    fn servers(weights: &[u16]) -> Vec<RealServer> {
        (0..)
            .zip(weights)
            .map(|(id, &weight)| RealServer {
                id: RealServerId(id),
                address: IpAddr::V4(Ipv4Addr::from_bits(id)),
                port: 80,
                weight: Weight(weight),
                load: Arc::new(Load::default()),
            })
            .collect()
    }

    fn flow_to(destination: u32) -> Flow {
        Flow {
            client: IpAddr::V4(Ipv4Addr::LOCALHOST),
            client_port: 1,
            virtual_address: IpAddr::V4(Ipv4Addr::from_bits(destination)),
            virtual_port: 80,
            protocol: 6,
        }
    }

    fn open(scheduler: &mut dyn Scheduler, destination: u32, servers: &[RealServer]) -> usize {
        let index = scheduler.pick(&flow_to(destination), servers).unwrap();
        servers[index].load.shift(None, Some(Activity::Active));
        index
    }

    fn members(scheduler: &mut ReplicatedLocalityLeastConnection, destination: u32) -> Vec<u32> {
        let entry = scheduler
            .destinations
            .find(flow_to(destination).virtual_address)
            .unwrap();
        let set = *scheduler.destinations.value(entry);
        let members: Vec<u32> = scheduler.members.seats(set).map(|(_, seat)| seat).collect();
        assert_eq!(members.len(), set.size as usize);
        members
    }

    fn day_passes(scheduler: &mut ReplicatedLocalityLeastConnection, servers: &[RealServer]) {
        for _ in 0..24 * 60 + 1 {
            scheduler.tick(60);
            scheduler.pick(&flow_to(0), servers);
        }
    }

    #[test]
    fn a_congested_set_grows_by_the_least_loaded_server() {
        let servers = servers(&[1, 9]);
        let mut scheduler = ReplicatedLocalityLeastConnection::new(EXPIRATION_SECONDS);
        scheduler.servers_changed(&servers);
        let picked: Vec<usize> = (0..4).map(|_| open(&mut scheduler, 0, &servers)).collect();
        assert_eq!(picked, [0, 0, 1, 1]);
        assert_eq!(members(&mut scheduler, 0), [1, 0]);
    }

    #[test]
    fn a_set_unchanged_for_a_day_loses_its_most_loaded_server() {
        let servers = servers(&[1, 9]);
        let mut scheduler = ReplicatedLocalityLeastConnection::new(EXPIRATION_SECONDS);
        scheduler.servers_changed(&servers);
        for _ in 0..4 {
            open(&mut scheduler, 0, &servers);
        }
        day_passes(&mut scheduler, &servers);
        assert_eq!(members(&mut scheduler, 0), [1]);
        // A set of one stays.
        day_passes(&mut scheduler, &servers);
        assert_eq!(members(&mut scheduler, 0), [1]);
    }

    #[test]
    fn a_set_time_shorter_than_a_day_holds_too() {
        let servers = servers(&[1, 9]);
        let mut scheduler = ReplicatedLocalityLeastConnection::new(2);
        scheduler.servers_changed(&servers);
        for _ in 0..4 {
            open(&mut scheduler, 0, &servers);
        }
        scheduler.tick(2);
        open(&mut scheduler, 0, &servers);
        assert_eq!(members(&mut scheduler, 0), [1, 0]);
        scheduler.tick(1);
        open(&mut scheduler, 0, &servers);
        assert_eq!(members(&mut scheduler, 0), [1]);
    }

    #[test]
    fn with_a_set_time_of_2_seconds_it_chooses_as_recorded() {
        // A kernel's choices (6.1, lblcr_expiration = 2): server 0 has the weight 9 and all connections stay open. In
        // the set of both the last flow would go to server 1.
        let servers = servers(&[9, 1]);
        let mut scheduler = ReplicatedLocalityLeastConnection::new(2);
        scheduler.servers_changed(&servers);
        let mut picks = |count: usize| -> Vec<usize> {
            scheduler.tick(4);
            let pick = |_| {
                let index = scheduler.pick(&flow_to(0), &servers).unwrap();
                servers[index].load.shift(None, Some(Activity::Active));
                index
            };
            (0..count).map(pick).collect()
        };
        assert_eq!(picks(6), [0; 6]);
        assert_eq!(picks(8), [0, 0, 0, 0, 1, 1, 0, 0]);
        assert_eq!(picks(8), [0; 8]);
    }

    #[test]
    fn the_first_member_can_leave_and_its_room_is_used_again() {
        let servers = servers(&[1, 9, 9]);
        let mut scheduler = ReplicatedLocalityLeastConnection::new(EXPIRATION_SECONDS);
        scheduler.servers_changed(&servers);
        for _ in 0..3 {
            open(&mut scheduler, 0, &servers);
        }
        assert_eq!(members(&mut scheduler, 0), [1, 0]);
        for _ in 0..40 {
            servers[1].load.shift(None, Some(Activity::Active));
        }
        open(&mut scheduler, 0, &servers);
        scheduler.tick(EXPIRATION_SECONDS);
        scheduler.tick(1);
        let pool = scheduler.members.pool.len();
        open(&mut scheduler, 0, &servers);
        assert_eq!(scheduler.members.pool.len(), pool);
        assert!(!members(&mut scheduler, 0).contains(&1));
    }

    #[test]
    fn without_room_for_members_flows_are_scheduled_but_sets_do_not_grow() {
        let weights = [1; 12];
        let servers = servers(&weights);
        let mut scheduler = ReplicatedLocalityLeastConnection::with_room_for(2, EXPIRATION_SECONDS);
        scheduler.servers_changed(&servers);
        // Four destinations fit, with eight members in all.
        for round in 0..12 {
            for destination in 0..5 {
                // All of the set busy, some other server idle.
                for server in &servers {
                    server.load.shift(None, Some(Activity::Active));
                    server.load.shift(None, Some(Activity::Active));
                }
                let idle = &servers[(round * 5 + destination as usize) % 12].load;
                while idle.active() > 0 {
                    idle.shift(Some(Activity::Active), None);
                }
                assert!(scheduler.pick(&flow_to(destination), &servers).is_some());
            }
        }
        let total: usize = (0..4)
            .map(|destination| members(&mut scheduler, destination).len())
            .sum();
        assert_eq!(total, 8);
        assert_eq!(scheduler.members.pool.len(), 8);
        assert!(
            scheduler
                .destinations
                .find(flow_to(4).virtual_address)
                .is_none()
        );
    }

    #[test]
    fn a_forgotten_destination_gives_its_members_back() {
        let list = servers(&[1, 1]);
        let mut scheduler = ReplicatedLocalityLeastConnection::with_room_for(2, EXPIRATION_SECONDS);
        scheduler.servers_changed(&list);
        for destination in 0..4 {
            open(&mut scheduler, destination, &list);
        }
        for _ in 0..10 * 60 {
            scheduler.tick(1);
        }
        let pool = scheduler.members.pool.len();
        open(&mut scheduler, 9, &list);
        assert_eq!(scheduler.members.pool.len(), pool);
        assert_eq!(members(&mut scheduler, 9).len(), 1);
    }
}
