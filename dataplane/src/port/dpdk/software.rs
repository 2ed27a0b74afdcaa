//! What a sender has left to the NIC, done here or by the device: frames of ports that hand such over (AF_PACKET).

use super::device::Device;
use super::queue::Queue;
use crate::frame::{Gso, Offload};
use crate::packet::wire::{ETHER_TYPE_IPV4, ETHERNET_LEN, read_u16};
use crate::packet::{Parsed, checksum, parse};
use crate::rewrite::{tcp_segments, udp_segments};

/// The largest segment that is cut here, with its headers: a jumbo frame.
const SEGMENT_LEN_MAX: usize = 9216 + 256;
/// Where TCP and UDP have their checksums.
const TCP_FIELD: u16 = 16;
const UDP_FIELD: u16 = 6;

/// Queues a copy of a frame, with nothing left to do. False when not all of it could be.
#[cold]
pub(super) fn send(queue: &mut Queue, device: &Device, bytes: &[u8], offload: &Offload) -> bool {
    if offload.gso != Gso::None {
        return send_segments(queue, bytes, offload);
    }
    if !offload.partial_checksum {
        return queue.copy(bytes);
    }
    let is_plain = read_u16(bytes, ETHERNET_LEN - 2) == ETHER_TYPE_IPV4;
    let is_known = matches!(offload.checksum_offset, TCP_FIELD | UDP_FIELD);
    if device.facts.tx_checksums && is_plain && is_known {
        let is_udp = offload.checksum_offset == UDP_FIELD;
        return queue.copy_for_checksum(bytes, offload.checksum_start, is_udp, false);
    }
    let mut copy = [0; SEGMENT_LEN_MAX];
    let Some(copy) = copy.get_mut(..bytes.len()) else {
        return false;
    };
    copy.copy_from_slice(bytes);
    checksum::complete(copy, offload);
    queue.copy(copy)
}

fn send_segments(queue: &mut Queue, bytes: &[u8], offload: &Offload) -> bool {
    let mut scratch = [0; SEGMENT_LEN_MAX];
    let mut sent = 0;
    let mut emit = |segment: &mut [u8]| sent += usize::from(queue.copy(segment));
    let is_udp = offload.gso == Gso::Udp;
    let count = match parse(bytes, offload) {
        Parsed::Ipv4(packet) if is_udp => {
            udp_segments(bytes, &packet, offload, &mut scratch, &mut emit)
        }
        Parsed::Ipv4(packet) => tcp_segments(bytes, &packet, offload, &mut scratch, &mut emit),
        Parsed::Ipv6(packet) if is_udp => {
            udp_segments(bytes, &packet, offload, &mut scratch, &mut emit)
        }
        Parsed::Ipv6(packet) => tcp_segments(bytes, &packet, offload, &mut scratch, &mut emit),
        _ => 0,
    };
    count > 0 && sent == count
}
