//! The neighbour table: which hardware address a next hop has. Shared by all workers, lock-free, of fixed capacity.
//!
//! ```text
//!   64 bytes each:  word  = MAC 48 | generation 8 | state 8        one load answers the packet path
//!                   key   = address 128, port 16, family           written once, while CLAIMED
//!                   times = used, confirmed, probed, probes         coarse, Relaxed, any worker
//!
//!   EMPTY ─intern─▶ CLAIMED ─▶ INCOMPLETE ─learn─▶ REACHABLE ─30 s─▶ STALE ─learn─▶ REACHABLE
//!     ▲                            │ 3 requests unanswered             │ 3 requests unanswered
//!     └── unused for 10 min ──── FAILED ◀──────────────────────────────┘   (asked again when used after 1 s)
//! ```
//! A neighbour lives in one of the 16 places that follow its hash. Two workers that intern the same address at
//! the same moment may make two entries; both are kept up to date, so that does no harm.

mod age;
#[cfg(test)]
mod tests;
mod word;

use crate::port::{Mac, PortId};
use conntrack::Ticks;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering, Ordering::Relaxed};
use word::{
    CLAIMED, EMPTY, FAILED, INCOMPLETE, STALE, USABLE, generation, mac, state, with_mac, with_state,
};

/// How many places an address may stand in.
const WINDOW: usize = 16;
/// After this long without an answer or announcement an address is asked for again, while still being used.
const REACHABLE: Ticks = Ticks::from_seconds(30);
/// Between two requests for one address.
const RETRY: Ticks = Ticks::from_seconds(1);
/// After this long without a packet a neighbour is forgotten.
const FORGET: Ticks = Ticks::from_seconds(600);
/// Requests without an answer before a neighbour counts as unreachable.
const PROBES: u16 = 3;

/// A place in the table, and the generation of what stood there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NeighbourId(u32);

impl Default for NeighbourId {
    fn default() -> NeighbourId {
        NeighbourId::NONE
    }
}

impl NeighbourId {
    /// Stands for no neighbour: always [`Resolution::Gone`].
    pub const NONE: NeighbourId = NeighbourId(u32::MAX);

    /// As a number, to be kept in a connection.
    #[inline]
    #[must_use]
    pub const fn to_bits(self) -> u32 {
        self.0
    }

    /// From [`to_bits`](Self::to_bits).
    #[inline]
    #[must_use]
    pub const fn from_bits(bits: u32) -> NeighbourId {
        NeighbourId(bits)
    }

    fn new(index: usize, generation: u8) -> NeighbourId {
        let index = u32::try_from(index).expect("the capacity is below 2^24");
        NeighbourId(u32::from(generation) << 24 | index)
    }

    fn index(self) -> usize {
        (self.0 & 0x00ff_ffff) as usize
    }

    fn generation(self) -> u8 {
        self.0.to_be_bytes()[0]
    }
}

/// What the table knows of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// Send it there.
    Mac(Mac, PortId),
    /// Asked for; the packet may wait to be sent by this port.
    Pending(PortId),
    /// It did not answer.
    Failed,
    /// The place holds another neighbour by now: intern again.
    Gone,
}

/// A neighbour that is to be asked for its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Whom.
    pub address: IpAddr,
    /// Where.
    pub port: PortId,
    /// The address it had, for a unicast request; `None` asks everybody.
    pub mac: Option<Mac>,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Neighbour {
    word: AtomicU64,
    address: [AtomicU64; 2],
    used: AtomicU32,
    confirmed: AtomicU32,
    probed: AtomicU32,
    probes: AtomicU16,
    port: AtomicU16,
}

const _: () = assert!(size_of::<Neighbour>() == 64);

/// See the module's text.
#[derive(Debug)]
pub struct NeighbourTable {
    neighbours: Box<[Neighbour]>,
    hasher: ahash::RandomState,
    /// How often a neighbour told its address.
    learnt: AtomicU32,
}

/// The table has no room for another neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no room for another neighbour: the places for this address are taken")]
pub struct NeighbourTableFull;

impl NeighbourTable {
    /// For about `capacity` neighbours: rounded up to a power of two, at least 16 and below 2^24.
    #[must_use]
    pub fn new(capacity: usize) -> NeighbourTable {
        let capacity = capacity.next_power_of_two().clamp(WINDOW, 1 << 23);
        NeighbourTable {
            neighbours: (0..capacity).map(|_| Neighbour::default()).collect(),
            hasher: ahash::RandomState::new(),
            learnt: AtomicU32::new(0),
        }
    }

    /// The place of `address` behind `port`, taken if it has none yet.
    ///
    /// # Errors
    /// When all places it may stand in are taken by others.
    pub fn intern(
        &self,
        port: PortId,
        address: IpAddr,
        now: Ticks,
    ) -> Result<NeighbourId, NeighbourTableFull> {
        if let Some(id) = self.matches(port, address).next() {
            return Ok(id);
        }
        for index in self.window(port, address) {
            let neighbour = &self.neighbours[index];
            let word = neighbour.word.load(Relaxed);
            let claimed = with_state(word, CLAIMED);
            if state(word) != EMPTY
                || neighbour
                    .word
                    .compare_exchange(word, claimed, Relaxed, Relaxed)
                    .is_err()
            {
                continue;
            }
            let bits = key_bits(address);
            neighbour.address[0].store(bits[0], Relaxed);
            neighbour.address[1].store(bits[1], Relaxed);
            neighbour.port.store(port.0, Relaxed);
            neighbour.used.store(now.0, Relaxed);
            neighbour.confirmed.store(now.0, Relaxed);
            neighbour.probed.store(now.0.wrapping_sub(RETRY.0), Relaxed);
            neighbour.probes.store(0, Relaxed);
            // Release pairs with the Acquire in `matches` and `resolve`.
            neighbour
                .word
                .store(with_state(word, INCOMPLETE), Ordering::Release);
            return Ok(NeighbourId::new(index, generation(word)));
        }
        Err(NeighbourTableFull)
    }

    /// The hardware address and port of a neighbour. One load, and a store when it was not used for a second.
    #[inline]
    #[must_use]
    pub fn resolve(&self, id: NeighbourId, now: Ticks) -> Resolution {
        let Some(neighbour) = self.neighbours.get(id.index()) else {
            return Resolution::Gone;
        };
        // Acquire pairs with the Release in `intern` and `learn`.
        let word = neighbour.word.load(Ordering::Acquire);
        if generation(word) != id.generation() {
            return Resolution::Gone;
        }
        if now.0.wrapping_sub(neighbour.used.load(Relaxed)) > RETRY.0 {
            neighbour.used.store(now.0, Relaxed);
        }
        let port = PortId(neighbour.port.load(Relaxed));
        match state(word) {
            USABLE | STALE => Resolution::Mac(mac(word), port),
            INCOMPLETE => Resolution::Pending(port),
            FAILED => Resolution::Failed,
            _ => Resolution::Gone,
        }
    }

    /// Whether a worker that met [`Resolution::Pending`] or [`Resolution::Failed`] should ask for the address now:
    /// true for one worker, at most once a second. A neighbour that had failed is pending again from then on.
    pub fn claim_probe(&self, id: NeighbourId, now: Ticks) -> Option<Probe> {
        let neighbour = self.neighbours.get(id.index())?;
        let word = neighbour.word.load(Ordering::Acquire);
        if generation(word) != id.generation() || !matches!(state(word), INCOMPLETE | FAILED) {
            return None;
        }
        let probe = self.claim(neighbour, now)?;
        if state(word) == FAILED {
            neighbour.probes.store(1, Relaxed);
            let pending = with_state(word, INCOMPLETE);
            // Lost against `learn` or another worker: as well.
            let _ = neighbour
                .word
                .compare_exchange(word, pending, Ordering::Release, Relaxed);
        }
        Some(Probe { mac: None, ..probe })
    }

    /// Takes the right to ask now, for this and no other worker.
    fn claim(&self, neighbour: &Neighbour, now: Ticks) -> Option<Probe> {
        let probed = neighbour.probed.load(Relaxed);
        if now.0.wrapping_sub(probed) < RETRY.0 {
            return None;
        }
        neighbour
            .probed
            .compare_exchange(probed, now.0, Relaxed, Relaxed)
            .ok()?;
        neighbour.probes.fetch_add(1, Relaxed);
        let word = neighbour.word.load(Relaxed);
        Some(Probe {
            address: address_of(neighbour),
            port: PortId(neighbour.port.load(Relaxed)),
            mac: (state(word) == STALE).then(|| mac(word)),
        })
    }

    /// `address` behind `port` said that it is at `mac`. Only neighbours that somebody asked for are kept.
    /// Returns whether there was one.
    pub fn learn(&self, port: PortId, address: IpAddr, mac: Mac, now: Ticks) -> bool {
        let mut known = false;
        for id in self.matches(port, address) {
            let neighbour = &self.neighbours[id.index()];
            let word = neighbour.word.load(Relaxed);
            if generation(word) != id.generation() {
                continue;
            }
            neighbour.confirmed.store(now.0, Relaxed);
            neighbour.probes.store(0, Relaxed);
            // Release pairs with the Acquire in `resolve`. Lost against another answer: as well.
            let learnt = with_mac(with_state(word, USABLE), mac);
            known |= neighbour
                .word
                .compare_exchange(word, learnt, Ordering::Release, Relaxed)
                .is_ok();
        }
        if known {
            // Release pairs with the Acquire in `learnt`: who sees the number sees the address.
            self.learnt.fetch_add(1, Ordering::Release);
        }
        known
    }

    /// A number that changes whenever a neighbour has told its address to any worker.
    #[must_use]
    pub fn learnt(&self) -> u32 {
        // Acquire pairs with the Release in `learn`.
        self.learnt.load(Ordering::Acquire)
    }

    /// Copies the table for people to look at: port, address, hardware address if known, state.
    #[must_use]
    pub fn list(&self) -> Vec<(PortId, IpAddr, Option<Mac>, &'static str)> {
        let mut list = Vec::new();
        for neighbour in &self.neighbours {
            let word = neighbour.word.load(Ordering::Acquire);
            let text = match state(word) {
                INCOMPLETE => "incomplete",
                USABLE => "reachable",
                STALE => "stale",
                FAILED => "failed",
                _ => continue,
            };
            let known = matches!(state(word), USABLE | STALE).then(|| mac(word));
            list.push((
                PortId(neighbour.port.load(Relaxed)),
                address_of(neighbour),
                known,
                text,
            ));
        }
        list
    }

    fn window(&self, port: PortId, address: IpAddr) -> impl Iterator<Item = usize> + use<> {
        let mask = self.neighbours.len() - 1;
        let [high, low] = key_bits(address);
        #[allow(
            clippy::cast_possible_truncation,
            reason = "only some bits of a hash are wanted"
        )]
        let home = self.hasher.hash_one((port.0, high, low)) as usize;
        (0..WINDOW).map(move |step| home.wrapping_add(step) & mask)
    }

    /// Where `address` stands now.
    fn matches(&self, port: PortId, address: IpAddr) -> impl Iterator<Item = NeighbourId> {
        let bits = key_bits(address);
        self.window(port, address).filter_map(move |index| {
            let neighbour = &self.neighbours[index];
            // Acquire pairs with the Release in `intern`.
            let word = neighbour.word.load(Ordering::Acquire);
            let same = !matches!(state(word), EMPTY | CLAIMED)
                && neighbour.address[0].load(Relaxed) == bits[0]
                && neighbour.address[1].load(Relaxed) == bits[1]
                && neighbour.port.load(Relaxed) == port.0;
            same.then(|| NeighbourId::new(index, generation(word)))
        })
    }
}

/// IPv4 addresses as IPv4-mapped IPv6 ones.
fn key_bits(address: IpAddr) -> [u64; 2] {
    let bytes = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    };
    let (high, low) = bytes.split_at(8);
    [high, low].map(|half| u64::from_be_bytes(half.try_into().expect("half of sixteen bytes")))
}

fn address_of(neighbour: &Neighbour) -> IpAddr {
    let high = neighbour.address[0].load(Relaxed);
    let low = neighbour.address[1].load(Relaxed);
    let address = Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low));
    address
        .to_ipv4_mapped()
        .map_or(IpAddr::V6(address), IpAddr::V4)
}
