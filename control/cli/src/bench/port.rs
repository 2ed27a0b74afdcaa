//! What is measured by which engine.

use super::link::{Driver, FRAME_LEN_MAX, Link};
use super::{Error, Options, PortKind};
use benches::captured::{self, Pcap};
use benches::{BenchError, Case, Event, Size};

/// The engine that an option names.
#[derive(Debug)]
pub(super) enum Engine {
    Memory,
    Pcap,
    Link(Link),
    #[cfg(feature = "dpdk")]
    Dpdk(String),
}

impl Engine {
    /// Readies it for these cases.
    pub(super) fn new(options: &Options, cases: &[Case]) -> Result<Engine, Error> {
        if options.port != PortKind::Memory {
            check(options)?;
        }
        match &options.port {
            PortKind::Memory => Ok(Engine::Memory),
            PortKind::Pcap => Ok(Engine::Pcap),
            PortKind::AfPacket => link(options, Driver::AfPacket),
            PortKind::AfXdp => link(options, Driver::AfXdp),
            PortKind::Dpdk(device) => start(device.as_deref(), cases),
        }
    }

    /// Measures a case.
    pub(super) fn run(
        &mut self,
        case: &Case,
        stop: &(dyn Fn() -> bool + Sync),
        tell: &mut dyn FnMut(Event),
    ) -> Result<(), BenchError> {
        match self {
            Engine::Memory => benches::run(case, stop, tell),
            Engine::Pcap => captured::run(case, &mut Pcap, stop, tell),
            Engine::Link(link) => captured::run(case, link, stop, tell),
            #[cfg(feature = "dpdk")]
            Engine::Dpdk(device) => benches::dpdk::run(case, device, stop, tell),
        }
    }
}

/// Refuses what is measured over memory alone.
fn check(options: &Options) -> Result<(), Error> {
    let refused = |reason: &str| Err(refusal(options, reason));
    if options.workers != 1 {
        return refused("--workers: one worker is measured there");
    }
    if options.new_flows_per_second != 0 {
        return refused("--new-flows-per-second: the capture holds no newcomers");
    }
    if options.roofline {
        return refused("--roofline: it is measured over memory alone");
    }
    Ok(())
}

fn refusal(options: &Options, reason: &str) -> Error {
    Error::Port {
        port: options.port.to_string(),
        reason: reason.to_owned(),
    }
}

fn link(options: &Options, driver: Driver) -> Result<Engine, Error> {
    let too_long = |size: &&Size| matches!(size, Size::Bytes(len) if *len > FRAME_LEN_MAX);
    if let Some(size) = options.sizes.iter().find(too_long) {
        let reason = format!("--size {size}: accepted: at most {FRAME_LEN_MAX}");
        return Err(refusal(options, &reason));
    }
    let link = Link::new(driver).map_err(|error| refusal(options, &error.to_string()))?;
    Ok(Engine::Link(link))
}

#[cfg(feature = "dpdk")]
fn start(device: Option<&str>, cases: &[Case]) -> Result<Engine, Error> {
    benches::dpdk::start(cases).map_err(|error| failed(&error.to_string()))?;
    let device = device.unwrap_or(benches::dpdk::DEVICE);
    Ok(Engine::Dpdk(device.to_owned()))
}

#[cfg(not(feature = "dpdk"))]
fn start(_: Option<&str>, _: &[Case]) -> Result<Engine, Error> {
    Err(failed(
        "this uvs was built without DPDK; build with --features dpdk (it needs libdpdk 22.11 or later)",
    ))
}

fn failed(reason: &str) -> Error {
    Error::Port {
        port: "dpdk".to_owned(),
        reason: reason.to_owned(),
    }
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
    fn a_port_is_a_driver_or_of_dpdk_with_a_device_or_without() {
        assert!(matches!(engine(&["--port", "pcap"]), Ok(Engine::Pcap)));
        assert!(matches!(engine(&[]), Ok(Engine::Memory)));
        assert!(matches!(engine(&["--port", "memory"]), Ok(Engine::Memory)));
        let parsed = |text: &str| text.parse::<PortKind>();
        assert_eq!(parsed("dpdk"), Ok(PortKind::Dpdk(None)));
        let device = "net_pcap0,rx_pcap=a:b".to_owned();
        assert_eq!(
            parsed("dpdk:net_pcap0,rx_pcap=a:b"),
            Ok(PortKind::Dpdk(Some(device)))
        );
        for wrong in ["", "dpdk:", "memory:", "netmap", "pcap:x", "DPDK"] {
            let told = engine(&["--port", wrong]).expect_err(wrong);
            assert!(
                told.contains("accepted: memory, pcap, af_packet, af_xdp, dpdk"),
                "{told}"
            );
        }
    }

    #[test]
    fn what_is_measured_over_memory_alone_is_told() {
        for port in ["pcap", "af_packet", "af_xdp", "dpdk"] {
            for arguments in [
                &["--workers", "2"][..],
                &["--new-flows-per-second", "5"],
                &["--roofline"],
            ] {
                let told = engine(&[&["--port", port], arguments].concat()).expect_err("refused");
                assert!(told.contains(arguments[0]) && told.contains(port), "{told}");
            }
        }
        let told = engine(&["--port", "af_xdp", "--size", "3501"]).expect_err("refused");
        assert!(
            told.contains("--size 3501: accepted: at most 3500"),
            "{told}"
        );
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
