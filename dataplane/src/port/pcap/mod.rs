//! A port that receives from a capture file and sends into another: replay without a network.

mod capture;
mod open;

use super::pool::Pool;
use super::{Burst, Port, PortCounters, PortId, PortInfo, Sent};
use crate::frame::{Frame, Offload};
use pcap_file::pcap::{PcapHeader, PcapTsResolution, PcapWriter, RawPcapPacket};
use std::fs::File;
use std::io::BufWriter;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use capture::{Capture, CaptureError, Captured};
pub use open::{Config, open};

/// Frames that may be out at once: more than a burst, and some waiting for a neighbour's address.
const BUFFERS: u32 = 512;

/// Time between the last frame of a round and the first of the next one, in an endless replay.
const ROUND_GAP: Duration = Duration::from_micros(1);

/// A port over captures. A capture holds both sides of its link, so that one port stands for all of a director's.
///
/// Frames are received as fast as they are asked for; to run a simulated clock beside them, alternate
/// [`next_timestamp`](PcapPort::next_timestamp) and [`advance`](PcapPort::advance). Offload is none: what a capture of
/// a local sender holds as GSO frames or partial checksums is received as it stands, and [`Offload`] of what is sent is
/// not written.
pub struct PcapPort {
    info: PortInfo,
    pool: Pool,
    capture: Arc<Capture>,
    endless: bool,
    next: usize,
    /// What the rounds before this one took together.
    elapsed: Duration,
    now: Option<Duration>,
    last_received: Duration,
    output: Option<Output>,
    /// Something was sent since [`Port::counters`] was asked.
    is_unwritten: bool,
    counters: PortCounters,
}

struct Output {
    path: PathBuf,
    writer: PcapWriter<BufWriter<File>>,
}

impl PcapPort {
    /// A port that receives the frames of `capture`, once or, with `endless`, over and over.
    #[must_use]
    pub fn new(id: PortId, info: PortInfo, capture: Arc<Capture>, endless: bool) -> PcapPort {
        PcapPort {
            info,
            pool: Pool::new(id, BUFFERS, capture.frame_len_max()),
            capture,
            endless,
            next: 0,
            elapsed: Duration::ZERO,
            now: None,
            last_received: Duration::ZERO,
            output: None,
            is_unwritten: false,
            counters: PortCounters::default(),
        }
    }

    /// Writes what is sent to a new file at `path` (classic pcap, nanoseconds). Without, sent frames are forgotten.
    ///
    /// # Errors
    /// When the file cannot be created.
    pub fn write_to(mut self, path: &Path) -> Result<PcapPort, CaptureError> {
        let error = |source| CaptureError::File {
            path: path.to_owned(),
            action: "create it",
            source,
        };
        let file = BufWriter::new(File::create(path).map_err(error)?);
        let header = PcapHeader {
            ts_resolution: PcapTsResolution::NanoSecond,
            ..PcapHeader::default()
        };
        let writer = PcapWriter::with_header(file, header)
            .map_err(|failed| error(std::io::Error::other(failed)))?;
        self.output = Some(Output {
            path: path.to_owned(),
            writer,
        });
        Ok(self)
    }

    /// When the next frame was captured, since 1970-01-01 UTC; `None` when all were received. An endless replay goes on
    /// where the round before ended.
    #[must_use]
    pub fn next_timestamp(&self) -> Option<Duration> {
        self.capture
            .frame(self.next)
            .map(|frame| frame.timestamp + self.elapsed)
    }

    /// Sets the simulated clock: from now on frames captured after `now` wait, and what is sent is sent at `now`.
    /// Never called, nothing waits, and what is sent carries the time of the frame received last.
    pub fn advance(&mut self, now: Duration) {
        self.now = Some(now);
    }

    /// Writes to the disk what was sent.
    ///
    /// # Errors
    /// When the system cannot write, now or earlier.
    pub fn finish(&mut self) -> Result<(), CaptureError> {
        let Some(output) = &mut self.output else {
            return Ok(());
        };
        output.writer.flush().map_err(|failed| CaptureError::File {
            path: output.path.clone(),
            action: "write it",
            source: std::io::Error::other(failed),
        })
    }

    /// Moves on to the next frame, and from the last to the first of the next round.
    fn step(&mut self, received: Duration) {
        self.last_received = received + self.elapsed;
        self.next += 1;
        if self.endless && self.next == self.capture.len() {
            self.next = 0;
            let first = self
                .capture
                .frame(0)
                .map_or(Duration::ZERO, |frame| frame.timestamp);
            self.elapsed = (self.last_received + ROUND_GAP).saturating_sub(first);
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        let Some(output) = &mut self.output else {
            return;
        };
        let time = self.now.unwrap_or(self.last_received);
        let len = u32::try_from(bytes.len()).expect("frames are shorter than 4 GiB");
        let packet = RawPcapPacket {
            // The format ends in 2106.
            ts_sec: u32::try_from(time.as_secs()).unwrap_or(u32::MAX),
            ts_frac: time.subsec_nanos(),
            incl_len: len,
            orig_len: len,
            data: bytes.into(),
        };
        self.is_unwritten = true;
        if output.writer.write_raw_packet(&packet).is_err() {
            self.counters.transmit_errors += 1;
        }
    }
}

impl Port for PcapPort {
    fn info(&self) -> &PortInfo {
        &self.info
    }

    /// Without a free buffer the frames wait.
    fn receive(&mut self, burst: &mut Burst) -> usize {
        let before = burst.len();
        let capture = Arc::clone(&self.capture);
        while !burst.is_full() {
            let Some(captured) = capture.frame(self.next) else {
                break;
            };
            if self
                .now
                .is_some_and(|now| captured.timestamp + self.elapsed > now)
            {
                break;
            }
            let Some(frame) = self.pool.lend_copy(captured.bytes, Offload::NONE) else {
                break;
            };
            burst.push(frame);
            self.step(captured.timestamp);
        }
        burst.len() - before
    }

    fn transmit(&mut self, frame: Frame) -> Sent {
        self.write(frame.bytes());
        if frame.port != self.pool.port() {
            return Sent::Copied(frame);
        }
        self.pool.give_back(frame);
        Sent::Taken
    }

    fn send(&mut self, bytes: &[u8], _offload: &Offload) -> bool {
        self.write(bytes);
        true
    }

    /// Nothing: a file's buffer is written when it is full, by [`finish`](PcapPort::finish), and when the counters are asked.
    fn flush(&mut self) {}

    fn release(&mut self, frame: Frame) {
        self.pool.give_back(frame);
    }

    fn wait_on(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Writes to the disk what was sent: it is asked for about once a second.
    fn counters(&mut self) -> PortCounters {
        if self.is_unwritten {
            self.is_unwritten = false;
            // What is lost now shows at the next frame, and by `finish`.
            let _ = self.finish();
        }
        self.counters
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::{BURST, Mac};

    fn info() -> PortInfo {
        PortInfo {
            name: "replay".into(),
            mac: Mac([2, 0, 0, 0, 0, 1]),
            mtu: 1500,
            driver: "pcap",
        }
    }

    /// A file that is gone when the test is over.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Scratch {
            Scratch(std::env::temp_dir().join(format!("uvs-{}-{name}.pcap", std::process::id())))
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    /// A capture of frames of 60 bytes, the nth filled with n, at these nanoseconds of the hundredth second.
    fn capture(nanoseconds: &[u32]) -> Arc<Capture> {
        let header = PcapHeader {
            ts_resolution: PcapTsResolution::NanoSecond,
            ..PcapHeader::default()
        };
        let mut writer =
            PcapWriter::with_header(Vec::new(), header).expect("a Vec takes everything");
        for (fill, ts_frac) in (0u8..).zip(nanoseconds) {
            let data = vec![fill; 60];
            let packet = RawPcapPacket {
                ts_sec: 100,
                ts_frac: *ts_frac,
                incl_len: 60,
                orig_len: 60,
                data: data.into(),
            };
            writer
                .write_raw_packet(&packet)
                .expect("a Vec takes everything");
        }
        Arc::new(Capture::parse(writer.into_inner(), Path::new("test.pcap")).expect("well-formed"))
    }

    fn at(nanoseconds: u32) -> Duration {
        Duration::new(100, nanoseconds)
    }

    #[test]
    fn a_capture_is_received_once_and_in_order() {
        let mut port = PcapPort::new(
            PortId(2),
            info(),
            capture(&(0..40).collect::<Vec<_>>()),
            false,
        );
        let mut burst = Burst::new();
        assert_eq!(port.receive(&mut burst), BURST);
        assert!(
            burst
                .iter()
                .enumerate()
                .all(|(index, frame)| usize::from(frame.bytes()[0]) == index)
        );
        burst.drain(..).for_each(|frame| port.release(frame));
        assert_eq!(port.receive(&mut burst), 40 - BURST);
        assert_eq!((port.receive(&mut burst), port.next_timestamp()), (0, None));
        burst.drain(..).for_each(|frame| port.release(frame));
    }

    #[test]
    fn frames_wait_for_the_simulated_clock() {
        let mut port = PcapPort::new(PortId(0), info(), capture(&[5, 5, 9]), false);
        let mut burst = Burst::new();
        port.advance(at(4));
        assert_eq!(
            (port.receive(&mut burst), port.next_timestamp()),
            (0, Some(at(5)))
        );
        port.advance(at(5));
        assert_eq!(
            (port.receive(&mut burst), port.next_timestamp()),
            (2, Some(at(9)))
        );
        port.advance(at(1000));
        assert_eq!((port.receive(&mut burst), port.next_timestamp()), (1, None));
        burst.drain(..).for_each(|frame| port.release(frame));
    }

    #[test]
    fn an_endless_replay_goes_on_in_time() {
        let mut port = PcapPort::new(PortId(0), info(), capture(&[1000, 4000]), true);
        let mut burst = Burst::new();
        let mut times = Vec::new();
        for _ in 0..3 {
            times.extend(port.next_timestamp());
            port.advance(*times.last().expect("endless"));
            assert_eq!(port.receive(&mut burst), 1);
        }
        assert_eq!(times, [at(1000), at(4000), at(5000)]);
        assert_eq!(port.next_timestamp(), Some(at(8000)));
        assert_eq!(
            burst
                .drain(..)
                .map(|frame| frame.bytes()[0])
                .collect::<Vec<_>>(),
            [0, 1, 0]
        );
    }

    #[test]
    fn an_empty_capture_ends_even_when_it_is_endless() {
        let mut port = PcapPort::new(PortId(0), info(), capture(&[]), true);
        assert_eq!(
            (port.receive(&mut Burst::new()), port.next_timestamp()),
            (0, None)
        );
    }

    #[test]
    fn frames_wait_for_buffers() {
        let mut port = PcapPort::new(PortId(0), info(), capture(&[0]), true);
        let mut held = Vec::new();
        let mut burst = Burst::new();
        while port.receive(&mut burst) > 0 {
            held.extend(burst.drain(..));
        }
        assert_eq!(held.len(), BUFFERS as usize);
        port.release(held.pop().expect("many"));
        assert_eq!(port.receive(&mut burst), 1);
    }

    #[test]
    fn what_is_sent_is_in_the_file_with_its_time() {
        let file = Scratch::new("sent");
        let mut port = PcapPort::new(PortId(0), info(), capture(&[7]), false)
            .write_to(&file.0)
            .expect("writable");
        let mut burst = Burst::new();
        port.receive(&mut burst);
        assert!(matches!(
            port.transmit(burst.pop().expect("received")),
            Sent::Taken
        ));
        port.advance(at(999));
        assert!(port.send(&[3; 1514], &Offload::NONE));
        port.flush();
        port.finish().expect("the disk has room");
        let sent = Capture::open(&file.0).expect("readable");
        let frames: Vec<_> = sent.frames().collect();
        let expected = [(at(7), vec![0; 60]), (at(999), vec![3; 1514])];
        assert!(
            frames
                .iter()
                .map(|frame| (frame.timestamp, frame.bytes.to_vec()))
                .eq(expected)
        );
    }

    #[test]
    fn an_output_that_cannot_be_created_is_named() {
        let port = PcapPort::new(PortId(0), info(), capture(&[]), false);
        let error = port
            .write_to(Path::new("/nonexistent/out.pcap"))
            .err()
            .expect("no such directory")
            .to_string();
        assert_eq!(
            error,
            "capture file /nonexistent/out.pcap: cannot create it"
        );
    }

    #[test]
    fn a_full_disk_is_counted_and_told() {
        let mut port = PcapPort::new(PortId(0), info(), capture(&[]), false)
            .write_to(Path::new("/dev/full"))
            .expect("it opens");
        (0..100).for_each(|_| assert!(port.send(&[0; 1514], &Offload::NONE)));
        assert!(port.counters().transmit_errors > 0);
        assert!(port.finish().is_err());
    }
}
