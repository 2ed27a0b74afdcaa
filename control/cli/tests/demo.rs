//! `uvs demo` as a user runs it. Needs root (CAP_SYS_ADMIN): fails without.
#![allow(clippy::unwrap_used, reason = "helpers panic as their tests do")]

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde_json::Value;
use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

const UVS: &str = env!("CARGO_BIN_EXE_uvs");

#[test]
fn every_request_is_served_in_every_mode() {
    let output = Command::new(UVS)
        .args(["demo", "--requests", "420", "--json"])
        .output()
        .unwrap();
    let report = report_of(&output);
    assert!(output.status.success(), "{}: {report:#}", output.status);
    let results = report["results"].as_array().unwrap();
    assert_eq!(results.len(), 16);
    for result in results {
        assert_eq!(
            (&result["requests"], &result["failures"]),
            (&420.into(), &0.into())
        );
    }
}

#[test]
fn a_user_without_privileges_can_run_it() {
    let copy = Copy::of(UVS);
    let mut command = Command::new(&copy.0);
    command
        .args(["demo", "--requests", "20", "--mode", "nat,tun", "--json"])
        .uid(65534)
        .gid(65534);
    let output = command.output().unwrap();
    let report = report_of(&output);
    assert!(output.status.success(), "{}: {report:#}", output.status);
}

#[test]
fn an_interrupted_demo_ends_soon_and_tells_what_it_has() {
    for (signal, status) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let mut child = demo(&["--requests", "2000", "--json"]);
        // The first of sixteen measurements is done.
        let mut line = String::new();
        BufReader::new(child.stderr.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert!(
            line.starts_with("[1/16] nat IPv4 tcp: 2000 requests"),
            "{line}"
        );
        let begun = Instant::now();
        kill(pid(&child), signal).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(
            begun.elapsed() < Duration::from_secs(2),
            "{:?}",
            begun.elapsed()
        );
        assert_eq!(output.status.code(), Some(status));
        let report = report_of(&output);
        assert_eq!(report["interrupted"], true);
        assert_eq!(report["results"][0]["requests"], 2000);
    }
}

#[test]
fn a_killed_demo_leaves_nothing_behind() {
    let before = traces();
    let mut child = demo(&["--requests", "100000"]);
    wait_for_work(&mut child);
    let group = pid(&child);
    kill(group, Signal::SIGKILL).unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    assert_eq!(
        killpg(group, None),
        Err(Errno::ESRCH),
        "a process of the group is left"
    );
    assert_eq!(traces(), before);
}

#[test]
fn a_mistake_in_the_arguments_is_told_with_what_is_accepted() {
    let output = Command::new(UVS)
        .args(["demo", "--mode", "nta"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(
        message.contains("[possible values: nat, dr, tun, fullnat]"),
        "{message}"
    );
}

fn report_of(output: &Output) -> Value {
    let parsed = serde_json::from_slice(&output.stdout);
    parsed.unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// A demo in a process group of its own.
fn demo(arguments: &[&str]) -> Child {
    let mut command = Command::new(UVS);
    command.arg("demo").args(arguments).process_group(0);
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().try_into().unwrap())
}

/// Waits until clients and servers are at work.
fn wait_for_work(child: &mut Child) {
    let tasks = format!("/proc/{}/task", child.id());
    for _ in 0..200 {
        // The process's own namespace, the client's and three servers'; the director's as well.
        if namespaces_below(Path::new(&tasks)).len() >= 5 {
            return;
        }
        if child.try_wait().unwrap().is_some() {
            break;
        }
        sleep(Duration::from_millis(20));
    }
    let _ = child.kill();
    let mut message = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut message)
        .unwrap();
    panic!("the demo did not get to work: {message}");
}

fn namespaces_below(tasks: &Path) -> HashSet<PathBuf> {
    // Threads come and go while they are listed.
    let tasks = fs::read_dir(tasks).into_iter().flatten().flatten();
    tasks
        .flat_map(|task| fs::read_link(task.path().join("ns/net")))
        .collect()
}

/// What a namespace could be kept alive by, or seen by, outside its process: names, mounts and interfaces.
fn traces() -> BTreeSet<String> {
    let names = ["/run/netns", "/sys/class/net"]
        .into_iter()
        .flat_map(fs::read_dir)
        .flatten();
    let names = names
        .flatten()
        .map(|entry| entry.path().display().to_string());
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mounts = mounts
        .lines()
        .filter(|line| line.contains(" nsfs "))
        .map(str::to_owned);
    names.chain(mounts).collect()
}

/// A program where everybody may run it.
struct Copy(PathBuf);

impl Copy {
    fn of(program: &str) -> Copy {
        let copy = std::env::temp_dir().join(format!("uvs-demo-{}", std::process::id()));
        fs::copy(program, &copy).unwrap();
        Copy(copy)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
