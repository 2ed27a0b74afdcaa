//! `uvs replay`: the director's own worker over a capture, without a network, root or waiting.
//!
//! A capture holds both sides of its link, so one port stands for all ports of the configuration, with the addresses of all.
//! Time is the capture's: timeouts pass as they did. Hosts that the director asks for by ARP or ND answer at once,
//! with a hardware address made of their IP address.

mod report;

pub use report::Report;

use conntrack::Ticks;
use control::config::{AnsweredBy, Configuration, Driver, Mistake, Pin, PortSettings, ReadError};
use control::{Director, StartError};
use dataplane::port::pcap::{Capture, CaptureError, PcapPort};
use dataplane::port::{Mac, PortId, PortInfo};
use dataplane::worker::Worker;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The name of the port that stands for all.
const PORT: &str = "capture";
/// Its hardware address.
const MAC: Mac = Mac([0x02, 0, 0, 0, 0, 1]);
/// Its MTU, where no frame of the capture is larger.
const MTU: u32 = 1500;
/// Bytes of an Ethernet header.
const ETHERNET_LEN: u32 = 14;
/// Steps in which time passes between two frames: one slot of the timer wheel.
const STEP: Duration = Duration::from_millis(160);
/// Longer gaps pass in this many steps.
const STEPS_MAX: u32 = 100_000;

/// `uvs replay`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The director's configuration; its drivers and interfaces do not matter.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// The capture to forward (pcap or pcapng, Ethernet).
    pub input: PathBuf,
    /// Where to write what the director sends (pcap).
    pub output: PathBuf,
}

/// Why a replay does not begin or end.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Configuration(#[from] ReadError),
    /// A capture cannot be read or written.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// There is no director for the configuration.
    #[error(transparent)]
    Start(#[from] StartError),
    /// What would be read would be overwritten.
    #[error("{}: is the input as well; accepted: another file", .0.display())]
    SameFile(PathBuf),
}

/// Forwards the frames of a capture. Returns the report and the warnings about the configuration.
///
/// # Errors
/// When a file cannot be used, or the output cannot be written.
pub fn run(options: &Options) -> Result<(Report, Vec<Mistake>), ReplayError> {
    let accepted = Configuration::from_file(&options.config)?;
    let capture = Arc::new(Capture::open(&options.input)?);
    if is_same_file(&options.input, &options.output) {
        return Err(ReplayError::SameFile(options.output.clone()));
    }
    let info = PortInfo {
        name: PORT.into(),
        mac: MAC,
        mtu: MTU.max(capture.frame_len_max().saturating_sub(ETHERNET_LEN)),
        driver: "pcap",
    };
    let director = Director::assemble(on_one_port(accepted.configuration), vec![info.clone()])?;
    let port = PcapPort::new(PortId(0), info, Arc::clone(&capture), false);
    let mut replay = Replay {
        worker: Worker::new(
            director.worker_parts(0, vec![port.write_to(&options.output)?]),
            Ticks(0),
        ),
        clock: Clock::starting(
            capture
                .frame(0)
                .map_or(Duration::ZERO, |frame| frame.timestamp),
        ),
        waited: 0,
        director,
    };
    let frames = replay.run(&progress(capture.len()))?;
    let report = Report::new(&replay.director, frames, capture.is_truncated());
    Ok((report, accepted.warnings))
}

struct Replay {
    director: Director,
    worker: Worker<PcapPort>,
    clock: Clock,
    /// Frames that have waited for a neighbour so far.
    waited: u64,
}

impl Replay {
    fn run(&mut self, progress: &ProgressBar) -> Result<usize, ReplayError> {
        let mut frames = 0;
        self.round();
        self.answer();
        while let Some(next) = self.port().next_timestamp() {
            self.pass_until(next);
            loop {
                let received = self.round();
                frames += received;
                self.answer_waiting();
                if received == 0 {
                    break;
                }
            }
            progress.set_position(frames as u64);
        }
        progress.finish_and_clear();
        self.port().finish()?;
        Ok(frames)
    }

    /// Lets time pass up to the next frame, timers firing on the way.
    fn pass_until(&mut self, next: Duration) {
        let gap = next.saturating_sub(self.clock.now);
        let step = STEP.max(gap / STEPS_MAX);
        while next.saturating_sub(self.clock.now) > step {
            self.clock.now += step;
            self.round();
        }
        // Captures are not always in order.
        self.clock.now = self.clock.now.max(next);
    }

    /// One round of the worker, at this moment of the capture.
    fn round(&mut self) -> usize {
        let now = self.clock.now;
        self.port().advance(now);
        self.worker.run_once(self.clock.ticks())
    }

    /// A frame that waits goes out before the next one comes in.
    fn answer_waiting(&mut self) {
        let waited = self
            .director
            .status()
            .workers
            .iter()
            .map(|worker| worker.waiting)
            .sum();
        if waited != self.waited {
            self.waited = waited;
            self.answer();
            self.clock.pass_tick();
            self.worker.run_once(self.clock.ticks());
        }
    }

    /// All hosts that the director wants to know answer.
    fn answer(&self) {
        let neighbours = self.director.neighbours();
        for (port, address, mac, _) in neighbours.list() {
            if mac.is_none() {
                neighbours.learn(port, address, mac_of(address), self.clock.ticks());
            }
        }
    }

    fn port(&mut self) -> &mut PcapPort {
        &mut self.worker.ports_mut()[0]
    }
}

/// The capture's time, and the director's, which never goes back.
struct Clock {
    start: Duration,
    now: Duration,
    /// Ticks by which the director is ahead.
    extra: u32,
}

impl Clock {
    /// A moment before the first frame, in which the worker gets ready.
    fn starting(first: Duration) -> Clock {
        let start = first.saturating_sub(STEP);
        Clock {
            start,
            now: start,
            extra: 0,
        }
    }

    fn ticks(&self) -> Ticks {
        let elapsed = self.now.saturating_sub(self.start).as_millis() / 10;
        // Ticks wrap after sixteen months; a longer capture would be misjudged.
        let elapsed = u32::try_from(elapsed).unwrap_or(u32::MAX);
        Ticks(elapsed.wrapping_add(self.extra))
    }

    fn pass_tick(&mut self) {
        self.extra += 1;
    }
}

/// The configuration with all ports' addresses on one port, for one worker.
fn on_one_port(mut configuration: Configuration) -> Configuration {
    let ports = std::mem::take(&mut configuration.ports);
    let answered_by = ports
        .first()
        .map_or(AnsweredBy::Uvs, |port| port.answered_by);
    configuration.ports = vec![PortSettings {
        name: PORT.into(),
        driver: Driver::Memory,
        addresses: ports.into_iter().flat_map(|port| port.addresses).collect(),
        answered_by,
    }];
    for route in &mut configuration.routes {
        if route.port.is_some() {
            route.port = Some(PORT.into());
        }
    }
    configuration.director.workers = 1;
    configuration.director.pin = Pin::Nowhere;
    configuration
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    let canonical = |path: &Path| path.canonicalize().ok();
    canonical(one).is_some() && canonical(one) == canonical(other)
}

/// A hardware address that shows whose it is.
fn mac_of(address: IpAddr) -> Mac {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            Mac([0x02, 0x04, a, b, c, d])
        }
        IpAddr::V6(address) => {
            let [.., a, b, c, d] = address.octets();
            Mac([0x02, 0x06, a, b, c, d])
        }
    }
}

fn progress(frames: usize) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} frames  {per_sec}  {eta} left");
    ProgressBar::new(frames as u64).with_style(style.expect("the template is right"))
}
