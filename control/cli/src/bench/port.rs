//! What is measured by which engine.

use super::{Error, Options, PortKind};
use benches::{BenchError, Case, Event};

/// The engine that an option names.
#[derive(Debug)]
pub(super) enum Engine {
    Memory,
    #[cfg(feature = "dpdk")]
    Dpdk(String),
}

impl Engine {
    /// Readies it for these cases.
    pub(super) fn new(options: &Options, cases: &[Case]) -> Result<Engine, Error> {
        let PortKind::Dpdk(device) = &options.port else {
            return Ok(Engine::Memory);
        };
        let refused = |reason: &str| Err(Error::Dpdk(reason.to_owned()));
        if options.workers != 1 {
            return refused("--workers: one worker is measured there");
        }
        if options.new_flows_per_second != 0 {
            return refused("--new-flows-per-second: the capture holds no newcomers");
        }
        if options.roofline {
            return refused("--roofline: it is measured over memory alone");
        }
        start(device.as_deref(), cases)
    }

    /// Measures a case.
    pub(super) fn run(
        &self,
        case: &Case,
        stop: &(dyn Fn() -> bool + Sync),
        tell: &mut dyn FnMut(Event),
    ) -> Result<(), BenchError> {
        match self {
            Engine::Memory => benches::run(case, stop, tell),
            #[cfg(feature = "dpdk")]
            Engine::Dpdk(device) => benches::dpdk::run(case, device, stop, tell),
        }
    }
}

#[cfg(feature = "dpdk")]
fn start(device: Option<&str>, cases: &[Case]) -> Result<Engine, Error> {
    benches::dpdk::start(cases).map_err(|error| Error::Dpdk(error.to_string()))?;
    let device = device.unwrap_or(benches::dpdk::DEVICE);
    Ok(Engine::Dpdk(device.to_owned()))
}

#[cfg(not(feature = "dpdk"))]
fn start(_: Option<&str>, _: &[Case]) -> Result<Engine, Error> {
    Err(Error::Dpdk(
        "this uvs was built without DPDK; build with --features dpdk (it needs libdpdk 22.11 or later)"
            .to_owned(),
    ))
}
