//! The flows that all structures are asked about: the same ones, in the same random order.

use conntrack::{Tuple, V4};
use std::hash::{Hash, Hasher};
use std::net::Ipv4Addr;

/// A flow's 13 bytes, padded with zeroes to the two words that compare and hash fastest: what all peers have as key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key([u64; 2]);

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0[0]);
        state.write_u64(self.0[1]);
    }
}

impl From<Tuple<V4>> for Key {
    fn from(tuple: Tuple<V4>) -> Key {
        Key([
            u64::from(tuple.source.to_bits()) << 32 | u64::from(tuple.destination.to_bits()),
            u64::from(tuple.protocol) << 32
                | u64::from(tuple.source_port) << 16
                | u64::from(tuple.destination_port),
        ])
    }
}

/// Which flows: no two of these have a flow in common.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// In the structure all the time.
    Resident,
    /// Never in it.
    Absent,
    /// Put in and taken out, by the thread of this number.
    Passing(u32),
}

/// The flow of a number, below 2^26: a TCP client's from anywhere.
pub(crate) fn flow(kind: Kind, number: u32) -> Tuple<V4> {
    let base = match kind {
        Kind::Resident => 0,
        Kind::Absent => 1 << 30,
        Kind::Passing(thread) => (2 + thread) << 28,
    };
    // Both are permutations of the 32-bit numbers: two flows differ in their clients' addresses.
    let spread = (base + number).wrapping_mul(0x9e37_79b1);
    let spread = (spread ^ (spread >> 15)).wrapping_mul(0x85eb_ca77);
    let [high, low, ..] = (spread ^ (spread >> 13))
        .wrapping_mul(0xc2b2_ae3d)
        .to_be_bytes();
    Tuple {
        source: Ipv4Addr::from_bits(spread),
        destination: Ipv4Addr::new(10, 0, 0, 100),
        source_port: u16::from_be_bytes([high, low]) | 1024,
        destination_port: 80,
        protocol: 6,
    }
}

/// At least `count` flows drawn at random from the first `count` of a kind, a whole number of bursts.
pub(crate) fn sequence<K: From<Tuple<V4>>>(kind: Kind, count: u32) -> Vec<K> {
    // So many that no predictor of branches learns them.
    let draws = (count.max(1 << 14)).next_multiple_of(32);
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    (0..draws)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let drawn = ((state >> 32) * u64::from(count)) >> 32;
            flow(kind, u32::try_from(drawn).expect("below count")).into()
        })
        .collect()
}
