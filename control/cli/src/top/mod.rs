//! `uvs top`: a running director, watched.
//!
//! ```text
//!   keys ───────────▶ Model (model.rs) ──▶ view (view.rs) ──▶ terminal
//!   feed (feed.rs) ──▶    │                                     ▲ restored however it ends
//!        ▲── drain ───────┘
//! ```

mod feed;
mod human;
mod model;
#[cfg(test)]
mod tests;
mod view;

use crate::connect;
use model::{Action, Model};
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// How long a key may wait for its effect, and news for theirs.
const ROUND: Duration = Duration::from_millis(50);

/// What to watch.
#[derive(Clone, Debug, clap::Args)]
// Two groups of one name would clash: that of where the director listens is the other.
#[group(skip)]
pub struct Options {
    /// Where the director listens.
    #[command(flatten)]
    pub connect: connect::Options,
    /// Milliseconds between two looks, 100 to 3600000.
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(100..=3_600_000))]
    pub interval: u32,
}

/// Why it ends.
#[derive(Debug, thiserror::Error)]
pub enum TopError {
    /// Its output goes elsewhere.
    #[error(
        "top: standard output is no terminal; accepted: a terminal, or `uvs list --rate` and `uvs status`"
    )]
    NoTerminal,
    /// The terminal.
    #[error("terminal: {0}")]
    Terminal(#[from] io::Error),
}

/// Watches until the user quits, or a signal comes.
///
/// # Errors
/// When there is no terminal, or it fails.
pub fn run(options: &Options) -> Result<(), TopError> {
    if !io::stdout().is_terminal() {
        return Err(TopError::NoTerminal);
    }
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        flag::register(signal, Arc::clone(&stop))?;
    }
    let feed = feed::Feed::start(options)?;
    // From here on a panic restores the terminal as well.
    let mut terminal = ratatui::try_init()?;
    let ended = watch(&mut terminal, &feed, &stop);
    ratatui::try_restore()?;
    Ok(ended?)
}

fn watch(
    terminal: &mut ratatui::DefaultTerminal,
    feed: &feed::Feed,
    stop: &AtomicBool,
) -> io::Result<()> {
    // Source: no-color.org.
    let colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let mut model = Model::default();
    let mut is_stale = true;
    while !stop.load(Relaxed) {
        if is_stale {
            terminal.draw(|frame| view::draw(frame, &model, colours))?;
        }
        is_stale = false;
        if event::poll(ROUND)? {
            is_stale = true;
            // A terminal of another size is drawn anew.
            if let Event::Key(key) = event::read()?
                && key.kind != KeyEventKind::Release
            {
                match model.key(key) {
                    Some(Action::Quit) => return Ok(()),
                    Some(Action::Drain(drain)) => feed.drain(drain),
                    None => {}
                }
            }
        }
        while let Some(news) = feed.news() {
            model.learn(news);
            is_stale = true;
        }
    }
    Ok(())
}
