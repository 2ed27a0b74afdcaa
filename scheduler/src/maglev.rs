//! `maglev`: a hash of the whole flow decides, and few flows move when the servers change.

use crate::hash::{SipHash13, mix, scale};
use crate::{Flow, RealServer, Scheduler};

/// Maglev hashing over client, virtual address, both ports and protocol. uvs's own, not the kernel's `mh`.
///
/// The table depends on the servers' addresses, ports and weights alone, not on their order: all workers and all
/// directors agree, so a flow keeps its server when another director takes over. Servers of weight zero are not in
/// it. A flow that meets an overloaded server goes elsewhere as long as that lasts, and no other flow moves.
///
/// Source: Eisenbud et al.: Maglev: A Fast and Reliable Software Network Load Balancer (NSDI 2016) §3.4
#[derive(Debug, Default)]
pub(crate) struct Maglev {
    slots: Slots,
    builder: Builder,
}

/// For each slot the index of its server; empty when none has a weight. Half the memory where the indices allow it,
/// which is nearly always: the table of 1000 servers has 256 KiB.
#[derive(Debug)]
enum Slots {
    Narrow(Vec<u16>),
    Wide(Vec<u32>),
}

/// Primes near powers of two. With 128 slots or more for each, no share of equal servers is 2 % off, and few slots
/// change when a server goes; see [`Builder`].
const SLOT_COUNTS: [u32; 7] = [
    65_537, 131_101, 262_147, 524_309, 1_048_583, 2_097_169, 4_194_319,
];
const SLOTS_PER_SERVER: usize = 128;
const FLOW: SipHash13 = SipHash13::new(0x6d61_676c_6576_2d66, 0x6c6f_7773_2d75_7673);
const SERVER: SipHash13 = SipHash13::new(0x6d61_676c_6576_2d73, 0x6572_7665_7273_2d75);
/// How many other slots a flow tries that meets an overloaded server.
const RETRIES: u64 = 8;
const NONE: u32 = u32::MAX;

impl Scheduler for Maglev {
    fn pick(&mut self, flow: &Flow, servers: &[RealServer]) -> Option<usize> {
        let slot_count = self.slots.len() as u64;
        let hash = hash(flow);
        for attempt in 0..=RETRIES {
            // The first attempt takes the hash as it is.
            let slot = scale(
                if attempt == 0 {
                    hash
                } else {
                    mix(hash.wrapping_add(attempt))
                },
                slot_count,
            );
            let index = self.slots.get(usize::try_from(slot).ok()?)?;
            if servers.get(index)?.is_usable() {
                return Some(index);
            }
        }
        // Nearly all are overloaded: from a server of the flow's own on, the next that is not.
        let start = usize::try_from(scale(mix(hash), servers.len() as u64)).ok()?;
        let (passed, ahead) = servers.split_at(start);
        ahead
            .iter()
            .position(RealServer::is_usable)
            .map(|index| start + index)
            .or_else(|| passed.iter().position(RealServer::is_usable))
    }

    fn servers_changed(&mut self, servers: &[RealServer]) {
        let slot_count = slot_count(servers.len());
        self.slots = Slots::new(self.builder.fill(servers, slot_count));
    }
}

/// For each of `slot_count` slots the index of its server, by the rules of `maglev`, whose own table has as many slots
/// as its servers need. For whoever compares it with other implementations, at their sizes.
///
/// # Panics
/// When `slot_count` is not a prime above the number of servers: other numbers have no order for some of them.
#[must_use]
pub fn maglev_table(servers: &[RealServer], slot_count: u32) -> Vec<u32> {
    let is_prime =
        slot_count > 2 && (2..=slot_count.isqrt()).all(|n| !slot_count.is_multiple_of(n));
    assert!(
        is_prime && servers.len() < slot_count as usize,
        "slot_count: {slot_count}; a prime above the number of servers, {}, is needed",
        servers.len()
    );
    Builder::default().fill(servers, slot_count)
}

impl Slots {
    fn new(wide: Vec<u32>) -> Self {
        let narrow: Result<Vec<u16>, _> = wide.iter().map(|&index| u16::try_from(index)).collect();
        narrow.map_or(Self::Wide(wide), Self::Narrow)
    }

    fn len(&self) -> usize {
        match self {
            Self::Narrow(slots) => slots.len(),
            Self::Wide(slots) => slots.len(),
        }
    }

    fn get(&self, slot: usize) -> Option<usize> {
        match self {
            Self::Narrow(slots) => slots.get(slot).map(|&index| usize::from(index)),
            Self::Wide(slots) => slots.get(slot).map(|&index| index as usize),
        }
    }
}

impl Default for Slots {
    fn default() -> Self {
        Self::Narrow(Vec::new())
    }
}

fn hash(flow: &Flow) -> u64 {
    let ports = (u64::from(flow.client_port) << 32) | (u64::from(flow.virtual_port) << 16);
    FLOW.address(flow.client)
        .address(flow.virtual_address)
        .finish(ports | u64::from(flow.protocol), 7)
}

/// What filling the table needs, kept for the next time.
///
/// The servers take slots in turns, as often as their weights say, each in its own order. Toward the end most of what
/// they try is taken, and one server more or less changes who gets what. So the last slots are not fought over: each
/// of them draws a server, by a hash of its own, among those that are short of their share.
///
/// Of 1000 equal servers one that goes so changes 0.58 % of the slots on average and 0.63 % at most, instead of 0.68 %
/// and 0.72 %, where 0.1 % were its own; and the table is filled in two thirds of the time.
#[derive(Debug, Default)]
struct Builder {
    orders: Vec<Order>,
    /// The first of the servers whose turn is in each round, chained.
    rounds: Vec<u32>,
    /// A bit for each slot that is taken by turns: small enough for the first cache level, as the table is not.
    taken: Vec<u64>,
    /// How many slots more each server may draw, by its index.
    room: Vec<u32>,
}

/// The order in which a server wants the slots: from a place on in steps; and when it has its turns.
#[derive(Debug)]
struct Order {
    place: u32,
    skip: u32,
    /// The round of its next turn, and the rounds between its turns, in 1/65536.
    due: u64,
    interval: u64,
    next: u32,
    index: u32,
}

/// One slot of so many is drawn for.
const DRAWN_PART: u32 = 64;
/// A draw may bring a server's slots up to 251/250 of its share, so that there is always somebody to draw.
const SLACK: (u64, u64) = (251, 250);
/// So many draws that find nobody are more than chance; then any server that is short will do.
const DRAWS: u64 = 4096;

impl Builder {
    /// For each slot the index of its server.
    fn fill(&mut self, servers: &[RealServer], slot_count: u32) -> Vec<u32> {
        let weights = || servers.iter().map(|server| u64::from(server.weight.0));
        let (total, heaviest): (u64, u64) = (weights().sum(), weights().max().unwrap_or(0));
        if total == 0 {
            return Vec::new();
        }
        let mut slots = vec![NONE; slot_count as usize];
        self.taken.clear();
        self.taken.resize((slot_count as usize).div_ceil(64), 0);
        self.room.clear();
        self.room.extend(weights().map(|weight| {
            let most = (u64::from(slot_count) * weight * SLACK.0).div_ceil(total * SLACK.1);
            u32::try_from(most).expect("251/250 of the slots at most")
        }));
        self.order(servers, heaviest, slot_count);
        // After so many rounds the servers had a turn for each slot.
        let round_count = u64::from(slot_count) * heaviest / total + 1;
        self.rounds.clear();
        self.rounds.resize(
            usize::try_from(round_count).expect("no more than slots") + 1,
            NONE,
        );
        self.take_turns(&mut slots, slot_count);
        self.draw_the_rest(&mut slots, slot_count);
        slots
    }

    /// Works out the servers' orders, sorted by address.
    fn order(&mut self, servers: &[RealServer], heaviest: u64, slot_count: u32) {
        self.orders.clear();
        for (index, server) in (0..).zip(servers).filter(|(_, server)| server.weight.0 > 0) {
            let hash = SERVER
                .address(server.address)
                .finish(u64::from(server.port), 2);
            self.orders.push(Order {
                place: below(slot_count, hash),
                skip: below(slot_count - 1, mix(hash)) + 1,
                due: 0,
                interval: (heaviest << 16) / u64::from(server.weight.0),
                next: NONE,
                index,
            });
        }
        self.orders.sort_unstable_by_key(|order| {
            let server = &servers[order.index as usize];
            (server.address, server.port)
        });
    }

    fn take_turns(&mut self, slots: &mut [u32], slot_count: u32) {
        for number in (0..self.orders.len()).rev() {
            self.enlist(number);
        }
        let mut turns = slot_count - slot_count / DRAWN_PART;
        for round in 0..self.rounds.len() {
            let mut next = self.rounds[round];
            while next != NONE {
                let number = next as usize;
                let order = &mut self.orders[number];
                next = order.next;
                let slot = order.take(&mut self.taken, slot_count);
                slots[slot as usize] = order.index;
                self.room[order.index as usize] -= 1;
                turns -= 1;
                if turns == 0 {
                    return;
                }
                self.enlist(number);
            }
        }
        unreachable!("the rounds have a turn for each slot");
    }

    /// Puts a server into the round that its next turn is in, if there is one.
    fn enlist(&mut self, number: usize) {
        let order = &mut self.orders[number];
        let round = usize::try_from(order.due >> 16).expect("fewer rounds than 2^32");
        if let Some(first) = self.rounds.get_mut(round) {
            order.next = *first;
            *first = u32::try_from(number).expect("fewer servers than 2^32");
        }
        order.due += order.interval;
    }

    /// Gives each free slot to the owner of a slot drawn among those taken by turns: so weights count here too.
    fn draw_the_rest(&mut self, slots: &mut [u32], slot_count: u32) {
        for slot in (0..slot_count).filter(|&slot| !is_taken(&self.taken, slot)) {
            let mut draws = (0..DRAWS)
                .map(|draw| below(slot_count, mix(mix(u64::from(slot) + 1).wrapping_add(draw))));
            let drawn = draws.find_map(|other| {
                let owner = slots[other as usize];
                (is_taken(&self.taken, other) && self.room[owner as usize] > 0).then_some(owner)
            });
            let index = drawn.unwrap_or_else(|| {
                let short = (0..).zip(&self.room).find(|(_, room)| **room > 0);
                short.expect("all room together exceeds the slots").0
            });
            self.room[index as usize] -= 1;
            slots[slot as usize] = index;
        }
    }
}

impl Order {
    /// Takes the first slot of the order that is free. There must be one.
    fn take(&mut self, taken: &mut [u64], slot_count: u32) -> u32 {
        let mut place = self.place;
        while is_taken(taken, place) {
            place += self.skip;
            if place >= slot_count {
                place -= slot_count;
            }
        }
        taken[(place / 64) as usize] |= 1 << (place % 64);
        self.place = place;
        place
    }
}

fn is_taken(taken: &[u64], slot: u32) -> bool {
    taken[(slot / 64) as usize] & (1 << (slot % 64)) != 0
}

fn slot_count(server_count: usize) -> u32 {
    let wanted = server_count.saturating_mul(SLOTS_PER_SERVER);
    let enough = SLOT_COUNTS.iter().find(|&&count| count as usize >= wanted);
    *enough.unwrap_or(&SLOT_COUNTS[SLOT_COUNTS.len() - 1])
}

fn below(bound: u32, random: u64) -> u32 {
    u32::try_from(scale(random, u64::from(bound))).expect("the bound is 32 bits")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Load, RealServerId, Weight};
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::Arc;

    fn servers(weights: &[u16]) -> Vec<RealServer> {
        (0..)
            .zip(weights)
            .map(|(id, &weight)| RealServer {
                id: RealServerId(id),
                address: IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + id)),
                port: 80,
                weight: Weight(weight),
                load: Arc::new(Load::default()),
            })
            .collect()
    }

    /// For each slot the id of its server.
    fn table(servers: &[RealServer]) -> Vec<u32> {
        let mut maglev = Maglev::default();
        maglev.servers_changed(servers);
        (0..maglev.slots.len())
            .filter_map(|slot| maglev.slots.get(slot))
            .map(|index| servers[index].id.0)
            .collect()
    }

    fn shares(table: &[u32], count: usize) -> Vec<u32> {
        let mut shares = vec![0; count];
        for &id in table {
            shares[id as usize] += 1;
        }
        shares
    }

    #[test]
    fn a_thousand_equal_servers_have_equal_shares() {
        let shares = shares(&table(&servers(&[7; 1000])), 1000);
        let largest = f64::from(*shares.iter().max().unwrap());
        assert!(largest <= 1.008 * 131_101.0 / 1000.0, "{largest}");
        assert!(*shares.iter().min().unwrap() >= 129);
    }

    /// The percentage of slots that another server has when the server `gone` is not there.
    fn changed_without(all: &[RealServer], before: &[u32], gone: usize) -> f64 {
        let mut rest = all.to_vec();
        rest.remove(gone);
        let after = table(&rest);
        let changed = before.iter().zip(&after).filter(|(old, new)| old != new);
        changed.count() as f64 * 100.0 / before.len() as f64
    }

    #[test]
    fn few_slots_change_whichever_of_a_thousand_servers_goes() {
        let all = servers(&[1; 1000]);
        let before = table(&all);
        let half = |gone: std::ops::Range<usize>| -> Vec<f64> {
            gone.map(|gone| changed_without(&all, &before, gone))
                .collect()
        };
        let percents = std::thread::scope(|scope| {
            let low = scope.spawn(|| half(0..500));
            [half(500..1000), low.join().unwrap()].concat()
        });
        let mean = percents.iter().sum::<f64>() / percents.len() as f64;
        let most = percents.iter().copied().fold(0.0, f64::max);
        println!("of the slots {mean:.3} % change on average, {most:.3} % at most");
        assert_eq!(percents.len(), 1000);
        assert!(mean <= 0.6, "{mean}");
        assert!(most <= 0.7, "{most}");
    }

    #[test]
    fn shares_follow_weights_of_any_size() {
        let many_light = [vec![65_535], vec![1; 999]].concat();
        for weights in [
            &[1, 2, 3, 4, 0, 100][..],
            &[65_535, 1, 1, 32_768],
            &[65_535, 65_534],
            &[3],
            &many_light,
        ] {
            let table = table(&servers(weights));
            let shares = shares(&table, weights.len());
            let total: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
            for (&share, &weight) in shares.iter().zip(weights) {
                let due = table.len() as f64 * f64::from(weight) / total;
                let slack = 1.0 + due.sqrt().min(0.02 * due);
                assert!((f64::from(share) - due).abs() <= slack, "{share} of {due}");
                assert!(f64::from(share) <= (due * 1.004).ceil());
            }
        }
    }

    #[test]
    fn the_table_does_not_depend_on_the_order_of_the_list() {
        let mut list = servers(&[1, 5, 2, 9, 4, 4, 4]);
        let before = table(&list);
        list.reverse();
        list.swap(1, 3);
        assert_eq!(table(&list), before);
    }

    #[test]
    fn more_servers_get_a_larger_table() {
        assert_eq!(slot_count(1), 65_537);
        assert_eq!(slot_count(512), 65_537);
        assert_eq!(slot_count(513), 131_101);
        assert_eq!(slot_count(usize::MAX), 4_194_319);
        let shares = shares(&table(&servers(&[1; 3000])), 3000);
        assert!(shares.iter().all(|&share| (172..=176).contains(&share)));
    }

    #[test]
    fn a_table_of_any_prime_number_of_slots_can_be_had() {
        let servers = servers(&[1; 20]);
        let own: Vec<u32> = table(&servers);
        assert_eq!(
            maglev_table(&servers, 65_537),
            own,
            "the ids are the indices"
        );
        for slot_count in [23, 655_373] {
            let table = maglev_table(&servers, slot_count);
            assert_eq!(table.len(), slot_count as usize);
            let shares = shares(&table, 20);
            let [least, most] =
                [shares.iter().min(), shares.iter().max()].map(|share| *share.unwrap());
            assert!(
                least > 0 && most <= slot_count.div_ceil(20) * 251 / 250 + 1,
                "{shares:?}"
            );
        }
    }

    #[test]
    #[should_panic(
        expected = "slot_count: 65536; a prime above the number of servers, 2, is needed"
    )]
    fn a_number_of_slots_that_is_not_prime_is_refused() {
        let _ = maglev_table(&servers(&[1, 1]), 65_536);
    }

    #[test]
    #[should_panic(expected = "slot_count: 3; a prime above the number of servers, 3, is needed")]
    fn fewer_slots_than_servers_are_refused() {
        let _ = maglev_table(&servers(&[1, 1, 1]), 3);
    }

    #[test]
    fn an_index_that_needs_more_than_16_bits_makes_the_table_wide() {
        let narrow = Slots::new(vec![3, 65_535]);
        assert!(matches!(narrow, Slots::Narrow(_)));
        assert_eq!((narrow.get(1), narrow.get(2)), (Some(65_535), None));
        let wide = Slots::new(vec![3, 65_536]);
        assert!(matches!(wide, Slots::Wide(_)));
        assert_eq!((wide.get(1), wide.get(2)), (Some(65_536), None));
    }

    #[test]
    fn without_a_weight_there_is_no_table() {
        assert_eq!(table(&servers(&[0, 0])), []);
        assert_eq!(table(&[]), []);
    }
}
