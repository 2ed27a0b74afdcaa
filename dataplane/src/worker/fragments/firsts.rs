//! First fragments, remembered for the others of their datagrams: a ring in order of arrival, and chains by hash.
//!
//! A full ring forgets the oldest. Under a flood that is one whose datagram has long passed, where refusing new ones
//! would stop all fragments for half a minute.

use crate::packet::{Packet, Tuple};
use crate::port::PortId;
use crate::worker::family::Ip;
use crate::worker::services::Picked;
use ahash::RandomState;
use conntrack::Ticks;

/// First fragments that are remembered, of one family at one worker.
pub(in crate::worker) const REMEMBERED: usize = 8192;
/// How long, as long as the kernel waits for the rest of a datagram. Source: Linux net.ipv4.ipfrag_time (30 s), RFC 8200 §4.5 (60 s).
pub(in crate::worker) const MEMORY: Ticks = Ticks::from_seconds(30);
/// Of those whose time is over, so many are forgotten in one tick; the others are not found any more.
const FORGOTTEN_PER_TICK: usize = 256;
const NONE: u32 = u32::MAX;

/// What the fragments of one datagram have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Datagram<F: Ip> {
    source: F::Address,
    destination: F::Address,
    /// 0 for IPv6, whose identification is one for all protocols. Source: RFC 791 §3.2, RFC 8200 §4.5.
    protocol: u8,
    identification: u32,
}

impl<F: Ip> Datagram<F> {
    pub(super) fn of(packet: &Packet<F>) -> Datagram<F> {
        Datagram {
            source: packet.tuple.source,
            destination: packet.tuple.destination,
            protocol: F::fragment_protocol(packet.tuple.protocol),
            identification: packet.fragment_id,
        }
    }
}

/// A first fragment.
#[derive(Clone, Copy, Debug)]
pub(super) struct First<F: Ip> {
    pub(super) datagram: Datagram<F>,
    /// The flow of its datagram.
    pub(super) tuple: Tuple<F>,
    /// Where it ends in the datagram's payload, bytes.
    pub(super) end: usize,
    /// The port that it came in by.
    pub(super) port: PortId,
    /// The server that got it without a connection, by one-packet scheduling.
    pub(super) alone: Option<Picked>,
}

struct Slot<F: Ip> {
    first: First<F>,
    until: Ticks,
    /// The next one of its chain.
    next: u32,
    /// False once a newer one has taken its place.
    is_linked: bool,
}

/// See the module's text.
pub(super) struct Firsts<F: Ip> {
    hasher: RandomState,
    chains: Box<[u32]>,
    slots: Vec<Slot<F>>,
    /// The slot of the oldest.
    oldest: usize,
    count: usize,
}

impl<F: Ip> Firsts<F> {
    /// With room for so many, a power of two.
    pub(super) fn new(room: usize) -> Firsts<F> {
        assert!(
            room.is_power_of_two(),
            "remainders are masks, not divisions"
        );
        Firsts {
            hasher: RandomState::new(),
            chains: vec![NONE; room].into_boxed_slice(),
            slots: Vec::with_capacity(room),
            oldest: 0,
            count: 0,
        }
    }

    /// The first fragment of a datagram.
    pub(super) fn find(&self, datagram: &Datagram<F>, now: Ticks) -> Option<&First<F>> {
        let slot = &self.slots[self.find_slot(datagram)?];
        (!slot.until.has_passed(now)).then_some(&slot.first)
    }

    /// Remembers one in place of an older one of the same datagram. True where another datagram's was forgotten before
    /// its time.
    pub(super) fn remember(&mut self, first: First<F>, now: Ticks) -> bool {
        if let Some(index) = self.find_slot(&first.datagram) {
            self.unlink(index);
        }
        let forgotten = self.count == self.chains.len() && self.forget_oldest(now);
        let index = (self.oldest + self.count) & self.mask();
        let chain = self.chain_of(&first.datagram);
        let slot = Slot {
            first,
            until: now.after(MEMORY),
            next: self.chains[chain],
            is_linked: true,
        };
        if index == self.slots.len() {
            self.slots.push(slot);
        } else {
            self.slots[index] = slot;
        }
        self.chains[chain] = u32::try_from(index).expect("fewer slots than 2^32");
        self.count += 1;
        forgotten
    }

    /// Forgets those whose time is over.
    pub(super) fn expire(&mut self, now: Ticks) {
        for _ in 0..self.count.min(FORGOTTEN_PER_TICK) {
            if !self.slots[self.oldest].until.has_passed(now) {
                return;
            }
            self.forget_oldest(now);
        }
    }

    /// True where its time was not over.
    fn forget_oldest(&mut self, now: Ticks) -> bool {
        let index = self.oldest;
        self.oldest = (self.oldest + 1) & self.mask();
        self.count -= 1;
        let was_linked = self.slots[index].is_linked;
        if was_linked {
            self.unlink(index);
        }
        was_linked && !self.slots[index].until.has_passed(now)
    }

    fn mask(&self) -> usize {
        self.chains.len() - 1
    }

    fn chain_of(&self, datagram: &Datagram<F>) -> usize {
        #[allow(
            clippy::cast_possible_truncation,
            reason = "any bits of the hash will do"
        )]
        let hash = self.hasher.hash_one(datagram) as usize;
        hash & self.mask()
    }

    fn find_slot(&self, datagram: &Datagram<F>) -> Option<usize> {
        let mut at = self.chains[self.chain_of(datagram)];
        while let Some(slot) = self.slots.get(at as usize) {
            if slot.first.datagram == *datagram {
                return Some(at as usize);
            }
            at = slot.next;
        }
        None
    }

    fn unlink(&mut self, index: usize) {
        let chain = self.chain_of(&self.slots[index].first.datagram);
        let next = self.slots[index].next;
        self.slots[index].is_linked = false;
        let mut at = self.chains[chain] as usize;
        if at == index {
            self.chains[chain] = next;
            return;
        }
        while self.slots[at].next as usize != index {
            at = self.slots[at].next as usize;
        }
        self.slots[at].next = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::sample::client_v4;
    use crate::packet::wire::UDP;
    use conntrack::V4;
    use proptest::prelude::*;

    const ROOM: usize = 8;

    fn first(identification: u32, end: usize) -> First<V4> {
        let tuple = client_v4(UDP);
        let datagram = Datagram {
            source: tuple.source,
            destination: tuple.destination,
            protocol: UDP,
            identification,
        };
        First {
            datagram,
            tuple,
            end,
            port: PortId(0),
            alone: None,
        }
    }

    proptest! {
        #[test]
        fn what_is_remembered_is_the_newest_of_each_datagram_among_the_last(
            steps in proptest::collection::vec((0u32..12, 0u32..800, any::<bool>()), 1..200),
        ) {
            let mut firsts = Firsts::<V4>::new(ROOM);
            // The last so many: identification, when, which; those that were superseded keep their place.
            let mut model: Vec<(u32, Ticks, usize, bool)> = Vec::new();
            let mut now = Ticks(u32::MAX - 10_000);
            for (step, (identification, wait, ticks)) in steps.into_iter().enumerate() {
                now = now.after(Ticks(wait));
                if ticks {
                    firsts.expire(now);
                    model.retain(|(_, until, ..)| !until.has_passed(now));
                }
                for entry in &mut model {
                    entry.3 &= entry.0 != identification;
                }
                let mut forgotten = false;
                if model.len() == ROOM {
                    let (_, until, _, current) = model.remove(0);
                    forgotten = current && !until.has_passed(now);
                }
                model.push((identification, now.after(MEMORY), step, true));
                prop_assert_eq!(firsts.remember(first(identification, step), now), forgotten);
                for identification in 0..12 {
                    let expected = model
                        .iter()
                        .find(|(other, until, _, current)| {
                            *other == identification && *current && !until.has_passed(now)
                        })
                        .map(|(_, _, step, _)| *step);
                    let datagram = first(identification, 0).datagram;
                    let found = firsts.find(&datagram, now).map(|first| first.end);
                    prop_assert_eq!(found, expected);
                }
            }
        }
    }
}
