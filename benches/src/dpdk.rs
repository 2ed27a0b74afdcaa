//! A director on a device of DPDK: `net_pcap` hands in the capture over and over (`infinite_rx=1`: each packet a fresh copy) and drops
//! what it is to send. Another device may stand in its place; `CAPTURE` in its arguments is the capture's path.

use crate::captured::{self, Capture, Source};
use crate::case::{BenchError, Case};
use crate::director::PORT;
use crate::run::Event;
use dataplane::port::dpdk::{self, Config, DpdkPort, Settings};
use dataplane::port::handle::Opened;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// What is received from unless the caller says otherwise.
pub const DEVICE: &str = "net_pcap,rx_pcap=CAPTURE,infinite_rx=1";
/// Stands for the capture's path in a device's arguments.
const CAPTURE: &str = "CAPTURE";
/// Mbufs beside those that net_pcap keeps the capture in.
const MORE_MBUFS: u32 = 4096;
/// Bytes of an mbuf of 2 KiB with all that belongs to it, rounded up.
const MBUF_LEN: u64 = 2560;
/// Devices of a process must have different names.
static DEVICES: AtomicU32 = AtomicU32::new(0);

/// Begins DPDK for these cases: with huge pages where enough of them are free.
///
/// # Errors
/// When DPDK does not start.
pub fn start(cases: &[Case]) -> Result<(), BenchError> {
    let mbufs = cases.iter().map(mbufs).max().unwrap_or(MORE_MBUFS);
    let mib = (u64::from(mbufs) * MBUF_LEN).div_ceil(1 << 20) + 64;
    let huge_pages = free_huge_mib() >= mib;
    let memory_mib = u32::try_from(mib).ok().filter(|_| !huge_pages);
    dpdk::start(&Settings {
        huge_pages,
        memory_mib,
        ..Settings::default()
    })
    .map_err(|error| BenchError::Port(error.into()))
}

/// Free memory in huge pages of the usual size.
fn free_huge_mib() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let value = |name| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    let free = value("HugePages_Free:").zip(value("Hugepagesize:"));
    free.map_or(0, |(count, kib)| count * kib / 1024)
}

fn mbufs(case: &Case) -> u32 {
    captured::packets(case).saturating_add(MORE_MBUFS)
}

/// A device, by DPDK's words for it.
struct Device<'d>(&'d str);

impl Source for Device<'_> {
    type Port = DpdkPort;

    fn open(&mut self, case: &Case, capture: &Capture) -> Result<Opened<DpdkPort>, BenchError> {
        let (name, arguments) = self.0.split_once(',').unwrap_or((self.0, ""));
        let name = match self.0 {
            DEVICE => format!("{name}{}", DEVICES.fetch_add(1, Relaxed)),
            _ => name.to_owned(),
        };
        let path = capture.path().display().to_string();
        let device = format!("{name},{arguments}").replace(CAPTURE, &path);
        let config = Config {
            mbufs: mbufs(case),
            ..Config::new(PORT, device.trim_end_matches(','))
        };
        dpdk::open(&config).map_err(|error| BenchError::Port(error.into()))
    }
}

/// Measures the established packets of a case's flows, of each size, on one worker. [`start`] comes before.
///
/// # Errors
/// As [`captured::run`].
pub fn run(
    case: &Case,
    device: &str,
    stop: &(dyn Fn() -> bool + Sync),
    tell: &mut dyn FnMut(Event),
) -> Result<(), BenchError> {
    captured::run(case, &mut Device(device), stop, tell)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::captured::tests::{cases, forwards_all};

    /// One test, because DPDK starts once in a process.
    #[test]
    fn every_method_forwards_all_packets_of_the_capture_and_a_device_without_them_is_an_error() {
        let cases = cases();
        start(&cases).unwrap();
        for case in &cases {
            forwards_all(case, &mut Device(DEVICE));
        }
        let lost = run(&cases[0], "net_null0", &|| false, &mut |_| {}).unwrap_err();
        assert!(lost.to_string().contains("packets forwarded"), "{lost}");
        let missing = run(&cases[0], "net_nonsense0", &|| false, &mut |_| {}).unwrap_err();
        assert!(matches!(missing, BenchError::Port(_)), "{missing}");
    }
}
