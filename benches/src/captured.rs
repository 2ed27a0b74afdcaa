//! A director on a port that has to be given packets: those of the flows are written into a capture, which comes over and over.
//!
//! ```text
//!   worker 0, memory port: SYNs and handshakes make the connections
//!   capture: a packet of every flow (with nat and fullnat one of each direction), in random order
//!   another, its port:     receive what a Source makes of the capture ─▶ forward
//! ```

use crate::case::{BenchError, Case, Family, Measurement, Phase, Share};
use crate::crew::{Member, SLICE, Shared, begin, cpu_time, histogram, play};
use crate::director::{Director, PORT};
use crate::frames::{ACK, Record, SYN};
use crate::place::Ip;
use crate::roofline::pass;
use crate::run::{Event, check};
use crate::traffic::{Flow, Random, flows_of, newcomers, one_of_each};
use conntrack::{Direction, V4, V6};
use dataplane::port::handle::Opened;
use dataplane::port::pcap::{self, PcapPort};
use dataplane::port::{Mac, Port, PortId};
use dataplane::worker::Worker;
use hdrhistogram::Histogram;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long the first packet may take to come.
const FIRST_PACKET: Duration = Duration::from_secs(2);
/// How long the port alone is measured between two slices.
const PORT_SLICE: Duration = Duration::from_millis(5);
/// What makes packets of a capture come by a port.
pub trait Source {
    /// The port.
    type Port: Port;

    /// Opens the port of a worker, to whom the capture's packets come from then on.
    ///
    /// # Errors
    /// When the port cannot be had.
    fn open(&mut self, case: &Case, capture: &Capture) -> Result<Opened<Self::Port>, BenchError>;
}

/// The director's port, by its number.
pub const ID: PortId = PORT;

/// To whom the capture's frames are addressed: a port that looks has to have this address.
#[must_use]
pub fn hardware_address() -> Mac {
    crate::director::port_info().mac
}

/// A capture port, which reads the capture over and over and forgets what it sends.
#[derive(Clone, Copy, Debug)]
pub struct Pcap;

impl Source for Pcap {
    type Port = PcapPort;

    fn open(&mut self, _: &Case, capture: &Capture) -> Result<Opened<PcapPort>, BenchError> {
        let config = pcap::Config {
            id: PORT,
            info: crate::director::port_info(),
            workers: 1,
            file: capture.path(),
            infinite: true,
            output: None,
        };
        pcap::open(config).map_err(|error| BenchError::Port(error.into()))
    }
}

/// Packets of a case's capture.
#[must_use]
pub fn packets(case: &Case) -> u32 {
    let directions = if case.method.sees_replies() { 2 } else { 1 };
    case.flows.saturating_mul(directions)
}

/// Measures the established packets of a case's flows, of each size, on one worker.
///
/// # Errors
/// As [`run`](crate::run), and when the port cannot be opened.
pub fn run(
    case: &Case,
    source: &mut impl Source,
    stop: &(dyn Fn() -> bool + Sync),
    tell: &mut dyn FnMut(Event),
) -> Result<(), BenchError> {
    match case.family {
        Family::V4 => run_family::<V4>(case, source, stop, tell),
        Family::V6 => run_family::<V6>(case, source, stop, tell),
    }
}

/// Writes the capture of a case's flows to a file, for other programs to be measured with.
///
/// # Errors
/// When the connections cannot be made or the file not written.
pub fn write_capture(case: &Case, path: &Path) -> Result<(), BenchError> {
    let file = File::create(path).map_err(|error| BenchError::Port(error.into()))?;
    match case.family {
        Family::V4 => write_packets(&connect::<V4>(case, &|| false)?.1, case, file),
        Family::V6 => write_packets(&connect::<V6>(case, &|| false)?.1, case, file),
    }
}

/// A director with the case's connections, which its first worker made, and a worker more for each size: none can have two
/// lives.
fn connect<F: Ip>(
    case: &Case,
    stop: &(dyn Fn() -> bool + Sync),
) -> Result<(Director, Vec<Flow<F>>), BenchError> {
    let capacity = case.flows + case.flows / 8 + 2048;
    let workers = 1 + u16::try_from(case.sizes.len()).expect("a handful of sizes");
    let director = Director::new::<F>(case.method, capacity, workers, begin())?;
    let shared = Shared::new(case, &director, stop);
    let mut crew = [Member::<F>::new(&shared, 0, None)?];
    play(&shared, &mut crew, |worker| {
        let worker = u16::try_from(worker).expect("it is 0");
        newcomers(case, worker, 0, u64::from(case.flows))
    })?;
    let flows = flows_of(F::table(&director.tables), workers).swap_remove(0);
    if case.method.sees_replies() {
        play(&shared, &mut crew, |_| {
            one_of_each(&flows, Direction::Reply, SYN | ACK)
        })?;
    }
    play(&shared, &mut crew, |_| {
        one_of_each(&flows, Direction::Request, ACK)
    })?;
    let statistics = director.statistics::<F>();
    let established = statistics.entries - u64::from(statistics.half_open);
    check(
        &director,
        "connections established",
        established,
        u64::from(case.flows),
    )?;
    Ok((director, flows))
}

/// Writes a packet of each flow and direction, in random order.
///
/// Source: draft-ietf-opsawg-pcap (the format's first version).
fn write_packets<F: Ip>(flows: &[Flow<F>], case: &Case, file: File) -> Result<(), BenchError> {
    const HEADER: [u32; 6] = [0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, 1];
    let size = case.sizes[0];
    let directions: &[Direction] = if case.method.sees_replies() {
        &[Direction::Request, Direction::Reply]
    } else {
        &[Direction::Request]
    };
    let mut random = Random(7);
    let mut records = Vec::with_capacity(flows.len() * directions.len());
    for flow in flows {
        for &direction in directions {
            let len = size.frame_len(F::FAMILY, u32::try_from(random.below(1 << 16)).unwrap_or(0));
            records.push(Record::new(flow.ends(direction), ACK, len));
        }
    }
    for last in (1..records.len()).rev() {
        records.swap(last, random.below(last + 1));
    }
    let mut out = BufWriter::new(file);
    let mut write = || -> std::io::Result<()> {
        for word in HEADER {
            out.write_all(&word.to_le_bytes())?;
        }
        let mut frame = vec![0; 16_384];
        for record in &records {
            let len = F::write(record, &mut frame);
            let len_word = u32::try_from(len).expect("below 9018").to_le_bytes();
            out.write_all(&[0; 8])?;
            out.write_all(&len_word)?;
            out.write_all(&len_word)?;
            out.write_all(&frame[..len])?;
        }
        out.flush()
    };
    write().map_err(|error| BenchError::Port(error.into()))
}

fn run_family<F: Ip>(
    case: &Case,
    source: &mut impl Source,
    stop: &(dyn Fn() -> bool + Sync),
    tell: &mut dyn FnMut(Event),
) -> Result<(), BenchError> {
    tell(Event::Step(format!("{} connections", case.flows)));
    let (director, flows) = connect::<F>(case, stop)?;
    for (index, &size) in (1..).zip(&case.sizes) {
        let case = &Case {
            sizes: vec![size],
            ..case.clone()
        };
        tell(Event::Step(format!(
            "{} flows, {size} bytes: writing the capture",
            case.flows
        )));
        let capture = Capture::new().map_err(|error| BenchError::Port(error.into()))?;
        let file = capture.file.try_clone();
        write_packets(
            &flows,
            case,
            file.map_err(|error| BenchError::Port(error.into()))?,
        )?;
        let Opened { mut queues, handle } = source.open(case, &capture)?;
        let adopted = handle.adopt(&director.snapshot());
        adopted.map_err(|error| BenchError::Port(error.into()))?;
        let port = queues.pop().expect("one for the one worker");
        let worker = director.worker(index, port, begin());
        tell(Event::Step(format!(
            "{} flows, {size} bytes: established",
            case.flows
        )));
        let shared = Shared::new(case, &director, stop);
        // A device of DPDK needs a thread of its own, which ends with its worker.
        let measured = std::thread::scope(|scope| {
            let thread = scope.spawn(|| measure(&shared, worker));
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        drop(handle);
        let (share, of_port, bursts) = measured?;
        let statistics = director.statistics::<F>();
        tell(Event::Measured(Box::new(Measurement {
            method: case.method,
            family: case.family,
            flows: case.flows,
            size,
            frame_len: size.mean(case.family),
            phase: Phase::Established,
            cross: false,
            shares: vec![share],
            of_port,
            of_floor: None,
            bursts,
            bytes_per_connection: statistics.bytes_per_connection,
            pages: statistics.pages,
        })));
    }
    Ok(())
}

/// A file without a name, that is gone with the process.
#[derive(Debug)]
pub struct Capture {
    file: File,
}

impl Capture {
    fn new() -> std::io::Result<Capture> {
        let flags = nix::sys::memfd::MFdFlags::empty();
        let fd = nix::sys::memfd::memfd_create(c"uvs-capture", flags)?;
        Ok(Capture {
            file: File::from(fd),
        })
    }

    /// Where this process can open it.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        use std::os::fd::AsRawFd;
        format!("/proc/self/fd/{}", self.file.as_raw_fd()).into()
    }
}

/// Measures the director in slices, between which the port alone has its turns; for the time of the case, after a
/// quarter of it to warm up.
fn measure<P: Port>(
    shared: &Shared<'_>,
    mut worker: Worker<P>,
) -> Result<(Share, Share, Histogram<u64>), BenchError> {
    let (case, director) = (shared.case, shared.director);
    let mut bursts = histogram();
    let start = Instant::now();
    let mut came = slice(shared, &mut worker, case.time / 4, &mut bursts).packets;
    while came == 0 && start.elapsed() < FIRST_PACKET {
        came = slice(shared, &mut worker, SLICE, &mut bursts).packets;
    }
    bursts.reset();
    let before = director.received_and_forwarded();
    let (mut share, mut of_port) = (Share::default(), Share::default());
    while share.busy < case.time {
        shared.check()?;
        share.add(slice(
            shared,
            &mut worker,
            SLICE.min(case.time),
            &mut bursts,
        ));
        of_port.add(port_alone(&mut worker));
    }
    let after = director.received_and_forwarded();
    let (received, forwarded) = (after.0 - before.0, after.1 - before.1);
    check(director, "packets forwarded", forwarded, received)?;
    if received == 0 {
        return check(director, "packets received", 0, u64::from(packets(case)))
            .map(|()| unreachable!("there are flows"));
    }
    Ok((share, of_port, bursts))
}

/// Rounds of the worker for some time.
fn slice<P: Port>(
    shared: &Shared<'_>,
    worker: &mut Worker<P>,
    span: Duration,
    bursts: &mut Histogram<u64>,
) -> Share {
    shared.director.confirm(shared.ticks(Instant::now()));
    let cpu_start = cpu_time();
    let start = Instant::now();
    let mut last = start;
    let mut packets = 0;
    while last - start < span {
        packets += worker.run_once(shared.ticks(last)) as u64;
        let now = Instant::now();
        bursts.saturating_record(u64::try_from((now - last).as_nanos()).unwrap_or(u64::MAX));
        last = now;
    }
    Share {
        packets,
        new_flows: 0,
        busy: last - start,
        on_cpu: cpu_time().saturating_sub(cpu_start),
    }
}

/// Packets received and sent as they are.
fn port_alone<P: Port>(worker: &mut Worker<P>) -> Share {
    let port = &mut worker.ports_mut()[0];
    let cpu_start = cpu_time();
    let start = Instant::now();
    let mut last = start;
    let mut packets = 0;
    while last - start < PORT_SLICE {
        packets += pass(port) as u64;
        port.flush();
        last = Instant::now();
    }
    Share {
        packets,
        new_flows: 0,
        busy: last - start,
        on_cpu: cpu_time().saturating_sub(cpu_start),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::case::Size;
    use conntrack::Method;

    /// Cases of every method and family.
    pub(crate) fn cases() -> Vec<Case> {
        let methods = [Method::Nat, Method::Dr, Method::Tun, Method::FullNat];
        let case = |method, family| Case {
            method,
            family,
            flows: 300,
            workers: 1,
            sizes: vec![Size::Bytes(64), Size::Imix],
            time: Duration::from_millis(20),
            new_flows_per_second: 0,
            cross: false,
            roofline: false,
        };
        methods
            .iter()
            .flat_map(|&method| [Family::V4, Family::V6].map(|family| case(method, family)))
            .collect()
    }

    /// Runs a case; [`run`] itself fails where a connection is not established or a packet not forwarded.
    pub(crate) fn forwards_all(case: &Case, source: &mut impl Source) {
        let mut found = Vec::new();
        run(case, source, &|| false, &mut |event| {
            if let Event::Measured(measurement) = event {
                found.push(*measurement);
            }
        })
        .unwrap();
        assert_eq!(found.len(), 2, "{case:?}");
        for of in &found {
            assert!(of.packets() >= 300 && of.of_port.packets > 0, "{of:?}");
            assert_eq!(of.phase, Phase::Established);
        }
    }

    #[test]
    fn every_method_forwards_all_packets_of_a_capture() {
        for case in &cases() {
            forwards_all(case, &mut Pcap);
        }
    }
}
