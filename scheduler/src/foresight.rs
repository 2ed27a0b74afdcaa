//! What a scheduler would choose, without asking the one that will.

use crate::moved::HASHING;
use crate::registry::{Options, create};
use crate::slow_start::has_slow_start;
use crate::{Flow, RealServer};

/// Schedulers that go by the servers' loads and weights, and by nothing that happened before.
const BY_LOAD: [&str; 6] = ["lc", "wlc", "sed", "nq", "fo", "ovf"];

/// What can be said of a choice to come. Indices are those of the list of servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Foresight {
    /// It follows from the flow: this server, or none.
    Certain(Option<usize>),
    /// It follows from the servers' loads: this server, or none, as long as they are as they are.
    ByLoad(Option<usize>),
    /// It depends on the flows before it.
    Open,
}

/// What the scheduler called `name` would choose for `flow`. Nothing is changed, and no worker is asked.
#[must_use]
pub fn foresee(name: &str, options: &Options, flow: &Flow, servers: &[RealServer]) -> Foresight {
    // Weights that grow are known to the workers alone.
    let ramps = options.slow_start > 0 && has_slow_start(name);
    let Ok(mut scheduler) = create(name, options) else {
        return Foresight::Open;
    };
    scheduler.servers_changed(servers);
    match name {
        _ if ramps => Foresight::Open,
        _ if HASHING.contains(&name) => Foresight::Certain(scheduler.pick(flow, servers)),
        _ if BY_LOAD.contains(&name) => Foresight::ByLoad(scheduler.pick(flow, servers)),
        _ => Foresight::Open,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Activity, NAMES, RealServerId, Weight};
    use std::net::Ipv4Addr;
    use std::sync::Arc;

    fn flow(client: u32) -> Flow {
        Flow {
            client: Ipv4Addr::from_bits(client).into(),
            client_port: 1024,
            virtual_address: Ipv4Addr::LOCALHOST.into(),
            virtual_port: 80,
            protocol: 6,
        }
    }

    fn servers() -> Vec<RealServer> {
        let server = |id: u32| RealServer {
            id: RealServerId(id),
            address: Ipv4Addr::from_bits(id).into(),
            port: 80,
            weight: Weight(1 + u16::try_from(id).unwrap()),
            load: Arc::default(),
        };
        (0..5).map(server).collect()
    }

    /// Whatever a scheduler in use did before, and however the loads came about.
    #[test]
    fn what_is_foreseen_is_what_a_scheduler_in_use_chooses() {
        for name in NAMES {
            let servers = servers();
            let options = Options::default();
            let mut in_use = create(name, &options).unwrap();
            in_use.servers_changed(&[]);
            in_use.servers_changed(&servers[1..]);
            in_use.servers_changed(&servers);
            let mut open = 0;
            for client in 0..500 {
                let flow = flow(client * 7919);
                let foreseen = foresee(name, &options, &flow, &servers);
                let picked = in_use.pick(&flow, &servers);
                match foreseen {
                    Foresight::Certain(choice) | Foresight::ByLoad(choice) => {
                        assert_eq!(choice, picked, "{name} {client}");
                    }
                    Foresight::Open => open += 1,
                }
                if let Some(picked) = picked {
                    let load = &servers[picked].load;
                    load.shift(None, Some(Activity::Active));
                    if client % 3 == 0 {
                        load.shift(Some(Activity::Active), Some(Activity::Inactive));
                    }
                }
            }
            let is_open = ["rr", "wrr", "twos", "lblc", "lblcr"].contains(name);
            assert_eq!(open, if is_open { 500 } else { 0 }, "{name}");
        }
    }

    #[test]
    fn a_slow_start_leaves_the_choice_open() {
        let options = Options {
            slow_start: 30,
            ..Options::default()
        };
        let servers = servers();
        assert_eq!(
            foresee("wlc", &options, &flow(1), &servers),
            Foresight::Open
        );
        let certain = foresee("sh", &options, &flow(1), &servers);
        assert!(matches!(certain, Foresight::Certain(Some(_))));
    }
}
