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
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::flag;
use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// How long a key may wait for its effect, and news for theirs.
const ROUND_MS: u8 = 50;

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
    /// It was closed.
    #[error("the terminal is gone")]
    Gone,
    /// Our own mistake, of which the panic has told more.
    #[error("what asks the director has failed")]
    Feed,
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
    for signal in [SIGTERM, SIGINT, SIGHUP, SIGQUIT] {
        // Who asks a second time does not want to wait.
        flag::register_conditional_shutdown(signal, 1, Arc::clone(&stop))?;
        flag::register(signal, Arc::clone(&stop))?;
    }
    let keys = Keys::open()?;
    let feed = feed::Feed::start(options)?;
    on_screen(|terminal| watch(terminal, &keys, &feed, &stop))
}

/// Does `work` on a screen of its own. However it ends, also by a panic, the terminal is as before.
fn on_screen<T>(
    work: impl FnOnce(&mut DefaultTerminal) -> Result<T, TopError>,
) -> Result<T, TopError> {
    // From here on a panic restores the terminal as well.
    let mut terminal = ratatui::try_init().inspect_err(|_| ratatui::restore())?;
    let ended = work(&mut terminal);
    let restored = ratatui::try_restore();
    let ended = ended?;
    restored?;
    Ok(ended)
}

/// The terminal that keys come from: as crossterm takes it.
enum Keys {
    Input(io::Stdin),
    Other(File),
}

impl Keys {
    fn open() -> io::Result<Keys> {
        let input = io::stdin();
        Ok(match input.is_terminal() {
            true => Keys::Input(input),
            false => Keys::Other(File::open("/dev/tty")?),
        })
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        match self {
            Keys::Input(input) => input.as_fd(),
            Keys::Other(file) => file.as_fd(),
        }
    }

    /// Waits for a key, a signal or the end of a round. A terminal that was closed is to be found here: crossterm would read its end
    /// again and again.
    fn wait(&self) -> Result<(), TopError> {
        let mut waited = [PollFd::new(self.descriptor(), PollFlags::POLLIN)];
        match poll(&mut waited, PollTimeout::from(ROUND_MS)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(io::Error::from(error).into()),
        }
        let gone = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
        match waited[0].revents() {
            Some(found) if found.intersects(gone) => Err(TopError::Gone),
            _ => Ok(()),
        }
    }
}

fn watch(
    terminal: &mut DefaultTerminal,
    keys: &Keys,
    feed: &feed::Feed,
    stop: &AtomicBool,
) -> Result<(), TopError> {
    // Source: no-color.org.
    let colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let mut model = Model::default();
    let mut is_stale = true;
    while !stop.load(Relaxed) {
        if is_stale {
            terminal.draw(|frame| view::draw(frame, &model, colours))?;
        }
        is_stale = false;
        keys.wait()?;
        while event::poll(Duration::ZERO)? {
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
        if feed.has_ended() {
            return Err(TopError::Feed);
        }
    }
    Ok(())
}
