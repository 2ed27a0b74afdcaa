//! The word of a neighbour: MAC 48 | generation 8 | state 8.

use crate::port::Mac;

pub(super) const EMPTY: u8 = 0;
pub(super) const CLAIMED: u8 = 1;
pub(super) const INCOMPLETE: u8 = 2;
pub(super) const USABLE: u8 = 3;
pub(super) const STALE: u8 = 4;
pub(super) const FAILED: u8 = 5;

pub(super) fn state(word: u64) -> u8 {
    word.to_be_bytes()[7]
}

pub(super) fn generation(word: u64) -> u8 {
    word.to_be_bytes()[6]
}

pub(super) fn mac(word: u64) -> Mac {
    let [a, b, c, d, e, f, _, _] = word.to_be_bytes();
    Mac([a, b, c, d, e, f])
}

pub(super) fn with_state(word: u64, state: u8) -> u64 {
    word & !0xff | u64::from(state)
}

pub(super) fn with_mac(word: u64, mac: Mac) -> u64 {
    let [a, b, c, d, e, f] = mac.0;
    u64::from_be_bytes([a, b, c, d, e, f, 0, 0]) | word & 0xffff
}
