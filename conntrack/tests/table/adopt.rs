//! A table in a file goes on where the process before stopped, wherever that was.

use crate::flows::{Numbered, flow, reply_tuple};
use crate::held::{
    LONGEST, NOW, Place, adopt, facts, file_config, fill, is_of_the_vip, is_removed, judge, kind,
    open,
};
use conntrack::{
    Cause, Direction, Expiry, FileError, Found, Method, Mismatch, Owner, State, Table, TableConfig,
    TableFile, Ticks, V4, V6,
};
use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

const CAPACITY: u32 = 500;
const COUNT: u32 = 400;

/// As after `kill -9`: the memory is let go as it is.
fn killed<F: Numbered>(workers: u16) -> (Place, Vec<conntrack::ConnectionView<F>>) {
    let place = Place::new();
    let (file, found) = open(place.path(), CAPACITY);
    assert_eq!(found, Found::Nothing);
    let (table, adopted) = adopt::<F>(&file, CAPACITY, workers);
    assert_eq!(adopted.adopted, 0);
    fill(&table, workers, COUNT);
    let before = facts(&table).into_values().collect();
    (place, before)
}

fn go_on<F: Numbered>(before_workers: u16, workers: u16) {
    let (place, before) = killed::<F>(before_workers);
    assert!(before.len() > 300 && before.iter().all(is_of_the_vip::<F>));
    let (file, found) = open(place.path(), CAPACITY);
    assert_eq!(found, Found::Table);
    let (table, adopted) = adopt::<F>(&file, CAPACITY, workers);
    assert_eq!(adopted.adopted, before.len() as u64);
    assert_eq!(adopted.refused.all(), 0, "{adopted:?}");
    let after = facts(&table);
    assert_eq!(after.len(), before.len());
    let half_open = before.iter().filter(|view| view.state.is_half_open());
    assert_eq!(table.statistics().half_open as usize, half_open.count());
    let mut keys = 0;
    for number in 0..COUNT {
        let new = kind::<F>(number);
        let found = table.lookup(&new.request_tuple());
        assert_eq!(found.is_none(), is_removed(number), "{number}");
        let Some((id, direction)) = found else {
            continue;
        };
        assert_eq!(direction, Direction::Request);
        let mut view = after[&id];
        let original = before
            .iter()
            .find(|view| {
                view.client == new.client || (new.flags != 0 && view.client.0 == new.client.0)
            })
            .unwrap();
        if before_workers == workers {
            assert_eq!(view, *original, "{number}");
        }
        assert!(view.owner < workers);
        view.owner = original.owner;
        assert_eq!(view, *original, "{number}");
        let entry = table.entry(id);
        keys += 1;
        if let Some(reply) = reply_tuple(&new).filter(|_| new.flags == 0) {
            assert_eq!(table.lookup(&reply), Some((id, Direction::Reply)));
            keys += 1;
        }
        if let Some((_, port)) = view.local {
            assert_eq!(entry.owner(), port % workers, "{number}");
        }
        if new.flags == 0 {
            assert_eq!((entry.ip_delta(), entry.l4_delta()), (0x1234, 0x5678));
            assert_eq!(entry.reply_neighbour(), (u32::MAX, 0));
        } else {
            let held = after.values().filter(|view| view.control == Some(id));
            assert_eq!(entry.extension() as usize, held.count(), "{number}");
            assert_eq!(entry.template_timeout(), Ticks(30_000));
        }
    }
    assert_eq!(table.statistics().keys, keys);
    assert_eq!(table.statistics().entries, before.len() as u64);
    use_up(&table, workers);
}

/// Every entry can still be had, and all end when their time comes.
fn use_up<F: Numbered>(table: &Arc<Table<F>>, workers: u16) {
    let mut owners: Vec<_> = (0..workers)
        .map(|worker| Owner::new(Arc::clone(table), worker))
        .collect();
    let mut more = 0;
    for client in 10_000.. {
        let owner = &mut owners[client as usize % usize::from(workers)];
        let new = flow::<F>(client, Method::Dr, 0);
        if owner.insert(&new, NOW).is_err() {
            break;
        }
        more += 1;
    }
    let statistics = table.statistics();
    // What one worker hoards another cannot have.
    let hoarded = 256 * u64::from(workers - 1);
    assert!(
        more > 0 && statistics.entries + hoarded >= u64::from(CAPACITY),
        "{statistics:?}"
    );
    let later = NOW.after(LONGEST).after(Ticks(100));
    for owner in &mut owners {
        owner.advance_timers(later, usize::MAX, &mut |_, _| Expiry::Remove);
        owner.quiescent();
    }
    for owner in &mut owners {
        owner.advance_timers(later, usize::MAX, &mut |_, _| Expiry::Remove);
    }
    let statistics = table.statistics();
    assert_eq!(
        (statistics.entries, statistics.keys, statistics.overflowed),
        (0, 0, 0)
    );
}

#[test]
fn connections_of_all_kinds_go_on() {
    go_on::<V4>(1, 1);
    go_on::<V6>(2, 2);
}

#[test]
fn with_other_workers_each_connection_has_one_of_them() {
    go_on::<V4>(3, 2);
    go_on::<V4>(1, 3);
    go_on::<V6>(3, 1);
}

#[test]
fn whoever_is_killed_while_he_takes_over_is_followed_by_one_who_does() {
    let (place, before) = killed::<V4>(1);
    let config = TableConfig {
        capacity: CAPACITY,
        half_open_percent: 50,
        workers: 1,
        seeds: [0; 4],
    };
    for stop_at in [0, 1, 50, 200, before.len() - 1] {
        let (file, _) = open(place.path(), CAPACITY);
        let mut seen = 0;
        let interrupted = catch_unwind(AssertUnwindSafe(|| {
            let _ =
                Table::<V4>::in_file(&config, &file, (NOW, LONGEST), &mut |id, entry, reply| {
                    assert!(seen < stop_at, "killed");
                    seen += 1;
                    judge(id, entry, reply)
                });
        }));
        assert!(interrupted.is_err());
    }
    for _ in 0..2 {
        let (file, _) = open(place.path(), CAPACITY);
        let (table, adopted) = adopt::<V4>(&file, CAPACITY, 1);
        assert_eq!(adopted.adopted, before.len() as u64);
        assert_eq!(facts(&table).len(), before.len());
    }
}

#[test]
fn what_the_caller_refuses_ends_and_leaves_no_key_behind() {
    let (place, before) = killed::<V4>(1);
    let (file, _) = open(place.path(), CAPACITY);
    let config = TableConfig {
        capacity: CAPACITY,
        half_open_percent: 50,
        workers: 1,
        seeds: [0; 4],
    };
    let (table, adopted) = Table::<V4>::in_file(&config, &file, (NOW, LONGEST), &mut |_, _, _| {
        Err(Cause::Server)
    })
    .unwrap();
    assert_eq!(
        (adopted.adopted, adopted.refused.server),
        (0, before.len() as u64)
    );
    assert_eq!(table.statistics().keys, 0);
    for number in 0..COUNT {
        assert_eq!(table.lookup(&kind::<V4>(number).request_tuple()), None);
    }
    use_up(&table, 1);
}

#[test]
fn a_connection_whose_replies_are_anothers_goes_on_and_they_stay_so() {
    let place = Place::new();
    let make = |client: u32, port: u16| {
        let mut new = flow::<V4>(client, Method::Nat, 0);
        new.server = 0;
        new.virtual_server.1 = port;
        new
    };
    let (older, newer) = (make(1, 80), make(1, 81));
    {
        let (file, _) = open(place.path(), CAPACITY);
        let (table, _) = adopt::<V4>(&file, CAPACITY, 1);
        let mut owner = Owner::new(table, 0);
        let id = owner.insert(&older, NOW).unwrap();
        assert!(owner.insert(&newer, NOW).is_err());
        assert!(owner.take_reply(id));
        owner.insert(&newer, NOW).unwrap();
    }
    let (file, _) = open(place.path(), CAPACITY);
    let (table, adopted) = adopt::<V4>(&file, CAPACITY, 1);
    assert_eq!(adopted.adopted, 2);
    let [first, second] = [&older, &newer].map(|new| table.lookup(&new.request_tuple()).unwrap().0);
    let reply = reply_tuple(&newer).unwrap();
    assert_eq!(table.lookup(&reply), Some((second, Direction::Reply)));
    assert_ne!(first, second);
}

#[test]
fn no_end_is_further_away_than_the_longest_timeout() {
    let place = Place::new();
    {
        let (file, _) = open(place.path(), CAPACITY);
        let (table, _) = adopt::<V4>(&file, CAPACITY, 1);
        let mut owner = Owner::new(table, 0);
        for (client, timeout) in [(0, 100), (3, LONGEST.0 * 2)] {
            let mut new = flow::<V4>(client, Method::Dr, 0);
            new.timeout = Ticks(timeout);
            owner.insert(&new, NOW).unwrap();
        }
    }
    let (file, _) = open(place.path(), CAPACITY);
    let (table, _) = adopt::<V4>(&file, CAPACITY, 1);
    let mut ends: Vec<_> = facts(&table)
        .values()
        .map(|view| view.expires_at.0)
        .collect();
    ends.sort_unstable();
    assert_eq!(ends, [NOW.0 + 100, NOW.0 + LONGEST.0]);
}

#[test]
fn a_second_process_is_kept_out() {
    let place = Place::new();
    let (file, _) = open(place.path(), CAPACITY);
    let error = TableFile::open(place.path(), file_config(CAPACITY)).unwrap_err();
    assert!(matches!(error, FileError::Taken), "{error}");
    drop(file);
    assert_eq!(open(place.path(), CAPACITY).1, Found::Table);
    let mode = fs::metadata(place.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
}

#[test]
fn time_goes_on_where_it_was() {
    let place = Place::new();
    let (file, _) = open(place.path(), CAPACITY);
    let epoch = file.epoch();
    drop(file);
    let (file, _) = open(place.path(), CAPACITY);
    let apart = if file.epoch() > epoch {
        file.epoch() - epoch
    } else {
        epoch - file.epoch()
    };
    assert!(apart.as_millis() < 10, "{apart:?}");
}

#[test]
fn a_file_of_another_kind_is_told_and_replaced() {
    let expect = |change: &dyn Fn(&fs::File), mismatch: Mismatch, capacity: u32| {
        let (place, _) = killed::<V4>(1);
        change(
            &fs::OpenOptions::new()
                .write(true)
                .open(place.path())
                .unwrap(),
        );
        let (file, found) = open(place.path(), capacity);
        assert_eq!(found, Found::Replaced(mismatch));
        let (table, adopted) = adopt::<V4>(&file, capacity, 1);
        assert_eq!(adopted, conntrack::Adopted::default());
        fill(&table, 1, 100);
        drop((table, file));
        assert_eq!(open(place.path(), capacity).1, Found::Table);
    };
    let write =
        |offset: u64, byte: u8| move |file: &fs::File| file.write_all_at(&[byte], offset).unwrap();
    expect(&write(0, 1), Mismatch::Foreign, CAPACITY);
    expect(
        &write(8, 99),
        Mismatch::Version { found: 99, ours: 1 },
        CAPACITY,
    );
    // Sizes, capacity, boot, clock, seeds.
    for word in [2, 3, 6, 8, 9, 12] {
        expect(&write(word * 8 + 3, 0x5a), Mismatch::Torn, CAPACITY);
    }
    let (found, wanted) = (u64::from(CAPACITY), 600);
    expect(&|_| {}, Mismatch::Capacity { found, wanted }, 600);
    expect(
        &|file| file.set_len(8192).unwrap(),
        Mismatch::Length,
        CAPACITY,
    );
    expect(
        &|file| file.set_len(10).unwrap(),
        Mismatch::Foreign,
        CAPACITY,
    );
    let everybodys = fs::Permissions::from_mode(0o644);
    expect(
        &|file| file.set_permissions(everybodys.clone()).unwrap(),
        Mismatch::Mode,
        CAPACITY,
    );
}

#[test]
fn where_there_can_be_no_table_is_told() {
    let config = || file_config(CAPACITY);
    let on_disk = concat!(env!("CARGO_MANIFEST_DIR"), "/table");
    let told = |path: &str| TableFile::open(path.as_ref(), config()).unwrap_err();
    assert!(matches!(told(on_disk), FileError::NotInMemory));
    assert!(!std::path::Path::new(on_disk).exists());
    assert!(matches!(told("/dev/shm"), FileError::NotAFile));
    // More than any machine has.
    let place = Place::new();
    let huge = file_config(1 << 30);
    let error = TableFile::open(place.path(), huge).unwrap_err();
    assert!(matches!(error, FileError::NoRoom { .. }), "{error}");
    assert_eq!(fs::metadata(place.path()).unwrap().len(), 0);
}

#[test]
fn of_two_directories_the_newer_whole_one_holds() {
    let place = Place::new();
    let (file, _) = open(place.path(), CAPACITY);
    assert_eq!(file.directory(), None);
    assert!(!file.write_directory(&[7; 1001]));
    for round in 0..5_u8 {
        let text = vec![round; 100 + usize::from(round)];
        assert!(file.write_directory(&text));
        assert_eq!(file.directory(), Some(text));
    }
    drop(file);
    // The fifth is in the first place, the fourth in the second.
    let raw = fs::OpenOptions::new()
        .write(true)
        .open(place.path())
        .unwrap();
    raw.write_all_at(&[9], 4096 + 24 + 50).unwrap();
    let (file, _) = open(place.path(), CAPACITY);
    assert_eq!(file.directory(), Some(vec![3; 103]));
    assert!(file.write_directory(b"again"));
    assert_eq!(file.directory(), Some(b"again".to_vec()));
}

#[test]
fn words_stay() {
    let place = Place::new();
    let (file, _) = open(place.path(), CAPACITY);
    assert!(file.words(1, 16).is_err());
    let words = file.words(0, 16).unwrap();
    assert!(words.len() == 16 && words.iter().all(|word| word.load(Relaxed) == 0));
    words[15].store(42, Relaxed);
    drop((file, words));
    let (file, _) = open(place.path(), CAPACITY);
    assert_eq!(file.words(15, 1).unwrap()[0].load(Relaxed), 42);
    let file = file.replaced().unwrap();
    assert_eq!(file.words(15, 1).unwrap()[0].load(Relaxed), 0);
}

#[test]
fn a_voided_template_is_forgotten_without_a_word() {
    let place = Place::new();
    {
        let (file, _) = open(place.path(), CAPACITY);
        let (table, _) = adopt::<V4>(&file, CAPACITY, 1);
        let mut owner = Owner::new(table, 0);
        let template = (0..)
            .map(kind::<V4>)
            .find(|new| new.state == State::Assured);
        let id = owner.insert(&template.unwrap(), NOW).unwrap();
        owner.void_template(id);
    }
    let (file, _) = open(place.path(), CAPACITY);
    let (_, adopted) = adopt::<V4>(&file, CAPACITY, 1);
    assert_eq!(adopted, conntrack::Adopted::default());
}
