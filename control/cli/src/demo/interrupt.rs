//! Ctrl-C and SIGTERM: the demo ends soon, with what it has.

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

/// Whether the user wants the demo to end.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicUsize>);

impl Interrupt {
    /// Takes SIGINT and SIGTERM over; the second of them ends the process at once.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn catch() -> io::Result<Interrupt> {
        let interrupt = Interrupt::default();
        for signal in [SIGINT, SIGTERM] {
            let again = Arc::new(AtomicBool::new(false));
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&again))?;
            flag::register(signal, again)?;
            let number = usize::try_from(signal).expect("signals are positive");
            flag::register_usize(signal, Arc::clone(&interrupt.0), number)?;
        }
        Ok(interrupt)
    }

    /// The signal that came, if one did.
    #[must_use]
    pub fn signal(&self) -> Option<u8> {
        u8::try_from(self.0.load(Relaxed))
            .ok()
            .filter(|signal| *signal > 0)
    }
}
