//! By how much the server's bytes lie further on for the client, since a text of another length took the place of one.
//!
//! ```text
//!   server's sequence numbers   ────────────┤position├──────────────▶
//!   added for the client           before   (the text)    after
//!   taken from what it acknowledges: the same, by where it lies
//! ```
//! One change is remembered: when the next comes, what was before the last is long acknowledged, since FTP waits for a
//! reply before the next command.
//!
//! Source: Linux net/netfilter/nf_conntrack_seqadj.c.

/// See the module's text. The default is no shift at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shift {
    /// The server's sequence number of the segment that was changed last.
    position: u32,
    /// Added beyond `position`.
    after: i32,
    /// By how much the last change moved it.
    change: i8,
    /// Something was changed.
    begun: bool,
}

/// What a word has room for: 23 bits.
const AFTER_MAX: i32 = (1 << 22) - 1;

/// Whether `a` comes after `b`.
const fn is_after(a: u32, b: u32) -> bool {
    a != b && a.wrapping_sub(b) < 1 << 31
}

impl Shift {
    /// What is to be added to the sequence number of a segment.
    #[must_use]
    pub fn of(self, sequence: u32) -> i32 {
        if is_after(sequence, self.position) {
            self.after
        } else {
            self.before()
        }
    }

    /// The server's own number for what the client calls `number` (an acknowledgement, or an edge in SACK).
    #[must_use]
    pub fn back(self, number: u32) -> u32 {
        let earlier = number.wrapping_sub_signed(self.before());
        if is_after(earlier, self.position) {
            number.wrapping_sub_signed(self.after)
        } else {
            earlier
        }
    }

    /// The shift after the text in the segment at `sequence` grew by `change` bytes. A segment that comes again, or one
    /// from before, changes nothing. `None` where there is no room for it.
    #[must_use]
    pub fn then(self, sequence: u32, change: isize) -> Option<Shift> {
        let change = i8::try_from(change).ok()?;
        if self.begun && !is_after(sequence, self.position) {
            return Some(self);
        }
        let after = self.after + i32::from(change);
        (after.abs() <= AFTER_MAX).then_some(Shift {
            position: sequence,
            after,
            change,
            begun: true,
        })
    }

    /// Whether the text in this segment was the last one changed.
    #[must_use]
    pub fn is_at(self, sequence: u32) -> bool {
        self.begun && self.position == sequence
    }

    fn before(self) -> i32 {
        self.after - i32::from(self.change)
    }

    /// The shift in one word; 0 for none.
    #[must_use]
    pub fn to_u64(self) -> u64 {
        let low = self.after << 9 | i32::from(self.change.cast_unsigned()) << 1;
        u64::from(self.position) << 32 | u64::from(low.cast_unsigned()) | u64::from(self.begun)
    }

    /// The shift that [`to_u64`](Self::to_u64) made the word of.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "the fields are cut out")]
    pub fn from_u64(word: u64) -> Shift {
        let low = word as u32;
        Shift {
            position: (word >> 32) as u32,
            after: low.cast_signed() >> 9,
            change: ((low >> 1) as u8).cast_signed(),
            begun: low & 1 != 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn segments_before_the_change_and_the_changed_one_itself_are_moved_less() {
        let shift = Shift::default().then(1047, 1).unwrap();
        assert_eq!((shift.of(1001), shift.of(1047), shift.of(1093)), (0, 0, 1));
        let twice = shift.then(1093, -6).unwrap();
        assert_eq!((twice.of(1047), twice.of(1093), twice.of(1146)), (1, 1, -5));
        // 1047 bytes and one more, then 53 that became 47.
        assert_eq!((twice.back(1094), twice.back(1141)), (1093, 1146));
    }

    #[test]
    fn a_change_is_counted_once_and_never_for_what_came_before() {
        let shift = Shift::default().then(1047, 3).unwrap();
        assert_eq!(shift.then(1047, 3), Some(shift));
        assert_eq!(shift.then(1001, 3), Some(shift));
        assert!(shift.is_at(1047) && !shift.is_at(1001));
        assert!(!Shift::default().is_at(0));
    }

    #[test]
    fn numbers_wrap_around() {
        let shift = Shift::default().then(u32::MAX - 10, 5).unwrap();
        assert_eq!((shift.of(u32::MAX - 10), shift.of(20)), (0, 5));
        assert_eq!(shift.back(25), 20);
        assert_eq!(shift.back(u32::MAX - 20), u32::MAX - 20);
    }

    #[test]
    fn there_is_room_for_so_much_and_no_more() {
        assert_eq!(Shift::default().then(1, 128), None);
        assert_eq!(Shift::default().then(1, -129), None);
        let mut shift = Shift::default();
        let mut changes = 0;
        while let Some(next) = shift.then(changes + 1, 100) {
            shift = next;
            changes += 1;
        }
        assert_eq!(changes, (1 << 22) / 100);
        assert_eq!(Shift::from_u64(shift.to_u64()), shift);
    }

    proptest! {
        #[test]
        fn a_shift_survives_its_word_and_takes_back_what_it_added(
            start in any::<u32>(),
            changes in proptest::collection::vec((1_u32..10_000, -100_isize..100), 1..20),
            ahead in 200_u32..100_000,
        ) {
            let mut shift = Shift::default();
            let mut position = start;
            for (step, change) in changes {
                position = position.wrapping_add(step);
                shift = shift.then(position, change).unwrap();
                prop_assert_eq!(Shift::from_u64(shift.to_u64()), shift);
            }
            // Beyond the text that changed.
            let sequence = position.wrapping_add(ahead);
            prop_assert_eq!(shift.back(sequence.wrapping_add_signed(shift.of(sequence))), sequence);
            prop_assert_eq!(shift.back(position.wrapping_add_signed(shift.of(position))), position);
        }
    }
}
