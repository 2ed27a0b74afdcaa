//! Every limit is reached, refused and counted, and the table is none the worse for it.

use crate::flows::{Numbered, flow, table};
use conntrack::{
    ConnectionId, Expiry, InsertError, Method, Owner, Placement, REQUEST_LIMIT, State, TEMPLATE,
    Table, TableConfig, TableError, Ticks, V4, V6, random_seeds,
};

const NOW: Ticks = Ticks(1000);

fn settle<F: Numbered>(owners: &mut [Owner<F>]) {
    for _ in 0..4 {
        for owner in owners.iter_mut() {
            owner.quiescent();
        }
    }
}

fn fill<F: Numbered>(owner: &mut Owner<F>, first: u32) -> Vec<ConnectionId> {
    let mut ids = Vec::new();
    loop {
        let client = first + u32::try_from(ids.len()).unwrap();
        match owner.insert(&flow(client, Method::Nat, 0), NOW) {
            Ok(id) => ids.push(id),
            Err(error) => {
                assert_eq!(error, InsertError::Full);
                return ids;
            }
        }
    }
}

#[test]
fn a_full_table_refuses_the_new_and_keeps_the_old() {
    for capacity in [1, 2, 63, 1000] {
        let mut owner = Owner::new(table::<V4>(capacity, 100, 1), 0);
        let ids = fill(&mut owner, 0);
        assert_eq!(ids.len(), capacity as usize, "one worker can use all of it");
        let statistics = owner.table().statistics();
        assert_eq!(statistics.entries, u64::from(capacity));
        assert_eq!(statistics.keys, u64::from(capacity) * 2);
        assert_eq!(statistics.inserts_refused_full, 1);
        for (client, &id) in (0..).zip(&ids) {
            let tuple = flow::<V4>(client, Method::Nat, 0).request_tuple();
            assert_eq!(owner.table().lookup(&tuple).unwrap().0, id);
        }
        owner.remove(ids[0]);
        assert_eq!(
            owner.insert(&flow(7777, Method::Nat, 0), NOW),
            Err(InsertError::Full)
        );
        settle(std::slice::from_mut(&mut owner));
        let id = owner.insert(&flow(7777, Method::Nat, 0), NOW).unwrap();
        assert_ne!(id, ids[0], "another life, another id");
        assert!(owner.table().get(ids[0]).is_none());
    }
}

#[test]
fn what_one_worker_frees_another_can_use() {
    let table = table::<V6>(512, 100, 4);
    let mut owners: Vec<_> = (0..4)
        .map(|worker| Owner::new(table.clone(), worker))
        .collect();
    let ids = fill(&mut owners[0], 0);
    assert_eq!(ids.len(), 512);
    for id in ids {
        owners[0].remove(id);
    }
    for _ in 0..100 {
        settle(&mut owners);
    }
    let total: usize = (0..4_u16)
        .rev()
        .map(|worker| fill(&mut owners[usize::from(worker)], 1000 * u32::from(worker)).len())
        .sum();
    assert_eq!(total, 512, "no entry is lost");
}

#[test]
fn an_owner_goes_round_the_table_and_meets_its_own_connections_alone() {
    let table = table::<V4>(300, 100, 2);
    let mut owners: Vec<_> = (0..2)
        .map(|worker| Owner::new(table.clone(), worker))
        .collect();
    let mut hands = [0; 2];
    assert_eq!(owners[0].next_place(&mut hands[0]), None);
    assert_eq!(table.places(), 0);
    let mut insert = |worker: usize, client| {
        let new = flow(client, Method::Dr, 0);
        owners[worker].insert(&new, NOW).unwrap()
    };
    let mine: Vec<_> = (0..5).map(|client| insert(0, client)).collect();
    let others: Vec<_> = (5..8).map(|client| insert(1, client)).collect();
    let mut round = |worker: usize| {
        let places = table.places();
        let met = (0..places).filter_map(|_| owners[worker].next_place(&mut hands[worker]));
        met.collect::<std::collections::BTreeSet<_>>()
    };
    for _ in 0..2 {
        assert_eq!(round(0), mine.iter().copied().collect());
        assert_eq!(round(1), others.iter().copied().collect());
    }
    // One that another worker ended is none any more.
    table.end(table.entry(mine[2])).unwrap();
    assert!(!round(0).contains(&mine[2]));
}

#[test]
fn half_open_connections_fill_their_share_and_no_more() {
    let mut owner = Owner::new(table::<V4>(100, 10, 1), 0);
    let syn = |client| {
        let mut new = flow::<V4>(client, Method::Dr, 0);
        new.state = State::SynRecv;
        new
    };
    let ids: Vec<_> = (0..10)
        .map(|client| owner.insert(&syn(client), NOW).unwrap())
        .collect();
    assert_eq!(owner.insert(&syn(10), NOW), Err(InsertError::HalfOpenFull));
    assert_eq!(owner.table().statistics().inserts_refused_half_open, 1);
    assert_eq!(owner.table().statistics().half_open_limit, 10);
    // An established one has room, a connection that is done with its handshake makes some, and so does one that ends.
    owner.insert(&flow(11, Method::Dr, 0), NOW).unwrap();
    let table = owner.table().clone();
    assert!(table.advance(table.entry(ids[0]), State::SynRecv, State::Established));
    assert!(
        !table.advance(table.entry(ids[0]), State::SynRecv, State::Established),
        "once"
    );
    owner.insert(&syn(12), NOW).unwrap();
    assert_eq!(owner.insert(&syn(13), NOW), Err(InsertError::HalfOpenFull));
    assert_eq!(owner.remove(ids[1]), Some(State::SynRecv));
    owner.insert(&syn(13), NOW).unwrap();
    assert_eq!(table.statistics().half_open, 10);
}

#[test]
fn a_refused_insert_leaves_no_half_open_count_behind() {
    let mut owner = Owner::new(table::<V4>(2, 100, 1), 0);
    let mut new = flow::<V4>(0, Method::FullNat, 5000);
    new.state = State::SynRecv;
    let id = owner.insert(&new, NOW).unwrap();
    assert_eq!(owner.insert(&new, NOW), Err(InsertError::Exists(id)));
    let mut other = flow::<V4>(1, Method::FullNat, 5000);
    other.state = State::SynRecv;
    assert_eq!(owner.insert(&other, NOW), Err(InsertError::ReplyExists(id)));
    assert_eq!(owner.table().lookup(&other.request_tuple()), None);
    let statistics = owner.table().statistics();
    assert_eq!(
        (statistics.half_open, statistics.entries, statistics.keys),
        (1, 1, 2)
    );
    settle(std::slice::from_mut(&mut owner));
    other.local = Some((other.local.unwrap().0, 5001));
    owner.insert(&other, NOW).unwrap();
    let mut third = flow::<V4>(2, Method::FullNat, 5002);
    third.state = State::SynRecv;
    assert_eq!(owner.insert(&third, NOW), Err(InsertError::HalfOpenFull));
}

#[test]
fn a_lost_request_is_counted_and_only_makes_the_end_late() {
    let count = u32::try_from(REQUEST_LIMIT).unwrap() + 5;
    let table = table::<V4>(count, 100, 2);
    let mut owner = Owner::new(table.clone(), 0);
    let mut other = Owner::new(table.clone(), 1);
    let ids = fill(&mut owner, 0);
    for &id in &ids {
        assert_eq!(other.remove(id), Some(State::Established));
        assert_eq!(table.get(id).map(|_| ()), None);
    }
    assert_eq!(table.statistics().requests_lost, 5);
    assert_eq!(table.statistics().keys, 0, "all keys are free at once");
    let none = &mut |_, _: &_| -> Expiry { unreachable!("ended connections do not expire") };
    owner.advance_timers(NOW, usize::MAX, none);
    assert_eq!(table.statistics().entries, 5);
    // They end at the wheel's horizon, where timers beyond it fire.
    owner.advance_timers(NOW.after(Ticks::from_seconds(656)), usize::MAX, none);
    assert_eq!(table.statistics().entries, 0);
}

#[test]
fn a_template_has_one_key_and_counts_whom_it_controls() {
    let mut owner = Owner::new(table::<V4>(10, 100, 1), 0);
    let mut template = flow::<V4>(0, Method::Nat, 0);
    template.client.1 = 0;
    template.flags = TEMPLATE | 1;
    template.state = State::None;
    let template_id = owner.insert(&template, NOW).unwrap();
    assert_eq!(owner.table().statistics().keys, 1);
    let mut new = flow::<V4>(0, Method::Nat, 0);
    new.control = Some(template_id);
    let id = owner.insert(&new, NOW).unwrap();
    let table = owner.table().clone();
    let held = table.get(table.entry(id).control().unwrap()).unwrap();
    assert!(held.is_template());
    held.hold();
    assert_eq!(held.extension(), 1);
    assert_eq!(held.release(), 0);
    held.set_flags(6);
    held.clear_flags(TEMPLATE | 2);
    assert_eq!(held.flags(), TEMPLATE | 5);
    assert_eq!(ConnectionId::from_u64(id.to_u64()), id);
}

#[test]
fn an_entry_is_not_reused_while_a_worker_may_hold_it() {
    let table = table::<V4>(1, 100, 3);
    let mut owner = Owner::new(table.clone(), 0);
    let mut reader = Owner::new(table.clone(), 1);
    let mut sleeper = Owner::new(table.clone(), 2);
    sleeper.offline();
    let id = owner.insert(&flow(0, Method::Dr, 0), NOW).unwrap();
    owner.remove(id);
    for _ in 0..10 {
        owner.quiescent();
    }
    assert_eq!(
        owner.insert(&flow(1, Method::Dr, 0), NOW),
        Err(InsertError::Full),
        "the reader was not quiescent"
    );
    reader.quiescent();
    owner.quiescent();
    owner.insert(&flow(1, Method::Dr, 0), NOW).unwrap();
    sleeper.online();
    assert!(table.get(id).is_none());
}

#[test]
fn a_table_of_impossible_numbers_is_refused() {
    let config = TableConfig {
        capacity: 10,
        half_open_percent: 50,
        workers: 1,
        seeds: random_seeds(),
    };
    assert!(Table::<V4>::new(&config).is_ok());
    let with = |change: fn(&mut TableConfig)| {
        let mut config = config.clone();
        change(&mut config);
        Table::<V4>::new(&config).unwrap_err()
    };
    assert!(matches!(with(|c| c.capacity = 0), TableError::Capacity(0)));
    assert!(matches!(
        with(|c| c.capacity = u32::MAX),
        TableError::Capacity(u32::MAX)
    ));
    assert!(matches!(with(|c| c.workers = 0), TableError::Workers));
    assert!(matches!(
        with(|c| c.half_open_percent = 101),
        TableError::HalfOpenPercent(101)
    ));
    assert_ne!(random_seeds(), random_seeds());
}

#[test]
fn a_running_table_takes_no_more_memory_than_promised() {
    // The promise itself stands in conntrack/src/sizing.rs, where the compiler holds it.
    for capacity in [1 << 16, 1_000_000] {
        let ipv4 = table::<V4>(capacity, 50, 4).statistics();
        assert!(ipv4.bytes_per_connection <= 100.0, "{ipv4:?}");
        let ipv6 = table::<V6>(capacity, 50, 4).statistics();
        assert!(ipv6.bytes_per_connection <= 164.0, "{ipv6:?}");
        let pool = ipv4.bytes - ipv4.pages.bytes();
        assert!(pool < u64::from(capacity), "{ipv4:?}");
    }
}

#[test]
fn a_table_says_whether_it_lies_where_it_was_asked_to() {
    let config = TableConfig {
        capacity: 1000,
        half_open_percent: 50,
        workers: 1,
        seeds: [1, 2, 3, 4],
    };
    let placement = |nodes: &[u16]| {
        let table = Table::<V4>::on_nodes(&config, nodes).unwrap();
        table.statistics().placement
    };
    assert_eq!(placement(&[]), Placement::Anywhere);
    assert_eq!(placement(&[0]), Placement::OnNodes);
    assert_eq!(
        placement(&[0, 1023]),
        Placement::OnNodes,
        "as far as they exist"
    );
    assert_eq!(placement(&[5000]), Placement::Refused);
}

/// Connections that come and go in a full table fill more buckets than a first filling does: 16 in a hundred. Buckets of
/// a chain are full independently of each other, so a chain of 24 is once in 10^19 inserts.
#[test]
fn a_table_that_is_full_and_stays_full_refuses_nothing_for_a_full_chain() {
    const CAPACITY: u32 = 1 << 15;
    let mut owner = Owner::new(table::<V4>(CAPACITY, 100, 1), 0);
    let mut ids = fill(&mut owner, 0);
    assert_eq!(ids.len(), CAPACITY as usize);
    let mut random = 0x2545_f491_u32;
    for client in CAPACITY..CAPACITY * 4 {
        random ^= random << 13;
        random ^= random >> 17;
        random ^= random << 5;
        let place = (random % CAPACITY) as usize;
        owner.remove(ids[place]);
        settle(std::slice::from_mut(&mut owner));
        ids[place] = owner.insert(&flow(client, Method::Nat, 0), NOW).unwrap();
    }
    let statistics = owner.table().statistics();
    assert_eq!(statistics.inserts_refused_chain, 0);
    assert!(
        (0.65..0.68).contains(&statistics.index_load),
        "{statistics:?}"
    );
    let away = statistics.overflowed as f64 / statistics.keys as f64;
    assert!((0.10..0.20).contains(&away), "{away}");
}
