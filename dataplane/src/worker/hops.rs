//! The next hops of a worker's steady packets, as they were when the worker looked last: at most a tick ago, and never
//! before a neighbour told its address. One line of the cache answers where the neighbour table, the port and the
//! snapshot had to be asked.

use crate::neighbour::NeighbourId;
use crate::port::{Mac, PortId};

/// Neighbours that are kept. Two that share a place take turns.
const PLACES: usize = 256;

/// A neighbour that packets can be sent to at once.
#[derive(Clone, Copy, Debug)]
#[repr(align(32))]
pub(super) struct ReadyHop {
    neighbour: NeighbourId,
    /// [`Hops::age`] when it was looked up; 0, which is none, where nothing was.
    age: u32,
    /// The addresses as a frame begins with them: the neighbour's, and the port's own.
    pub(super) macs: [u8; 12],
    /// Of the port, bytes.
    pub(super) mtu: u32,
    pub(super) port: PortId,
}

const _: () = assert!(size_of::<ReadyHop>() == 32);

/// See the module's text.
pub(super) struct Hops {
    places: Box<[ReadyHop; PLACES]>,
    /// What was looked up at another age does not count.
    age: u32,
    /// [`NeighbourTable::learnt`](crate::neighbour::NeighbourTable::learnt) at this age.
    learnt: u32,
}

impl Hops {
    pub(super) fn new() -> Hops {
        let nobody = ReadyHop {
            neighbour: NeighbourId::NONE,
            age: 0,
            macs: [0; 12],
            mtu: 0,
            port: PortId(0),
        };
        Hops {
            places: Box::new([nobody; PLACES]),
            age: 1,
            learnt: 0,
        }
    }

    /// Forgets all.
    pub(super) fn forget(&mut self) {
        self.age = self.age.wrapping_add(1);
        if self.age == 0 {
            // Whatever has stood there for 2^32 ages would count again.
            let learnt = self.learnt;
            *self = Hops {
                learnt,
                ..Hops::new()
            };
        }
    }

    /// Forgets all if a neighbour has told its address since this was asked last.
    #[inline(always)]
    pub(super) fn doubt(&mut self, learnt: u32) {
        if learnt != self.learnt {
            self.learnt = learnt;
            self.forget();
        }
    }

    /// Whether the neighbour was looked up at this age.
    #[inline(always)]
    pub(super) fn has(&self, neighbour: NeighbourId) -> bool {
        let hop = self.get(neighbour);
        hop.neighbour == neighbour && hop.age == self.age
    }

    /// The neighbour, if it is [there](Self::has), or another.
    #[inline(always)]
    pub(super) fn get(&self, neighbour: NeighbourId) -> &ReadyHop {
        &self.places[Self::place(neighbour)]
    }

    /// Keeps a neighbour that was just looked up: its address, and the port's address and MTU.
    pub(super) fn keep(
        &mut self,
        neighbour: NeighbourId,
        (mac, port): (Mac, PortId),
        (source, mtu): (Mac, u32),
    ) {
        let mut macs = [0; 12];
        macs[..6].copy_from_slice(&mac.0);
        macs[6..].copy_from_slice(&source.0);
        self.places[Self::place(neighbour)] = ReadyHop {
            neighbour,
            age: self.age,
            macs,
            mtu,
            port,
        };
    }

    #[inline(always)]
    fn place(neighbour: NeighbourId) -> usize {
        neighbour.to_bits() as usize % PLACES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(bits: u32) -> NeighbourId {
        NeighbourId::from_bits(bits)
    }

    fn with(bits: &[u32]) -> Hops {
        let mut hops = Hops::new();
        for &bits in bits {
            let mac = Mac([bits.to_be_bytes()[3]; 6]);
            hops.keep(id(bits), (mac, PortId(7)), (Mac([9; 6]), 1500));
        }
        hops
    }

    #[test]
    fn what_was_kept_is_there_until_it_is_doubted() {
        let mut hops = with(&[1, 2]);
        let hop = hops.get(id(2));
        assert_eq!(hop.macs, [2, 2, 2, 2, 2, 2, 9, 9, 9, 9, 9, 9]);
        assert_eq!((hop.mtu, hop.port), (1500, PortId(7)));
        assert!(!hops.has(id(3)));
        hops.doubt(0);
        assert!(hops.has(id(1)), "nobody has told anything");
        hops.doubt(1);
        assert!(!hops.has(id(1)) && !hops.has(id(2)));
    }

    #[test]
    fn of_two_in_one_place_the_later_one_is_there() {
        let other = 1 + u32::try_from(PLACES).unwrap();
        let hops = with(&[1, other]);
        assert!(!hops.has(id(1)) && hops.has(id(other)));
        assert!(!hops.has(id(1 << 24 | other)), "of another generation");
    }

    #[test]
    fn nobody_is_never_there() {
        assert!(!Hops::new().has(NeighbourId::NONE));
    }

    #[test]
    fn an_age_that_comes_round_brings_nothing_back() {
        let mut hops = with(&[5]);
        hops.age = u32::MAX;
        hops.keep(id(6), (Mac([6; 6]), PortId(1)), (Mac([9; 6]), 1500));
        hops.forget();
        assert!(!hops.has(id(5)) && !hops.has(id(6)));
        assert!(!hops.has(NeighbourId::NONE));
    }
}
