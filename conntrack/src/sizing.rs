//! What a table takes of the memory: the sums, and the bounds they keep.
//!
//! ```text
//!   each connection, bytes            IPv4     IPv6
//!   entry                               64      128
//!   links of its timer                   8        8
//!   index: 2 keys, 64/7 each at 67 %  27.3     27.3
//!   a 64th of a chunk of surplus       0.4      0.4
//!                                     99.7    163.7
//! ```
//! The index has room for two keys of each connection, whatever the methods are: with NAT and FULLNAT it is full at
//! [`LOAD_PERCENT`], with DR and TUN it is half as full and the faster for it.

use crate::index::SLOTS;

/// Slots in use of a hundred when the table is full of connections with two keys.
const LOAD_PERCENT: u64 = 67;
const MIN_BUCKETS: u64 = if cfg!(loom) { 2 } else { 32 };

/// Buckets of the index for so many connections.
pub(crate) const fn buckets(capacity: u32) -> u64 {
    let keys = capacity as u64 * 2;
    let count = (keys * 100).div_ceil(LOAD_PERCENT * SLOTS as u64);
    if count < MIN_BUCKETS {
        MIN_BUCKETS
    } else {
        count
    }
}

/// The sums, at compile time. (Loom's atomics are larger than those they stand for.)
#[cfg(not(loom))]
mod promise {
    use super::buckets;
    use crate::entry::Entry;
    use crate::family::{Family, V4, V6};
    use crate::index::Bucket;
    use crate::reclaim::Pool;
    use crate::wheel::Link;

    /// Bytes of a table for so many connections and workers: entries, index, links, and what it needs to hand entries
    /// from worker to worker.
    const fn table_bytes<F: Family>(capacity: u32, workers: u16) -> u64 {
        // Entry 0 is nobody's.
        let entries = capacity as u64 + 1;
        entries * (size_of::<Entry<F>>() + size_of::<Link>()) as u64
            + buckets(capacity) * size_of::<Bucket>() as u64
            + Pool::surplus_bytes(capacity, workers)
    }

    const _: () = {
        let capacities = [1 << 16, 1_000_000, 10_000_000, 100_000_000, 1 << 30];
        let mut place = 0;
        while place < capacities.len() {
            let capacity = capacities[place];
            // By DR and TUN; by NAT and FULLNAT it might be 128, and is the same.
            assert!(table_bytes::<V4>(capacity, 64) <= 100 * capacity as u64);
            assert!(table_bytes::<V6>(capacity, 64) <= 164 * capacity as u64);
            place += 1;
        }
    };
}
