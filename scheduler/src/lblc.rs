//! `lblc`: a destination keeps its server as long as that is not too busy.

use crate::destinations::{Destinations, USUAL};
use crate::roster::Roster;
use crate::wlc::{connection_overhead, least_by_weight};
use crate::{Flow, Options, RealServer, Scheduler};

/// Locality-based least connection, for services by firewall mark in front of caches: as `wlc`, but a destination goes
/// where it went before, unless that server is congested while another is half idle. The upper connection threshold
/// matters to new destinations only.
///
/// Source: Linux net/netfilter/ipvs/ip_vs_lblc.c
pub(crate) struct LocalityLeastConnection {
    /// Seats of servers in the roster.
    destinations: Destinations<u32>,
    roster: Roster,
}

impl LocalityLeastConnection {
    pub(crate) fn new(expiration_seconds: u32) -> Self {
        Self::with_room_for(USUAL, expiration_seconds)
    }

    fn with_room_for(usual: usize, expiration_seconds: u32) -> Self {
        Self {
            destinations: Destinations::new(usual, expiration_seconds),
            roster: Roster::default(),
        }
    }
}

impl Scheduler for LocalityLeastConnection {
    fn pick(&mut self, flow: &Flow, servers: &[RealServer]) -> Option<usize> {
        let entry = self.destinations.find(flow.virtual_address);
        if let Some(entry) = entry
            && let Some(index) = self.roster.index(*self.destinations.value(entry))
            && servers[index].weight.0 > 0
            && !is_congested(&servers[index], servers)
        {
            return Some(index);
        }
        let index = least_by_weight(servers, connection_overhead)?;
        let seat = self.roster.seat(index);
        if let Some(entry) = entry {
            let before = std::mem::replace(self.destinations.value(entry), seat);
            self.roster.hold(seat);
            self.roster.release(before);
        } else if self.destinations.has_room() {
            self.destinations.insert(flow.virtual_address, seat);
            self.roster.hold(seat);
        }
        Some(index)
    }

    fn servers_changed(&mut self, servers: &[RealServer]) {
        self.roster.update(servers);
    }

    fn set_options(&mut self, options: &Options) {
        self.destinations.set_expiration(options.lblc_expiration);
    }

    fn tick(&mut self, seconds: u32) {
        self.destinations
            .tick(seconds, |seat| self.roster.release(seat));
    }
}

/// Whether a server has more active connections than its weight while another has fewer than half its own.
pub(crate) fn is_congested(server: &RealServer, servers: &[RealServer]) -> bool {
    server.load.active() > u32::from(server.weight.0)
        && servers
            .iter()
            .any(|other| u64::from(other.load.active()) * 2 < u64::from(other.weight.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::destinations::EXPIRATION_SECONDS;
    use crate::{Activity, Load, RealServerId, Weight};
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::Arc;

    fn servers(count: u32) -> Vec<RealServer> {
        (0..count)
            .map(|id| RealServer {
                id: RealServerId(id),
                address: IpAddr::V4(Ipv4Addr::from_bits(id)),
                port: 80,
                weight: Weight(1),
                load: Arc::new(Load::default()),
            })
            .collect()
    }

    fn flow_to(destination: u32) -> Flow {
        Flow {
            client: IpAddr::V4(Ipv4Addr::LOCALHOST),
            client_port: 1,
            virtual_address: IpAddr::V4(Ipv4Addr::from_bits(destination)),
            virtual_port: 80,
            protocol: 6,
        }
    }

    /// Picks, and counts the connection as inactive.
    fn open(scheduler: &mut dyn Scheduler, destination: u32, servers: &[RealServer]) -> usize {
        let index = scheduler.pick(&flow_to(destination), servers).unwrap();
        servers[index].load.shift(None, Some(Activity::Inactive));
        index
    }

    #[test]
    fn destinations_beyond_the_limit_are_scheduled_but_not_remembered() {
        let servers = servers(3);
        let mut scheduler = LocalityLeastConnection::with_room_for(2, EXPIRATION_SECONDS);
        scheduler.servers_changed(&servers);
        for destination in 0..4 {
            open(&mut scheduler, destination, &servers);
        }
        // The fifth goes round the servers, as with wlc; the first stays.
        let fifth: Vec<usize> = (0..6).map(|_| open(&mut scheduler, 4, &servers)).collect();
        assert_eq!(fifth, [1, 2, 0, 1, 2, 0]);
        let first: Vec<usize> = (0..3).map(|_| open(&mut scheduler, 0, &servers)).collect();
        assert_eq!(first, [0, 0, 0]);
    }

    #[test]
    fn a_destination_comes_back_to_a_server_that_was_away() {
        let mut list = servers(2);
        let mut scheduler = LocalityLeastConnection::new(EXPIRATION_SECONDS);
        scheduler.servers_changed(&list);
        assert_eq!(open(&mut scheduler, 0, &list), 0);
        assert_eq!(open(&mut scheduler, 1, &list), 1);
        let away = list.remove(0);
        scheduler.servers_changed(&list);
        assert_eq!(open(&mut scheduler, 1, &list), 0);
        list.push(away);
        scheduler.servers_changed(&list);
        assert_eq!(open(&mut scheduler, 0, &list), 1);
        assert_eq!(open(&mut scheduler, 1, &list), 0);
    }

    #[test]
    fn a_destination_unused_for_a_day_is_forgotten() {
        let servers = servers(2);
        let mut scheduler = LocalityLeastConnection::new(EXPIRATION_SECONDS);
        scheduler.servers_changed(&servers);
        assert_eq!(open(&mut scheduler, 0, &servers), 0);
        assert_eq!(open(&mut scheduler, 0, &servers), 0);
        for _ in 0..(25 * 60 * 60) {
            scheduler.tick(1);
        }
        assert_eq!(open(&mut scheduler, 0, &servers), 1);
    }

    #[test]
    fn an_overloaded_server_keeps_its_destinations_and_gets_no_new_ones() {
        let servers = servers(2);
        let mut scheduler = LocalityLeastConnection::new(EXPIRATION_SECONDS);
        scheduler.servers_changed(&servers);
        assert_eq!(open(&mut scheduler, 0, &servers), 0);
        servers[0].load.set_overloaded(true);
        assert_eq!(open(&mut scheduler, 0, &servers), 0);
        for _ in 0..3 {
            assert_eq!(open(&mut scheduler, 1, &servers), 1);
        }
    }

    #[test]
    fn a_drained_server_keeps_no_destination() {
        let mut servers = servers(2);
        let mut scheduler = LocalityLeastConnection::new(EXPIRATION_SECONDS);
        scheduler.servers_changed(&servers);
        assert_eq!(open(&mut scheduler, 0, &servers), 0);
        servers[0].weight = Weight(0);
        scheduler.servers_changed(&servers);
        assert_eq!(open(&mut scheduler, 0, &servers), 1);
    }
}
