//! Telling the links of addresses that the director takes, and of all its addresses when a link comes back or its hardware
//! address changes: three times, a second apart.
//!
//! Source: RFC 5227 §2.3, RFC 4861 §7.2.6.

use crate::port::PortId;
use crate::snapshot::{Owned, Snapshot};
use conntrack::Ticks;
use std::collections::VecDeque;
use std::net::IpAddr;

/// Announcements that go out in one tick: many new addresses do not fill a transmit ring.
pub(super) const PER_TICK: usize = 64;
/// How often an address is announced.
const TIMES: u8 = 3;
/// Between two announcements of an address.
const INTERVAL: Ticks = Ticks::from_seconds(1);

/// An address still to be announced.
struct Announcement {
    address: IpAddr,
    port: PortId,
    left: u8,
    due: Ticks,
}

/// Announcements to come: those due at once in front, then by the time they are due.
#[derive(Default)]
pub(super) struct Announcements {
    queue: VecDeque<Announcement>,
}

impl Announcements {
    /// Adds the addresses that `new` has and `old` has not, on links that came back all of them, and forgets those that
    /// `new` has not.
    pub(super) fn adopt(&mut self, old: &Snapshot, new: &Snapshot, now: Ticks) {
        let is_back = |port: PortId| came_back(old, new, port);
        self.queue.retain(|announcement| {
            is_announced(new, announcement.address) && !is_back(announcement.port)
        });
        for &address in new.owned.keys() {
            if is_announced(new, address) {
                let is_new = !is_announced(old, address);
                for port in ports_of(new, address).filter(|port| is_new || is_back(*port)) {
                    self.queue.push_front(Announcement {
                        address,
                        port,
                        left: TIMES,
                        due: now,
                    });
                }
            }
        }
    }

    /// The next one that is due.
    pub(super) fn next(&mut self, now: Ticks) -> Option<(IpAddr, PortId)> {
        if !self.queue.front()?.due.has_passed(now) {
            return None;
        }
        let next = self.queue.pop_front()?;
        if next.left > 1 {
            self.queue.push_back(Announcement {
                left: next.left - 1,
                due: now.after(INTERVAL),
                ..next
            });
        }
        Some((next.address, next.port))
    }
}

/// Whether the director, not the kernel, speaks for an address.
fn is_announced(snapshot: &Snapshot, address: IpAddr) -> bool {
    snapshot
        .owned
        .get(&address)
        .is_some_and(|&owned| owned != Owned::Kernel)
}

/// Whether a port's link came back, or its hardware address changed, between two snapshots.
fn came_back(old: &Snapshot, new: &Snapshot, port: PortId) -> bool {
    let times = |snapshot: &Snapshot| snapshot.links.get(usize::from(port.0)).copied();
    times(old).unwrap_or(0) != times(new).unwrap_or(0)
}

/// Where to announce an address: on the ports whose subnet it is in, or else on all.
fn ports_of(snapshot: &Snapshot, address: IpAddr) -> impl Iterator<Item = PortId> {
    let on_link = move |index: usize| {
        let subnets = &snapshot.ports[index].addresses;
        subnets
            .iter()
            .any(|(own, prefix)| crate::route::same_subnet(*own, address, *prefix))
    };
    let all = 0..snapshot.ports.len();
    let somewhere = all.clone().any(on_link);
    all.filter(move |index| !somewhere || on_link(*index))
        .filter_map(|index| u16::try_from(index).ok())
        .map(PortId)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::Mac;
    use crate::snapshot::PortView;
    use std::net::Ipv4Addr;

    const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

    /// Two ports with an address of their own each, a virtual one that is on no link, and how often links came back.
    fn snapshot(links: [u32; 2]) -> Snapshot {
        let own = |port: u8| IpAddr::V4(Ipv4Addr::new(10, port, 0, 1));
        let view = |port: u8| PortView {
            name: String::new(),
            mac: Mac([2, 0, 0, 0, 0, port]),
            mtu: 1500,
            addresses: vec![(own(port), 16)],
        };
        let mut snapshot = Snapshot {
            ports: vec![view(0), view(1)],
            links: links.to_vec(),
            ..Snapshot::default()
        };
        snapshot.owned.insert(VIP, Owned::Virtual);
        for port in 0..2 {
            snapshot.owned.insert(own(port), Owned::Director);
        }
        snapshot
    }

    /// How often each address is announced on each port within five seconds.
    fn announced(announcements: &mut Announcements) -> Vec<(IpAddr, PortId, usize)> {
        let mut all = Vec::new();
        for second in 0..5 {
            while let Some(one) = announcements.next(Ticks::from_seconds(second)) {
                all.push(one);
            }
        }
        all.sort_unstable();
        let mut counted: Vec<(IpAddr, PortId, usize)> = Vec::new();
        for (address, port) in all {
            match counted.last_mut() {
                Some(last) if (last.0, last.1) == (address, port) => last.2 += 1,
                _ => counted.push((address, port, 1)),
            }
        }
        counted
    }

    #[test]
    fn a_link_that_is_back_hears_of_all_addresses_there_and_no_other_link_does() {
        let mut announcements = Announcements::default();
        announcements.adopt(&Snapshot::default(), &snapshot([0, 0]), Ticks(0));
        assert_eq!(announced(&mut announcements).len(), 4);
        announcements.adopt(&snapshot([0, 0]), &snapshot([0, 0]), Ticks(0));
        assert_eq!(announced(&mut announcements), []);
        announcements.adopt(&snapshot([0, 0]), &snapshot([0, 1]), Ticks(0));
        let expected = [
            (Ipv4Addr::new(10, 1, 0, 1).into(), PortId(1), 3),
            (VIP, PortId(1), 3),
        ];
        assert_eq!(announced(&mut announcements), expected);
    }

    #[test]
    fn a_link_that_comes_back_often_does_not_pile_up_announcements() {
        let mut announcements = Announcements::default();
        announcements.adopt(&Snapshot::default(), &snapshot([0, 0]), Ticks(0));
        for times in 0..100 {
            announcements.adopt(&snapshot([times, 0]), &snapshot([times + 1, 0]), Ticks(0));
        }
        assert_eq!(announcements.queue.len(), 4);
    }
}
