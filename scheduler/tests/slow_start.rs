//! The share of new flows that a server gets while it ramps, and that all is as before when it has.

use scheduler::{
    Activity, Flow, Load, Options, RealServer, RealServerId, Scheduler, Weight, create,
};
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

const ALL: [&str; 7] = ["rr", "wrr", "lc", "wlc", "sed", "twos", "maglev"];
/// New flows in a second, and as many held at once as a quarter of them.
const FLOWS: u32 = 4000;
const HELD: usize = 1000;
const SECONDS: u32 = 10;

fn server(id: u32, weight: u16) -> RealServer {
    RealServer {
        id: RealServerId(id),
        address: IpAddr::V4(Ipv4Addr::from_bits(0x0a02_0000 + id)),
        port: 80,
        weight: Weight(weight),
        load: Arc::new(Load::default()),
    }
}

fn flow(number: u32) -> Flow {
    Flow {
        client: IpAddr::V4(Ipv4Addr::from_bits(number.wrapping_mul(0x9e37_79b9))),
        client_port: 40_000,
        virtual_address: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 100)),
        virtual_port: 80,
        protocol: 6,
    }
}

fn scheduler(name: &str, slow_start: u32) -> Box<dyn Scheduler> {
    let options = Options {
        slow_start,
        ..Options::default()
    };
    create(name, &options).expect("a known name")
}

/// A service under a steady load: each new flow ends the oldest.
struct Service {
    scheduler: Box<dyn Scheduler>,
    servers: Vec<RealServer>,
    held: VecDeque<Arc<Load>>,
    flows: u32,
}

impl Service {
    fn new(name: &str, weights: &[u16]) -> Self {
        let servers: Vec<RealServer> = (0..)
            .zip(weights)
            .map(|(id, &weight)| server(id, weight))
            .collect();
        let mut scheduler = scheduler(name, SECONDS);
        scheduler.servers_changed(&[]);
        scheduler.servers_changed(&servers);
        Self {
            scheduler,
            servers,
            held: VecDeque::new(),
            flows: 0,
        }
    }

    fn add(&mut self, id: u32, weight: u16) {
        self.servers.insert(0, server(id, weight));
        self.scheduler.servers_changed(&self.servers);
    }

    fn change(&mut self, id: u32, weight: Option<u16>) {
        let index = (self.servers.iter())
            .position(|server| server.id.0 == id)
            .expect("a server of the service");
        match weight {
            Some(weight) => self.servers[index].weight = Weight(weight),
            None => drop(self.servers.remove(index)),
        }
        self.scheduler.servers_changed(&self.servers);
    }

    fn seconds(&mut self, count: u32) {
        for _ in 0..count {
            self.second([]);
        }
    }

    /// A second: the share of the new flows that each of `ids` got.
    fn second<const COUNT: usize>(&mut self, ids: [u32; COUNT]) -> [f64; COUNT] {
        let mut counts = [0.0; COUNT];
        for _ in 0..FLOWS {
            self.flows += 1;
            let picked = self.scheduler.pick(&flow(self.flows), &self.servers);
            let server = &self.servers[picked.expect("a usable server")];
            if let Some(index) = ids.iter().position(|&id| id == server.id.0) {
                counts[index] += 1.0;
            }
            server.load.shift(None, Some(Activity::Active));
            self.held.push_back(Arc::clone(&server.load));
            if self.held.len() > HELD {
                let oldest = self.held.pop_front().expect("as many as are held");
                oldest.shift(Some(Activity::Active), None);
            }
        }
        self.scheduler.tick(1);
        counts.map(|count| count / f64::from(FLOWS))
    }
}

/// The part of its weight that a server has in that second after it joined: a step at first.
fn part(name: &str, second: u32) -> f64 {
    let step = match name {
        "rr" | "wrr" | "maglev" => 0.1,
        _ => 0.01,
    };
    (f64::from(second) / f64::from(SECONDS)).clamp(step, 1.0)
}

#[track_caller]
fn assert_share(share: f64, due: f64, what: &str) {
    // `twos` may choose the other of two, and a hash is not even.
    assert!((share - due).abs() < 0.03, "{what}: {share} of {due}");
}

#[test]
fn a_server_that_joins_gets_more_from_second_to_second() {
    for name in ALL {
        let mut service = Service::new(name, &[2, 2, 2]);
        service.second([]);
        service.add(9, 2);
        for second in 0..15 {
            let [share] = service.second([9]);
            let due = part(name, second) / (3.0 + part(name, second));
            assert_share(share, due, &format!("{name}, second {second}"));
        }
    }
}

#[test]
fn a_server_that_returns_ramps_too() {
    for name in ALL {
        let mut service = Service::new(name, &[1, 1]);
        service.change(0, Some(0));
        assert_eq!(service.second([0]), [0.0], "{name}");
        service.change(0, Some(1));
        for second in 0..12 {
            let [share] = service.second([0]);
            let due = part(name, second) / (1.0 + part(name, second));
            assert_share(share, due, &format!("{name}, second {second}"));
        }
    }
}

#[test]
fn several_ramps_at_once_go_each_its_own_way() {
    for name in ALL {
        let mut service = Service::new(name, &[1, 1, 1]);
        service.add(8, 1);
        service.seconds(5);
        service.add(9, 1);
        for second in 0..12 {
            let [first, last] = service.second([8, 9]);
            let parts = [part(name, second + 5), part(name, second)];
            let total = 3.0 + parts[0] + parts[1];
            assert_share(first, parts[0] / total, &format!("{name} 8, {second}"));
            assert_share(last, parts[1] / total, &format!("{name} 9, {second}"));
        }
    }
}

#[test]
fn a_weight_changed_during_the_ramp_counts_from_then_on() {
    for name in ["wrr", "wlc", "sed", "maglev"] {
        let mut service = Service::new(name, &[2, 2]);
        service.add(9, 2);
        service.seconds(5);
        service.change(9, Some(6));
        for second in 5..12 {
            let [share] = service.second([9]);
            let weight = 6.0 * part(name, second);
            let due = weight / (4.0 + weight);
            assert_share(share, due, &format!("{name}, second {second}"));
        }
    }
}

#[test]
fn a_server_removed_during_its_ramp_leaves_all_as_it_was() {
    for name in ALL {
        let mut service = Service::new(name, &[1, 1]);
        service.add(9, 1);
        service.seconds(3);
        service.change(9, None);
        for second in 0..10 {
            let shares = service.second([0, 1, 9]);
            assert_share(shares[0], 0.5, &format!("{name}, second {second}"));
            assert_eq!(shares[2], 0.0, "{name}");
        }
        // It begins anew when it is back.
        service.add(9, 1);
        let due = part(name, 0) / (2.0 + part(name, 0));
        assert_share(service.second([9])[0], due, name);
    }
}

#[test]
fn the_servers_of_a_new_service_have_their_whole_share_at_once() {
    for name in ALL {
        let mut service = Service::new(name, &[1, 1, 1, 1]);
        assert_share(service.second([0])[0], 0.25, name);
    }
}

/// The servers of so many flows that are all held.
fn sequence(scheduler: &mut dyn Scheduler, servers: &[RealServer], flows: u32) -> Vec<usize> {
    let pick = |number| {
        let index = scheduler.pick(&flow(number), servers).expect("a server");
        servers[index].load.shift(None, Some(Activity::Active));
        index
    };
    (0..flows).map(pick).collect()
}

#[test]
fn after_the_ramp_each_choice_is_as_without_slow_start() {
    let list = || -> Vec<RealServer> { (0..4).map(|id| server(id, 5)).collect() };
    for name in ALL {
        let (mut slow, slow_list) = (scheduler(name, SECONDS), list());
        let (mut plain, plain_list) = (scheduler(name, 0), list());
        for count in [0, 3, 4] {
            slow.servers_changed(&slow_list[4 - count..]);
            plain.servers_changed(&plain_list[4 - count..]);
        }
        for _ in 0..SECONDS {
            slow.tick(1);
            plain.tick(1);
        }
        assert_eq!(
            sequence(&mut *slow, &slow_list, 500),
            sequence(&mut *plain, &plain_list, 500),
            "{name}"
        );
    }
}

#[test]
fn while_no_server_ramps_each_choice_is_as_without_slow_start() {
    let list = || -> Vec<RealServer> {
        (1..6)
            .zip(1..)
            .map(|(id, weight)| server(id, weight))
            .collect()
    };
    for name in ALL {
        let (mut slow, slow_list) = (scheduler(name, SECONDS), list());
        let (mut plain, plain_list) = (scheduler(name, 0), list());
        // All at once, then one less, and one lighter.
        for (from, weight) in [(0, 5), (1, 5), (1, 3)] {
            let change = |mut servers: Vec<RealServer>| {
                servers[4].weight = Weight(weight);
                servers.split_off(from)
            };
            let (slow_list, plain_list) = (change(slow_list.clone()), change(plain_list.clone()));
            slow.servers_changed(&slow_list);
            plain.servers_changed(&plain_list);
            assert_eq!(
                sequence(&mut *slow, &slow_list, 300),
                sequence(&mut *plain, &plain_list, 300),
                "{name}"
            );
        }
    }
}

#[test]
fn a_ramp_disturbs_little_with_maglev() {
    let mut servers: Vec<RealServer> = (0..20).map(|id| server(id, 1)).collect();
    let mut maglev = scheduler("maglev", SECONDS);
    maglev.servers_changed(&servers);
    servers.insert(0, server(99, 1));
    let places = |maglev: &mut dyn Scheduler| -> Vec<RealServerId> {
        let place = |number| servers[maglev.pick(&flow(number), &servers).expect("a server")].id;
        (0..20_000).map(place).collect()
    };
    maglev.servers_changed(&servers);
    let mut before = places(&mut *maglev);
    for second in 1..=SECONDS {
        maglev.tick(1);
        let after = places(&mut *maglev);
        let moved = before.iter().zip(&after).filter(|(old, new)| old != new);
        let percent = moved.count() as f64 / 200.0;
        // Half a percent of all goes to the server that ramps.
        println!("second {second}: {percent} % of the flows moved");
        assert!(percent < 1.0, "{percent}");
        before = after;
    }
}
