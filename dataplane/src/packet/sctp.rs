//! What an SCTP packet's chunks mean to its connection.

use super::wire::{SCTP_LEN, Wire, read_u16};
use super::{Fragment, Packet};
use conntrack::SctpEvent;

/// Bytes of a chunk's header.
const CHUNK_LEN: usize = 4;

/// What the first chunk means, or an ABORT that is bundled behind a cookie. `None` without a whole chunk header.
///
/// Source: RFC 9260 §3, §6.10; Linux net/netfilter/ipvs/ip_vs_proto_sctp.c (`set_sctp_state`).
#[must_use]
pub fn event<F: Wire>(frame: &[u8], packet: &Packet<F>) -> Option<SctpEvent> {
    if packet.fragment == Fragment::Later {
        return None;
    }
    let chunks = frame.get(packet.l4() + SCTP_LEN..packet.end())?;
    let first = chunks.first_chunk::<CHUNK_LEN>()?;
    let event = SctpEvent::of_chunk(first[0]);
    if !matches!(event, SctpEvent::CookieEcho | SctpEvent::CookieAck) {
        return Some(event);
    }
    let len = usize::from(read_u16(first, 2));
    let second = chunks
        .get(len.next_multiple_of(4)..)
        .filter(|_| len >= CHUNK_LEN)
        .and_then(<[u8]>::first_chunk::<CHUNK_LEN>);
    match second.map(|chunk| SctpEvent::of_chunk(chunk[0])) {
        Some(SctpEvent::Abort) => Some(SctpEvent::Abort),
        _ => Some(event),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Offload;
    use crate::packet::{Parsed, Tuple, V4, parse, sample, wire};
    use proptest::prelude::*;

    fn event_of(chunks: &[u8]) -> Option<SctpEvent> {
        let tuple = Tuple::<V4> {
            source: [10, 64, 0, 7].into(),
            destination: [10, 0, 0, 100].into(),
            source_port: 40001,
            destination_port: 3868,
            protocol: wire::SCTP,
        };
        let frame = sample::sctp(&tuple, chunks);
        match parse(&frame, &Offload::NONE) {
            Parsed::Ipv4(packet) => event(&frame, &packet),
            other => unreachable!("{other:?}"),
        }
    }

    #[test]
    fn the_first_chunk_counts_unless_an_abort_follows_a_cookie() {
        use SctpEvent::{Abort, CookieAck, CookieEcho, Data, Init};
        let cases: [(&[u8], Option<SctpEvent>); 12] = [
            (&[], None),
            (&[1, 0, 0], None),
            (&[1, 0, 0, 4], Some(Init)),
            (&[200, 0, 0, 4], Some(Data)),
            (&[0, 3, 0, 4, 6, 0, 0, 4], Some(Data)),
            (&[10, 0, 0, 4], Some(CookieEcho)),
            (&[10, 0, 0, 4, 6, 0, 0, 4], Some(Abort)),
            (&[10, 0, 0, 6, 1, 2, 0, 0, 6, 0, 0, 4], Some(Abort)),
            (&[11, 0, 0, 4, 0, 3, 0, 4], Some(CookieAck)),
            (&[11, 0, 0, 4, 6, 0, 0], Some(CookieAck)),
            // A length that no chunk has, and one beyond the packet.
            (&[10, 0, 0, 0, 6, 0, 0, 4], Some(CookieEcho)),
            (&[10, 0, 0xff, 0xff, 6, 0, 0, 4], Some(CookieEcho)),
        ];
        for (chunks, expected) in cases {
            assert_eq!(event_of(chunks), expected, "{chunks:?}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_chunks_never_panic(chunks in prop::collection::vec(any::<u8>(), 0..64)) {
            let kind = chunks.first().map(|kind| SctpEvent::of_chunk(*kind));
            let event = event_of(&chunks);
            prop_assert_eq!(event.is_some(), chunks.len() >= CHUNK_LEN);
            prop_assert!(event.is_none() || event == kind || event == Some(SctpEvent::Abort));
        }
    }
}
