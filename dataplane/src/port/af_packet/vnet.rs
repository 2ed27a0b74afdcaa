//! `struct virtio_net_hdr`, in front of each frame of a socket with PACKET_VNET_HDR, as an [`Offload`] and back.
//!
//! Source: Linux include/uapi/linux/virtio_net.h, include/linux/virtio_net.h.

use crate::frame::{Gso, Offload};

/// Bytes of the header.
/// ```text
///  0       1          2          4           6            8            10
/// ┌───────┬──────────┬──────────┬───────────┬────────────┬─────────────┐
/// │ flags │ gso_type │ hdr_len  │ gso_size  │ csum_start │ csum_offset │  native byte order
/// └───────┴──────────┴──────────┴───────────┴────────────┴─────────────┘
/// ```
pub(super) const LEN: usize = 10;

const F_NEEDS_CSUM: u8 = 1;
const GSO_NONE: u8 = 0;
const GSO_TCP4: u8 = 1;
const GSO_TCP6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

/// `None` for a kind of GSO that the director cannot pass on (UFO).
#[inline]
pub(super) fn decode(header: [u8; LEN]) -> Option<Offload> {
    if header[0] & F_NEEDS_CSUM == 0 && header[1] == GSO_NONE {
        return Some(Offload::NONE);
    }
    let ecn = header[1] & GSO_ECN != 0;
    let gso = match header[1] & !GSO_ECN {
        GSO_NONE => Gso::None,
        GSO_TCP4 => Gso::Tcp4 { ecn },
        GSO_TCP6 => Gso::Tcp6 { ecn },
        GSO_UDP_L4 => Gso::Udp,
        _ => return None,
    };
    let word = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
    let partial_checksum = header[0] & F_NEEDS_CSUM != 0;
    let (checksum_start, checksum_offset) = if partial_checksum {
        (word(6), word(8))
    } else {
        (0, 0)
    };
    let (header_len, segment_len) = if gso == Gso::None {
        (0, 0)
    } else {
        (word(2), word(4))
    };
    Some(Offload {
        partial_checksum,
        checksum_start,
        checksum_offset,
        gso,
        segment_len,
        header_len,
    })
}

/// The header for a frame of `frame_len` bytes; the kernel refuses a `header_len` beyond its end.
#[inline]
pub(super) fn encode(offload: &Offload, frame_len: usize) -> [u8; LEN] {
    let mut header = [0; LEN];
    if offload.partial_checksum {
        header[0] = F_NEEDS_CSUM;
        header[6..8].copy_from_slice(&offload.checksum_start.to_ne_bytes());
        header[8..10].copy_from_slice(&offload.checksum_offset.to_ne_bytes());
    }
    header[1] = match offload.gso {
        Gso::None => return header,
        Gso::Tcp4 { ecn } => GSO_TCP4 | if ecn { GSO_ECN } else { 0 },
        Gso::Tcp6 { ecn } => GSO_TCP6 | if ecn { GSO_ECN } else { 0 },
        Gso::Udp => GSO_UDP_L4,
    };
    let header_len = offload
        .header_len
        .min(u16::try_from(frame_len).unwrap_or(u16::MAX));
    header[2..4].copy_from_slice(&header_len.to_ne_bytes());
    header[4..6].copy_from_slice(&offload.segment_len.to_ne_bytes());
    header
}

/// The offload of a frame that got `count` bytes more between its first and its network header.
#[inline]
pub(super) fn shifted(mut offload: Offload, count: u16) -> Offload {
    if offload.partial_checksum {
        offload.checksum_start = offload.checksum_start.saturating_add(count);
    }
    if offload.gso != Gso::None {
        offload.header_len = offload.header_len.saturating_add(count);
    }
    offload
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn gso() -> impl Strategy<Value = Gso> {
        prop_oneof![
            Just(Gso::None),
            any::<bool>().prop_map(|ecn| Gso::Tcp4 { ecn }),
            any::<bool>().prop_map(|ecn| Gso::Tcp6 { ecn }),
            Just(Gso::Udp),
        ]
    }

    /// Any offload without facts about what it does not have.
    fn offload() -> impl Strategy<Value = Offload> {
        (any::<bool>(), gso(), any::<[u16; 4]>()).prop_map(
            |(partial_checksum, gso, [start, offset, segment, headers])| {
                let mut offload = Offload {
                    partial_checksum,
                    gso,
                    ..Offload::NONE
                };
                if partial_checksum {
                    (offload.checksum_start, offload.checksum_offset) = (start, offset);
                }
                if gso != Gso::None {
                    (offload.segment_len, offload.header_len) = (segment, headers);
                }
                offload
            },
        )
    }

    proptest! {
        #[test]
        fn there_and_back_is_the_identity(offload in offload()) {
            prop_assert_eq!(decode(encode(&offload, 65_536)), Some(offload));
        }

        #[test]
        fn back_and_there_loses_only_what_says_nothing(header in any::<[u8; LEN]>()) {
            if let Some(offload) = decode(header) {
                prop_assert_eq!(decode(encode(&offload, 65_536)), Some(offload));
            } else {
                prop_assert!(![GSO_NONE, GSO_TCP4, GSO_TCP6, GSO_UDP_L4].contains(&(header[1] & !GSO_ECN)));
            }
        }

        #[test]
        fn the_header_never_reaches_beyond_the_frame(offload in offload(), frame_len in 0..70_000usize) {
            let header = encode(&offload, frame_len);
            prop_assert!(usize::from(u16::from_ne_bytes([header[2], header[3]])) <= frame_len);
        }
    }

    #[test]
    fn a_local_senders_segments_are_as_the_kernel_describes_them() {
        // From a veth pair, Linux 6.18 (tests/af_packet): TCP over IPv4, 54 bytes of headers and 12 of timestamps.
        let mut recorded = [0; LEN];
        recorded[0..2].copy_from_slice(&[1, 1]);
        for (at, word) in [(2, 66u16), (4, 1448), (6, 34), (8, 16)] {
            recorded[at..at + 2].copy_from_slice(&word.to_ne_bytes());
        }
        let offload = Offload {
            partial_checksum: true,
            checksum_start: 34,
            checksum_offset: 16,
            gso: Gso::Tcp4 { ecn: false },
            segment_len: 1448,
            header_len: 66,
        };
        assert_eq!(decode(recorded), Some(offload));
        assert_eq!(encode(&offload, 64_000), recorded);
    }

    #[test]
    fn a_vlan_tag_moves_the_checksum_and_the_headers_end() {
        let offload = Offload {
            partial_checksum: true,
            checksum_start: 34,
            header_len: 66,
            gso: Gso::Udp,
            ..Offload::NONE
        };
        let moved = shifted(offload, 4);
        assert_eq!((moved.checksum_start, moved.header_len), (38, 70));
        assert_eq!(shifted(Offload::NONE, 4), Offload::NONE);
    }
}
