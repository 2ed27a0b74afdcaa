//! Several threads on the same keys: no key twice, no entry lost, all counts balance.

use crate::flows::{flow, reply_tuple, table};
use conntrack::{Direction, Expiry, InsertError, Method, Owner, State, Ticks, V4};
use std::collections::HashSet;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

/// Xorshift: enough disorder, and the same each time.
struct Disorder(u64);

impl Disorder {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        u32::try_from(self.0 >> 33).unwrap() % limit
    }
}

const WORKERS: u16 = 4;
const CLIENTS: u32 = 48;

fn method(client: u32) -> Method {
    [Method::Nat, Method::Dr, Method::FullNat][client as usize % 3]
}

/// Local ports overlap, so that replies collide too.
fn local_port(client: u32, variant: u32) -> u16 {
    u16::try_from((client + variant) % 20).unwrap()
}

/// One worker's random deeds; connections made less connections ended.
fn work(mut owner: Owner<V4>, steps: u32) -> (Owner<V4>, i64) {
    let mut disorder = Disorder(0x9e37_79b9_7f4a_7c15 + u64::from(owner.worker()));
    let table = owner.table().clone();
    let mut balance = 0;
    for step in 0..steps {
        let client = disorder.below(CLIENTS);
        let mut new = flow::<V4>(
            client,
            method(client),
            local_port(client, disorder.below(2)),
        );
        new.state = State::SynRecv;
        new.timeout = Ticks(disorder.below(400));
        let now = Ticks(step / 64);
        match disorder.below(5) {
            0 | 1 => match owner.insert(&new, now) {
                Ok(_) => balance += 1,
                Err(InsertError::Exists(id) | InsertError::ReplyExists(id)) => {
                    assert!(table.entry(id).client_port() == 40_000);
                }
                Err(InsertError::Contended | InsertError::HalfOpenFull | InsertError::Full) => {}
                Err(InsertError::ChainFull) => panic!("the index is far from full"),
            },
            2 => {
                if let Some((id, direction)) = table.lookup(&new.request_tuple()) {
                    assert_eq!(direction, Direction::Request);
                    assert_eq!(table.entry(id).request_tuple(), new.request_tuple());
                    if owner.remove(id).is_some() {
                        balance -= 1;
                    }
                }
            }
            3 => {
                if let Some(tuple) = reply_tuple(&new)
                    && let Some((id, direction)) = table.lookup(&tuple)
                {
                    assert_eq!(direction, Direction::Reply);
                    assert_eq!(table.entry(id).reply_tuple(), Some(tuple));
                    table.advance(table.entry(id), State::SynRecv, State::Established);
                    owner.shorten(id, now);
                }
            }
            _ => {
                owner.advance_timers(now, 16, &mut |_, entry| {
                    if table.end(entry).is_some() {
                        balance -= 1;
                    }
                    Expiry::Remove
                });
            }
        }
        match disorder.below(64) {
            0 => {
                owner.offline();
                thread::yield_now();
                owner.online();
            }
            1..16 => owner.quiescent(),
            _ => {}
        }
    }
    (owner, balance)
}

#[test]
fn workers_on_the_same_keys_leave_a_sound_table() {
    const CAPACITY: u32 = 96;
    let table = table::<V4>(CAPACITY, 80, WORKERS);
    let owners: Vec<_> = (0..WORKERS)
        .map(|worker| Owner::new(table.clone(), worker))
        .collect();
    let done = AtomicBool::new(false);
    let (mut owners, balance) = thread::scope(|scope| {
        let table = &table;
        let done = &done;
        let reader = scope.spawn(move || {
            // Control reads along and never sees a mixture.
            let mut seen = 0_u64;
            while !done.load(Ordering::Relaxed) {
                table.for_each(|_, view| {
                    seen += 1;
                    let number = u32::from(view.client.0) - 0x0a01_0000;
                    assert_eq!(view.server, number % 3);
                    assert_eq!(view.method, method(number));
                    assert_eq!(view.local.is_some(), view.method == Method::FullNat);
                    if let Some((_, port)) = view.local {
                        assert!((0..2).any(|variant| port == local_port(number, variant)));
                    }
                });
            }
            seen
        });
        let threads: Vec<_> = owners
            .into_iter()
            .map(|owner| scope.spawn(move || work(owner, 150_000)))
            .collect();
        let mut owners = Vec::new();
        let mut balance = 0;
        for thread in threads {
            let (owner, made) = thread.join().unwrap();
            owners.push(owner);
            balance += made;
        }
        done.store(true, Ordering::Relaxed);
        assert!(reader.join().unwrap() > 0);
        (owners, balance)
    });

    let mut keys = HashSet::new();
    let mut count = 0;
    table.for_each(|id, view| {
        count += 1;
        let entry = table.get(id).unwrap();
        assert!(
            keys.insert(entry.request_tuple()),
            "{view:?} is there twice"
        );
        assert_eq!(
            table.lookup(&entry.request_tuple()),
            Some((id, Direction::Request))
        );
        if let Some(reply) = entry.reply_tuple() {
            assert!(keys.insert(reply), "the reply of {view:?} is there twice");
            assert_eq!(table.lookup(&reply), Some((id, Direction::Reply)));
        }
    });
    assert_eq!(count, balance);
    assert_eq!(table.statistics().keys, keys.len() as u64);

    // Everything ends; every entry comes back.
    let far = Ticks(150_000).after(Ticks::from_seconds(700));
    for owner in &mut owners {
        owner.advance_timers(far, usize::MAX, &mut |_, _| Expiry::Remove);
    }
    let statistics = table.statistics();
    assert_eq!(
        (
            statistics.entries,
            statistics.keys,
            statistics.overflowed,
            statistics.half_open
        ),
        (0, 0, 0, 0),
        "{statistics:?}"
    );
    for _ in 0..1000 {
        owners.iter_mut().for_each(Owner::quiescent);
    }
    let mut fits = 0;
    for (owner, first) in owners.iter_mut().zip((0..).step_by(1000)) {
        let mut client = first;
        while owner.insert(&flow(client, Method::Dr, 0), far).is_ok() {
            client += 1;
        }
        fits += client - first;
    }
    assert_eq!(fits, CAPACITY);
}

#[test]
fn of_workers_that_insert_one_key_at_once_one_succeeds() {
    const ROUNDS: u32 = 3000;
    let table = table::<V4>(ROUNDS * 3, 100, 3);
    let barrier = Barrier::new(3);
    let made = AtomicU64::new(0);
    let contended = AtomicU64::new(0);
    thread::scope(|scope| {
        for worker in 0..3 {
            let (table, barrier, made, contended) = (&table, &barrier, &made, &contended);
            scope.spawn(move || {
                let mut owner = Owner::new(table.clone(), worker);
                for client in 0..ROUNDS {
                    barrier.wait();
                    let new = flow::<V4>(client, Method::Nat, 0);
                    match owner.insert(&new, Ticks(0)) {
                        Ok(id) => {
                            made.fetch_add(1, Ordering::Relaxed);
                            assert_eq!(table.lookup(&new.request_tuple()).unwrap().0, id);
                        }
                        Err(InsertError::Exists(id)) => {
                            assert_eq!(table.lookup(&new.request_tuple()).unwrap().0, id);
                        }
                        Err(error) => {
                            assert_eq!(error, InsertError::Contended);
                            contended.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    owner.quiescent();
                }
            });
        }
    });
    let statistics = table.statistics();
    assert_eq!(
        made.into_inner(),
        u64::from(ROUNDS),
        "{contended:?} gave up"
    );
    assert_eq!(statistics.entries, u64::from(ROUNDS));
    assert_eq!(statistics.keys, u64::from(ROUNDS) * 2);
}
