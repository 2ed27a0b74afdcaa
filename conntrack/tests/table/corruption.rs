//! Whatever happens to the file between two processes: nothing is taken over that was not there, and nothing panics.

use crate::flows::Numbered;
use crate::held::{NOW, Place, adopt, facts, fill, open};
use conntrack::{ConnectionId, ConnectionView, Found, Owner, Table, V4, V6};
use std::collections::HashMap;
use std::fs;
use std::sync::Arc;

const CAPACITY: u32 = 96;
const COUNT: u32 = 80;
const ROUNDS: u32 = if cfg!(debug_assertions) { 1000 } else { 10_000 };

/// Numbers that are the same in each run. Source: Steele, Lea, Flood, Fast splittable pseudorandom number generators
/// (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }
}

/// Bits flipped, ranges zeroed, ranges swapped, ranges copied, ranges of noise, the end cut off.
fn corrupt(bytes: &mut Vec<u8>, numbers: &mut Numbers) {
    let len = bytes.len();
    let range = |numbers: &mut Numbers| {
        let count = [1, 2, 4, 8, 16, 64, 128, 512, 4096][numbers.below(9)];
        let start = numbers.below(len - count) / count.min(8) * count.min(8);
        start..start + count
    };
    match numbers.below(16) {
        0..8 => {
            for _ in 0..=numbers.below(8) {
                bytes[numbers.below(len)] ^= 1 << numbers.below(8);
            }
        }
        8..10 => bytes[range(numbers)].fill(0),
        10 | 11 => {
            let (from, to) = (range(numbers), range(numbers));
            let count = from.len().min(to.len());
            for place in 0..count {
                bytes.swap(from.start + place, to.start + place);
            }
        }
        12 | 13 => {
            let (from, to) = (range(numbers), range(numbers));
            let count = from.len().min(to.len());
            bytes.copy_within(from.start..from.start + count, to.start);
        }
        14 => {
            for byte in &mut bytes[range(numbers)] {
                *byte = numbers.next().to_le_bytes()[0];
            }
        }
        _ => bytes.truncate(numbers.below(len)),
    }
}

/// What of a connection must be as it was. The rest moves with its packets.
fn kept<F: Numbered>(mut view: ConnectionView<F>, now: &ConnectionView<F>) -> ConnectionView<F> {
    view.state = now.state;
    view.expires_at = now.expires_at;
    view.packets = now.packets;
    view.template_record = now.template_record;
    view.flags = now.flags;
    view.owner = now.owner;
    view.control = now.control;
    view
}

fn look<F: Numbered>(
    table: &Arc<Table<F>>,
    before: &HashMap<ConnectionId, ConnectionView<F>>,
    round: u32,
) -> usize {
    let after = facts(table);
    for (id, view) in &after {
        let original = before.get(id);
        let original = original.unwrap_or_else(|| panic!("{round}: {view:?} was not there"));
        assert_eq!(*view, kept(*original, view), "{round}");
        // Whose it is may have changed, but only to what has the same server and is there.
        if let Some(control) = view.control.and_then(|id| after.get(&id)) {
            assert_eq!(control.server, view.server, "{round}");
        } else {
            assert_eq!(view.control, None, "{round}");
        }
        let found = table.lookup(&table.entry(*id).request_tuple());
        assert_eq!(found.map(|(id, _)| id), Some(*id), "{round}");
    }
    after.len()
}

#[test]
fn of_all_damaged_files_none_yields_a_connection_that_was_not_there() {
    let place = Place::new();
    let (before_v4, before_v6) = {
        let (file, _) = open(place.path(), CAPACITY);
        let (v4, v6) = (
            adopt::<V4>(&file, CAPACITY, 2).0,
            adopt::<V6>(&file, CAPACITY, 2).0,
        );
        fill(&v4, 2, COUNT);
        fill(&v6, 2, COUNT);
        (facts(&v4), facts(&v6))
    };
    let whole = fs::read(place.path()).unwrap();
    let (mut replaced, mut adopted, mut refused) = (0, 0, 0);
    for round in 0..ROUNDS {
        let mut numbers = Numbers(u64::from(round));
        let mut bytes = whole.clone();
        corrupt(&mut bytes, &mut numbers);
        fs::write(place.path(), &bytes).unwrap();
        let (file, found) = open(place.path(), CAPACITY);
        let workers = 1 + u16::try_from(round % 3).unwrap();
        let (v4, of_v4) = adopt::<V4>(&file, CAPACITY, workers);
        let (v6, of_v6) = adopt::<V6>(&file, CAPACITY, workers);
        let both = look(&v4, &before_v4, round) + look(&v6, &before_v6, round);
        assert_eq!(both as u64, of_v4.adopted + of_v6.adopted);
        replaced += u32::from(matches!(found, Found::Replaced(_)));
        adopted += both;
        refused += of_v4.refused.all() + of_v6.refused.all();
        // It works on: all that is there can end, and others come.
        for worker in 0..workers {
            let mut owner = Owner::new(Arc::clone(&v4), worker);
            owner.advance_timers(NOW, 100, &mut |_, _| conntrack::Expiry::Remove);
            let new = crate::flows::flow::<V4>(5000 + u32::from(worker), conntrack::Method::Nat, 0);
            owner.insert(&new, NOW).unwrap();
        }
    }
    println!("{replaced} files replaced, {adopted} connections adopted, {refused} refused");
    let all = (before_v4.len() + before_v6.len()) * ROUNDS as usize;
    assert!(adopted > all / 2 && refused > u64::from(ROUNDS / 10) && replaced > ROUNDS / 100);
}
