//! curl and wrk in the client's namespace, and what they report.

use crate::payload::Payload;
use crate::process::{Output, Process, eventually};
use cli::lab::Namespace;
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long wrk may take for its requests.
const WRK: Duration = Duration::from_secs(60);
/// How long a transfer of the payload may take.
const TRANSFER: Duration = Duration::from_secs(60);
/// How long curl may take for many small requests.
const SMALL: Duration = Duration::from_secs(60);

/// Whether a connection is used for one request or for as many as there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connections {
    /// A connection for each request.
    Close,
    /// All requests over the same few connections.
    KeepAlive,
}

/// What wrk reports.
#[derive(Clone, Debug, Default)]
pub struct Load {
    /// Responses with status 200.
    pub good: u64,
    /// Errors by kind: connect, read, write, status (not 200), timeout.
    pub errors: BTreeMap<String, u64>,
    /// Responses per body.
    pub bodies: BTreeMap<String, u64>,
    /// From the first request to the last.
    pub seconds: f64,
}

impl Load {
    /// Good responses per second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        #[allow(clippy::cast_precision_loss, reason = "for people")]
        let good = self.good as f64;
        good / self.seconds
    }

    /// # Panics
    /// When a request failed, or fewer than `requests` succeeded.
    pub fn assert_flawless(&self, requests: u64) {
        assert!(
            self.errors.values().all(|count| *count == 0) && self.good >= requests,
            "{requests} requests were to succeed: {self:?}"
        );
    }
}

/// wrk at work.
#[derive(Debug)]
pub struct Wrk {
    process: Process,
    folder: TempDir,
}

impl Wrk {
    /// Starts 32 connections that ask for `url` until `requests` were answered, or a minute has passed.
    ///
    /// # Panics
    /// When there is no wrk.
    #[must_use]
    pub fn start(client: &Namespace, url: &str, connections: Connections, requests: u64) -> Wrk {
        Wrk::run(client, url, connections, &script_text(requests))
    }

    /// Starts 32 clients that make a connection for each request for `url` and take a rest before each, for a minute.
    ///
    /// # Panics
    /// When there is no wrk.
    #[must_use]
    pub fn start_slowly(client: &Namespace, url: &str) -> Wrk {
        let rest = "function delay() return 40 end\n";
        let script = script_text(u64::from(u32::MAX)) + rest;
        Wrk::run(client, url, Connections::Close, &script)
    }

    fn run(client: &Namespace, url: &str, connections: Connections, text: &str) -> Wrk {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("script.lua");
        fs::write(&script, text).unwrap();
        let mut command = client.command("wrk");
        command.args(["--threads", "1", "--connections", "32", "--timeout", "5s"]);
        command.args(["--duration", &format!("{}s", WRK.as_secs())]);
        if connections == Connections::Close {
            command.args(["--header", "Connection: close"]);
        }
        command.arg("--script").arg("script.lua").arg(url);
        command.current_dir(folder.path());
        Wrk {
            process: Process::spawn(command),
            folder,
        }
    }

    /// Whether all requests are answered.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.folder.path().join("done").exists()
    }

    /// What it reports once all requests are answered.
    ///
    /// # Panics
    /// When it does not end.
    #[must_use]
    pub fn finish(mut self) -> Load {
        let ended = || (self.is_done() || self.process.ended().is_some()).then_some(());
        // Without a signal it sleeps until its time is over, whatever its threads have left to do.
        if eventually(WRK, ended).is_some() && self.process.ended().is_none() {
            self.process.signal(Signal::SIGINT);
        }
        self.report()
    }

    /// Stops it now; what it reports.
    ///
    /// # Panics
    /// When it has ended before.
    #[must_use]
    pub fn stop(mut self) -> Load {
        assert!(self.process.ended().is_none(), "wrk ended by itself");
        self.process.signal(Signal::SIGINT);
        self.report()
    }

    fn report(self) -> Load {
        let text = self.process.finish(Duration::from_secs(10)).success();
        let mut load = Load::default();
        for line in text.lines() {
            let words: Vec<_> = line.splitn(3, ' ').collect();
            match words[..] {
                ["uvs-seconds", seconds] => load.seconds = seconds.parse().unwrap(),
                ["uvs-good", count] => load.good = count.parse().unwrap(),
                ["uvs-error", kind, count] => {
                    load.errors.insert(kind.to_owned(), count.parse().unwrap());
                }
                ["uvs-body", count, body] => {
                    load.bodies.insert(body.to_owned(), count.parse().unwrap());
                }
                _ => {}
            }
        }
        assert_eq!(load.errors.len(), 5, "wrk reported otherwise:\n{text}");
        load
    }
}

/// Requests for `url` by wrk, and what came of them.
#[must_use]
pub fn wrk(client: &Namespace, url: &str, connections: Connections, requests: u64) -> Load {
    Wrk::start(client, url, connections, requests).finish()
}

/// wrk counts time, not requests, so the script stops it. Its own status errors begin at 400: here all but 200 count.
fn script_text(requests: u64) -> String {
    format!(
        r#"local threads = {{}}
function setup(thread) table.insert(threads, thread) end
function init() good, bad, bodies = 0, 0, {{}} end
function response(status, headers, body)
  if status == 200 then good = good + 1 else bad = bad + 1 end
  local first = string.match(body, "^%S*")
  bodies[first] = (bodies[first] or 0) + 1
  if good + bad == {requests} then
    wrk.thread:stop()
    io.open("done", "w"):close()
  end
end
function done(summary, latency, requests)
  local thread = threads[1]
  print("uvs-seconds " .. summary.duration / 1e6)
  print("uvs-good " .. thread:get("good"))
  print("uvs-error status " .. thread:get("bad"))
  for _, kind in ipairs({{"connect", "read", "write", "timeout"}}) do
    print("uvs-error " .. kind .. " " .. summary.errors[kind])
  end
  for body, count in pairs(thread:get("bodies")) do print("uvs-body " .. count .. " " .. body) end
end
"#
    )
}

/// The bodies of `count` requests, one connection each, one after the other. `path` without the leading slash.
///
/// # Panics
/// When one of them fails.
#[must_use]
pub fn ask(client: &Namespace, server: SocketAddr, path: &str, count: u32) -> Vec<String> {
    let text = try_ask(client, server, path, count).success();
    let bodies: Vec<_> = text.lines().map(str::to_owned).collect();
    assert_eq!(bodies.len(), count as usize, "{text}");
    bodies
}

/// As [`ask`], whatever comes of it. curl ends at the first failure; a connection may take two seconds.
#[must_use]
pub fn try_ask(client: &Namespace, server: SocketAddr, path: &str, count: u32) -> Output {
    let url = format!("http://{server}/{path}?[1-{count}]");
    // The brackets of an IPv6 address are no range.
    let url = url.replace("http://[", "http://\\[").replace("]:", "\\]:");
    let mut command = client.command("curl");
    command.args(["--silent", "--show-error", "--fail", "--fail-early"]);
    command.args(["--connect-timeout", "2", "--max-time", "10"]);
    command.args(["--header", "Connection: close", &url]);
    Process::spawn(command).finish(SMALL)
}

/// A download under way.
#[derive(Debug)]
pub struct Download {
    curl: Process,
    sum: Process,
    started: Instant,
}

impl Download {
    /// Starts to download `url`.
    ///
    /// # Panics
    /// When there is no curl.
    #[must_use]
    pub fn start(client: &Namespace, url: &str) -> Download {
        let (reader, writer) = std::io::pipe().unwrap();
        let started = Instant::now();
        let mut curl = client.command("curl");
        curl.args(["--silent", "--show-error", "--fail"]);
        curl.args(["--connect-timeout", "5", "--max-time"]);
        curl.arg(TRANSFER.as_secs().to_string()).arg(url);
        let curl = Process::spawn_to(curl, Stdio::from(writer));
        let sum = Process::spawn_reading(client.command("sha256sum"), Stdio::from(reader));
        Download { curl, sum, started }
    }

    /// Whether it has ended, well or not.
    pub fn ended(&mut self) -> bool {
        self.curl.ended().is_some()
    }

    /// Waits for its end; MB/s.
    ///
    /// # Panics
    /// When it fails, or what came is not the payload.
    #[must_use]
    pub fn finish(self) -> f64 {
        let _ = self.curl.finish(TRANSFER).success();
        let sum = self.sum.finish(TRANSFER).success();
        let rate = rate(self.started);
        assert_eq!(
            sum.split(' ').next(),
            Some(Payload::large().sha256.as_str()),
            "what was downloaded is something else"
        );
        rate
    }
}

/// Puts the payload to `url`; MB/s.
///
/// # Panics
/// When it fails.
#[must_use]
pub fn upload(client: &Namespace, url: &str) -> f64 {
    let started = Instant::now();
    let mut curl = client.command("curl");
    curl.args(["--silent", "--show-error", "--fail"]);
    curl.args(["--connect-timeout", "5", "--max-time"]);
    curl.arg(TRANSFER.as_secs().to_string());
    curl.arg("--upload-file").arg(Payload::large().path());
    // Otherwise curl waits a second for leave to send.
    curl.args(["--header", "Expect:", url]);
    let _ = Process::spawn(curl).finish(TRANSFER).success();
    rate(started)
}

fn rate(started: Instant) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "for people")]
    let megabytes = Payload::large().len as f64 / 1e6;
    megabytes / started.elapsed().as_secs_f64()
}
