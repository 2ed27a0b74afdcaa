//! Packets in a few bytes, and the frames that are made of them.

use crate::case::FCS_LEN;
use crate::place::Ip;
use dataplane::packet::checksum::{self, Delta};
use dataplane::packet::wire::{ETHERNET_LEN, IPV4_LEN, TCP, TCP_LEN};

/// TCP's flags.
pub(crate) const SYN: u8 = 0x02;
pub(crate) const ACK: u8 = 0x10;

/// The director's hardware address.
pub(crate) const DIRECTOR: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// That of everybody else.
pub(crate) const OTHERS: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// Bytes of the shortest frame in memory.
const SHORTEST: usize = 60;
/// Where an IPv4 header keeps its checksum, bytes from the frame's start.
const IPV4_CHECKSUM: usize = ETHERNET_LEN + 10;
/// Where a TCP header keeps its flags and its checksum.
const FLAGS: usize = 13;
const TCP_CHECKSUM: usize = 16;

/// Between which ends a packet goes: address and port of each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends<F: Ip> {
    pub(crate) source: (F::Address, u16),
    pub(crate) destination: (F::Address, u16),
}

/// What tells a frame from the others. Its payload is of zeroes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record<F: Ip> {
    source: F::Address,
    destination: F::Address,
    /// As they stand in the frame.
    ports: [u8; 4],
    len_field: [u8; 2],
    ip_checksum: [u8; 2],
    tcp_checksum: [u8; 2],
    flags: u8,
}

impl<F: Ip> Record<F> {
    /// A TCP segment in a frame of `frame_len` bytes, checksum sequence included. The shortest has no payload.
    pub(crate) fn new(ends: &Ends<F>, flags: u8, frame_len: u32) -> Record<F> {
        let headers = F::HEADER_LEN + TCP_LEN;
        let in_memory = (frame_len - FCS_LEN) as usize;
        let len = if in_memory <= SHORTEST {
            headers
        } else {
            in_memory - ETHERNET_LEN
        };
        let (source, source_port) = ends.source;
        let (destination, destination_port) = ends.destination;
        let [[a, b], [c, d]] = [source_port, destination_port].map(u16::to_be_bytes);
        let mut record = Record {
            source,
            destination,
            ports: [a, b, c, d],
            len_field: F::len_field(len).to_be_bytes(),
            ip_checksum: [0; 2],
            tcp_checksum: [0; 2],
            flags,
        };
        let mut frame = [0; 128];
        F::write(&record, &mut frame);
        if F::HEADER_LEN == IPV4_LEN {
            let header = &frame[ETHERNET_LEN..ETHERNET_LEN + IPV4_LEN];
            record.ip_checksum = checksum::ipv4_header(header).to_be_bytes();
        }
        let l4 = ETHERNET_LEN + F::HEADER_LEN;
        let segment_len = u32::try_from(len - F::HEADER_LEN).expect("below 9018");
        let pseudo = checksum::pseudo_header::<F>(source, destination, TCP, segment_len);
        let header = Delta(checksum::sum(&frame[l4..l4 + TCP_LEN]));
        record.tcp_checksum = (!checksum::apply_partial(pseudo, header)).to_be_bytes();
        record
    }
}

/// A frame's headers in whole cache lines, without what a record has.
const fn template<F: Ip, const N: usize>() -> [u8; N] {
    let mut frame = [0; N];
    let mut index = 0;
    while index < 6 {
        frame[index] = DIRECTOR[index];
        frame[6 + index] = OTHERS[index];
        index += 1;
    }
    let [high, low] = F::ETHER_TYPE.to_be_bytes();
    frame[12] = high;
    frame[13] = low;
    if F::HEADER_LEN == IPV4_LEN {
        frame[ETHERNET_LEN] = 0x45;
        // Identification 1, "don't fragment".
        frame[ETHERNET_LEN + 5] = 1;
        frame[ETHERNET_LEN + 6] = 0x40;
        frame[ETHERNET_LEN + 9] = TCP;
    } else {
        frame[ETHERNET_LEN] = 0x60;
        frame[ETHERNET_LEN + 6] = TCP;
    }
    frame[ETHERNET_LEN + F::TTL] = 64;
    let l4 = ETHERNET_LEN + F::HEADER_LEN;
    frame[l4 + 12] = 5 << 4;
    // The window.
    frame[l4 + 14] = 0xfa;
    frame[l4 + 15] = 0xf0;
    frame
}

/// Writes a frame's headers, which take at most `N` bytes, and returns its length in memory. The payload stays what
/// it was.
#[inline]
pub(crate) fn write_record<F: Ip, const N: usize>(record: &Record<F>, buffer: &mut [u8]) -> usize {
    let headers: &mut [u8; N] = buffer
        .first_chunk_mut()
        .expect("buffers are of whole cache lines, as many as the headers take");
    *headers = const { template::<F, N>() };
    headers[F::LEN_FIELD..F::LEN_FIELD + 2].copy_from_slice(&record.len_field);
    let mut l3_len = usize::from(u16::from_be_bytes(record.len_field));
    if F::HEADER_LEN == IPV4_LEN {
        headers[IPV4_CHECKSUM..IPV4_CHECKSUM + 2].copy_from_slice(&record.ip_checksum);
    } else {
        l3_len += F::HEADER_LEN;
    }
    F::write_address(headers, ETHERNET_LEN + F::SOURCE, record.source);
    F::write_address(headers, ETHERNET_LEN + F::DESTINATION, record.destination);
    let l4 = ETHERNET_LEN + F::HEADER_LEN;
    headers[l4..l4 + 4].copy_from_slice(&record.ports);
    headers[l4 + FLAGS] = record.flags;
    headers[l4 + TCP_CHECKSUM..l4 + TCP_CHECKSUM + 2].copy_from_slice(&record.tcp_checksum);
    (ETHERNET_LEN + l3_len).max(SHORTEST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::Size;
    use crate::place::{Host, client};
    use conntrack::{V4, V6};
    use dataplane::frame::Offload;
    use dataplane::packet::{Parsed, parse};

    fn frames_are_right<F: Ip>(
        tuple: impl Fn(Parsed) -> Option<(F::Address, F::Address, u16, u16)>,
    ) {
        let source = client::<F>(77);
        let destination = (F::address(Host::Vip), 80);
        let ends = Ends {
            source,
            destination,
        };
        let mut buffer = vec![0; 9024];
        for size in [64, 65, 78, 100, 594, 1518, 9018] {
            let frame_len = Size::Bytes(size).frame_len(F::FAMILY, 0);
            let record = Record::<F>::new(&ends, ACK, frame_len);
            let len = F::write(&record, &mut buffer);
            assert_eq!(u32::try_from(len).unwrap(), frame_len - FCS_LEN);
            let found = tuple(parse(&buffer[..len], &Offload::NONE));
            let expected = (source.0, destination.0, source.1, destination.1);
            assert_eq!(found, Some(expected), "{size} bytes");
            let l4 = ETHERNET_LEN + F::HEADER_LEN;
            let end = if len == SHORTEST { l4 + TCP_LEN } else { len };
            let sum = checksum::l4::<F>(source.0, destination.0, TCP, &buffer[l4..end]);
            assert_eq!(sum, 0, "{size} bytes");
            assert_eq!(buffer[l4 + FLAGS], ACK);
        }
    }

    #[test]
    fn frames_of_both_families_parse_and_their_checksums_are_right() {
        frames_are_right::<V4>(|parsed| match parsed {
            Parsed::Ipv4(packet) => {
                let tuple = packet.tuple;
                let ports = (tuple.source_port, tuple.destination_port);
                Some((tuple.source, tuple.destination, ports.0, ports.1))
            }
            _ => None,
        });
        frames_are_right::<V6>(|parsed| match parsed {
            Parsed::Ipv6(packet) => {
                let tuple = packet.tuple;
                let ports = (tuple.source_port, tuple.destination_port);
                Some((tuple.source, tuple.destination, ports.0, ports.1))
            }
            _ => None,
        });
    }
}
