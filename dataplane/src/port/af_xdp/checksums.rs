//! Partial checksums: a sender on the same machine leaves its checksum to the NIC, and a veth hands the frame over as it is.
//! With a packet socket the kernel says so; with AF_XDP it does not.
//!
//! The field then holds the sum of the pseudo-header (TCP, UDP) or zero (SCTP), which one in 65,536 finished checksums does,
//! too. So what looks unfinished is computed anew over the whole packet: right in both cases.

use crate::frame::{Frame, Offload};
use crate::packet::wire::{SCTP, TCP, UDP, checksum_offset, read_u16, read_u32};
use crate::packet::{Fragment, Packet, Parsed, checksum, parse, wire::Wire};

/// Completes the checksum of a frame where it looks unfinished. Whether it did.
pub(super) fn complete(frame: &mut Frame) -> bool {
    let unfinished = match &parse(frame.bytes(), &Offload::NONE) {
        Parsed::Ipv4(packet) => unfinished(frame.bytes(), packet),
        Parsed::Ipv6(packet) => unfinished(frame.bytes(), packet),
        _ => None,
    };
    let Some((offload, end)) = unfinished else {
        return false;
    };
    // Without the link's padding.
    checksum::complete(&mut frame.bytes_mut()[..end], &offload);
    true
}

/// What is left to do for a packet, and where it ends.
fn unfinished<F: Wire>(frame: &[u8], packet: &Packet<F>) -> Option<(Offload, usize)> {
    if packet.fragment != Fragment::None {
        return None;
    }
    let tuple = &packet.tuple;
    let (start, end) = (packet.l4(), packet.end());
    let offset = checksum_offset(tuple.protocol)?;
    let field = start + offset;
    let is_partial = match tuple.protocol {
        TCP | UDP => {
            let len = u32::try_from(end - start).ok()?;
            let pseudo_header =
                checksum::pseudo_header::<F>(tuple.source, tuple.destination, tuple.protocol, len);
            read_u16(frame, field) == pseudo_header
        }
        SCTP => read_u32(frame, field) == 0,
        _ => false,
    };
    let offload = Offload {
        partial_checksum: true,
        checksum_start: packet.l4,
        checksum_offset: u16::try_from(offset).ok()?,
        ..Offload::NONE
    };
    is_partial.then_some((offload, end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{V4, V6};
    use crate::port::PortId;
    use crate::port::pool::Pool;
    use std::net::{Ipv4Addr, Ipv6Addr};

    const A: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const B: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

    fn ipv4(protocol: u8, transport: &[u8]) -> Vec<u8> {
        let mut header = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0];
        header.extend(A.octets());
        header.extend(B.octets());
        let len = u16::try_from(20 + transport.len()).unwrap();
        header[2..4].copy_from_slice(&len.to_be_bytes());
        let sum = checksum::ipv4_header(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        [vec![2; 12], vec![8, 0], header, transport.to_vec()].concat()
    }

    fn ipv6(protocol: u8, transport: &[u8]) -> Vec<u8> {
        let mut frame = [vec![2; 12], vec![0x86, 0xdd, 0x60, 0, 0, 0]].concat();
        frame.extend(u16::try_from(transport.len()).unwrap().to_be_bytes());
        frame.extend([protocol, 64]);
        frame.extend(
            Ipv6Addr::LOCALHOST
                .to_bits()
                .wrapping_add(1 << 100)
                .to_be_bytes(),
        );
        frame.extend(
            Ipv6Addr::LOCALHOST
                .to_bits()
                .wrapping_add(2 << 100)
                .to_be_bytes(),
        );
        frame.extend(transport);
        frame
    }

    /// A transport header of `len` bytes with a payload and, at `field`, the checksum.
    fn transport(protocol: u8, field: usize, checksum: u16) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..43).collect();
        if protocol == TCP {
            bytes[12] = 5 << 4;
        } else {
            bytes[4..6].copy_from_slice(&43u16.to_be_bytes());
        }
        bytes[field..field + 2].copy_from_slice(&checksum.to_be_bytes());
        bytes
    }

    /// What becomes of a frame, and whether it was completed.
    fn after(bytes: &[u8]) -> (Vec<u8>, bool) {
        let mut pool = Pool::new(PortId(0), 1, 2048);
        let mut frame = pool.lend_copy(bytes, Offload::NONE).unwrap();
        let completed = complete(&mut frame);
        let bytes = frame.bytes().to_vec();
        pool.give_back(frame);
        (bytes, completed)
    }

    #[test]
    fn a_pseudo_headers_sum_becomes_the_whole_checksum() {
        for (protocol, field) in [(TCP, 16), (UDP, 6)] {
            let partial = checksum::pseudo_header::<V4>(A, B, protocol, 43);
            let mut frame = ipv4(protocol, &transport(protocol, field, partial));
            // Padding is no part of it.
            frame.extend([9, 9, 9]);
            let (bytes, completed) = after(&frame);
            assert!(completed);
            assert_eq!(
                checksum::l4::<V4>(A, B, protocol, &bytes[34..77]),
                0,
                "{protocol}"
            );
            assert_eq!(bytes[77..], [9, 9, 9]);
            assert_eq!(after(&bytes), (bytes, false), "finished is finished");
        }
    }

    #[test]
    fn the_same_of_ipv6() {
        for (protocol, field) in [(TCP, 16), (UDP, 6)] {
            let empty = ipv6(protocol, &transport(protocol, field, 0));
            let Parsed::Ipv6(packet) = parse(&empty, &Offload::NONE) else {
                panic!("a packet");
            };
            let (from, to) = (packet.tuple.source, packet.tuple.destination);
            let partial = checksum::pseudo_header::<V6>(from, to, protocol, 43);
            let (bytes, completed) = after(&ipv6(protocol, &transport(protocol, field, partial)));
            assert!(completed);
            assert_eq!(checksum::l4::<V6>(from, to, protocol, &bytes[54..]), 0);
        }
    }

    #[test]
    fn other_checksums_stay_also_wrong_ones_and_none() {
        for (protocol, field, value) in [(TCP, 16, 0xbad), (UDP, 6, 0xbad), (UDP, 6, 0)] {
            let frame = ipv4(protocol, &transport(protocol, field, value));
            assert_eq!(after(&frame), (frame, false));
        }
        // A fragment's field is the datagram's.
        let partial = checksum::pseudo_header::<V4>(A, B, UDP, 43);
        let mut fragment = ipv4(UDP, &transport(UDP, 6, partial)[..40]);
        fragment[20] = 0x20;
        fragment[24..26].fill(0);
        let sum = checksum::ipv4_header(&fragment[14..34]);
        fragment[24..26].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(after(&fragment), (fragment, false));
    }

    #[test]
    fn sctps_empty_field_gets_its_crc() {
        let mut packet: Vec<u8> = (1..45).collect();
        packet[8..12].fill(0);
        let (bytes, completed) = after(&ipv4(SCTP, &packet));
        assert!(completed);
        let mut expected = packet;
        crate::packet::crc32c::write(&mut expected);
        assert_eq!(bytes[34..], expected);
    }
}
