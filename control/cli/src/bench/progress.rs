//! What the user sees while the bench runs: a bar on a terminal, nothing elsewhere.

use super::report::mode;
use benches::Case;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{IsTerminal, stderr};
use std::time::Duration;

/// How often the bar shows that time passes.
const TICK: Duration = Duration::from_millis(500);

pub(super) struct Progress(ProgressBar);

impl Progress {
    pub(super) fn new(measurements: usize) -> Progress {
        if !stderr().is_terminal() {
            return Progress(ProgressBar::hidden());
        }
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed}  {msg}");
        let bar = ProgressBar::new(measurements as u64);
        bar.set_style(style.expect("the template is well-formed"));
        bar.enable_steady_tick(TICK);
        Progress(bar)
    }

    pub(super) fn step(&self, case: &Case, step: &str) {
        self.0.set_message(format!(
            "{} {}: {step}",
            mode(case.method),
            case.family.name()
        ));
    }

    pub(super) fn measured(&mut self) {
        self.0.inc(1);
    }

    pub(super) fn finish(&self) {
        self.0.finish_and_clear();
    }
}
