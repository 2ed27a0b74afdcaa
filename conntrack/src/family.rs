//! The two address families, so that one table's code serves both and neither pays for the other.

use crate::sync::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::fmt::{Debug, Display};
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address family: [`V4`] or [`V6`].
pub trait Family:
    sealed::Sealed + Copy + Eq + Hash + Debug + Default + Send + Sync + 'static
{
    /// Its addresses.
    type Address: Copy + Eq + Ord + Hash + Debug + Display + Into<IpAddr> + Send + Sync + 'static;
    /// Where an entry keeps one. Atomics alone, so that all-zero bytes are a valid value.
    #[doc(hidden)]
    type Cell: Debug + Default + Send + Sync + 'static;
    /// The address of no host.
    const UNSPECIFIED: Self::Address;

    #[doc(hidden)]
    fn load(cell: &Self::Cell) -> Self::Address;
    #[doc(hidden)]
    fn store(cell: &Self::Cell, address: Self::Address);
    /// The address with a word laid over it, which taking the same word off again undoes.
    #[doc(hidden)]
    fn overlaid(address: Self::Address, word: u32) -> Self::Address;
    /// Feeds a pair of addresses to a hasher in whole words.
    #[doc(hidden)]
    fn hash_pair<H: Hasher>(source: Self::Address, destination: Self::Address, hasher: &mut H);
}

/// IPv4.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct V4;

/// IPv6.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct V6;

impl Family for V4 {
    type Address = Ipv4Addr;
    type Cell = AtomicU32;
    const UNSPECIFIED: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

    #[inline]
    fn load(cell: &AtomicU32) -> Ipv4Addr {
        // In the order of the packet's bytes, as the address itself is kept.
        Ipv4Addr::from(cell.load(Relaxed).to_ne_bytes())
    }

    #[inline]
    fn store(cell: &AtomicU32, address: Ipv4Addr) {
        cell.store(u32::from_ne_bytes(address.octets()), Relaxed);
    }

    #[inline]
    fn overlaid(address: Ipv4Addr, word: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(address.to_bits() ^ word)
    }

    #[inline]
    fn hash_pair<H: Hasher>(source: Ipv4Addr, destination: Ipv4Addr, hasher: &mut H) {
        let word = |address: Ipv4Addr| u64::from(u32::from_ne_bytes(address.octets()));
        hasher.write_u64(word(source) << 32 | word(destination));
    }
}

impl Family for V6 {
    type Address = Ipv6Addr;
    type Cell = [AtomicU64; 2];
    const UNSPECIFIED: Ipv6Addr = Ipv6Addr::UNSPECIFIED;

    #[inline]
    fn load(cell: &[AtomicU64; 2]) -> Ipv6Addr {
        let [high, low] = [cell[0].load(Relaxed), cell[1].load(Relaxed)];
        Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low))
    }

    #[inline]
    fn store(cell: &[AtomicU64; 2], address: Ipv6Addr) {
        let [high, low] = halves(address);
        cell[0].store(high, Relaxed);
        cell[1].store(low, Relaxed);
    }

    #[inline]
    fn overlaid(address: Ipv6Addr, word: u32) -> Ipv6Addr {
        Ipv6Addr::from_bits(address.to_bits() ^ u128::from(word))
    }

    #[inline]
    fn hash_pair<H: Hasher>(source: Ipv6Addr, destination: Ipv6Addr, hasher: &mut H) {
        for word in halves(source).into_iter().chain(halves(destination)) {
            hasher.write_u64(word);
        }
    }
}

#[inline]
fn halves(address: Ipv6Addr) -> [u64; 2] {
    let bits = address.to_bits();
    #[allow(
        clippy::cast_possible_truncation,
        reason = "the two halves are what is wanted"
    )]
    [(bits >> 64) as u64, bits as u64]
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::V4 {}
    impl Sealed for super::V6 {}
}
