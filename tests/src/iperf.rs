//! iperf3: what it measures of one TCP connection, and of datagrams.

use crate::process::{Process, eventually};
use crate::server::listens;
use cli::lab::Namespace;
use serde_json::Value;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// How long a server may take to start.
const START: Duration = Duration::from_secs(10);
/// How long a run of two seconds may take.
const RUN: Duration = Duration::from_secs(20);

/// What iperf3 reports of one TCP connection.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    /// MB/s that arrived.
    pub rate: f64,
    /// Segments sent again.
    pub retransmits: u64,
    /// Segments of the largest size that the bytes sent would make.
    pub segments: u64,
}

/// One TCP connection for two seconds; `reverse`: the server sends.
///
/// # Panics
/// When it fails.
#[must_use]
pub(crate) fn stream(client: &Namespace, server: SocketAddr, reverse: bool) -> Stream {
    let mut arguments = vec!["--time", "2"];
    if reverse {
        arguments.push("--reverse");
    }
    let end = finish(start(client, server, &arguments));
    let sent = &end["sum_sent"];
    Stream {
        rate: number(&end["sum_received"]["bits_per_second"]) / 8e6,
        retransmits: whole(number(&sent["retransmits"])),
        segments: whole(number(&sent["bytes"]) / 1400.0),
    }
}

/// What iperf3 reports of datagrams.
#[derive(Clone, Copy, Debug)]
pub struct Datagrams {
    /// As many were sent.
    pub sent: u64,
    /// As many of them did not arrive.
    pub lost: u64,
}

/// Datagrams under way.
#[derive(Debug)]
pub struct Run(Process);

impl Run {
    /// Starts to send datagrams of `len` bytes for a second, 20 Mbit of them; `reverse`: the server sends. `from` is the
    /// client's address.
    ///
    /// # Panics
    /// When there is no iperf3.
    #[must_use]
    pub fn start(
        client: &Namespace,
        from: IpAddr,
        server: SocketAddr,
        len: u16,
        reverse: bool,
    ) -> Run {
        let (from, len) = (from.to_string(), len.to_string());
        let mut arguments = vec!["--udp", "--bind", &from, "--length", &len];
        // As much room as every kernel gives by itself, which counts it twice when asked.
        arguments.extend(["--bitrate", "20M", "--time", "1", "--window", "200K"]);
        if reverse {
            arguments.push("--reverse");
        }
        Run(start(client, server, &arguments))
    }

    /// Waits for the end.
    ///
    /// # Panics
    /// When it fails.
    #[must_use]
    pub fn finish(self) -> Datagrams {
        let sum = &finish(self.0)["sum"];
        Datagrams {
            sent: whole(number(&sum["packets"])),
            lost: whole(number(&sum["lost_packets"])),
        }
    }
}

/// How many packets the sockets of a namespace had no room for, those of UDP and those that unwrap tunnels: what is lost
/// there is no director's fault.
///
/// # Panics
/// When the kernel does not tell.
#[must_use]
pub fn overflowed(namespace: &Namespace) -> u64 {
    let read = |table: &str| {
        let path = format!("/proc/thread-self/net/{table}");
        fs::read_to_string(path).unwrap()
    };
    let [snmp, snmp6, raw, raw6] = namespace.run(|| ["snmp", "snmp6", "raw", "raw6"].map(read));
    let mut udp = snmp.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let names = udp.next().unwrap().split(' ');
    let ipv4 = names.zip(udp.next().unwrap().split(' '));
    let ipv4 = ipv4.filter(|(name, _)| *name == "RcvbufErrors");
    let ipv6 = snmp6
        .lines()
        .filter_map(|line| line.strip_prefix("Udp6RcvbufErrors"));
    // A line for each socket; the last column are drops.
    let raw = [&raw, &raw6]
        .into_iter()
        .flat_map(|table| table.lines().skip(1));
    let raw = raw.filter_map(|line| line.split_whitespace().last());
    let counts = ipv4.map(|(_, count)| count).chain(ipv6).chain(raw);
    counts
        .map(|count| count.trim().parse::<u64>().unwrap())
        .sum()
}

fn start(client: &Namespace, server: SocketAddr, arguments: &[&str]) -> Process {
    let (address, port) = (server.ip().to_string(), server.port().to_string());
    let mut command = client.command("iperf3");
    command.args(["--client", &address, "--port", &port]);
    command.args(["--connect-timeout", "3000", "--json"]);
    command.args(arguments);
    Process::spawn(command)
}

/// The `end` of the report.
fn finish(client: Process) -> Value {
    let text = client.finish(RUN).success();
    let mut report: Value = serde_json::from_str(&text).unwrap();
    report["end"].take()
}

fn number(value: &Value) -> f64 {
    let number = value.as_f64();
    number.unwrap_or_else(|| panic!("iperf3 reported otherwise: {value}"))
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "JSON knows no other numbers; these are whole and not negative"
)]
fn whole(number: f64) -> u64 {
    number as u64
}

/// iperf3 on one server, for one run.
///
/// # Panics
/// When it does not start.
#[must_use]
pub fn serve(namespace: &Namespace, listen: SocketAddr) -> Process {
    let (address, port) = (listen.ip().to_string(), listen.port().to_string());
    let mut process = Process::start(
        namespace,
        "iperf3",
        &["--server", "--one-off", "--bind", &address, "--port", &port],
    );
    // A connection that says nothing would confuse it, so the kernel is asked.
    let up = || listens(namespace, "tcp", listen.port()).then_some(());
    assert!(
        eventually(START, up).is_some(),
        "iperf3 is not up on {listen}: {:?}",
        process.ended()
    );
    process
}
