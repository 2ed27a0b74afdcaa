//! What a router on the way to a tunnel's far end said that it takes. Shared by the workers: the router's word reaches
//! one of them, the tunnel's packets pass all.
//!
//! Source: Linux net/ipv4/route.c (`ip_rt_update_pmtu`), RFC 1191 §6.3.

use conntrack::Ticks;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How long it is believed.
pub const LIFETIME: Ticks = Ticks::from_seconds(600);

/// The path MTU of a tunnel, if it was learned. One word, all `Relaxed`: of two workers that learn at the same moment one
/// may be overheard, and its router speaks again.
///
/// ```text
///   63        32 31         0
///   deadline     bytes         0: not known
/// ```
#[derive(Debug, Default)]
pub struct PathMtu(AtomicU64);

impl PathMtu {
    /// The largest outer packet, bytes; `u32::MAX` while nobody said less.
    #[inline]
    #[must_use]
    pub fn limit(&self, now: Ticks) -> u32 {
        match self.0.load(Relaxed) {
            0 => u32::MAX,
            word => self.limit_until(word, now),
        }
    }

    #[cold]
    #[allow(clippy::cast_possible_truncation, reason = "the fields are cut out")]
    fn limit_until(&self, word: u64, now: Ticks) -> u32 {
        if Ticks((word >> 32) as u32).has_passed(now) {
            self.0.store(0, Relaxed);
            return u32::MAX;
        }
        word as u32
    }

    /// A router takes packets of `mtu` bytes at most; it is not believed that it takes less than `least`. Returns what
    /// holds now: what is known already may be less, and stays then.
    pub fn learn(&self, mtu: u32, least: u32, now: Ticks) -> u32 {
        let mtu = mtu.max(least);
        let known = self.limit(now);
        if mtu > known {
            return known;
        }
        let deadline = u64::from(now.after(LIFETIME).0);
        self.0.store(deadline << 32 | u64::from(mtu), Relaxed);
        mtu
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_shrinks_lasts_ten_minutes_and_does_not_grow() {
        let path = PathMtu::default();
        let start = Ticks(u32::MAX - 100);
        assert_eq!(path.limit(start), u32::MAX);
        assert_eq!(path.learn(1400, 552, start), 1400);
        let later = start.after(Ticks::from_seconds(300));
        assert_eq!(path.learn(1450, 552, later), 1400);
        assert_eq!(path.limit(start.after(Ticks::from_seconds(599))), 1400);
        assert_eq!(path.limit(start.after(Ticks::from_seconds(601))), u32::MAX);
        // The same word again makes it last.
        path.learn(1400, 552, start);
        path.learn(1400, 552, later);
        assert_eq!(path.limit(later.after(Ticks::from_seconds(599))), 1400);
        assert_eq!(path.learn(1300, 552, later), 1300);
    }

    #[test]
    fn nobody_is_believed_who_wants_less_than_the_least() {
        let path = PathMtu::default();
        assert_eq!(path.learn(0, 552, Ticks(1)), 552);
        assert_eq!(path.limit(Ticks(2)), 552);
    }
}
