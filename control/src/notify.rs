//! What uvsd tells the service manager that started it (systemd's `Type=notify`, or none): that it is ready, reloads, stops, and
//! that its workers are alive.
//!
//! Source: systemd's sd_notify(3) and sd_watchdog_enabled(3).

use crate::director::Director;
use sd_notify::NotifyState;
use std::time::Duration;

/// It serves: also after a reload, whatever became of that.
pub(crate) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// It reads its configuration again.
pub(crate) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

/// It ends.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Without a service manager nothing is told; one that does not listen must not keep packets from being forwarded.
fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!("service manager: {error}");
    }
}

/// Tells the service manager again and again that the workers are alive, as often as it wants (`WatchdogSec`).
#[derive(Debug)]
pub(crate) struct Watchdog {
    limit: Option<Duration>,
    standing: Vec<usize>,
}

impl Watchdog {
    pub(crate) fn new() -> Watchdog {
        Watchdog {
            limit: sd_notify::watchdog_enabled(),
            standing: Vec::new(),
        }
    }

    /// How often to look: several times within the service manager's patience.
    pub(crate) fn period(&self) -> Option<Duration> {
        let period = self.limit? / 4;
        Some(period.max(Duration::from_millis(10)))
    }

    /// Says that all is well, unless a worker has stood still for longer than the service manager's patience: then it may end
    /// uvsd and start it anew.
    pub(crate) fn look(&mut self, director: &Director) {
        let Some(limit) = self.limit else {
            return;
        };
        let standing = director.standing_workers(limit);
        if standing.is_empty() {
            tell(&[NotifyState::Watchdog]);
        }
        if standing != self.standing {
            if standing.is_empty() {
                tracing::info!("all workers go on");
            } else {
                tracing::error!(
                    "workers {standing:?} have stood still for {limit:?}: the watchdog is not answered"
                );
            }
            self.standing = standing;
        }
    }
}
