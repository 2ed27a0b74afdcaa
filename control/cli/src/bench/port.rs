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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        options: Options,
    }

    fn engine(arguments: &[&str]) -> Result<Engine, String> {
        let arguments = [&["bench"], arguments].concat();
        let command = Command::try_parse_from(arguments).map_err(|error| error.to_string())?;
        Engine::new(&command.options, &[]).map_err(|error| error.to_string())
    }

    #[test]
    fn a_port_is_memory_or_of_dpdk_with_a_device_or_without() {
        assert!(matches!(engine(&[]), Ok(Engine::Memory)));
        assert!(matches!(engine(&["--port", "memory"]), Ok(Engine::Memory)));
        let parsed = |text: &str| text.parse::<PortKind>();
        assert_eq!(parsed("dpdk"), Ok(PortKind::Dpdk(None)));
        let device = "net_pcap0,rx_pcap=a:b".to_owned();
        assert_eq!(
            parsed("dpdk:net_pcap0,rx_pcap=a:b"),
            Ok(PortKind::Dpdk(Some(device)))
        );
        for wrong in ["", "dpdk:", "memory:", "af_packet", "DPDK"] {
            let told = engine(&["--port", wrong]).expect_err(wrong);
            assert!(told.contains("accepted: memory, dpdk"), "{told}");
        }
    }

    #[test]
    fn what_dpdk_does_not_measure_is_told() {
        for arguments in [["--workers", "2"], ["--new-flows-per-second", "5"]] {
            let told =
                engine(&[&["--port", "dpdk"], &arguments[..]].concat()).expect_err("refused");
            assert!(told.contains(arguments[0]), "{told}");
        }
        let told = engine(&["--port", "dpdk", "--roofline"]).expect_err("refused");
        assert!(told.contains("--roofline"), "{told}");
    }

    #[cfg(not(feature = "dpdk"))]
    #[test]
    fn a_build_without_dpdk_says_so() {
        let told = engine(&["--port", "dpdk"]).expect_err("there is none");
        assert!(
            told.contains("built without DPDK") && told.contains("--features dpdk"),
            "{told}"
        );
    }
}
