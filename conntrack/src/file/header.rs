//! The words of the header, and what they are held against.

use crate::entry::Entry;
use crate::family::{V4, V6};
use crate::index::Bucket;
use std::fs;
use std::io;

/// "uvstable", and what changes with every change of what lies in the file.
pub(super) const MAGIC: u64 = u64::from_be_bytes(*b"uvstable");
pub(super) const VERSION: u64 = 1;
/// Of all of it.
pub(super) const HEADER_WORDS: usize = 512;

/// Words of the header.
pub(super) const WORD_MAGIC: usize = 0;
pub(super) const WORD_VERSION: usize = 1;
pub(super) const WORD_SIZES: usize = 2;
pub(super) const WORD_CAPACITY: usize = 3;
pub(super) const WORD_DIRECTORY: usize = 4;
pub(super) const WORD_WORDS: usize = 5;
pub(super) const WORD_BOOT: usize = 6;
pub(super) const WORD_CLOCK: usize = 8;
pub(super) const WORD_SEEDS: usize = 9;
pub(super) const WORD_HASHED: usize = 13;
pub(super) const WORD_SUM: usize = 14;

/// A length as one of memory.
pub(super) fn whole(len: u64) -> usize {
    usize::try_from(len).expect("what is mapped has an address")
}

/// What parts are made of, and in which order a word has its bytes.
pub(super) fn sizes() -> u64 {
    let order = u64::from(u16::from_ne_bytes([1, 2]));
    let buckets = size_of::<Bucket>() as u64;
    order << 48
        | buckets << 32
        | (size_of::<Entry<V6>>() as u64) << 16
        | size_of::<Entry<V4>>() as u64
}

/// What the hash function makes of the seeds: another version of it, or another CPU's, makes something else.
pub(super) fn hashed(seeds: [u64; 4]) -> u64 {
    let [a, b, c, d] = seeds;
    ahash::RandomState::with_seeds(a, b, c, d).hash_one((MAGIC, 1_u64, 2_u64))
}

pub(super) fn header_sum(words: &[u64; WORD_SUM + 1]) -> u64 {
    sum(words[..WORD_SUM].iter().copied(), &[])
}

/// Which boot of the machine this is.
pub(super) fn boot() -> io::Result<[u64; 2]> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let number = u128::from_str_radix(&digits, 16).map_err(io::Error::other)?;
    Ok([number >> 64, number & u128::from(u64::MAX)]
        .map(|half| u64::try_from(half).expect("half of it")))
}

/// CRC-32 of words and bytes, with a mark of a sum above it, so that zeroes have none.
///
/// Source: ITU-T V.42 §8.1.1.6.2, bits in the order of Ethernet's.
pub(super) fn sum(words: impl IntoIterator<Item = u64>, bytes: &[u8]) -> u64 {
    let words = words.into_iter().flat_map(u64::to_le_bytes);
    let step = |crc: u32, byte: u8| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & 0_u32.wrapping_sub(crc & 1))
        })
    };
    let crc = words.chain(bytes.iter().copied()).fold(u32::MAX, step);
    1 << 32 | u64::from(!crc)
}
