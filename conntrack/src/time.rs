//! Time as connections know it: ticks of 10 ms that wrap around.

/// A moment or a span in ticks of 10 ms since an arbitrary start.
///
/// The count wraps after 497 days, so moments compare by their distance: two moments must lie within 2^31 ticks
/// (248 days) of each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ticks(pub u32);

impl Ticks {
    /// Ticks in a second.
    pub const PER_SECOND: u32 = 100;

    /// A span of whole seconds; longer than the count holds, the longest.
    #[must_use]
    pub const fn from_seconds(seconds: u32) -> Ticks {
        Ticks(seconds.saturating_mul(Self::PER_SECOND))
    }

    /// A span of milliseconds, rounded up, so that a timeout is never shorter than it was asked to be.
    #[must_use]
    pub const fn from_millis(millis: u32) -> Ticks {
        Ticks(millis.div_ceil(10))
    }

    /// The moment `span` after this one.
    #[inline]
    #[must_use]
    pub const fn after(self, span: Ticks) -> Ticks {
        Ticks(self.0.wrapping_add(span.0))
    }

    /// Whether this deadline has come at `now`.
    #[inline]
    #[must_use]
    pub const fn has_passed(self, now: Ticks) -> bool {
        now.0.wrapping_sub(self.0) <= i32::MAX as u32
    }

    /// How long until this deadline; nothing when it has passed.
    #[inline]
    #[must_use]
    pub const fn until(self, now: Ticks) -> Ticks {
        if self.has_passed(now) {
            Ticks(0)
        } else {
            Ticks(self.0.wrapping_sub(now.0))
        }
    }

    /// The span in whole seconds, rounded down.
    #[must_use]
    pub const fn as_seconds(self) -> u32 {
        self.0 / Self::PER_SECOND
    }

    /// How far two moments are apart, whichever comes first.
    #[inline]
    #[must_use]
    pub const fn distance(self, other: Ticks) -> Ticks {
        Ticks((self.0.wrapping_sub(other.0) as i32).unsigned_abs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_passes_at_its_tick_and_not_before() {
        let deadline = Ticks(1000);
        assert!(!deadline.has_passed(Ticks(999)));
        assert!(deadline.has_passed(Ticks(1000)));
        assert!(deadline.has_passed(Ticks(1001)));
        assert_eq!(deadline.until(Ticks(990)), Ticks(10));
        assert_eq!(deadline.until(Ticks(2000)), Ticks(0));
    }

    #[test]
    fn deadlines_compare_across_the_wrap() {
        let now = Ticks(u32::MAX - 5);
        let deadline = now.after(Ticks::from_seconds(1));
        assert_eq!(deadline, Ticks(94));
        assert!(!deadline.has_passed(now));
        assert_eq!(deadline.until(now), Ticks(100));
        assert_eq!(deadline.distance(now), now.distance(deadline));
        assert!(deadline.has_passed(Ticks(94)));
    }

    #[test]
    fn spans_convert_without_shrinking() {
        assert_eq!(Ticks::from_millis(1), Ticks(1));
        assert_eq!(Ticks::from_millis(1000), Ticks::from_seconds(1));
        assert_eq!(Ticks(199).as_seconds(), 1);
        assert_eq!(Ticks::from_seconds(u32::MAX), Ticks(u32::MAX));
    }
}
