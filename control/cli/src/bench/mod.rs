//! `uvs bench`: how fast the director is on this machine, without a network.
//!
//! The engine is the crate `benches`; here are its arguments, what the user sees meanwhile, and the results as a table, as
//! JSON and as a picture.

mod link;
mod plot;
mod port;
mod progress;
mod report;

pub use report::Report;

use crate::demo::Interrupt;
use crate::lab::Method;
use benches::{BenchError, Case, Event, Family, Measurement, Size};
use progress::Progress;
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// The shortest and the longest measurement, seconds.
const SECONDS: (f64, f64) = (0.01, 3600.0);

/// `uvs bench`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Ways of forwarding.
    #[arg(long = "mode", value_name = "MODE", value_delimiter = ',', value_enum,
          default_values_t = Method::ALL)]
    pub methods: Vec<Method>,
    /// Numbers of connections.
    #[arg(long, value_name = "COUNT", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..),
          default_values_t = [1000, 64_000, 1_000_000])]
    pub flows: Vec<u32>,
    /// Frames: their length in bytes, checksum sequence included, or imix (seven of 64, four of 594, one of 1518).
    #[arg(
        long = "size",
        value_name = "SIZE",
        value_delimiter = ',',
        default_value = "64"
    )]
    pub sizes: Vec<Size>,
    /// IP versions.
    #[arg(
        long = "family",
        value_name = "FAMILY",
        value_delimiter = ',',
        value_enum,
        default_value = "ipv4"
    )]
    pub families: Vec<IpVersion>,
    /// Threads of the director.
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub workers: u16,
    /// Whether a server's packets meet another worker than its client's, where there are several and packets of both pass.
    #[arg(long, value_name = "true|false", default_value_t = true, action = clap::ArgAction::Set)]
    pub cross: bool,
    /// SYNs of new clients in every second of established traffic.
    #[arg(long, value_name = "COUNT", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=100_000_000))]
    pub new_flows_per_second: u32,
    /// How long each measurement takes; 0.01 to 3600.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    pub seconds: Duration,
    /// What the packets come by and go by.
    ///
    /// memory: frames are written where they are received, and only counted where they are sent. All others get a capture of
    /// a packet of every flow and direction, over and over. pcap: read by uvs itself. af_packet, af_xdp: sent by another
    /// thread over a veth pair, which is made for it (as root). dpdk: from DPDK's net_pcap. dpdk:DEVICE: another device of
    /// DPDK; CAPTURE in its arguments is that capture's path.
    #[arg(long, value_name = "PORT", default_value = "memory")]
    pub port: PortKind,
    /// Measure beside the director what reading and summing the same frames costs, and fetching two random cache lines
    /// for each: the floor to compare with.
    #[arg(long)]
    pub roofline: bool,
    /// Write the results to a file, as a JSON list.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Draw packets per second over connections into a file, as SVG.
    #[arg(long, value_name = "FILE.svg")]
    pub plot: Option<PathBuf>,
}

/// An IP version, by the name it has in the results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum IpVersion {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

/// A driver that can be measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortKind {
    /// Frames are written where they are received, and only counted where they are sent.
    Memory,
    /// A capture, over and over.
    Pcap,
    /// A veth pair, by a packet socket.
    AfPacket,
    /// A veth pair, by an AF_XDP socket.
    AfXdp,
    /// A device of DPDK; `None`: a capture over and over.
    Dpdk(Option<String>),
}

/// Why a text is no port.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "accepted: memory, pcap, af_packet, af_xdp, dpdk, or dpdk:DEVICE such as dpdk:net_pcap0,rx_pcap=CAPTURE,infinite_rx=1"
)]
pub struct PortError;

impl FromStr for PortKind {
    type Err = PortError;

    fn from_str(text: &str) -> Result<PortKind, PortError> {
        match text.split_once(':').unwrap_or((text, "")) {
            ("memory", "") if !text.contains(':') => Ok(PortKind::Memory),
            ("pcap", "") if !text.contains(':') => Ok(PortKind::Pcap),
            ("af_packet", "") if !text.contains(':') => Ok(PortKind::AfPacket),
            ("af_xdp", "") if !text.contains(':') => Ok(PortKind::AfXdp),
            ("dpdk", "") if !text.contains(':') => Ok(PortKind::Dpdk(None)),
            ("dpdk", device) if !device.is_empty() => Ok(PortKind::Dpdk(Some(device.to_owned()))),
            _ => Err(PortError),
        }
    }
}

impl fmt::Display for PortKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PortKind::Memory => f.write_str("memory"),
            PortKind::Pcap => f.write_str("pcap"),
            PortKind::AfPacket => f.write_str("af_packet"),
            PortKind::AfXdp => f.write_str("af_xdp"),
            PortKind::Dpdk(None) => f.write_str("dpdk"),
            PortKind::Dpdk(Some(device)) => write!(f, "dpdk:{device}"),
        }
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let (min, max) = SECONDS;
    let seconds = text.parse().ok();
    seconds
        .filter(|seconds| (min..=max).contains(seconds))
        .map(Duration::from_secs_f64)
        .ok_or_else(|| format!("accepted: {min} to {max}"))
}

/// Why the bench did not begin or end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Some worker would have nothing to do.
    #[error("--flows {flows}: fewer than the {workers} workers; accepted: {workers} or more")]
    Flows {
        /// How many there were to be.
        flows: u32,
        /// How many workers share them.
        workers: u16,
    },
    /// What cannot be measured over a port.
    #[error("--port {port}: {reason}")]
    Port {
        /// The port.
        port: String,
        /// Why.
        reason: String,
    },
    /// A result cannot be written.
    #[error("{}: {error}", path.display())]
    File {
        /// Where it was to be written.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The director was not measured.
    #[error("{mode} {family}, {flows} flows: {error}")]
    Bench {
        /// How it was to forward.
        mode: &'static str,
        /// Over which IP version.
        family: &'static str,
        /// How many connections it was to have.
        flows: u32,
        /// Why.
        error: BenchError,
    },
}

/// Measures every combination that is asked for. An interrupted bench ends early, with what was measured until then.
///
/// # Errors
/// Arguments that do not go together, before anything is done; a director that could not be measured; or a file that
/// could not be written.
pub fn run(options: &Options, interrupt: &Interrupt) -> Result<Report, Error> {
    let cases = cases(options)?;
    // A name that cannot be written to is known before the work is done.
    let json = open(options.json.as_deref())?;
    let plot = open(options.plot.as_deref())?;
    let mut kind = port::Engine::new(options, &cases)?;
    let mut progress = Progress::new(cases.len() * (1 + options.sizes.len()));
    let mut measurements: Vec<Measurement> = Vec::new();
    let mut failure = None;
    for case in &cases {
        let mut tell = |event| match event {
            Event::Step(step) => progress.step(case, &step),
            Event::Measured(measurement) => {
                progress.measured();
                measurements.push(*measurement);
            }
        };
        match kind.run(case, &|| interrupt.signal().is_some(), &mut tell) {
            Ok(()) => {}
            Err(BenchError::Interrupted) => break,
            Err(error) => {
                failure = Some(Error::Bench {
                    mode: report::mode(case.method),
                    family: case.family.name(),
                    flows: case.flows,
                    error,
                });
                break;
            }
        }
    }
    progress.finish();
    let report = Report {
        measurements,
        new_flows_per_second: options.new_flows_per_second,
        interrupted: interrupt.signal().is_some(),
        notes: notes(options),
    };
    if let Some(json) = json {
        json.write(&format!("{:#}\n", report.json()))?;
    }
    if let Some(plot) = plot {
        plot.write(&plot::svg(&report.measurements, &cpu_model()))?;
    }
    match failure {
        Some(failure) => {
            // What was measured before is not lost.
            let _ = io::stdout().write_all(report.to_string().as_bytes());
            Err(failure)
        }
        None => Ok(report),
    }
}

fn cases(options: &Options) -> Result<Vec<Case>, Error> {
    let workers = options.workers;
    if let Some(&flows) = options
        .flows
        .iter()
        .find(|&&flows| flows < u32::from(workers))
    {
        return Err(Error::Flows { flows, workers });
    }
    let mut cases = Vec::new();
    for family in &options.families {
        for method in &options.methods {
            for &flows in &options.flows {
                cases.push(Case {
                    method: of_connections(*method),
                    family: match family {
                        IpVersion::Ipv4 => Family::V4,
                        IpVersion::Ipv6 => Family::V6,
                    },
                    flows,
                    workers,
                    sizes: options.sizes.clone(),
                    time: options.seconds,
                    new_flows_per_second: options.new_flows_per_second,
                    cross: options.cross && workers > 1,
                    roofline: options.roofline,
                });
            }
        }
    }
    Ok(cases)
}

fn of_connections(method: Method) -> conntrack::Method {
    match method {
        Method::Nat => conntrack::Method::Nat,
        Method::Dr => conntrack::Method::Dr,
        Method::Tun => conntrack::Method::Tun,
        Method::FullNat => conntrack::Method::FullNat,
    }
}

/// What makes the figures worth less than they could be.
fn notes(options: &Options) -> Vec<String> {
    let mut notes = Vec::new();
    if cfg!(debug_assertions) {
        notes.push(
            "This uvs was built without optimisation: its figures say nothing. Use cargo build --release.".to_owned(),
        );
    }
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    if usize::from(options.workers) > cores {
        let workers = options.workers;
        notes.push(format!("{workers} workers took turns on {cores} cores."));
    }
    notes
}

/// A file that is to be written at the end.
struct Output<'a> {
    path: &'a Path,
    file: File,
}

impl Output<'_> {
    fn write(mut self, text: &str) -> Result<(), Error> {
        self.file
            .write_all(text.as_bytes())
            .map_err(|error| Error::File {
                path: self.path.to_owned(),
                error,
            })
    }
}

fn open(path: Option<&Path>) -> Result<Option<Output<'_>>, Error> {
    path.map(|path| match File::create(path) {
        Ok(file) => Ok(Output { path, file }),
        Err(error) => Err(Error::File {
            path: path.to_owned(),
            error,
        }),
    })
    .transpose()
}

/// The machine's processor, as the system calls it.
fn cpu_model() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    model.map_or_else(
        || std::env::consts::ARCH.to_owned(),
        |(_, model)| model.trim().to_owned(),
    )
}
