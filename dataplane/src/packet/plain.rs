//! IPv4 as nearly all of it is: a header without options, no fragment, TCP or UDP. All offsets are known beforehand, so
//! that such a packet is read in about a third of the instructions that `parse` needs for any packet.

use super::wire::{ETHERNET_LEN, IPV4_LEN, TCP, TCP_LEN, UDP, UDP_LEN, read_u16, read_u32};
use super::{Fragment, Packet, TcpFlags, Tuple, V4};
use std::net::Ipv4Addr;

const L4: usize = ETHERNET_LEN + IPV4_LEN;
/// What the headers are at least.
const LEN: usize = L4 + UDP_LEN;
const VERSION_4_WITHOUT_OPTIONS: u8 = 0x45;
/// "More fragments", and the offset.
const FRAGMENT: u16 = 0x3fff;
const DONT_FRAGMENT: u16 = 0x4000;

/// The packet, if it is such a one and nothing is wrong with it. `None` says nothing: [`parse`](super::parse) finds out.
#[inline]
pub(super) fn plain_ipv4(frame: &[u8]) -> Option<Packet<V4>> {
    let headers = frame.first_chunk::<LEN>()?;
    let flags_and_offset = read_u16(headers, ETHERNET_LEN + 6);
    let total_len = usize::from(read_u16(headers, ETHERNET_LEN + 2));
    let end = ETHERNET_LEN + total_len;
    let is_plain = headers[ETHERNET_LEN] == VERSION_4_WITHOUT_OPTIONS
        && flags_and_offset & FRAGMENT == 0
        && end <= frame.len();
    let source = read_u32(headers, ETHERNET_LEN + 12);
    if !is_plain || !is_sound(headers) || !may_speak(source) {
        return None;
    }
    let protocol = headers[ETHERNET_LEN + 9];
    let tcp_flags = match protocol {
        TCP => {
            let header = frame.get(L4..end)?.first_chunk::<TCP_LEN>()?;
            let header_len = usize::from(header[12] >> 4) * 4;
            if header_len < TCP_LEN || L4 + header_len > end {
                return None;
            }
            TcpFlags(header[13])
        }
        UDP => {
            let len = usize::from(read_u16(headers, L4 + 4));
            if len < UDP_LEN || L4 + len > end {
                return None;
            }
            TcpFlags::default()
        }
        _ => return None,
    };
    #[allow(
        clippy::cast_possible_truncation,
        reason = "the sum of 14 and 65535 at most"
    )]
    Some(Packet {
        tuple: Tuple {
            source: Ipv4Addr::from_bits(source),
            destination: Ipv4Addr::from_bits(read_u32(headers, ETHERNET_LEN + 16)),
            source_port: read_u16(headers, L4),
            destination_port: read_u16(headers, L4 + 2),
            protocol,
        },
        l3: ETHERNET_LEN as u16,
        l4: L4 as u16,
        end: end as u32,
        ttl: headers[ETHERNET_LEN + 8],
        tos: headers[ETHERNET_LEN + 1],
        tcp_flags,
        fragment: Fragment::None,
        dont_fragment: flags_and_offset & DONT_FRAGMENT != 0,
        fragment_id: u32::from(read_u16(headers, ETHERNET_LEN + 4)),
    })
}

/// Whether the IP header's checksum is right: the sum of its words, in any order of bytes, is one of zero's spellings.
#[inline]
fn is_sound(headers: &[u8; LEN]) -> bool {
    let word = |at: usize| u64::from(read_u32(headers, ETHERNET_LEN + at));
    let sum = word(0) + word(4) + word(8) + word(12) + word(16);
    // Folding keeps the remainder by 0xffff, which the compiler finds by multiplication.
    sum.is_multiple_of(0xffff)
}

/// Whether a source is none that no packet may have: nowhere, loopback, a group or everybody.
///
/// Source: RFC 1122 §3.2.1.3.
#[inline]
fn may_speak(source: u32) -> bool {
    source != 0 && source != u32::MAX && source >> 24 != 127 && source >> 28 != 0xe
}
