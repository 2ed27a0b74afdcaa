//! The lock-free parts under every interleaving, by loom:
//! `RUSTFLAGS="--cfg loom" cargo test -p conntrack --lib --release models`.
//!
//! Buckets have two slots here and an insert makes three attempts, so that models reach the second bucket and the last
//! attempt soon.

use crate::V4;
use crate::entry::{ConnectionId, NewConnection, TEMPLATE};
use crate::index::{Index, SLOTS, Slot};
use crate::insert::InsertError;
use crate::method::Method;
use crate::owner::{Expiry, Owner};
use crate::state::State;
use crate::table::{Table, TableConfig};
use crate::time::Ticks;
use crate::tuple::{Direction, Tuple};
use loom::thread;
use std::net::Ipv4Addr;
use std::sync::Arc;

const NOW: Ticks = Ticks(0);

/// Explores all interleavings, or those with at most `preemptions` involuntary switches.
fn explore(preemptions: Option<usize>, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.max_branches = 20_000;
    builder.check(model);
}

fn table(capacity: u32, workers: u16) -> Arc<Table<V4>> {
    Table::new(&TableConfig {
        capacity,
        half_open_percent: 100,
        workers,
        seeds: [1, 2, 3, 4],
    })
    .unwrap()
}

fn owners<const N: usize>(table: &Arc<Table<V4>>) -> [Owner<V4>; N] {
    std::array::from_fn(|worker| Owner::new(table.clone(), u16::try_from(worker).unwrap()))
}

/// A connection whose fields can all be told from its number.
fn flow(client: u32, method: Method) -> NewConnection<V4> {
    NewConnection {
        protocol: 6,
        client: (Ipv4Addr::from_bits(client), 1000),
        virtual_server: (Ipv4Addr::from_bits(100), 80),
        real_server: (Ipv4Addr::from_bits(200), 8080),
        local: None,
        method,
        server: client,
        control: None,
        state: State::SynRecv,
        timeout: Ticks(10),
        ip_delta: 0,
        l4_delta: 0,
        reply_neighbour: client,
        route_generation: 0,
        flags: 0,
    }
}

fn reply(new: &NewConnection<V4>) -> Tuple<V4> {
    Tuple {
        source: new.real_server.0,
        destination: new.client.0,
        source_port: new.real_server.1,
        destination_port: new.client.1,
        protocol: new.protocol,
    }
}

/// What was found belongs to the client, wholly.
fn check_whole(table: &Table<V4>, id: ConnectionId, client: u32) {
    let entry = table.entry(id);
    assert_eq!(entry.client(), Ipv4Addr::from_bits(client));
    assert_eq!(entry.server(), client);
    assert_eq!(entry.reply_neighbour().0, client);
}

/// Two results of inserting one key: at most one connection, and whoever was told that it exists was told the truth.
fn check_one_of_two(
    table: &Table<V4>,
    new: &NewConnection<V4>,
    results: [Result<ConnectionId, InsertError>; 2],
) {
    let mut made = None;
    for result in results {
        if let Ok(id) = result {
            assert_eq!(made.replace(id), None, "the key is there twice");
        }
    }
    for result in results {
        match result {
            Ok(_) | Err(InsertError::Contended) => {}
            Err(InsertError::Exists(id)) => assert_eq!(Some(id), made),
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(table.lookup(&new.request_tuple()).map(|(id, _)| id), made);
    let keys = if new.method.sees_replies() { 2 } else { 1 };
    assert_eq!(
        table.statistics().keys,
        if made.is_some() { keys } else { 0 }
    );
}

fn race_of_inserts(preemptions: usize, method: Method) {
    explore(Some(preemptions), move || {
        let table = table(2, 2);
        let [mut a, mut b] = owners(&table);
        let new = flow(1, method);
        let thread = thread::spawn(move || (b.insert(&new, NOW), b));
        let mine = a.insert(&new, NOW);
        let (theirs, _b) = thread.join().unwrap();
        check_one_of_two(&table, &new, [mine, theirs]);
    });
}

#[test]
fn of_two_inserts_of_one_key_at_most_one_succeeds() {
    race_of_inserts(4, Method::Dr);
}

#[test]
fn of_two_inserts_of_two_keys_at_most_one_succeeds() {
    race_of_inserts(3, Method::Nat);
}

/// Fills `count` slots of a key's home bucket with another's; the slots, to give back.
fn occupy_home(table: &Table<V4>, new: &NewConnection<V4>, count: usize) -> Vec<impl Fn()> {
    let other = table.hash(&new.request_tuple()).with_other_tag();
    (0..count)
        .map(|_| {
            let id = ConnectionId {
                index: 2,
                generation: 9,
            };
            let slot = Slot::pending(other, Direction::Request, id);
            let place = table.index.claim(other, slot).unwrap();
            assert!(place.distance == 0 && table.index.confirm(other, place, slot));
            move || assert!(table.index.release(other, place, slot.confirmed()))
        })
        .collect()
}

#[test]
fn a_key_beyond_a_full_home_is_inserted_once_too() {
    explore(Some(3), || {
        let table = table(2, 2);
        let new = flow(1, Method::Dr);
        occupy_home(&table, &new, SLOTS);
        let [mut a, mut b] = owners(&table);
        let thread = thread::spawn(move || (b.insert(&new, NOW), b));
        let mine = a.insert(&new, NOW);
        let (theirs, _b) = thread.join().unwrap();
        check_one_of_two(&table, &new, [mine, theirs]);
    });
}

#[test]
fn room_that_appears_in_front_of_a_claim_does_not_hide_it() {
    explore(Some(4), || {
        let table = table(2, 2);
        let new = flow(1, Method::Dr);
        let [mut a, mut b] = owners(&table);
        let others = occupy_home(&table, &new, 1);
        let thread = thread::spawn(move || (b.insert(&new, NOW), b));
        // The other worker may have passed this slot, and never looks at it again but to find this claim.
        others[0]();
        let mine = a.insert(&new, NOW);
        let (theirs, _b) = thread.join().unwrap();
        check_one_of_two(&table, &new, [mine, theirs]);
    });
}

#[test]
fn keys_that_overflow_at_once_are_all_found_and_leave_no_count() {
    explore(None, || {
        let index = Arc::new(Index::new(1, &[]).unwrap());
        let hash = index.cut(0);
        let slot = move |index| {
            let id = ConnectionId {
                index,
                generation: 0,
            };
            Slot::pending(hash, Direction::Request, id)
        };
        let find = move |index: &Index, wanted| {
            index.search(hash, |place, found| (found == wanted).then_some(place))
        };
        let home = [1, 2].map(|number| index.claim(hash, slot(number)).unwrap());
        let thread = {
            let index = index.clone();
            thread::spawn(move || {
                let place = index.claim(hash, slot(3)).unwrap();
                assert!(find(&index, slot(3)).is_some());
                place
            })
        };
        let mine = index.claim(hash, slot(4)).unwrap();
        assert!(find(&index, slot(4)).is_some());
        // Room at home does not hide who lives further out.
        assert!(index.release(hash, home[0], slot(1)));
        assert!(find(&index, slot(4)).is_some());
        let theirs = thread.join().unwrap();
        assert!(find(&index, slot(3)).is_some());
        assert!(index.release(hash, mine, slot(4)));
        assert!(find(&index, slot(3)).is_some());
        assert!(index.release(hash, theirs, slot(3)));
        assert!(index.release(hash, home[1], slot(2)));
        assert_eq!(index.overflows(), 0);
    });
}

#[test]
fn whoever_finds_a_connection_sees_all_of_it() {
    explore(None, || {
        let table = table(1, 2);
        let [mut a, reader] = owners(&table);
        let new = flow(1, Method::Nat);
        let thread = thread::spawn(move || {
            let table = reader.table().clone();
            if let Some((id, direction)) = table.lookup(&new.request_tuple()) {
                assert_eq!(direction, Direction::Request);
                check_whole(&table, id, 1);
                // Alive by one key is alive by all.
                assert_eq!(table.lookup(&reply(&new)), Some((id, Direction::Reply)));
                assert!(table.advance(table.entry(id), State::SynRecv, State::Established));
            }
            reader
        });
        let id = a.insert(&new, NOW).unwrap();
        let _reader = thread.join().unwrap();
        assert_eq!(
            table.lookup(&new.request_tuple()),
            Some((id, Direction::Request))
        );
        let half_open = u32::from(table.entry(id).state() == State::SynRecv);
        assert_eq!(table.statistics().half_open, half_open);
    });
}

#[test]
fn a_connection_whose_reply_key_is_taken_is_never_seen() {
    explore(None, || {
        let table = table(2, 2);
        let [mut a, mut b] = owners(&table);
        let holder = a.insert(&flow(1, Method::Nat), NOW).unwrap();
        // Another virtual server, so another request key, and the same reply key.
        let mut new = flow(1, Method::Nat);
        new.virtual_server.1 = 443;
        let thread = thread::spawn(move || {
            if let Some((id, _)) = b.table().lookup(&new.request_tuple()) {
                b.remove(id);
                panic!("found a connection that was refused");
            }
            b
        });
        assert_eq!(a.insert(&new, NOW), Err(InsertError::ReplyExists(holder)));
        let _b = thread.join().unwrap();
        let statistics = table.statistics();
        assert_eq!(
            (statistics.entries, statistics.keys, statistics.half_open),
            (1, 2, 1)
        );
    });
}

#[test]
fn a_reply_key_taken_while_its_holder_ends_is_the_newcomers() {
    explore(Some(3), || {
        // The attempt that is refused uses an entry up for a while.
        let table = table(4, 2);
        let [mut a, mut b] = owners(&table);
        let older = b.insert(&flow(1, Method::Nat), NOW).unwrap();
        let mut new = flow(1, Method::Nat);
        new.virtual_server.1 = 443;
        let thread = thread::spawn(move || {
            b.remove(older);
            b
        });
        let mut made = a.insert(&new, NOW);
        if let Err(InsertError::ReplyExists(holder)) = made {
            assert_eq!(holder, older);
            a.take_reply(holder);
            made = a.insert(&new, NOW);
        }
        let id = made.unwrap();
        let _b = thread.join().unwrap();
        assert_eq!(table.lookup(&reply(&new)), Some((id, Direction::Reply)));
        assert_eq!(
            table.lookup(&new.request_tuple()),
            Some((id, Direction::Request))
        );
        assert_eq!(table.lookup(&flow(1, Method::Nat).request_tuple()), None);
        assert_eq!(table.statistics().keys, 2);
    });
}

#[test]
fn an_entry_is_not_reused_under_a_reader() {
    explore(None, || {
        let table = table(1, 2);
        let [mut a, mut reader] = owners(&table);
        let first = flow(1, Method::Dr);
        let id = a.insert(&first, NOW).unwrap();
        let thread = thread::spawn(move || {
            let table = reader.table().clone();
            if let Some((id, _)) = table.lookup(&first.request_tuple()) {
                check_whole(&table, id, 1);
            }
            reader.quiescent();
            if let Some((id, _)) = table.lookup(&first.request_tuple()) {
                check_whole(&table, id, 1);
            }
            reader.offline();
            reader
        });
        a.remove(id);
        a.quiescent();
        a.quiescent();
        let second = a.insert(&flow(2, Method::Dr), NOW);
        let _reader = thread.join().unwrap();
        if let Ok(second) = second {
            assert_ne!(second, id);
            check_whole(&table, second, 2);
        }
    });
}

#[test]
fn a_reader_that_wakes_up_is_waited_for() {
    explore(None, || {
        let table = table(1, 2);
        let [mut a, mut reader] = owners(&table);
        let first = flow(1, Method::Dr);
        let id = a.insert(&first, NOW).unwrap();
        reader.offline();
        let thread = thread::spawn(move || {
            reader.online();
            if let Some((id, _)) = reader.table().lookup(&first.request_tuple()) {
                check_whole(reader.table(), id, 1);
            }
            reader
        });
        a.remove(id);
        a.quiescent();
        a.quiescent();
        // Whether there is an entry to reuse depends on whether the reader slept through it all.
        let _ = a.insert(&flow(2, Method::Dr), NOW);
        let _reader = thread.join().unwrap();
    });
}

#[test]
fn of_two_who_end_a_connection_one_learns_its_state() {
    explore(None, || {
        let table = table(1, 2);
        let [mut a, mut b] = owners(&table);
        let id = a.insert(&flow(1, Method::Nat), NOW).unwrap();
        let thread = thread::spawn(move || (b.remove(id), b));
        let mine = a.remove(id);
        let (theirs, mut b) = thread.join().unwrap();
        assert!(mine.is_some() != theirs.is_some());
        a.advance_timers(NOW, 8, &mut |_, _| Expiry::Remove);
        for _ in 0..3 {
            a.quiescent();
            b.quiescent();
        }
        let statistics = table.statistics();
        assert_eq!(
            (statistics.entries, statistics.keys, statistics.half_open),
            (0, 0, 0)
        );
        // The entry came back once.
        let established = |client| NewConnection {
            state: State::Established,
            ..flow(client, Method::Dr)
        };
        a.insert(&established(2), NOW).unwrap();
        assert_eq!(a.insert(&established(3), NOW), Err(InsertError::Full));
    });
}

#[test]
fn a_key_is_free_at_once_for_another_worker() {
    explore(None, || {
        let table = table(2, 2);
        let [mut a, mut b] = owners(&table);
        let new = flow(1, Method::Dr);
        let old = a.insert(&new, NOW).unwrap();
        let thread = thread::spawn(move || {
            a.remove(old);
            a
        });
        // Its owner removes it while it is being replaced.
        table.end(table.entry(old));
        let id = b.insert(&new, NOW).unwrap();
        let mut a = thread.join().unwrap();
        a.advance_timers(NOW, 8, &mut |_, _| Expiry::Remove);
        assert_eq!(
            table.lookup(&new.request_tuple()),
            Some((id, Direction::Request))
        );
        assert_eq!(table.statistics().keys, 1);
    });
}

#[test]
fn a_voided_templates_key_is_free_whoever_ends_it_meanwhile() {
    explore(Some(3), || {
        let table = table(2, 2);
        let [mut a, mut b] = owners(&table);
        let new = NewConnection {
            state: State::None,
            flags: TEMPLATE,
            ..flow(1, Method::Nat)
        };
        let old = a.insert(&new, NOW).unwrap();
        let thread = thread::spawn(move || {
            a.remove(old);
            a
        });
        b.void_template(old);
        let id = b.insert(&new, NOW).unwrap();
        let _a = thread.join().unwrap();
        assert_eq!(
            table.lookup(&new.request_tuple()),
            Some((id, Direction::Request))
        );
        assert_eq!(table.statistics().keys, 1);
    });
}

#[test]
fn control_never_shows_a_mixture() {
    explore(None, || {
        let table = table(1, 1);
        let [mut a] = owners(&table);
        let id = a.insert(&flow(1, Method::Dr), NOW).unwrap();
        let reader = table.clone();
        let thread = thread::spawn(move || {
            // Two fields tell a mixture; loom would try every old value of every field there is.
            if let Some((_, (client, server))) =
                reader.copy(1, |entry| (entry.client(), entry.server()))
            {
                assert_eq!(client, Ipv4Addr::from_bits(server));
            }
        });
        a.remove(id);
        a.quiescent();
        a.quiescent();
        a.insert(&flow(2, Method::Dr), NOW).unwrap();
        thread.join().unwrap();
    });
}
