//! sipp: phones, and the servers that they call.

use crate::process::{Process, eventually};
use crate::server::listens;
use cli::lab::Namespace;
use nix::sys::signal::Signal;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const START: Duration = Duration::from_secs(10);
const CALLS: Duration = Duration::from_secs(30);
/// New calls per second.
const RATE: u32 = 250;
/// From where one socket calls.
const PHONE_PORT: u16 = 5070;

/// What sipp counted.
#[derive(Clone, Copy, Debug)]
pub struct Calls {
    /// Calls that were begun, at either end.
    pub begun: u64,
    /// Calls that went as they should, to their end.
    pub good: u64,
    /// Calls that did not.
    pub failed: u64,
    /// Messages that were sent again.
    pub retransmissions: u64,
    /// Messages of calls that this end knows nothing of.
    pub strangers: u64,
}

/// What a phone sends from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sockets {
    /// One for all calls.
    One,
    /// One for each call.
    Each,
}

/// A server that takes calls.
#[derive(Debug)]
pub struct Server {
    process: Process,
    statistics: PathBuf,
}

impl Server {
    /// Starts it; its files are put in `folder`.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(namespace: &Namespace, folder: &Path, listen: SocketAddr) -> Server {
        let name = namespace.name();
        let scenario = folder.join(format!("{name}.xml"));
        fs::write(&scenario, server_scenario()).unwrap();
        let statistics = folder.join(format!("{name}.csv"));
        let mut command = sipp(namespace, listen, &statistics);
        command.arg("-sf").arg(scenario);
        let mut process = Process::spawn(command);
        let up = || listens(namespace, "udp", listen.port()).then_some(());
        assert!(
            eventually(START, up).is_some(),
            "sipp is not up on {listen}: {:?}",
            process.ended()
        );
        Server {
            process,
            statistics,
        }
    }

    /// Ends it once its calls are over; what it counted.
    ///
    /// # Panics
    /// When it does not end.
    #[must_use]
    pub fn finish(self) -> Calls {
        self.process.signal(Signal::SIGUSR1);
        let output = self.process.finish(CALLS);
        assert!(output.status.code().is_some(), "{output:?}");
        counted(&self.statistics)
    }
}

/// sipp's own server, which remembers a call that is over not for 4 s but for a fifth of one.
fn server_scenario() -> String {
    let output = Command::new("sipp").args(["-sd", "uas"]).output().unwrap();
    let scenario = String::from_utf8(output.stdout).unwrap();
    let patient = "timewait milliseconds=\"4000\"";
    assert!(scenario.contains(patient), "{scenario}");
    scenario.replace(patient, "timewait milliseconds=\"200\"")
}

/// A phone that calls.
#[derive(Debug)]
pub struct Phone {
    process: Process,
    statistics: PathBuf,
}

impl Phone {
    /// Starts to make calls of `length`, 250 a second. Its files are put in `folder`.
    ///
    /// # Panics
    /// When there is no sipp.
    #[must_use]
    pub fn start(
        (client, from): (&Namespace, IpAddr),
        folder: &Path,
        server: SocketAddr,
        sockets: Sockets,
        calls: u32,
        length: Duration,
    ) -> Phone {
        let statistics = folder.join("phone.csv");
        let mut command = sipp(client, (from, PHONE_PORT).into(), &statistics);
        command.args(["-sn", "uac", &server.to_string()]);
        let transport = match sockets {
            Sockets::One => "u1",
            Sockets::Each => "un",
        };
        command.args(["-t", transport, "-max_socket", "2000"]);
        command.args(["-m", &calls.to_string(), "-r", &RATE.to_string()]);
        // No call waits for another.
        command.args(["-l", &calls.to_string()]);
        command.args(["-d", &length.as_millis().to_string()]);
        command.args(["-timeout", "20s", "-timeout_error"]);
        Phone {
            process: Process::spawn(command),
            statistics,
        }
    }

    /// Waits until all calls are over; what it counted.
    ///
    /// # Panics
    /// When one failed.
    #[must_use]
    pub fn finish(self) -> Calls {
        let _ = self.process.finish(CALLS).success();
        counted(&self.statistics)
    }
}

fn sipp(namespace: &Namespace, at: SocketAddr, statistics: &Path) -> Command {
    let mut command = namespace.command("sipp");
    let address = match at.ip() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    };
    command.args(["-i", &address, "-p", &at.port().to_string()]);
    command.args(["-nostdin", "-fd", "1", "-trace_stat", "-stf"]);
    command.arg(statistics);
    command
}

/// The last line of sipp's table.
fn counted(statistics: &Path) -> Calls {
    let text = fs::read_to_string(statistics).unwrap();
    let names = text.lines().next().unwrap().split(';');
    let values = text.lines().last().unwrap().split(';');
    let columns: Vec<_> = names.zip(values).collect();
    let column = |name: &str| -> u64 {
        let found = columns.iter().find(|(of, _)| *of == name);
        let found = found.and_then(|(_, value)| value.parse().ok());
        found.unwrap_or_else(|| panic!("no {name}:\n{text}"))
    };
    Calls {
        begun: column("TotalCallCreated"),
        good: column("SuccessfulCall(C)"),
        failed: column("FailedCall(C)"),
        retransmissions: column("Retransmissions(C)"),
        strangers: column("OutOfCallMsgs(C)"),
    }
}
