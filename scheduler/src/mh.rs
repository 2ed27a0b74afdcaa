//! `mh`: the client's address decides, and few clients move when the servers change.

use crate::change::Roll;
use crate::hash::{SipHash13, client_port, fold};
use crate::wrr::greatest_common_divisor;
use crate::{Flow, Options, RealServer, Scheduler};
use std::net::IpAddr;

/// The kernel's Maglev hashing, over a table of 4093 slots.
///
/// Each server has its own order of all slots, made from a hash of its address. In turn, as often as their weights say,
/// the servers take the first slot of their order that is free. A weight of zero keeps the slots, and refuses
/// the clients who meet them unless `mh-fallback` is set: then other slots are tried.
///
/// Differs from IPVS: the kernel refuses a server beyond the 4093rd; here it finds no slot free and gets no flows.
///
/// Source: Linux net/netfilter/ipvs/ip_vs_mh.c; Eisenbud et al.: Maglev (NSDI 2016) §3.4
#[derive(Debug)]
pub(crate) struct MaglevHash {
    roll: Roll,
    /// Weights of the servers, where zero the last that was not, if there was one since the server was added.
    lasting: Vec<u16>,
    /// Indices of servers; empty when none ever had a weight.
    slots: Vec<usize>,
    port: bool,
    fallback: bool,
}

/// A prime, the kernel's by default.
const SLOT_COUNT: u32 = 4093;
/// The hash of flows, and where a server's order starts.
const PLACE: SipHash13 = SipHash13::new(2_654_435_761, 2_654_435_761);
/// The step of a server's order.
const SKIP: SipHash13 = SipHash13::new(2_654_446_892, 2_654_446_892);
/// Turns in a row have about this many bits at most.
const TURN_BITS: u32 = 6;

impl MaglevHash {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            roll: Roll::default(),
            lasting: Vec::new(),
            slots: Vec::new(),
            port: options.mh_port,
            fallback: options.mh_fallback,
        }
    }

    /// The server that a flow meets, and whether it is usable.
    fn at(&self, slot: u32, servers: &[RealServer]) -> Option<(usize, bool)> {
        let index = *self.slots.get(usize::try_from(slot).ok()?)?;
        Some((index, servers.get(index)?.is_usable()))
    }

    fn fill(&mut self, servers: &[RealServer]) {
        let divisor = self.lasting.iter().fold(0, |divisor, &weight| {
            greatest_common_divisor(divisor, u32::from(weight))
        });
        self.slots.clear();
        if divisor == 0 {
            return;
        }
        let heaviest = self.lasting.iter().copied().max().map_or(0, u32::from);
        let shift = (u32::BITS - (heaviest / divisor).leading_zeros()).saturating_sub(TURN_BITS);
        let mut orders: Vec<(usize, u32, Order)> = Vec::with_capacity(servers.len());
        for (index, (server, &weight)) in servers.iter().zip(&self.lasting).enumerate() {
            if weight > 0 {
                let turns = ((u32::from(weight) / divisor) >> shift).max(1);
                orders.push((index, turns, Order::of(server)));
            }
        }
        const FREE: usize = usize::MAX;
        self.slots.resize(SLOT_COUNT as usize, FREE);
        let mut filled = 0;
        loop {
            for (index, turns, order) in &mut orders {
                for _ in 0..*turns {
                    while self.slots[order.place as usize] != FREE {
                        order.advance();
                    }
                    self.slots[order.place as usize] = *index;
                    filled += 1;
                    if filled == SLOT_COUNT {
                        return;
                    }
                }
            }
        }
    }
}

impl Scheduler for MaglevHash {
    fn pick(&mut self, flow: &Flow, servers: &[RealServer]) -> Option<usize> {
        let port = if self.port { client_port(flow) } else { 0 };
        let first = hash(PLACE, flow.client, port, 0) % SLOT_COUNT;
        let (index, usable) = self.at(first, servers)?;
        if usable {
            return Some(index);
        }
        // Asked first, since without a usable server the search would visit as many slots as there are.
        if !self.fallback || !servers.iter().any(RealServer::is_usable) {
            return None;
        }
        (0..SLOT_COUNT).find_map(|offset| {
            let slot = hash(PLACE, flow.client, port, (first + offset) % SLOT_COUNT) % SLOT_COUNT;
            self.at(slot, servers)
                .filter(|&(_, usable)| usable)
                .map(|(index, _)| index)
        })
    }

    fn servers_changed(&mut self, servers: &[RealServer]) {
        let change = self.roll.update(servers);
        let before = std::mem::take(&mut self.lasting);
        self.lasting.extend(servers.iter().map(|server| {
            let drained = server.weight.0 == 0;
            let weight = if drained {
                server.load.last_weight()
            } else {
                server.weight
            };
            weight.0
        }));
        for (weight, index) in before.into_iter().zip(change.moved) {
            if let Some(lasting) = index
                .map(|index| &mut self.lasting[index])
                .filter(|lasting| **lasting == 0)
            {
                *lasting = weight;
            }
        }
        self.fill(servers);
    }

    fn set_options(&mut self, options: &Options) {
        (self.port, self.fallback) = (options.mh_port, options.mh_fallback);
    }
}

/// The order in which a server wants the slots: from a place on in steps.
struct Order {
    place: u32,
    skip: u32,
}

impl Order {
    fn of(server: &RealServer) -> Self {
        Self {
            place: hash(PLACE, server.address, server.port, 0) % SLOT_COUNT,
            skip: hash(SKIP, server.address, server.port, 0) % (SLOT_COUNT - 1) + 1,
        }
    }

    fn advance(&mut self) {
        self.place += self.skip;
        if self.place >= SLOT_COUNT {
            self.place -= SLOT_COUNT;
        }
    }
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "the kernel takes the lower half"
)]
fn hash(key: SipHash13, address: IpAddr, port: u16, offset: u32) -> u32 {
    let value = offset
        .wrapping_add(u32::from(port))
        .wrapping_add(fold(address));
    key.finish(u64::from(value), 4) as u32
}
