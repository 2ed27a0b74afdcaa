//! What the user sees while the demo runs: a bar on a terminal, plain lines elsewhere. All of it on stderr.

use super::Measurement;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{IsTerminal, Write, stderr};

pub(super) struct Progress {
    /// `None` without a terminal.
    bar: Option<ProgressBar>,
    round: usize,
    rounds: usize,
    requests: u32,
}

impl Progress {
    pub(super) fn new(rounds: usize, requests: u32) -> Progress {
        let bar = stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{msg:<14} {wide_bar} {pos}/{len} {elapsed}");
            ProgressBar::new(0).with_style(style.expect("the template is well-formed"))
        });
        Progress {
            bar,
            round: 0,
            rounds,
            requests,
        }
    }

    pub(super) fn begin(&mut self, of: &Measurement) {
        self.round += 1;
        if let Some(bar) = &self.bar {
            bar.set_length(u64::from(self.requests) * self.rounds as u64);
            bar.set_position(u64::from(self.requests) * (self.round as u64 - 1));
            bar.set_message(name(of));
        }
    }

    pub(super) fn step(&self) {
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
    }

    pub(super) fn end(&self, of: &Measurement) {
        if self.bar.is_none() {
            let (round, rounds, name) = (self.round, self.rounds, name(of));
            let (requests, failures) = (of.requests(), of.failures);
            // The demo goes on when nobody listens any more; its exit status tells the outcome.
            let _ = writeln!(
                stderr(),
                "[{round}/{rounds}] {name}: {requests} requests, {failures} failures"
            );
        }
    }

    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn name(of: &Measurement) -> String {
    format!("{} {} {}", of.method, of.family, of.protocol)
}
