//! How often each caller may do something: a bucket for each, that fills by and by.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Callers remembered at once. More than connections, so that nobody who is connected is forgotten before his time.
const CALLERS: usize = 1024;

/// See the module's text.
pub(super) struct Buckets {
    /// In a second; and what a full bucket holds.
    rate: u32,
    buckets: HashMap<String, Bucket>,
}

#[derive(Clone, Copy)]
struct Bucket {
    left: f64,
    seen: Instant,
}

impl Buckets {
    pub(super) fn new(rate: u32) -> Buckets {
        Buckets {
            rate,
            buckets: HashMap::new(),
        }
    }

    pub(super) fn set_rate(&mut self, rate: u32) {
        self.rate = rate;
    }

    /// Takes one of `caller`'s, or tells when there is one again.
    pub(super) fn take(&mut self, caller: &str, now: Instant) -> Result<(), Duration> {
        let rate = f64::from(self.rate);
        if !self.buckets.contains_key(caller) {
            if self.buckets.len() >= CALLERS {
                self.forget(now);
            }
            let full = Bucket {
                left: rate,
                seen: now,
            };
            self.buckets.insert(caller.to_owned(), full);
        }
        let bucket = self.buckets.get_mut(caller).expect("it is there by now");
        let passed = now.saturating_duration_since(bucket.seen);
        bucket.left = passed.as_secs_f64().mul_add(rate, bucket.left).min(rate);
        bucket.seen = now;
        if bucket.left < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - bucket.left) / rate));
        }
        bucket.left -= 1.0;
        Ok(())
    }

    /// Forgets those whose buckets are full again, or else who came longest ago.
    fn forget(&mut self, now: Instant) {
        let second = Duration::from_secs(1);
        self.buckets
            .retain(|_, bucket| now.saturating_duration_since(bucket.seen) < second);
        if self.buckets.len() >= CALLERS {
            let oldest = self.buckets.iter().min_by_key(|(_, bucket)| bucket.seen);
            if let Some(oldest) = oldest.map(|(caller, _)| caller.clone()) {
                self.buckets.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_gets_his_share_and_is_told_when_there_is_more() {
        let mut buckets = Buckets::new(10);
        let start = Instant::now();
        for _ in 0..10 {
            assert_eq!(buckets.take("a", start), Ok(()));
        }
        assert_eq!(buckets.take("a", start), Err(Duration::from_millis(100)));
        assert_eq!(buckets.take("b", start), Ok(()), "another has his own");
        let later = start + Duration::from_millis(101);
        assert_eq!(buckets.take("a", later), Ok(()));
        assert!(buckets.take("a", later).is_err());
        let much_later = start + Duration::from_secs(100);
        let taken = (0..20).filter(|_| buckets.take("a", much_later).is_ok());
        assert_eq!(taken.count(), 10, "no more than a full bucket");
    }

    #[test]
    fn callers_without_number_take_no_more_than_their_room() {
        let mut buckets = Buckets::new(1);
        let start = Instant::now();
        for number in 0..3 * CALLERS {
            assert_eq!(buckets.take(&number.to_string(), start), Ok(()));
        }
        assert_eq!(buckets.buckets.len(), CALLERS);
        let later = start + Duration::from_secs(2);
        assert_eq!(buckets.take("new", later), Ok(()));
        assert_eq!(buckets.buckets.len(), 1);
    }
}
