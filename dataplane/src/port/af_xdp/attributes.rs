//! What is in the attributes of an interface, as rtnetlink gives them.
//!
//! Source: Linux include/uapi/linux/if_link.h, include/uapi/linux/netlink.h.

const STATS64: u16 = 23;
const NUM_RX_QUEUES: u16 = 32;
const XDP: u16 = 43;
const XDP_PROG_ID: u16 = 4;
/// The first fields of `struct rtnl_link_stats64`.
const COUNTERS: [&str; 8] = [
    "rx_packets",
    "tx_packets",
    "rx_bytes",
    "tx_bytes",
    "rx_errors",
    "tx_errors",
    "rx_dropped",
    "tx_dropped",
];

/// How many queues it was made to receive by.
pub(super) fn receive_queues(attributes: &[u8]) -> Option<u32> {
    number(value(attributes, &[NUM_RX_QUEUES])?)
}

/// The number of the XDP program on it.
pub(super) fn program_id(attributes: &[u8]) -> Option<u32> {
    number(value(attributes, &[XDP, XDP_PROG_ID])?)
}

/// The interface's own counters.
pub(super) fn counters(attributes: &[u8]) -> Vec<(String, u64)> {
    let (counts, _) = value(attributes, &[STATS64])
        .unwrap_or_default()
        .as_chunks::<8>();
    let counts = counts.iter().map(|bytes| u64::from_ne_bytes(*bytes));
    COUNTERS
        .map(str::to_owned)
        .into_iter()
        .zip(counts)
        .collect()
}

fn number(value: &[u8]) -> Option<u32> {
    value
        .first_chunk::<4>()
        .map(|bytes| u32::from_ne_bytes(*bytes))
}

/// The first value at a path of nested attributes.
fn value<'a>(mut attributes: &'a [u8], path: &[u16]) -> Option<&'a [u8]> {
    let (wanted, deeper) = path.split_first()?;
    while let Some(header) = attributes.first_chunk::<4>() {
        let len = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        // The highest two bits are flags.
        let kind = u16::from_ne_bytes([header[2], header[3]]) & 0x3fff;
        let found = attributes.get(4..len)?;
        if kind == *wanted {
            return if deeper.is_empty() {
                Some(found)
            } else {
                value(found, deeper)
            };
        }
        attributes = attributes.get(len.next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let len = u16::try_from(4 + value.len()).unwrap();
        let mut bytes = [len.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn values_are_found_behind_others_and_within_others() {
        let nested = [
            attribute(2, &[1]),
            attribute(XDP_PROG_ID, &77u32.to_ne_bytes()),
        ]
        .concat();
        let mut bytes = [
            attribute(3, b"eth0\0"),
            attribute(NUM_RX_QUEUES, &4u32.to_ne_bytes()),
            attribute(XDP | 0x8000, &nested),
            attribute(STATS64, &[7u64.to_ne_bytes(), 9u64.to_ne_bytes()].concat()),
        ]
        .concat();
        assert_eq!(receive_queues(&bytes), Some(4));
        assert_eq!(program_id(&bytes), Some(77));
        let expected = [("rx_packets".to_owned(), 7), ("tx_packets".to_owned(), 9)];
        assert_eq!(counters(&bytes), expected);
        // Whatever is cut off is not there.
        bytes.truncate(20);
        assert_eq!(
            (receive_queues(&bytes), program_id(&bytes)),
            (Some(4), None)
        );
        assert_eq!(counters(&bytes), []);
    }

    #[test]
    fn attributes_without_an_end_end() {
        assert_eq!(receive_queues(&[0; 64]), None);
        assert_eq!(receive_queues(&[0xff; 64]), None);
    }
}
