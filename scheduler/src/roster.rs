//! Servers that are remembered longer than they are in the list.

use crate::{RealServer, RealServerId};
use std::collections::HashMap;
use std::net::IpAddr;

/// Gives each server a number, a seat, that stays the same while the server comes and goes, for as long as it is held.
///
/// A seat is given to another server only when its own left the list and nothing holds it: there are never more seats
/// than servers and holders. An id that comes back with another address is another server.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    seats: Vec<Seat>,
    /// The seat of each server in the list.
    listed: Vec<u32>,
}

#[derive(Debug)]
struct Seat {
    server: (RealServerId, IpAddr, u16),
    /// Where in the list the server is, if it is.
    index: Option<usize>,
    holders: u32,
}

impl Roster {
    /// Takes a new list of servers.
    pub(crate) fn update(&mut self, servers: &[RealServer]) {
        let mut known = HashMap::with_capacity(self.seats.len());
        for (number, seat) in (0..).zip(&mut self.seats) {
            if seat.index.take().is_some() || seat.holders > 0 {
                known.insert(seat.server, number);
            }
        }
        self.listed.clear();
        for (index, server) in servers.iter().enumerate() {
            let name = (server.id, server.address, server.port);
            if let Some(&number) = known.get(&name) {
                self.seats[number as usize].index = Some(index);
            }
        }
        let mut vacant = 0;
        for (index, server) in servers.iter().enumerate() {
            let name = (server.id, server.address, server.port);
            let number = known.get(&name).copied().unwrap_or_else(|| {
                let seat = Seat {
                    server: name,
                    index: Some(index),
                    holders: 0,
                };
                while self
                    .seats
                    .get(vacant)
                    .is_some_and(|seat| seat.index.is_some() || seat.holders > 0)
                {
                    vacant += 1;
                }
                match self.seats.get_mut(vacant) {
                    Some(free) => *free = seat,
                    None => self.seats.push(seat),
                }
                u32::try_from(vacant).expect("fewer servers than 2^32")
            });
            self.listed.push(number);
        }
    }

    /// The seat of the server at `index` in the list.
    pub(crate) fn seat(&self, index: usize) -> u32 {
        self.listed[index]
    }

    /// Where in the list the server of that seat is.
    pub(crate) fn index(&self, seat: u32) -> Option<usize> {
        self.seats[seat as usize].index
    }

    /// Keeps a seat for its server.
    pub(crate) fn hold(&mut self, seat: u32) {
        self.seats[seat as usize].holders += 1;
    }

    /// Undoes one [`hold`](Self::hold).
    pub(crate) fn release(&mut self, seat: u32) {
        self.seats[seat as usize].holders -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Load, Weight};
    use std::net::Ipv4Addr;
    use std::sync::Arc;

    fn list(servers: &[(u32, u16)]) -> Vec<RealServer> {
        servers
            .iter()
            .map(|&(id, port)| RealServer {
                id: RealServerId(id),
                address: IpAddr::V4(Ipv4Addr::LOCALHOST),
                port,
                weight: Weight(1),
                load: Arc::new(Load::default()),
            })
            .collect()
    }

    #[test]
    fn a_held_seat_waits_for_its_server() {
        let mut roster = Roster::default();
        roster.update(&list(&[(1, 80), (2, 80)]));
        let seat = roster.seat(0);
        roster.hold(seat);
        roster.update(&list(&[(3, 80), (2, 80)]));
        assert_eq!(roster.index(seat), None);
        assert_ne!(roster.seat(0), seat);
        roster.update(&list(&[(3, 80), (2, 80), (1, 80)]));
        assert_eq!(roster.index(seat), Some(2));
    }

    #[test]
    fn a_seat_that_nobody_holds_is_given_away() {
        let mut roster = Roster::default();
        for id in 0..100 {
            roster.update(&list(&[(id, 80), (1000, 80)]));
            assert_eq!(
                [0, 1].map(|index| roster.index(roster.seat(index))),
                [Some(0), Some(1)]
            );
        }
        assert!(roster.seats.len() <= 3);
    }

    #[test]
    fn an_id_with_another_address_is_another_server() {
        let mut roster = Roster::default();
        roster.update(&list(&[(1, 80)]));
        let seat = roster.seat(0);
        roster.hold(seat);
        roster.update(&list(&[(1, 81)]));
        assert_eq!(roster.index(seat), None);
    }
}
