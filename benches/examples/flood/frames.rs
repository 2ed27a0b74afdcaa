//! Frames of clients, 64 bytes on the wire, and what makes a flood of one.

use conntrack::V4;
use dataplane::packet::checksum;
use dataplane::packet::wire::{TCP, write_ipv4_checksum};
use std::net::Ipv4Addr;

pub(crate) const SYN: u8 = 0x02;
pub(crate) const ACK: u8 = 0x10;
/// The virtual address, and its port is 80.
pub(crate) const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 100);
pub(crate) const DIRECTOR: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub(crate) const OTHERS: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// Without the checksum sequence.
const LEN: usize = 60;
const IP: usize = 14;
const L4: usize = 34;
const IPIP: u8 = 4;

/// Who is speaking: an address and a port.
pub(crate) type End = (Ipv4Addr, u16);

/// A segment to the virtual server. Its sequence number tells whose it is, whatever is rewritten around it.
pub(crate) fn segment((address, port): End, flags: u8, sequence: u32) -> Vec<u8> {
    let mut frame = vec![0; LEN];
    frame[..6].copy_from_slice(&DIRECTOR);
    frame[6..12].copy_from_slice(&OTHERS);
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    frame[IP..24].copy_from_slice(&[0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, TCP]);
    frame[26..30].copy_from_slice(&address.octets());
    frame[30..34].copy_from_slice(&VIP.octets());
    write_ipv4_checksum(&mut frame, IP);
    frame[34..36].copy_from_slice(&port.to_be_bytes());
    frame[36..38].copy_from_slice(&80u16.to_be_bytes());
    frame[38..42].copy_from_slice(&sequence.to_be_bytes());
    frame[46] = 5 << 4;
    frame[47] = flags;
    frame[48..50].copy_from_slice(&64240u16.to_be_bytes());
    let sum = checksum::l4::<V4>(address, VIP, TCP, &frame[L4..L4 + 20]);
    frame[50..52].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// The sequence number of a segment on its way to a server, in a tunnel or not.
#[inline]
pub(crate) fn sequence(frame: &[u8]) -> Option<u32> {
    let at = if frame.get(23) == Some(&IPIP) {
        L4 + 24
    } else {
        L4 + 4
    };
    let bytes = frame.get(at..at + 4)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

/// Sources that never end and look like no order (xorshift64*).
pub(crate) struct Sources(u64);

impl Sources {
    pub(crate) fn new(seed: u64) -> Sources {
        Sources(seed)
    }

    /// Gives a segment from 0.0.0.0:0 another source, and the checksums that go with it (RFC 1624).
    #[inline]
    pub(crate) fn write_next(&mut self, frame: &mut [u8]) {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let random = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d);
        let frame: &mut [u8; LEN] = frame.try_into().expect("frames of one length");
        #[allow(clippy::cast_possible_truncation, reason = "some bits of it")]
        let (address, port) = (
            // From 32.0.0.0 to 63.255.255.255, and no port below 1024.
            0x2000_0000 | (random >> 35) as u32,
            0x0400 | random as u16,
        );
        frame[26..30].copy_from_slice(&address.to_be_bytes());
        frame[34..36].copy_from_slice(&port.to_be_bytes());
        let words = (address >> 16) + (address & 0xffff);
        add_to(&mut frame[24..26], words);
        add_to(&mut frame[50..52], words + u32::from(port));
    }
}

/// Takes words into a checksum that were 0 before.
#[inline]
fn add_to(field: &mut [u8], words: u32) {
    let old = !u16::from_be_bytes([field[0], field[1]]);
    let sum = u32::from(old) + words;
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let new = !u16::try_from(sum).expect("folded twice");
    field.copy_from_slice(&new.to_be_bytes());
}
