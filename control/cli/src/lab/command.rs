//! Starting other programs inside a namespace.
#![allow(
    unsafe_code,
    reason = "what a child does between fork and exec is unsafe to state"
)]

use nix::sched::{CloneFlags, setns};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{getpid, getppid};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// A command whose child enters the network namespace before it becomes `program`, and is killed when the thread
/// that started it ends.
pub(super) fn within(namespace: OwnedFd, program: &str) -> Command {
    let parent = getpid();
    let mut command = Command::new(program);
    let enter = move || {
        setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET)?;
        set_pdeathsig(Signal::SIGKILL)?;
        // A parent that died before the line above would never be noticed.
        if getppid() == parent {
            Ok(())
        } else {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    };
    // SAFETY: between fork and exec the closure makes system calls alone (setns, prctl, getppid), all of them
    // async-signal-safe; it neither allocates nor takes a lock, and the file descriptor is its own.
    unsafe { command.pre_exec(enter) };
    command
}
