//! Timers fire in time: never early, and at most a slot of the wheel late.

use crate::flows::{flow, table};
use conntrack::{ConnectionId, Expiry, Method, Owner, State, Ticks, V4};
use std::collections::HashMap;

const SLOT: u32 = 16;

fn owner(capacity: u32) -> Owner<V4> {
    Owner::new(table::<V4>(capacity, 100, 1), 0)
}

fn insert(owner: &mut Owner<V4>, client: u32, timeout: Ticks, now: Ticks) -> ConnectionId {
    let mut new = flow::<V4>(client, Method::Dr, 0);
    new.timeout = timeout;
    owner.insert(&new, now).unwrap()
}

/// Ticks `step` apart from `start` for `length`; when each connection ended, in ticks after `start`.
fn run(
    owner: &mut Owner<V4>,
    start: Ticks,
    length: u32,
    step: usize,
) -> HashMap<ConnectionId, u32> {
    let mut ended = HashMap::new();
    for elapsed in (0..=length).step_by(step) {
        let now = start.after(Ticks(elapsed));
        owner.advance_timers(now, usize::MAX, &mut |id, entry| {
            assert!(entry.expires_at().has_passed(now));
            assert!(ended.insert(id, elapsed).is_none());
            Expiry::Remove
        });
    }
    ended
}

#[test]
fn every_timeout_fires_within_one_slot_after_its_deadline() {
    // Starts before the wrap of ticks, and at every offset within a slot.
    for start in [0, 5, 15, 16, 0xffff_0000, u32::MAX - 1000, u32::MAX] {
        let mut owner = owner(2000);
        let start = Ticks(start);
        let timeouts: HashMap<_, _> = (0..2000)
            .map(|client| {
                let timeout = Ticks(client * 61 % 100_000);
                (insert(&mut owner, client, timeout, start), timeout.0)
            })
            .collect();
        let ended = run(&mut owner, start, 100_100, 3);
        assert_eq!(ended.len(), timeouts.len());
        for (id, timeout) in timeouts {
            let late = ended[&id].checked_sub(timeout).expect("never early");
            assert!(
                late < SLOT + 3,
                "{timeout} fired {late} ticks late, from {start:?}"
            );
        }
    }
}

#[test]
fn an_established_connection_outlives_the_horizon() {
    let mut owner = owner(1);
    let id = insert(&mut owner, 0, Ticks::from_seconds(900), Ticks(77));
    let ended = run(&mut owner, Ticks(77), 90_100, 1);
    assert!((90_000..90_000 + SLOT).contains(&ended[&id]), "{ended:?}");
}

#[test]
fn a_touched_connection_lives_on_and_a_shortened_one_ends_soon() {
    let mut owner = owner(3);
    let start = Ticks(u32::MAX - 500);
    let touched = insert(&mut owner, 0, Ticks(1000), start);
    let shortened = insert(&mut owner, 1, Ticks(1000), start);
    let quiet = insert(&mut owner, 2, Ticks(1000), start);
    let table = owner.table().clone();
    table.entry(touched).touch(start.after(Ticks(3000)));
    table.entry(quiet).touch(start.after(Ticks(1049)));
    assert_eq!(
        table.entry(quiet).expires_at(),
        start.after(Ticks(1000)),
        "too little to write"
    );
    owner.shorten(shortened, start.after(Ticks(300)));
    let ended = run(&mut owner, start, 4000, 1);
    assert!((300..300 + SLOT).contains(&ended[&shortened]));
    assert!((1000..1000 + SLOT).contains(&ended[&quiet]));
    assert!((3000..3000 + SLOT).contains(&ended[&touched]));
}

#[test]
fn a_renewed_connection_fires_again() {
    let mut owner = owner(1);
    insert(&mut owner, 0, Ticks(100), Ticks(0));
    let mut fired = Vec::new();
    for now in 0..1000 {
        owner.advance_timers(Ticks(now), 8, &mut |_, _| {
            fired.push(now);
            if fired.len() < 4 {
                Expiry::Renew(Ticks(160))
            } else {
                Expiry::Remove
            }
        });
    }
    assert_eq!(fired, [112, 272, 432, 592]);
    assert_eq!(owner.table().statistics().entries, 0);
}

#[test]
fn draining_a_slot_is_spread_over_calls_by_the_budget() {
    let mut owner = owner(1000);
    for client in 0..1000 {
        insert(&mut owner, client, Ticks(10), Ticks(0));
    }
    let mut calls = 0;
    let mut fired = 0;
    while fired < 1000 {
        let now = owner.advance_timers(Ticks(20), 32, &mut |_, _| Expiry::Remove);
        assert!(now <= 32);
        fired += now;
        calls += 1;
    }
    assert_eq!(calls, 1001_usize.div_ceil(32));
}

#[test]
fn a_renewal_that_is_due_at_once_does_not_keep_the_drain_going() {
    let mut owner = owner(4);
    insert(&mut owner, 0, Ticks(0), Ticks(0));
    let fired = owner.advance_timers(Ticks(5), usize::MAX, &mut |_, _| Expiry::Renew(Ticks(0)));
    assert_eq!(fired, 1);
}

#[test]
fn after_a_long_sleep_everything_due_fires_once() {
    let mut owner = owner(500);
    for client in 0..500 {
        insert(&mut owner, client, Ticks(client * 150), Ticks(9));
    }
    let late = Ticks(9).after(Ticks::from_seconds(100_000));
    let fired = owner.advance_timers(late, usize::MAX, &mut |_, _| Expiry::Remove);
    assert_eq!(fired, 500);
    owner.quiescent();
    owner.quiescent();
    let id = insert(&mut owner, 0, Ticks(100), late);
    let ended = run(&mut owner, late, 200, 1);
    assert!((100..100 + SLOT).contains(&ended[&id]));
}

#[test]
fn another_workers_wish_is_served_by_the_owner() {
    let table = table::<V4>(4, 100, 2);
    let mut owner = Owner::new(table.clone(), 0);
    let mut other = Owner::new(table.clone(), 1);
    let short = insert(&mut owner, 0, Ticks(10_000), Ticks(0));
    let gone = insert(&mut owner, 1, Ticks(10_000), Ticks(0));
    assert_eq!(table.entry(short).owner(), 0);
    other.shorten(short, Ticks(200));
    assert_eq!(other.remove(gone), Some(State::Established));
    assert_eq!(other.remove(gone), None);
    // The key is free for whoever comes.
    insert(&mut other, 1, Ticks(10_000), Ticks(0));
    let ended = run(&mut owner, Ticks(0), 300, 1);
    assert_eq!(ended.len(), 1);
    assert!((200..200 + SLOT).contains(&ended[&short]));
    assert_eq!(table.statistics().entries, 1);
}

#[test]
fn the_one_who_ends_a_connection_learns_its_last_state() {
    let mut owner = owner(1);
    let id = insert(&mut owner, 0, Ticks(10), Ticks(0));
    let table = owner.table().clone();
    assert!(table.advance(table.entry(id), State::Established, State::FinWait));
    let mut last = None;
    owner.advance_timers(Ticks(100), 64, &mut |_, entry| {
        last = table.end(entry);
        assert!(
            !table.advance(entry, State::FinWait, State::TimeWait),
            "the dead stay dead"
        );
        Expiry::Remove
    });
    assert_eq!(last, Some(State::FinWait));
}
