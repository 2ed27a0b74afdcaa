//! What holds for every scheduler, whatever the servers are.

use proptest::prelude::*;
use scheduler::{
    Activity, Flow, Load, NAMES, Options, RealServer, RealServerId, Scheduler, Weight, create,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

fn server(id: u32, weight: u16) -> RealServer {
    RealServer {
        id: RealServerId(id),
        address: IpAddr::V4(Ipv4Addr::from_bits(0x0a02_0000 + id)),
        port: 80,
        weight: Weight(weight),
        load: Arc::new(Load::default()),
    }
}

fn servers(weights: &[u16]) -> Vec<RealServer> {
    (0..)
        .zip(weights)
        .map(|(id, &weight)| server(id, weight))
        .collect()
}

fn scheduler(name: &str, options: &Options) -> Box<dyn Scheduler> {
    create(name, options).expect("a known name")
}

/// Flow number `number` of clients with different addresses and ports, to different destinations.
fn flow(number: u32) -> Flow {
    let spread = number.wrapping_mul(0x9e37_79b9);
    Flow {
        client: IpAddr::V4(Ipv4Addr::from_bits(spread)),
        client_port: (number % 60_000) as u16,
        virtual_address: IpAddr::V4(Ipv4Addr::from_bits(spread.rotate_left(16))),
        virtual_port: 80,
        protocol: 6,
    }
}

fn with_fallback() -> Options {
    Options {
        sh_fallback: true,
        mh_fallback: true,
        ..Options::default()
    }
}

/// Those that may refuse a flow although another server is usable: those with tables, in which the usable one may have
/// no slot or not the flow's, and the one with full servers.
const MAY_REFUSE: [&str; 4] = ["sh", "mh", "dh", "ovf"];

#[derive(Clone, Debug)]
enum Step {
    Add { id: u32, weight: u16 },
    Delete { index: usize },
    Edit { index: usize, weight: u16 },
    Overload { index: usize, overloaded: bool },
    Open { flow: Flow, active: bool },
    Tick { seconds: u32 },
}

fn weight() -> impl Strategy<Value = u16> {
    prop_oneof![Just(0), 1_u16..5, Just(65_535), any::<u16>()]
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<u32>().prop_map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits))),
        (0_u32..8).prop_map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits))),
        any::<u128>().prop_map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits))),
    ]
}

prop_compose! {
    fn any_flow()(
        client in address(), client_port: u16, virtual_address in address(), virtual_port: u16, protocol: u8,
    ) -> Flow {
        Flow { client, client_port, virtual_address, virtual_port, protocol }
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0_u32..12, weight()).prop_map(|(id, weight)| Step::Add { id, weight }),
        1 => any::<usize>().prop_map(|index| Step::Delete { index }),
        1 => (any::<usize>(), weight()).prop_map(|(index, weight)| Step::Edit { index, weight }),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(index, overloaded)| Step::Overload { index, overloaded }),
        8 => (any_flow(), any::<bool>()).prop_map(|(flow, active)| Step::Open { flow, active }),
        1 => prop_oneof![Just(1), 0_u32..100_000, Just(u32::MAX)].prop_map(|seconds| Step::Tick { seconds }),
    ]
}

fn options() -> impl Strategy<Value = Options> {
    let seconds = || prop_oneof![Just(0), 1_u32..200, any::<u32>()];
    let stagger = prop_oneof![0_usize..4, any::<usize>()];
    (
        any::<[bool; 4]>(),
        [seconds(), seconds(), seconds()],
        stagger,
    )
        .prop_map(|(flags, seconds, stagger)| Options {
            sh_port: flags[0],
            sh_fallback: flags[1],
            mh_port: flags[2],
            mh_fallback: flags[3],
            slow_start: seconds[0],
            lblc_expiration: seconds[1],
            lblcr_expiration: seconds[2],
            stagger,
        })
}

/// Lives through the steps; the list changes now and then, with one change or several at once.
fn live(name: &str, options: &Options, steps: &[Step]) -> Result<(), TestCaseError> {
    let mut scheduler = scheduler(name, options);
    let mut list: Vec<RealServer> = Vec::new();
    let mut changed = true;
    for step in steps {
        let place = |index: usize| index.checked_rem(list.len());
        match *step {
            Step::Add { id, weight } => {
                list.retain(|server| server.id.0 != id);
                list.insert(0, server(id, weight));
                changed = true;
            }
            Step::Delete { index } => {
                place(index).map(|index| list.remove(index));
                changed = true;
            }
            Step::Edit { index, weight } => {
                if let Some(index) = place(index) {
                    list[index].weight = Weight(weight);
                }
                changed = true;
            }
            Step::Overload { index, overloaded } => {
                if let Some(index) = place(index) {
                    list[index].load.set_overloaded(overloaded);
                }
            }
            Step::Tick { seconds } => scheduler.tick(seconds),
            Step::Open { flow, active } => {
                if std::mem::take(&mut changed) {
                    scheduler.servers_changed(&list);
                }
                let picked = scheduler.pick(&flow, &list);
                if let Some(index) = picked {
                    prop_assert!(
                        may_get(name, &list[index]),
                        "{name} picked {:?}",
                        list[index]
                    );
                    let activity = if active {
                        Activity::Active
                    } else {
                        Activity::Inactive
                    };
                    list[index].load.shift(None, Some(activity));
                } else {
                    let refused = list.iter().any(RealServer::is_usable);
                    prop_assert!(!refused || MAY_REFUSE.contains(&name), "{name} refused");
                }
            }
        }
    }
    Ok(())
}

/// Whether a scheduler may pick a server. With lblc a known destination passes a threshold by, as in the kernel.
fn may_get(name: &str, server: &RealServer) -> bool {
    server.is_usable() || name == "lblc" && server.weight.0 > 0
}

proptest! {
    // A case goes through all schedulers, some of which fill large tables at each change.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_scheduler_picks_usable_servers_only_and_one_if_there_is_one(
        options in options(),
        steps in prop::collection::vec(step(), 0..120),
    ) {
        for name in NAMES {
            live(name, &options, &steps)?;
        }
    }

}

proptest! {
    #[test]
    fn wrr_gives_each_server_exactly_its_weight_in_a_round(weights in prop::collection::vec(0_u16..30, 1..10)) {
        let list = servers(&weights);
        let mut scheduler = scheduler("wrr", &Options::default());
        scheduler.servers_changed(&list);
        let flows: u32 = weights.iter().copied().map(u32::from).sum();
        let mut counts = vec![0; list.len()];
        for number in 0..flows {
            counts[scheduler.pick(&flow(number), &list).expect("a weight")] += 1;
        }
        prop_assert_eq!(counts, weights);
    }

    #[test]
    fn held_connections_are_spread_by_weight(weights in prop::collection::vec(1_u16..20, 1..10)) {
        for name in ["wlc", "sed", "nq"] {
            let list = servers(&weights);
            let mut scheduler = scheduler(name, &Options::default());
            scheduler.servers_changed(&list);
            let total: u32 = weights.iter().copied().map(u32::from).sum();
            for number in 0..50 * total {
                let index = scheduler.pick(&flow(number), &list).expect("a weight");
                list[index].load.shift(None, Some(Activity::Active));
            }
            for server in &list {
                let due = 50 * u32::from(server.weight.0);
                let slack = 2 + u32::from(server.weight.0);
                prop_assert!(server.load.active().abs_diff(due) <= slack, "{name} {weights:?}: {server:?}");
            }
        }
    }

    #[test]
    fn with_a_hash_only_the_flows_of_an_overloaded_server_move(
        weights in prop::collection::vec(1_u16..20, 2..12),
        chosen: prop::sample::Index,
        drained: bool,
    ) {
        for name in ["sh", "mh", "maglev"] {
            let mut list = servers(&weights);
            let out = chosen.index(list.len());
            let mut scheduler = scheduler(name, &with_fallback());
            scheduler.servers_changed(&list);
            let before: Vec<_> = (0..500).map(|number| scheduler.pick(&flow(number), &list)).collect();
            // A weight of zero keeps the table in mh alone.
            if drained && name == "mh" {
                list[out].weight = Weight(0);
                scheduler.servers_changed(&list);
            } else {
                list[out].load.set_overloaded(true);
            }
            for (number, before) in (0..).zip(before) {
                let after = scheduler.pick(&flow(number), &list);
                if before == Some(out) {
                    prop_assert!(after.is_some_and(|after| after != out), "{name}");
                } else {
                    prop_assert_eq!(after, before, "{}", name);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_worker_and_director_hashes_a_flow_to_the_same_server(
        weights in prop::collection::vec(0_u16..20, 1..12),
        mut options in options(),
        staggers: [usize; 2],
        turned: prop::sample::Index,
    ) {
        options.slow_start = 0;
        let list = servers(&weights);
        // The tables of `sh`, `mh` and `dh` follow the order of the list; that of `maglev` does not.
        let mut other = list.clone();
        other.rotate_left(turned.index(list.len()));
        for (name, other) in [("sh", &list), ("mh", &list), ("dh", &list), ("maglev", &other)] {
            let [mut one, mut another] = staggers.map(|stagger| scheduler(name, &Options { stagger, ..options }));
            one.servers_changed(&list);
            // What a worker lived through before does not matter.
            another.servers_changed(&list[1..]);
            another.pick(&flow(7), &list[1..]);
            another.servers_changed(other);
            for number in 0..2000 {
                let id = |index: Option<usize>, list: &[RealServer]| index.map(|index| list[index].id);
                prop_assert_eq!(
                    id(one.pick(&flow(number), &list), &list),
                    id(another.pick(&flow(number), other), other),
                    "{}", name
                );
            }
        }
    }

    #[test]
    fn without_fallback_the_flows_of_an_unusable_server_are_refused_and_no_others_move(
        weights in prop::collection::vec(1_u16..20, 1..12),
        overloaded in prop::collection::vec(any::<bool>(), 12),
    ) {
        for name in ["sh", "mh", "dh"] {
            let list = servers(&weights);
            let mut scheduler = scheduler(name, &Options::default());
            scheduler.servers_changed(&list);
            let before: Vec<_> = (0..300).map(|number| scheduler.pick(&flow(number), &list)).collect();
            for (server, &overloaded) in list.iter().zip(&overloaded) {
                server.load.set_overloaded(overloaded);
            }
            for (number, before) in (0..).zip(before) {
                let due = before.filter(|&index| !overloaded[index]);
                prop_assert_eq!(scheduler.pick(&flow(number), &list), due, "{}", name);
            }
        }
    }

    #[test]
    fn tables_spread_flows_by_weight(weights in prop::collection::vec(1_u16..20, 2..10)) {
        let total: u32 = weights.iter().copied().map(u32::from).sum();
        for name in ["mh", "maglev"] {
            let counts = counts(name, &servers(&weights), 10_000);
            for (count, &weight) in counts.into_iter().zip(&weights) {
                let due = 10_000.0 * f64::from(weight) / f64::from(total);
                // Five times what chance does to so many flows, and a slot's worth.
                let slack = 5.0 * due.sqrt() + 5.0;
                prop_assert!((f64::from(count) - due).abs() < slack, "{name} {weights:?}: {count} of {due}");
            }
        }
    }

    #[test]
    fn where_weights_do_not_matter_all_get_the_same(weights in prop::collection::vec(1_u16..20, 1..10)) {
        for name in ["rr", "lc"] {
            let list = servers(&weights);
            let mut scheduler = scheduler(name, &Options::default());
            scheduler.servers_changed(&list);
            for number in 0..20 * u32::try_from(list.len()).expect("few") {
                let index = scheduler.pick(&flow(number), &list).expect("all are usable");
                list[index].load.shift(None, Some(Activity::Active));
            }
            prop_assert!(list.iter().all(|server| server.load.active() == 20), "{name}: {list:?}");
        }
    }

    #[test]
    fn the_heaviest_server_takes_all_and_with_ovf_until_it_is_full(weights in prop::collection::vec(0_u16..20, 1..10)) {
        let heaviest = weights.iter().copied().max().expect("one or more");
        for name in ["fo", "ovf"] {
            let list = servers(&weights);
            let mut scheduler = scheduler(name, &Options::default());
            scheduler.servers_changed(&list);
            for number in 0..u32::from(heaviest) {
                let index = scheduler.pick(&flow(number), &list).expect("a weight");
                prop_assert_eq!(list[index].weight.0, heaviest);
                list[index].load.shift(None, Some(Activity::Active));
            }
        }
    }
}

/// Flows for each server of `flows`, none held.
fn counts(name: &str, list: &[RealServer], flows: u32) -> Vec<u32> {
    let mut scheduler = scheduler(name, &Options::default());
    scheduler.servers_changed(list);
    let mut counts = vec![0; list.len()];
    for number in 0..flows {
        counts[scheduler
            .pick(&flow(number), list)
            .expect("a usable server")] += 1;
    }
    counts
}

#[test]
fn hashes_spread_flows_by_weight() {
    let weights = [1, 5, 10, 20];
    for (name, tolerance) in [("sh", 0.12), ("mh", 0.03), ("maglev", 0.03)] {
        let counts = counts(name, &servers(&weights), 40_000);
        for (count, weight) in counts.into_iter().zip(weights) {
            let due = 40_000.0 * f64::from(weight) / 36.0;
            // Of 256 slots a light server has few, and of few slots a large part may be missing.
            let slack = tolerance * due + 0.01 * 40_000.0;
            assert!(
                (f64::from(count) - due).abs() < slack,
                "{name}: {count} of {due}"
            );
        }
    }
}

#[test]
fn of_idle_servers_twos_takes_each_by_weight_with_one_chance_more_for_the_first() {
    let chances = [2, 5, 10, 20];
    for (count, chances) in counts("twos", &servers(&[1, 5, 10, 20]), 40_000)
        .into_iter()
        .zip(chances)
    {
        let due = 40_000.0 * f64::from(chances) / 37.0;
        assert!(
            (f64::from(count) - due).abs() < 0.01 * 40_000.0,
            "{count} of {due}"
        );
    }
}

#[test]
fn twos_keeps_held_connections_even() {
    let list = servers(&[10; 20]);
    let mut scheduler = scheduler("twos", &Options::default());
    scheduler.servers_changed(&list);
    for number in 0..20_000 {
        let index = scheduler
            .pick(&flow(number), &list)
            .expect("a usable server");
        list[index].load.shift(None, Some(Activity::Active));
    }
    // Single draws would be off by about 30, and by far more at the worst of 20.
    for server in &list {
        assert!(server.load.active().abs_diff(1000) <= 5, "{server:?}");
    }
}

#[test]
fn equal_servers_take_turns() {
    for name in ["rr", "wrr"] {
        assert_eq!(counts(name, &servers(&[3; 10]), 1000), [100; 10]);
    }
    for count in counts("dh", &servers(&[1; 8]), 8000) {
        assert!((700..1300).contains(&count), "{count}");
    }
}

/// Where each of 20 000 flows goes, by server.
fn places(scheduler: &mut dyn Scheduler, list: &[RealServer]) -> Vec<RealServerId> {
    scheduler.servers_changed(list);
    (0..20_000)
        .map(|number| list[scheduler.pick(&flow(number), list).expect("all are usable")].id)
        .collect()
}

#[test]
fn few_flows_move_when_a_server_goes_or_comes() {
    for name in ["mh", "maglev"] {
        let mut list = servers(&[1; 20]);
        let mut scheduler = scheduler(name, &Options::default());
        let with = places(&mut *scheduler, &list);
        let one = list.remove(7);
        let without = places(&mut *scheduler, &list);
        // It comes as the newest of the list, which changes who is first in the rounds of `mh`.
        list.insert(0, one.clone());
        let again = places(&mut *scheduler, &list);
        for (former, latter) in [(&with, &without), (&again, &without)] {
            let moved = (former.iter().zip(latter))
                .filter(|(old, new)| **old != one.id && old != new)
                .count();
            println!("{name}: {moved} of 20000 flows of other servers moved");
            assert!((moved as f64) < 0.06 * 20_000.0, "{name}: {moved}");
        }
    }
}

#[test]
fn with_sh_the_flows_before_the_change_stay_and_a_drained_server_of_weight_1_keeps_its_slot() {
    let list = servers(&[1; 256]);
    let mut sh = scheduler("sh", &with_fallback());
    let before = places(&mut *sh, &list);
    // A slot each: those behind the one that goes move up by one, those before it stay.
    let mut shorter = list.clone();
    shorter.remove(100);
    for (old, new) in before.iter().zip(places(&mut *sh, &shorter)) {
        match old.0 {
            0..100 => assert_eq!(new, *old),
            slot => assert_eq!(new.0, (slot + 1) % 256),
        }
    }
    // Weight 0 counts as 1 in the table, so that only the drained server's own flows move.
    let mut drained = list.clone();
    drained[100].weight = Weight(0);
    for (old, new) in before.iter().zip(places(&mut *sh, &drained)) {
        assert_eq!(old.0 == 100, new != *old);
    }
}

#[test]
fn extreme_lists_do_no_harm() {
    let lists = [
        vec![],
        vec![0; 1000],
        vec![1; 1000],
        vec![65_535; 1000],
        (0..1000).map(|weight| weight * 65).collect(),
        [vec![65_535], vec![1; 999]].concat(),
        [vec![65_521], vec![65_519; 999]].concat(),
        vec![1; 5000],
    ];
    for name in NAMES {
        let mut scheduler = scheduler(name, &with_fallback());
        for weights in &lists {
            let list = servers(weights);
            scheduler.servers_changed(&list);
            for number in 0..200 {
                let picked = scheduler.pick(&flow(number), &list);
                if *name != "dh" {
                    let usable = weights.iter().any(|&weight| weight > 0);
                    assert_eq!(picked.is_some(), usable, "{name}");
                }
                if let Some(index) = picked {
                    assert!(list[index].is_usable(), "{name}");
                    list[index].load.shift(None, Some(Activity::Active));
                }
                scheduler.tick(1);
            }
            for server in &list {
                server.load.set_overloaded(true);
            }
            if *name != "lblc" {
                assert_eq!(scheduler.pick(&flow(0), &list), None, "{name}");
            }
        }
    }
}
