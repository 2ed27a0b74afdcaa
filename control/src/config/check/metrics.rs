//! Who may read the metrics.

use super::Checks;
use crate::config::mistake::{Finding, KeyPath, Problem};

impl Checks<'_> {
    /// Beyond the host's own loopback, nobody is asked who he is.
    pub(super) fn metrics(&mut self) {
        let Some(metrics) = &self.configuration.metrics else {
            return;
        };
        if !metrics.listen.ip().is_loopback() {
            let value = metrics.listen.to_string();
            let consequence =
                "is no loopback address: whoever reaches it can read all counters, unasked"
                    .to_owned();
            self.doubtful.push(Finding {
                path: KeyPath::top("metrics").key("listen"),
                problem: Problem::Changed { value, consequence },
            });
        }
    }
}
