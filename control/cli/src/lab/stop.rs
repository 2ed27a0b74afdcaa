//! Threads that serve until they are told to stop.

use super::{LabError, Namespace};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::{PipeReader, PipeWriter, pipe};
use std::os::fd::{AsFd, BorrowedFd};
use std::thread::JoinHandle;

/// Asked by a serving thread whether to go on.
#[derive(Debug)]
pub(super) struct Stop(PipeReader);

impl Stop {
    /// Waits until one of the sockets has something to read; false when it is time to stop.
    pub(super) fn wait(&self, sockets: &[BorrowedFd<'_>]) -> bool {
        let fds = std::iter::once(self.0.as_fd()).chain(sockets.iter().copied());
        let mut polled: Vec<_> = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        loop {
            match poll(&mut polled, PollTimeout::NONE) {
                // Nothing is ever written: the pipe tells that its other end is closed.
                Ok(_) => return polled[0].any() == Some(false),
                Err(Errno::EINTR) => {}
                Err(_) => return false,
            }
        }
    }
}

/// A thread that serves inside a namespace until this value is dropped.
#[derive(Debug)]
pub(super) struct Serving {
    go_on: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl Serving {
    pub(super) fn start(
        namespace: &Namespace,
        name: &str,
        serve: impl FnOnce(&Stop) + Send + 'static,
    ) -> Result<Serving, LabError> {
        let (reader, writer) = pipe().map_err(|source| LabError::Thread {
            name: format!("{}-{name}", namespace.name()),
            source,
        })?;
        let thread = namespace.spawn(name, move || serve(&Stop(reader)))?;
        Ok(Serving {
            go_on: Some(writer),
            thread: Some(thread),
        })
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.go_on = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was printed where it happened.
            let _ = thread.join();
        }
    }
}
