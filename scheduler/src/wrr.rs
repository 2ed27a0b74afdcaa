//! `wrr`: servers in turn, each as often as its weight says.

use crate::change::Roll;
use crate::{Flow, RealServer, Scheduler, Weight};

/// Weighted round robin.
///
/// A round goes through the list several times. Each time it takes the servers whose weight is not below a threshold,
/// which goes down from the highest weight in steps of the weights' common divisor and then starts anew.
///
/// Source: Linux net/netfilter/ipvs/ip_vs_wrr.c
#[derive(Debug)]
pub(crate) struct WeightedRoundRobin {
    roll: Roll,
    attached: bool,
    /// The server that the last flow got. `None`: before the first of the list.
    last: Option<usize>,
    /// Servers of this weight or more have their turn. After a change it is 1 more than a multiple of `step`, or, as
    /// `highest` is, zero for want of any weight.
    threshold: u32,
    /// Where the threshold starts: a step less one below the highest weight, so that the last threshold is 1.
    highest: u32,
    /// The greatest common divisor of the weights, at least 1.
    step: u32,
    stagger: usize,
}

/// The greatest common divisor and the maximum of some weights, both zero when there are none above zero.
#[derive(Clone, Copy, Debug, Default)]
struct Weights {
    divisor: u32,
    maximum: u32,
}

impl WeightedRoundRobin {
    /// Each round begins `stagger` flows late.
    pub(crate) fn new(stagger: usize) -> Self {
        Self {
            roll: Roll::default(),
            attached: false,
            last: None,
            threshold: 0,
            highest: 0,
            step: 1,
            stagger,
        }
    }

    /// Starts at the head of the list again. The threshold survives as far as it fits the new weights.
    fn restart(&mut self, weights: Weights) {
        self.last = None;
        self.step = weights.divisor.max(1);
        self.highest = weights.maximum.saturating_sub(self.step - 1);
        if self.threshold > self.highest || self.threshold == 0 {
            self.threshold = self.highest;
        } else if self.step > 1 {
            self.threshold = self.threshold / self.step * self.step + 1;
        }
    }

    fn next(&mut self, servers: &[RealServer]) -> Option<usize> {
        if self.highest == 0 {
            return None;
        }
        let passed = self.last.map_or(0, |last| last + 1);
        let ahead = servers.get(passed..).unwrap_or_default();
        if let Some(index) = first_at_least(self.threshold, ahead) {
            return Some(passed + index);
        }
        let lower = self.threshold.saturating_sub(self.step);
        let threshold = if lower == 0 { self.highest } else { lower };
        if let Some(index) = first_at_least(threshold, servers) {
            self.threshold = threshold;
            return Some(index);
        }
        // Stepping down would find nobody until the threshold meets the heaviest usable server: go there at once.
        let heaviest = servers
            .iter()
            .filter(|server| server.is_usable())
            .map(|server| u32::from(server.weight.0))
            .max();
        match heaviest {
            Some(weight) => {
                self.threshold = weight.saturating_sub(self.step - 1).max(1);
                first_at_least(self.threshold, servers)
            }
            None => {
                // The kernel goes once round to find this out. It comes back to the same place if that was in the
                // last pass of a round, and otherwise ends at the start of one.
                if self.last.is_none() || self.threshold > self.step {
                    self.last = None;
                    self.threshold = self.highest;
                }
                None
            }
        }
    }
}

impl Scheduler for WeightedRoundRobin {
    fn pick(&mut self, _flow: &Flow, servers: &[RealServer]) -> Option<usize> {
        let found = self.next(servers);
        self.last = found.or(self.last);
        found
    }

    fn servers_changed(&mut self, servers: &[RealServer]) {
        let change = self.roll.update(servers);
        if self.attached {
            // Each addition restarts, and leaves its trace in the threshold. Of edits and deletions the order is not
            // known; they count as one change, before the additions.
            let mut weights = Weights::of(&servers[change.added..]);
            if change.added == 0 || change.edited || change.removed_any() {
                self.restart(weights);
            }
            for server in servers[..change.added].iter().rev() {
                weights = weights.with(server.weight);
                self.restart(weights);
            }
        } else {
            self.attached = true;
            self.restart(Weights::of(servers));
        }
        // Every change restarts all workers' rounds at the head, so the stagger is needed each time.
        for _ in 0..self.stagger.checked_rem(servers.len()).unwrap_or(0) {
            self.last = self.next(servers).or(self.last);
        }
    }
}

impl Weights {
    fn of(servers: &[RealServer]) -> Self {
        servers.iter().fold(Self::default(), |weights, server| {
            weights.with(server.weight)
        })
    }

    fn with(self, weight: Weight) -> Self {
        let weight = u32::from(weight.0);
        Self {
            divisor: greatest_common_divisor(self.divisor, weight),
            maximum: self.maximum.max(weight),
        }
    }
}

/// The first usable server of that weight or more. The threshold is never zero here.
fn first_at_least(threshold: u32, servers: &[RealServer]) -> Option<usize> {
    servers
        .iter()
        .position(|server| u32::from(server.weight.0) >= threshold && !server.load.overloaded())
}

/// Of zero and a number it is the number.
pub(crate) fn greatest_common_divisor(mut a: u32, mut b: u32) -> u32 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Load, RealServerId};
    use proptest::prelude::*;
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::Arc;

    fn servers(weights: &[(u16, bool)]) -> Vec<RealServer> {
        (0..)
            .zip(weights)
            .map(|(id, &(weight, overloaded))| {
                let load = Load::default();
                load.set_overloaded(overloaded);
                RealServer {
                    id: RealServerId(id),
                    address: IpAddr::V4(Ipv4Addr::from_bits(id)),
                    port: 80,
                    weight: Weight(weight),
                    load: Arc::new(load),
                }
            })
            .collect()
    }

    /// One step of the threshold at a time; gives up after the longest possible way.
    fn walk(wrr: &WeightedRoundRobin, servers: &[RealServer]) -> Option<(usize, u32)> {
        let mut threshold = wrr.threshold;
        let mut from = wrr.last.map_or(0, |last| last + 1);
        for _ in 0..=(wrr.highest / wrr.step + 2) {
            if let Some(index) = first_at_least(threshold.max(1), &servers[from..]) {
                return Some((from + index, threshold));
            }
            from = 0;
            threshold = match threshold.saturating_sub(wrr.step) {
                0 => wrr.highest,
                lower => lower,
            };
        }
        None
    }

    proptest! {
        #[test]
        fn going_straight_to_the_heaviest_is_stepping_down_to_it(
            lists in prop::collection::vec(prop::collection::vec((0_u16..200, any::<bool>()), 0..6), 1..6),
            factor in 1_u16..4,
        ) {
            let mut wrr = WeightedRoundRobin::new(0);
            for list in lists {
                let list: Vec<_> = list.iter().map(|&(weight, overloaded)| (weight * factor, overloaded)).collect();
                let servers = servers(&list);
                wrr.servers_changed(&servers);
                for flow in 0..12 {
                    // A threshold met in the middle of a round.
                    if flow == 6 && let Some(first) = servers.first() {
                        first.load.set_overloaded(!first.load.overloaded());
                    }
                    let expected = walk(&wrr, &servers);
                    let found = wrr.next(&servers);
                    prop_assert_eq!(found, expected.map(|(index, _)| index));
                    if let Some((index, threshold)) = expected {
                        prop_assert_eq!(wrr.threshold, threshold);
                        wrr.last = Some(index);
                    }
                }
            }
        }
    }

    #[test]
    fn several_additions_at_once_are_as_one_by_one() {
        let all = servers(&[(2, false), (3, false), (4, false)]);
        let mut at_once = WeightedRoundRobin::new(0);
        let mut one_by_one = WeightedRoundRobin::new(0);
        at_once.servers_changed(&[]);
        at_once.servers_changed(&all);
        for count in 0..=3 {
            one_by_one.servers_changed(&all[3 - count..]);
        }
        assert_eq!(at_once.threshold, one_by_one.threshold);
        // Attached to servers that were there before, it starts with the heaviest.
        let mut attached = WeightedRoundRobin::new(0);
        attached.servers_changed(&all);
        assert_eq!((at_once.threshold, attached.threshold), (1, 4));
    }

    #[test]
    fn workers_start_at_different_servers_after_each_change() {
        let all = servers(&[(1, false), (1, false), (1, false)]);
        for stagger in 0..7 {
            let mut wrr = WeightedRoundRobin::new(stagger);
            wrr.servers_changed(&all);
            assert_eq!(wrr.next(&all), Some(stagger % 3));
            wrr.servers_changed(&all);
            assert_eq!(wrr.next(&all), Some(stagger % 3));
        }
    }
}
