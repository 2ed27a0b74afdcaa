//! Leaving the network the process was started in.

use super::netlink::Netlink;
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getgid, getuid};
use std::fmt::Write as _;
use std::{fs, io};

/// Why the process could not get a network of its own.
#[derive(Debug, thiserror::Error)]
#[error("no network namespace of our own: {step}: {source}{advice}")]
pub struct IsolateError {
    step: &'static str,
    source: io::Error,
    advice: String,
}

/// Moves the whole process into a new, empty network namespace, and where it is not privileged into a new user
/// namespace too, in which it is root. Everything it does to networks from then on is invisible outside.
///
/// To be called before the first thread is started: the kernel gives no user namespace to a process with threads.
///
/// # Errors
/// When neither is allowed; the message says what to enable.
pub fn isolate() -> Result<(), IsolateError> {
    match unshare(CloneFlags::CLONE_NEWNET) {
        Ok(()) => return check(),
        Err(Errno::EPERM) => {}
        Err(errno) => return Err(error("unshare(CLONE_NEWNET)", errno.into())),
    }
    let (uid, gid) = (getuid(), getgid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)
        .map_err(|errno| error("unshare(CLONE_NEWUSER | CLONE_NEWNET)", errno.into()))?;
    // Without privilege a group map is accepted only when setgroups(2) is given up.
    write("/proc/self/setgroups", "deny")?;
    write("/proc/self/uid_map", &format!("0 {uid} 1"))?;
    write("/proc/self/gid_map", &format!("0 {gid} 1"))?;
    check()
}

fn write(path: &'static str, text: &str) -> Result<(), IsolateError> {
    fs::write(path, text).map_err(|source| error(path, source))
}

/// Some hosts grant a user namespace and take its capabilities away: better to learn so here.
fn check() -> Result<(), IsolateError> {
    Netlink::open()
        .and_then(|mut netlink| netlink.set_up("lo", true))
        .map_err(|source| error("link set lo up", source))
}

fn error(step: &'static str, source: io::Error) -> IsolateError {
    let setting =
        |key: &str| fs::read_to_string(format!("/proc/sys/{}", key.replace('.', "/"))).ok();
    IsolateError {
        step,
        source,
        advice: advice(setting),
    }
}

/// What to do, from what the kernel's settings say.
fn advice(setting: impl Fn(&str) -> Option<String>) -> String {
    let mut advice = String::from("\n  run as root (sudo), or let users make namespaces:");
    let known = advice.len();
    for (key, blocked, wanted) in [
        ("kernel.unprivileged_userns_clone", "0", "1"),
        ("user.max_user_namespaces", "0", "10000"),
        ("user.max_net_namespaces", "0", "10000"),
        ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
    ] {
        if setting(key).is_some_and(|value| value.trim() == blocked) {
            write!(advice, "\n    sysctl -w {key}={wanted}").expect("a String takes any text");
        }
    }
    if advice.len() == known {
        advice.push_str(
            " the kernel's settings allow it here, so something else forbids it;\n    in a container: docker run \
             --privileged, or --cap-add SYS_ADMIN --cap-add NET_ADMIN --security-opt apparmor=unconfined",
        );
    }
    advice
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_setting_that_forbids_is_named() {
        let text = advice(|key| (key == "user.max_user_namespaces").then(|| "0\n".to_owned()));
        assert!(
            text.contains("sysctl -w user.max_user_namespaces=10000"),
            "{text}"
        );
        assert!(!text.contains("unprivileged_userns_clone"), "{text}");
        assert!(!text.contains("container"), "{text}");
    }

    #[test]
    fn where_no_setting_forbids_a_container_is_suspected() {
        let text = advice(|_| None);
        assert!(text.contains("--privileged"), "{text}");
    }
}
