//! Hashes of addresses and flows. None is secret: directors that stand in for each other must agree.

use crate::Flow;
use std::net::IpAddr;

/// An address as 32 bits, host byte order: of IPv6 the four words are combined by XOR.
pub(crate) fn fold(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(address) => address.to_bits(),
        IpAddr::V6(address) => address.octets().chunks_exact(4).fold(0, |folded, word| {
            folded ^ u32::from_be_bytes([word[0], word[1], word[2], word[3]])
        }),
    }
}

/// An address as 128 bits, IPv4 in its mapped form.
pub(crate) fn wide(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The client's port if the protocol has ports, as the kernel's `sh` and `mh` look at it; otherwise 0.
pub(crate) fn client_port(flow: &Flow) -> u16 {
    const TCP: u8 = 6;
    const UDP: u8 = 17;
    const SCTP: u8 = 132;
    match flow.protocol {
        TCP | UDP | SCTP => flow.client_port,
        _ => 0,
    }
}

/// Multiplicative hash to 8 bits, for the tables of `sh` and `dh`.
///
/// Source: Linux include/linux/hash.h (the constant: Knuth, The Art of Computer Programming, vol. 3, §6.4)
pub(crate) fn to_byte(value: u32) -> u8 {
    value.wrapping_mul(0x61c8_8647).to_be_bytes()[0]
}

/// A number spread over all 64 bits: the output step of SplitMix64.
///
/// Source: Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators (OOPSLA 2014), variant 13
pub(crate) fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// A number from 0 to `bound` - 1, by the upper bits of `random` and without a division.
pub(crate) fn scale(random: u64, bound: u64) -> u64 {
    let product = u128::from(random) * u128::from(bound);
    u64::try_from(product >> 64).expect("128 - 64 bits")
}

/// SipHash-1-3.
///
/// Source: Aumasson, Bernstein: SipHash: a fast short-input PRF (2012)
#[derive(Clone, Copy, Debug)]
pub(crate) struct SipHash13 {
    state: [u64; 4],
    len: u64,
}

impl SipHash13 {
    pub(crate) const fn new(key0: u64, key1: u64) -> Self {
        // The constants of the specification: "somepseudorandomlygeneratedbytes".
        Self {
            state: [
                key0 ^ 0x736f_6d65_7073_6575,
                key1 ^ 0x646f_7261_6e64_6f6d,
                key0 ^ 0x6c79_6765_6e65_7261,
                key1 ^ 0x7465_6462_7974_6573,
            ],
            len: 0,
        }
    }

    /// Takes eight bytes, read as little endian.
    pub(crate) fn word(mut self, word: u64) -> Self {
        self.absorb(word);
        self.len += 8;
        self
    }

    /// Takes an address as two words.
    pub(crate) fn address(self, address: IpAddr) -> Self {
        let [high, low] = [wide(address) >> 64, wide(address)].map(low_half);
        self.word(high).word(low)
    }

    /// Ends with the last `len` bytes, at most seven, read as little endian.
    pub(crate) fn finish(mut self, tail: u64, len: u64) -> u64 {
        self.absorb(((self.len + len) << 56) | tail);
        self.state[2] ^= 0xff;
        for _ in 0..3 {
            self.round();
        }
        self.state.iter().fold(0, |hash, word| hash ^ word)
    }

    fn absorb(&mut self, word: u64) {
        self.state[3] ^= word;
        self.round();
        self.state[0] ^= word;
    }

    fn round(&mut self) {
        let [mut a, mut b, mut c, mut d] = self.state;
        a = a.wrapping_add(b);
        b = b.rotate_left(13) ^ a;
        a = a.rotate_left(32);
        c = c.wrapping_add(d);
        d = d.rotate_left(16) ^ c;
        a = a.wrapping_add(d);
        d = d.rotate_left(21) ^ a;
        c = c.wrapping_add(b);
        b = b.rotate_left(17) ^ c;
        c = c.rotate_left(32);
        self.state = [a, b, c, d];
    }
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "the lower half is what is asked for"
)]
fn low_half(value: u128) -> u64 {
    value as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::Hasher;
    use std::net::Ipv6Addr;

    #[test]
    fn siphash_is_the_standard_library_s() {
        // DefaultHasher is SipHash-1-3 with a key of zeros.
        let mut theirs = std::hash::DefaultHasher::new();
        theirs.write(&0x0123_4567_89ab_cdef_u64.to_le_bytes());
        theirs.write(&[1, 2, 3, 4]);
        let ours = SipHash13::new(0, 0)
            .word(0x0123_4567_89ab_cdef)
            .finish(0x0403_0201, 4);
        assert_eq!(ours, theirs.finish());
    }

    #[test]
    fn an_ipv6_address_folds_by_xor_of_its_words() {
        let address = Ipv6Addr::new(0x1234, 0x5678, 0, 1, 0, 2, 0x8000, 4);
        assert_eq!(fold(address.into()), 0x1234_5678 ^ 1 ^ 2 ^ 0x8000_0004);
    }

    #[test]
    fn scaled_numbers_reach_both_ends_and_stay_below_the_bound() {
        assert_eq!(scale(0, 10), 0);
        assert_eq!(scale(u64::MAX, 10), 9);
        assert_eq!(scale(u64::MAX, 1), 0);
    }
}
