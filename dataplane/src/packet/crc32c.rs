//! CRC32c, the checksum of SCTP, made and adjusted.
//!
//! A CRC is linear over exclusive or: when a packet `p` becomes `q` of the same length, `crc(q) = crc(p) ^ crc0(p ^ q)`,
//! where `crc0` starts from 0 and is not complemented. So ports are changed as with the Internet checksum, by adding a
//! difference, and a wrong checksum stays wrong. The addresses are no part of it.
//!
//! Source: RFC 9260 §6.8 and appendix A.

use super::wire::{SCTP_LEN, read_array};

/// Castagnoli's polynomial, bits reversed.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// The remainders of the 256 single bytes.
const TABLE: [u32; 256] = table();

/// Where the checksum is in the common header.
const FIELD: usize = 8;

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut crc = index as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 {
                (crc >> 1) ^ POLYNOMIAL
            } else {
                crc >> 1
            };
            bit += 1;
        }
        table[index as usize] = crc;
        index += 1;
    }
    table
}

/// Powers of two of zero bytes, as many as there are in the length of an IP packet.
const POWERS: usize = 16;

/// What 1, 2, 4, … zero bytes make of a remainder with a single bit: zero bytes are a linear map.
static ZEROS: [[u32; 32]; POWERS] = zeros();

const fn zeros() -> [[u32; 32]; POWERS] {
    let mut zeros = [[0; 32]; POWERS];
    let mut bit = 0;
    while bit < 32 {
        let crc = 1_u32 << bit;
        zeros[0][bit] = (crc >> 8) ^ TABLE[(crc & 0xff) as usize];
        bit += 1;
    }
    let mut power = 1;
    while power < POWERS {
        let mut bit = 0;
        while bit < 32 {
            let half = &zeros[power - 1];
            zeros[power][bit] = apply(half, half[bit]);
            bit += 1;
        }
        power += 1;
    }
    zeros
}

const fn apply(map: &[u32; 32], mut crc: u32) -> u32 {
    let mut result = 0;
    while crc != 0 {
        result ^= map[crc.trailing_zeros() as usize];
        crc &= crc - 1;
    }
    result
}

/// The remainder after `count` zero bytes more, fewer than 65536, in a few steps for each bit of `count`.
fn append_zeros(mut crc: u32, count: usize) -> u32 {
    for (power, map) in ZEROS.iter().enumerate() {
        if count >> power & 1 != 0 {
            crc = apply(map, crc);
        }
    }
    crc
}

fn update(crc: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(crc, |crc, &byte| {
        let [low, ..] = crc.to_le_bytes();
        (crc >> 8) ^ TABLE[usize::from(low ^ byte)]
    })
}

/// The CRC32c of `bytes`. On the wire it stands in little-endian order.
#[must_use]
pub fn of(bytes: &[u8]) -> u32 {
    !update(!0, bytes)
}

/// Makes the checksum of the SCTP packet (common header and chunks) anew.
///
/// # Panics
/// When it is shorter than a common header.
pub fn write(packet: &mut [u8]) {
    packet[FIELD..SCTP_LEN].fill(0);
    let crc = of(packet).to_le_bytes();
    packet[FIELD..SCTP_LEN].copy_from_slice(&crc);
}

/// Adds a change of the ports, which are `old` and `new` as they stand in the packet, to the checksum of the SCTP
/// packet. Differs from IPVS: the kernel makes the checksum anew and thus repairs a wrong one.
///
/// # Panics
/// When the packet is shorter than a common header.
pub fn adjust_ports(packet: &mut [u8], old: [u8; 4], new: [u8; 4]) {
    let difference = (u32::from_ne_bytes(old) ^ u32::from_ne_bytes(new)).to_ne_bytes();
    // The difference is zero behind the ports.
    let change = append_zeros(update(0, &difference), packet.len() - 4);
    let crc = u32::from_le_bytes(read_array(packet, FIELD)) ^ change;
    packet[FIELD..SCTP_LEN].copy_from_slice(&crc.to_le_bytes());
}
