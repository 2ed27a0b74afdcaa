//! What tells flows apart: the five fields of a packet.

use crate::family::Family;
use std::hash::Hasher;

/// Addresses, ports and protocol as they stand in the packet at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple<F: Family> {
    /// Who sent the packet.
    pub source: F::Address,
    /// Whom it is for.
    pub destination: F::Address,
    /// L4 source port, host byte order.
    pub source_port: u16,
    /// L4 destination port, host byte order.
    pub destination_port: u16,
    /// IP protocol number.
    pub protocol: u8,
}

impl<F: Family> Tuple<F> {
    /// The tuple of a packet that goes the other way.
    #[inline]
    #[must_use]
    pub fn reversed(self) -> Self {
        Tuple {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            protocol: self.protocol,
        }
    }

    #[inline]
    pub(crate) fn feed<H: Hasher>(&self, hasher: &mut H) {
        F::hash_pair(self.source, self.destination, hasher);
        hasher.write_u64(
            u64::from(self.protocol) << 32
                | u64::from(self.source_port) << 16
                | u64::from(self.destination_port),
        );
    }
}

/// Which half of a connection a packet belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the client to the virtual server.
    Request,
    /// From the real server to the client.
    Reply,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::V4;
    use std::net::Ipv4Addr;

    #[test]
    fn reversing_swaps_the_ends_and_twice_is_the_identity() {
        let tuple = Tuple::<V4> {
            source: Ipv4Addr::new(10, 0, 0, 1),
            destination: Ipv4Addr::new(10, 0, 0, 2),
            source_port: 1,
            destination_port: 2,
            protocol: 6,
        };
        let reversed = tuple.reversed();
        assert_eq!(reversed.source, tuple.destination);
        assert_eq!(reversed.source_port, 2);
        assert_eq!(reversed.reversed(), tuple);
    }
}
