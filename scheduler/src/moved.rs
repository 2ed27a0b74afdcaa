//! How many flows a change of servers sends elsewhere.

use crate::registry::{Options, create};
use crate::{Flow, RealServer};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Flows that are asked about.
const FLOWS: u32 = 16_384;
/// Schedulers that pick by what a flow is, and by nothing that happened before.
pub(crate) const HASHING: [&str; 4] = ["sh", "mh", "maglev", "dh"];

/// The share of flows to the address `to`, 0 to 1, that get another server once `before` has become `after`: of 16,384
/// flows of as many clients, so that it is out by less than 0.01 as good as always. `None` for schedulers that do not hash, whose
/// picks depend on more. Overload is not looked at.
#[must_use]
pub fn share_moved(
    name: &str,
    options: &Options,
    to: IpAddr,
    [before, after]: [&[RealServer]; 2],
) -> Option<f64> {
    if !HASHING.contains(&name) {
        return None;
    }
    let mut schedulers = [create(name, options).ok()?, create(name, options).ok()?];
    for (scheduler, servers) in schedulers.iter_mut().zip([before, after]) {
        scheduler.servers_changed(servers);
    }
    let [old, new] = &mut schedulers;
    let end = |servers: &[RealServer], place: Option<usize>| {
        place.map(|place| (servers[place].address, servers[place].port))
    };
    let moved = (0..FLOWS).filter(|number| {
        let flow = flow(*number, to);
        end(before, old.pick(&flow, before)) != end(after, new.pick(&flow, after))
    });
    let moved = u32::try_from(moved.count()).expect("no more than there are flows");
    Some(f64::from(moved) / f64::from(FLOWS))
}

/// A flow of a client of its own.
fn flow(number: u32, to: IpAddr) -> Flow {
    // Golden ratio: neighbouring numbers are far from each other.
    let host = number.wrapping_mul(0x9e37_79b9);
    let client = match to {
        IpAddr::V4(_) => Ipv4Addr::from(host).into(),
        IpAddr::V6(_) => Ipv6Addr::from(u128::from(host) | 0xfd00 << 112).into(),
    };
    Flow {
        client,
        client_port: 1024 + (number % 60_000) as u16,
        virtual_address: to,
        virtual_port: 80,
        protocol: 6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Load, RealServerId, Weight};
    use std::sync::Arc;

    const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 100));

    fn servers(hosts: &[u8]) -> Vec<RealServer> {
        let server = |host: &u8| RealServer {
            id: RealServerId(u32::from(*host)),
            address: Ipv4Addr::new(10, 0, 0, *host).into(),
            port: 80,
            weight: Weight(1),
            load: Arc::new(Load::default()),
        };
        hosts.iter().map(server).collect()
    }

    fn share(name: &str, before: &[u8], after: &[u8]) -> Option<f64> {
        let (before, after) = (servers(before), servers(after));
        share_moved(name, &Options::default(), VIP, [&before, &after])
    }

    #[test]
    fn nothing_moves_where_nothing_changes() {
        for name in HASHING {
            assert_eq!(share(name, &[1, 2, 3], &[1, 2, 3]), Some(0.0), "{name}");
        }
    }

    #[test]
    fn a_server_that_goes_moves_its_own_flows_and_with_consistent_hashing_few_others() {
        for name in ["mh", "maglev"] {
            let moved = share(name, &[1, 2, 3, 4, 5], &[1, 2, 3, 4]).unwrap();
            assert!((0.18..0.3).contains(&moved), "{name}: {moved}");
        }
        let moved = share("sh", &[1, 2, 3, 4, 5], &[1, 2, 3, 4]).unwrap();
        assert!(
            moved > 0.5,
            "{moved}: the kernel's table is filled by turns"
        );
        assert_eq!(share("maglev", &[1], &[]), Some(1.0));
    }

    #[test]
    fn the_first_server_takes_everything_and_ipv6_is_no_different() {
        let vip = "fd00::100".parse().unwrap();
        let moved = share_moved("maglev", &Options::default(), vip, [&[], &servers(&[1])]);
        assert_eq!(moved, Some(1.0));
    }

    #[test]
    fn schedulers_that_do_not_hash_have_no_answer() {
        for name in crate::NAMES.iter().filter(|name| !HASHING.contains(name)) {
            assert_eq!(share(name, &[1, 2], &[1]), None, "{name}");
        }
    }
}
