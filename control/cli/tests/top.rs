//! `uvs top` in a terminal: what its keys do, and that the terminal is as before however it ends.

#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

#[path = "bed/mod.rs"]
mod bed;
#[path = "bed/terminal.rs"]
mod terminal;

use bed::Bed;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use terminal::Terminal;

const DIRECTOR: &str = r#"
[director]
connections = 1000
[port.lan]
driver = "memory"
addresses = ["10.1.0.1/24"]
[[service]]
listen = "tcp 10.0.0.100:80"
method = "nat"
[[service.server]]
address = "10.1.0.11:8080"
[[service.server]]
address = "10.1.0.12:8080"
[[service]]
listen = "udp 10.0.0.100:53"
method = "nat"
"#;

fn uvs(socket: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_uvs"));
    command.args(line.split_whitespace());
    command.env("UVS_SOCKET", socket).env_remove("NO_COLOR");
    command
}

fn start(terminal: &Terminal, socket: &Path) -> Child {
    terminal.spawn(&mut uvs(socket, "top --interval 100"))
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
}

#[test]
fn the_terminal_is_as_before_however_it_ends() {
    let bed = Bed::new(DIRECTOR);
    for end in ["q", "\u{3}", "TERM", "INT", "HUP", "QUIT"] {
        let mut terminal = Terminal::new(100, 30);
        terminal.assert_as_before();
        let mut top = start(&terminal, &bed.socket());
        terminal.wait_for("TCP 10.0.0.100:80 wlc");
        terminal.assert_taken();
        match format!("SIG{end}").parse() {
            Ok(named) => signal(&top, named),
            Err(_) => terminal.press(end),
        }
        let status = terminal.wait(&mut top);
        assert_eq!(status.code(), Some(0), "{end:?}");
        terminal.assert_as_before();
    }
}

#[test]
fn it_ends_when_its_terminal_goes() {
    let bed = Bed::new(DIRECTOR);
    let mut terminal = Terminal::new(100, 30);
    let mut top = start(&terminal, &bed.socket());
    terminal.wait_for("TCP 10.0.0.100:80 wlc");
    terminal.close();
    let since = Instant::now();
    while top.try_wait().unwrap().is_none() {
        if since.elapsed() > Duration::from_secs(10) {
            top.kill().unwrap();
            panic!("it goes on without a terminal");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn any_size_will_do() {
    let bed = Bed::new(DIRECTOR);
    let mut terminal = Terminal::new(10, 3);
    let mut top = start(&terminal, &bed.socket());
    terminal.wait_for("too small");
    // No key is too much for it.
    terminal.press("jks?xv/d\u{1b}");
    for (columns, rows) in [(1, 1), (0, 0), (60, 12), (300, 100), (10, 3)] {
        terminal.resize(columns, rows);
        signal(&top, Signal::SIGWINCH);
        std::thread::sleep(Duration::from_millis(150));
    }
    terminal.resize(80, 24);
    signal(&top, Signal::SIGWINCH);
    terminal.wait_for("UDP 10.0.0.100:53 wlc");
    terminal.wait_for("Drop reason");
    terminal.press("\u{3}");
    assert!(terminal.wait(&mut top).success());
    terminal.assert_as_before();
}

#[test]
fn services_are_sorted_filtered_and_drained() {
    let bed = Bed::new(DIRECTOR);
    let mut terminal = Terminal::new(100, 30);
    let mut top = start(&terminal, &bed.socket());
    terminal.wait_for("  10.1.0.12:8080");
    terminal.press("s");
    terminal.wait_for("s sort (conns/s)");
    terminal.press("r");
    terminal.wait_for("s sort (conns/s, reversed)");
    terminal.press("r/.12\r");
    terminal.wait_for("/ filter (.12)");
    assert!(!terminal.screen().contains("UDP 10.0.0.100:53"));
    terminal.press("jd");
    terminal.wait_for("Drain 10.1.0.12:8080 of TCP 10.0.0.100:80? Its weight becomes 0. y/n");
    terminal.press("n");
    terminal.wait_for("q quit");
    terminal.press("dy");
    terminal.wait_for("10.1.0.12:8080 of TCP 10.0.0.100:80: drained, 0 active, 0 inactive left");
    let listed = uvs(&bed.socket(), "service show").output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let of_it = listed
        .lines()
        .find(|line| line.contains("10.1.0.12"))
        .unwrap();
    assert!(of_it.contains("weight 0"), "{listed}");
    terminal.press("q");
    assert!(terminal.wait(&mut top).success());
}

#[test]
fn a_director_that_goes_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("s");
    let mut terminal = Terminal::new(100, 30);
    let mut top = start(&terminal, &socket);
    terminal.wait_for("No such file or directory");
    for _ in 0..2 {
        let bed = Bed::new(DIRECTOR);
        symlink(bed.socket(), &socket).unwrap();
        terminal.wait_for("packets/s");
        terminal.wait_for("TCP 10.0.0.100:80 wlc");
        drop(bed);
        std::fs::remove_file(&socket).unwrap();
        terminal.wait_for("NO CONNECTION: ");
    }
    terminal.press("q");
    assert!(terminal.wait(&mut top).success());
    terminal.assert_as_before();
}

#[test]
fn without_a_terminal_it_says_what_there_is_instead() {
    let output = uvs(Path::new("/nowhere"), "top")
        .stdin(Stdio::null())
        .output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        told.contains("accepted: a terminal, or `uvs list --rate`"),
        "{told}"
    );
}
