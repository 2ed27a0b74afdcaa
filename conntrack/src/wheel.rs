//! A worker's timers: a wheel of 4096 slots of 160 ms, lists threaded through one word pair per entry.
//!
//! ```text
//!   heads   [ 0 | 7 | 0 | 3 | … ]          slot of a deadline: rounded up, so that nothing fires early
//!                 │        ▲
//!   links   7: prev = HEAD|1, next = 9     cursor: the next slot to drain; 4095 slots ahead of it is the horizon
//!           9: prev = 7, next = 0          (655 s), beyond which a timer fires early and is armed again
//! ```
//! Slots are numbered without end modulo 2^28, as the ticks they stand for are modulo 2^32.

use crate::memory::Slab;
use crate::sync::{AtomicU32, Ordering::Relaxed};
use crate::time::Ticks;

/// An entry's place in a list: of timers, of free entries or of those in limbo. The owner of the entry alone uses it.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Link {
    pub(crate) prev: AtomicU32,
    pub(crate) next: AtomicU32,
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Link>() == 8);

/// A power of two. Few in a model, which makes many wheels.
const SLOTS: u32 = if cfg!(loom) { 16 } else { 4096 };
/// Ticks of a slot, as a power of two.
const SHIFT: u32 = 4;
/// Slot numbers wrap where ticks do.
const NUMBER: u32 = u32::MAX >> SHIFT;
/// In `prev` of a list's first: the rest is the slot.
const HEAD: u32 = 1 << 31;

/// The largest entry index that `prev` can hold.
pub(crate) const MAX_INDEX: u32 = HEAD - 1;

/// The timers of one worker.
pub(crate) struct Wheel {
    heads: Box<[u32]>,
    cursor: u32,
    started: bool,
}

impl Wheel {
    pub(crate) fn new() -> Wheel {
        Wheel {
            heads: vec![0; SLOTS as usize].into(),
            cursor: 0,
            started: false,
        }
    }

    /// Sets the wheel to `now` if it never ran.
    #[inline]
    pub(crate) fn start(&mut self, now: Ticks) {
        if !self.started {
            self.started = true;
            self.cursor = now.0 >> SHIFT;
        }
    }

    /// Lets `index` fire once `deadline` has passed, or at the horizon. `draining` keeps it out of the slot that is
    /// being drained, so that a drain ends.
    pub(crate) fn arm(&mut self, links: &Slab<Link>, index: u32, deadline: Ticks, draining: bool) {
        let number = deadline.0.wrapping_add((1 << SHIFT) - 1) >> SHIFT;
        let ahead = number.wrapping_sub(self.cursor) & NUMBER;
        // In the further half of the circle it lies behind the cursor: due at once.
        let ahead = if ahead > NUMBER / 2 { 0 } else { ahead };
        let ahead = ahead.clamp(u32::from(draining), SLOTS - 1);
        let slot = (self.cursor + ahead) % SLOTS;
        let head = &mut self.heads[slot as usize];
        links[index as usize].prev.store(HEAD | slot, Relaxed);
        links[index as usize].next.store(*head, Relaxed);
        if *head != 0 {
            links[*head as usize].prev.store(index, Relaxed);
        }
        *head = index;
    }

    /// Takes `index`, which is armed, off its list.
    pub(crate) fn disarm(&mut self, links: &Slab<Link>, index: u32) {
        let prev = links[index as usize].prev.load(Relaxed);
        let next = links[index as usize].next.load(Relaxed);
        if prev & HEAD == 0 {
            links[prev as usize].next.store(next, Relaxed);
        } else {
            self.heads[(prev & !HEAD) as usize] = next;
        }
        if next != 0 {
            links[next as usize].prev.store(prev, Relaxed);
        }
    }

    /// Takes the next timer that may be due at `now`. Every slot that turns out empty costs one of `budget`, and so
    /// does a timer.
    pub(crate) fn pop(
        &mut self,
        links: &Slab<Link>,
        now: Ticks,
        budget: &mut usize,
    ) -> Option<u32> {
        let last = now.0 >> SHIFT;
        let behind = last.wrapping_sub(self.cursor) & NUMBER;
        if (SLOTS..=NUMBER / 2).contains(&behind) {
            // Everything is due: once round is enough.
            self.cursor = last.wrapping_sub(SLOTS - 1) & NUMBER;
        }
        while *budget > 0 && last.wrapping_sub(self.cursor) & NUMBER <= NUMBER / 2 {
            *budget -= 1;
            let index = self.heads[(self.cursor % SLOTS) as usize];
            if index != 0 {
                self.disarm(links, index);
                return Some(index);
            }
            self.cursor = (self.cursor + 1) & NUMBER;
        }
        None
    }
}
