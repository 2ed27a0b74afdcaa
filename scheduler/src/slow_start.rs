//! Slow start: a server that joins gets its share of new flows step by step.

use crate::{Flow, Options, RealServer, RealServerId, Scheduler, Weight};
use std::collections::HashMap;
use std::net::IpAddr;

/// A scheduler that sees weights which grow while servers are new.
///
/// A server joins when it is added or its weight raised from zero, and there are others that stayed. Where there are
/// none, as at the start of a service, nobody is to be relieved and those that join have their whole share at once. So
/// has a server that a scheduler finds when it takes over a live service.
///
/// For its scheduler a server that joined has a part of its weight: a step of the ramp at first, all of it after the
/// set time, give or take a step. All weights are multiplied while a server ramps, so that a light one has parts too;
/// these are as fine as 16 bits allow beside the heaviest server. While none ramps the scheduler sees the servers as
/// they are and decides as without slow start.
///
/// Time passes by `tick`, where weights are worked out: a flow costs no more than otherwise. All ramps of a service
/// step together, so that however many servers join, weights change and tables are filled no more often than there are
/// steps in the time. Each worker counts its own ticks; they may be apart by a second.
pub(crate) struct SlowStart {
    scheduler: Box<dyn Scheduler>,
    /// Decides while a server ramps, where `scheduler` does not look at weights.
    weighing: Option<Box<dyn Scheduler>>,
    steps: u32,
    seconds: u32,
    /// Since the first of the present ramps began.
    clock: u64,
    /// The steps that the clock has passed.
    now: u64,
    members: Vec<Member>,
    /// The servers with the weights of their ramps; empty while none ramps.
    ramping: Vec<RealServer>,
}

/// A server of the list.
#[derive(Clone, Copy, Debug)]
struct Member {
    name: (RealServerId, IpAddr, u16),
    weight: Weight,
    /// The step in which its ramp began, if it ramps.
    began: Option<u64>,
}

/// How a scheduler ramps.
struct Ramp {
    name: &'static str,
    /// Few where a step disturbs: a table is filled, a round begun anew.
    steps: u32,
    /// Who decides meanwhile, where it is not the scheduler itself. To it all servers weigh the same.
    weighing: Option<&'static str>,
}

const RAMPS: &[Ramp] = &[
    ramp("rr", 10, Some("wrr")),
    ramp("wrr", 10, None),
    ramp("lc", 100, Some("wlc")),
    ramp("wlc", 100, None),
    ramp("sed", 100, None),
    ramp("twos", 100, None),
    ramp("maglev", 10, None),
];

const fn ramp(name: &'static str, steps: u32, weighing: Option<&'static str>) -> Ramp {
    Ramp {
        name,
        steps,
        weighing,
    }
}

/// Whether the scheduler called `name` looks at [`Options::slow_start`](crate::Options::slow_start).
#[must_use]
pub fn has_slow_start(name: &str) -> bool {
    RAMPS.iter().any(|ramp| ramp.name == name)
}

/// Gives the scheduler called `name` a slow start of so many seconds, if it can have one. `make` makes a scheduler by its
/// name.
pub(crate) fn with_slow_start(
    name: &str,
    seconds: u32,
    make: impl Fn(&str) -> Box<dyn Scheduler>,
) -> Box<dyn Scheduler> {
    match RAMPS.iter().find(|ramp| ramp.name == name) {
        Some(ramp) if seconds > 0 => Box::new(SlowStart {
            scheduler: make(name),
            weighing: ramp.weighing.map(make),
            steps: ramp.steps,
            seconds,
            clock: 0,
            now: 0,
            members: Vec::new(),
            ramping: Vec::new(),
        }),
        _ => make(name),
    }
}

impl SlowStart {
    fn is_ramping(&self) -> bool {
        self.members.iter().any(|member| member.began.is_some())
    }

    /// Takes a new list; a server that was in the one before with a weight goes on with its ramp.
    fn enlist(&mut self, servers: &[RealServer]) {
        let before: HashMap<_, _> = self
            .members
            .iter()
            .filter(|member| member.weight.0 > 0)
            .map(|member| (member.name, member.began))
            .collect();
        let name = |server: &RealServer| (server.id, server.address, server.port);
        let is_weighted = |server: &&RealServer| server.weight.0 > 0;
        let others_stayed = servers
            .iter()
            .filter(is_weighted)
            .any(|server| before.contains_key(&name(server)));
        if !self.is_ramping() {
            (self.clock, self.now) = (0, 0);
        }
        let joins = others_stayed.then_some(self.now);
        self.members.clear();
        self.members.extend(servers.iter().map(|server| {
            Member {
                name: name(server),
                weight: server.weight,
                began: Some(server)
                    .filter(is_weighted)
                    .and_then(|server| before.get(&name(server)).copied().unwrap_or(joins)),
            }
        }));
    }

    /// Gives each server of `ramping` the weight that it has now.
    fn weigh(&mut self) {
        let weight = |member: &Member| match self.weighing {
            Some(_) => u64::from(member.weight.0.min(1)),
            None => u64::from(member.weight.0),
        };
        let heaviest = self.members.iter().map(weight).max().unwrap_or(0).max(1);
        let steps = u64::from(self.steps);
        let factor = (u64::from(u16::MAX) / heaviest).min(steps);
        for (server, member) in self.ramping.iter_mut().zip(&self.members) {
            let whole = weight(member) * factor;
            let part = member.began.map_or(whole, |began| {
                let step = (self.now - began).clamp(1, steps);
                (whole * step / steps).max(1)
            });
            server.weight = Weight(u16::try_from(part).expect("the factor keeps it in 16 bits"));
        }
    }

    /// Tells whoever decides while servers ramp that the weights are others.
    fn announce(&mut self) {
        self.weigh();
        let deciding = self.weighing.as_mut().unwrap_or(&mut self.scheduler);
        deciding.servers_changed(&self.ramping);
    }

    /// Ends the ramps that are complete; after the last the scheduler sees the servers as they are.
    fn step(&mut self) {
        let (now, steps) = (self.now, u64::from(self.steps));
        for member in &mut self.members {
            member.began = member.began.filter(|began| now - began < steps);
        }
        if self.is_ramping() {
            self.announce();
            return;
        }
        if self.weighing.is_none() {
            for (server, member) in self.ramping.iter_mut().zip(&self.members) {
                server.weight = member.weight;
            }
            self.scheduler.servers_changed(&self.ramping);
        }
        self.ramping.clear();
    }
}

impl Scheduler for SlowStart {
    fn pick(&mut self, flow: &Flow, servers: &[RealServer]) -> Option<usize> {
        if self.ramping.is_empty() {
            return self.scheduler.pick(flow, servers);
        }
        let deciding = self.weighing.as_mut().unwrap_or(&mut self.scheduler);
        deciding.pick(flow, &self.ramping)
    }

    fn servers_changed(&mut self, servers: &[RealServer]) {
        self.enlist(servers);
        self.ramping.clear();
        let is_ramping = self.is_ramping();
        if !is_ramping || self.weighing.is_some() {
            self.scheduler.servers_changed(servers);
        }
        if is_ramping {
            self.ramping.extend_from_slice(servers);
            self.announce();
        }
    }

    fn set_options(&mut self, options: &Options) {
        self.scheduler.set_options(options);
        if let Some(weighing) = &mut self.weighing {
            weighing.set_options(options);
        }
    }

    fn tick(&mut self, seconds: u32) {
        self.scheduler.tick(seconds);
        if self.ramping.is_empty() {
            return;
        }
        self.clock += u64::from(seconds);
        let now = self.clock * u64::from(self.steps) / u64::from(self.seconds);
        if now != self.now {
            self.now = now;
            self.step();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Load, NAMES, Options, create};
    use std::net::Ipv4Addr;
    use std::sync::{Arc, Mutex};

    /// Notes the weights that it is told of, and takes the first server.
    struct Witness(Arc<Seen>);

    type Seen = Mutex<Vec<Vec<u16>>>;

    impl Scheduler for Witness {
        fn pick(&mut self, _flow: &Flow, servers: &[RealServer]) -> Option<usize> {
            (!servers.is_empty()).then_some(0)
        }

        fn servers_changed(&mut self, servers: &[RealServer]) {
            let weights = servers.iter().map(|server| server.weight.0).collect();
            self.0.lock().unwrap().push(weights);
        }
    }

    fn witnessed(name: &str, seconds: u32) -> (Box<dyn Scheduler>, Arc<Seen>) {
        let seen = Arc::default();
        let scheduler = with_slow_start(name, seconds, |_| Box::new(Witness(Arc::clone(&seen))));
        (scheduler, seen)
    }

    fn list(servers: &[(u32, u16)]) -> Vec<RealServer> {
        servers
            .iter()
            .map(|&(id, weight)| RealServer {
                id: RealServerId(id),
                address: IpAddr::V4(Ipv4Addr::LOCALHOST),
                port: 80,
                weight: Weight(weight),
                load: Arc::new(Load::default()),
            })
            .collect()
    }

    fn take(seen: &Seen) -> Vec<Vec<u16>> {
        std::mem::take(&mut seen.lock().unwrap())
    }

    #[test]
    fn a_server_that_joins_ramps_in_steps_and_then_nothing_is_as_before() {
        let (mut scheduler, seen) = witnessed("maglev", 20);
        scheduler.servers_changed(&[]);
        scheduler.servers_changed(&list(&[(1, 3), (2, 1)]));
        assert_eq!(take(&seen), [vec![], vec![3, 1]]);
        scheduler.servers_changed(&list(&[(3, 2), (1, 3), (2, 1)]));
        (0..40).for_each(|_| scheduler.tick(1));
        let mut expected = vec![vec![2, 30, 10]];
        expected.extend((1..10).map(|step| vec![2 * step, 30, 10]));
        expected.push(vec![2, 3, 1]);
        assert_eq!(take(&seen), expected);
    }

    #[test]
    fn servers_that_return_ramp_and_those_that_join_an_empty_service_do_not() {
        let (mut scheduler, seen) = witnessed("wrr", 10);
        scheduler.servers_changed(&list(&[(1, 0), (2, 0)]));
        scheduler.servers_changed(&list(&[(1, 1), (2, 0)]));
        scheduler.servers_changed(&list(&[(1, 1), (2, 1)]));
        scheduler.servers_changed(&list(&[(3, 5), (4, 5)]));
        assert_eq!(
            take(&seen),
            [vec![0, 0], vec![1, 0], vec![10, 1], vec![5, 5]]
        );
    }

    #[test]
    fn ramps_step_together_and_end_one_by_one() {
        let (mut scheduler, seen) = witnessed("maglev", 100);
        scheduler.servers_changed(&list(&[(1, 1)]));
        scheduler.servers_changed(&list(&[(2, 1), (1, 1)]));
        scheduler.tick(45);
        scheduler.servers_changed(&list(&[(3, 1), (2, 1), (1, 1)]));
        take(&seen);
        (0..100).for_each(|_| scheduler.tick(1));
        let steps = take(&seen);
        assert_eq!(steps[0], [1, 5, 10]);
        assert_eq!(steps[4], [5, 9, 10]);
        assert_eq!(steps[5], [6, 10, 10]);
        assert_eq!(steps[9], [1, 1, 1]);
        assert_eq!(steps.len(), 10, "no more often than there are steps");
    }

    #[test]
    fn a_weight_changed_meanwhile_holds_and_zero_ends_the_ramp() {
        let (mut scheduler, seen) = witnessed("maglev", 10);
        scheduler.servers_changed(&list(&[(1, 4)]));
        scheduler.servers_changed(&list(&[(2, 4), (1, 4)]));
        scheduler.tick(5);
        scheduler.servers_changed(&list(&[(2, 8), (1, 4)]));
        scheduler.servers_changed(&list(&[(2, 0), (1, 4)]));
        scheduler.servers_changed(&list(&[(2, 8), (1, 4)]));
        let weights = take(&seen);
        assert_eq!(
            weights[2..],
            [vec![20, 40], vec![40, 40], vec![0, 4], vec![8, 40]]
        );
    }

    #[test]
    fn an_id_with_another_address_is_another_server() {
        let (mut scheduler, seen) = witnessed("maglev", 10);
        let mut servers = list(&[(1, 1), (2, 1)]);
        scheduler.servers_changed(&servers);
        servers[0].port = 81;
        scheduler.servers_changed(&servers);
        assert_eq!(take(&seen)[1], [1, 10]);
    }

    #[test]
    fn the_heaviest_and_any_time_fit() {
        let (mut scheduler, seen) = witnessed("wlc", u32::MAX);
        scheduler.servers_changed(&list(&[(1, 65_535)]));
        scheduler.servers_changed(&list(&[(3, 1), (2, 65_535), (1, 65_535)]));
        assert_eq!(take(&seen)[1], [1, 655, 65_535]);
        scheduler.tick(u32::MAX / 2 + 1);
        assert_eq!(take(&seen), [[1, 32_767, 65_535]]);
        (0..3).for_each(|_| scheduler.tick(u32::MAX));
        assert_eq!(take(&seen), [[1, 65_535, 65_535]]);
    }

    #[test]
    fn every_ramp_is_of_a_scheduler_that_there_is() {
        for ramp in RAMPS {
            assert!(NAMES.contains(&ramp.name) && has_slow_start(ramp.name));
            let options = Options {
                slow_start: 1,
                ..Options::default()
            };
            assert!(create(ramp.name, &options).is_ok());
        }
        assert!(!has_slow_start("mh"));
    }
}
