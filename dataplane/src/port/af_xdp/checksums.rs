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
