//! A worker's thread: round after round until told to stop.

use super::Worker;
use crate::port::Port;
use crate::stats::add;
use conntrack::Ticks;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// What a worker does when there is nothing to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Idle {
    /// Look again at once: lowest latency, a whole core.
    Poll,
    /// Wait in the kernel for a frame, at most for a tick.
    #[default]
    Sleep,
}

/// Empty rounds before a worker goes to sleep: a reply is often just behind its request.
const ROUNDS_BEFORE_SLEEP: u32 = 8;
/// How long a sleeping worker may miss timers and new snapshots.
const NAP: Duration = Duration::from_millis(10);

impl<P: Port> Worker<P> {
    /// Runs until `stop` is set. `epoch` is when [`Ticks`] began, the same for all workers of a director.
    pub fn run(&mut self, stop: &AtomicBool, idle: Idle, epoch: Instant) {
        self.ipv4.owner.online();
        self.ipv6.owner.online();
        let mut empty_rounds = 0;
        while !stop.load(Relaxed) {
            let frames = self.run_once(ticks_since(epoch));
            empty_rounds = if frames > 0 { 0 } else { empty_rounds + 1 };
            let is_idle =
                empty_rounds > ROUNDS_BEFORE_SLEEP && !self.is_sweeping() && !self.is_asked();
            if idle == Idle::Sleep && is_idle {
                self.sleep();
            }
        }
        self.ipv4.owner.offline();
        self.ipv6.owner.offline();
    }

    /// Waits for a frame on any port. A port that cannot be waited on makes it a nap of a tick.
    fn sleep(&mut self) {
        self.ipv4.owner.offline();
        self.ipv6.owner.offline();
        add(&self.egress.stats.sleeps, 1);
        let mut fds: arrayvec::ArrayVec<PollFd<'_>, 16> = arrayvec::ArrayVec::new();
        for fd in self.egress.ports.iter().filter_map(Port::wait_on) {
            // More ports than places: the rest is looked at once a nap.
            let _ = fds.try_push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
        }
        let nap = Timespec {
            tv_sec: 0,
            tv_nsec: i64::from(NAP.subsec_nanos()),
        };
        // Interrupted or refused: the next round finds out what there is.
        let _ = poll(&mut fds, Some(&nap));
        self.ipv4.owner.online();
        self.ipv6.owner.online();
    }
}

/// The director's time: 10 ms units since `epoch`.
#[must_use]
pub fn ticks_since(epoch: Instant) -> Ticks {
    let elapsed = epoch.elapsed();
    let whole = elapsed.as_secs().wrapping_mul(u64::from(Ticks::PER_SECOND));
    #[allow(
        clippy::cast_possible_truncation,
        reason = "ticks wrap, and every comparison knows it"
    )]
    Ticks((whole + u64::from(elapsed.subsec_millis() / 10)) as u32)
}
