//! `uvs demo`: real clients and real servers through the director, in every way it can forward.
//!
//! For each method a [`Topology`] is made, the director started in it, and requests sent to the virtual services, TCP
//! and UDP over IPv4 and IPv6. A request counts as served only if the answer proves the way it took.

mod director;
mod interrupt;
mod measure;
mod progress;
mod report;
mod traffic;

pub use director::{DirectorError, LIPS, SERVERS, WEIGHTS, configuration};
pub use interrupt::Interrupt;
pub use measure::{Failure, Measurement, Protocol};
pub use report::Report;
pub use traffic::drive;

use crate::lab::{Family, LabError, Method, Topology};
use director::Director;
use progress::Progress;
use std::time::Instant;

/// What the demo is to do.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Requests for each method, family and protocol.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub requests: u32,
    /// Only these ways of forwarding.
    #[arg(long = "mode", value_name = "MODE", value_delimiter = ',', value_enum,
          default_values_t = Method::ALL)]
    pub methods: Vec<Method>,
    /// Only these IP versions.
    #[arg(long = "family", value_name = "FAMILY", value_delimiter = ',', value_enum,
          default_values_t = Family::ALL)]
    pub families: Vec<Family>,
    /// Packet threads of the director.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub workers: u8,
    /// Print the results as JSON instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// Why the demo could not be run to its end.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The network could not be made.
    #[error("the demo's network: {0}")]
    Lab(#[from] LabError),
    /// The director did not start.
    #[error("the director: {0}")]
    Director(#[from] DirectorError),
}

/// Runs the demo. An interrupted one ends early, with what was measured until then.
///
/// # Errors
/// When the network or the director could not be set up. Requests that fail are no error: they are in the report.
pub fn run(options: &Options, interrupt: &Interrupt) -> Result<Report, DemoError> {
    let started = Instant::now();
    let rounds = options.methods.len() * options.families.len() * Protocol::ALL.len();
    let mut progress = Progress::new(rounds, options.requests);
    let mut measurements = Vec::with_capacity(rounds);
    for method in &options.methods {
        if interrupt.signal().is_none() {
            measure(
                *method,
                options,
                interrupt,
                &mut progress,
                &mut measurements,
            )?;
        }
    }
    progress.finish();
    let interrupted = interrupt.signal().is_some();
    Ok(Report {
        measurements,
        requests_each: options.requests,
        interrupted,
        elapsed: started.elapsed(),
    })
}

/// Adds the measurements of one method, of both families and protocols.
fn measure(
    method: Method,
    options: &Options,
    interrupt: &Interrupt,
    progress: &mut Progress,
    measurements: &mut Vec<Measurement>,
) -> Result<(), DemoError> {
    let topology = Topology::new(method, &options.families, SERVERS)?;
    let director = Director::start(&topology, &options.families, options.workers)?;
    for family in &options.families {
        for protocol in Protocol::ALL {
            if interrupt.signal().is_some() {
                return Ok(());
            }
            let measurement = Measurement::new(method, *family, protocol);
            progress.begin(&measurement);
            let tunnelled_before = topology.tunnelled();
            let step = || progress.step();
            let mut measurement = drive(&topology, measurement, options.requests, interrupt, step)?;
            measurement.tunnelled = topology.tunnelled() - tunnelled_before;
            progress.end(&measurement);
            measurements.push(measurement);
        }
    }
    director.stop();
    Ok(())
}
