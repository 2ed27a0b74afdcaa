//! `lblcr`: a destination keeps a set of servers, which grows while they are too busy.

use crate::destinations::{Destinations, EXPIRATION_SECONDS, USUAL};
use crate::lblc::is_congested;
use crate::roster::Roster;
use crate::wlc::{connection_overhead, least_by_weight};
use crate::{Flow, RealServer, Scheduler};

/// Locality-based least connection with replication: as `lblc`, but a destination goes to the least loaded server of
/// its set. When that is congested while another server is half idle, the least loaded of all joins the set. A set
/// that has not changed for a day loses its most loaded server.
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
    pub(crate) fn new() -> Self {
        Self::with_room_for(USUAL)
    }

    fn with_room_for(usual: usize) -> Self {
        Self {
            destinations: Destinations::new(usual),
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
            && now.wrapping_sub(set.changed) > EXPIRATION_SECONDS
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
