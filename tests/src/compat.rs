//! Unmodified programs that manage uvs as they manage the kernel's IPVS: by `uvs compat`.

use crate::process::{Output, Process};
use crate::uvsd::{Uvsd, client_executable};
use cli::lab::Namespace;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// How long `ipvsadm` and its like may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// `uvs compat`, to be followed by a program and its arguments.
#[must_use]
pub fn command(namespace: &Namespace, uvsd: &Uvsd) -> Command {
    let uvs = client_executable();
    let mut socket = OsString::from(uvsd.socket());
    socket.push(".nl");
    let mut command = namespace.command(uvs.to_str().expect("a path of the tests' own"));
    command
        .arg("compat")
        .arg("--netlink")
        .arg(PathBuf::from(socket))
        .arg("--");
    command
}

/// Runs a program to its end.
///
/// # Panics
/// When it does not end.
#[must_use]
pub fn run(namespace: &Namespace, uvsd: &Uvsd, words: &str) -> Output {
    let mut command = command(namespace, uvsd);
    command.args(words.split_whitespace());
    Process::spawn(command).finish(PATIENCE)
}
