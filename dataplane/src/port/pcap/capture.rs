//! A capture file as a table of frames: everything that can be wrong with a file is found before the first packet.

use pcap_file::DataLink;
use pcap_file::pcap::{PcapParseError, PcapParser, PcapTsResolution, PcapValidationError};
use pcap_file::pcapng::{Block, PcapNgParseError, PcapNgParser};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// No tool captures longer frames (tcpdump's MAXIMUM_SNAPLEN); a longer one is a sign of damage.
const FRAME_LEN_MAX: usize = 262_144;

/// A pcapng block may be longer than a frame (it may hold TLS secrets), but not by so much.
const BLOCK_LEN_MAX: usize = 64 << 20;

/// Why a capture cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaptureError {
    /// The file cannot be read or written.
    #[error("capture file {}: cannot {action}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not a capture.
    #[error(
        "capture file {}: begins with {magic:#010x}; accepted are pcap (a1b2c3d4, a1b23c4d, either byte order) and \
         pcapng (0a0d0d0a)", path.display()
    )]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// Its first four bytes, big-endian.
        magic: u32,
    },
    /// Shorter than the header of a capture.
    #[error("capture file {}: ends within its header, after {len} bytes", path.display())]
    NoHeader {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        len: usize,
    },
    /// Captured from something other than Ethernet.
    #[error(
        "capture file {}, offset {offset}: link type {link_type}; accepted is Ethernet (1) alone: capture on one \
         interface, not on \"any\"", path.display()
    )]
    NotEthernet {
        /// The file.
        path: PathBuf,
        /// Where, bytes from its start.
        offset: usize,
        /// The LINKTYPE_ number.
        link_type: u32,
    },
    /// What stands there is no packet and no block.
    #[error("capture file {}, offset {offset}: damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the damaged packet or block begins, bytes from the file's start.
        offset: usize,
        /// What is wrong with it.
        source: Box<dyn Error + Send + Sync>,
    },
}

#[derive(Debug, thiserror::Error)]
#[error("{what} of {len} bytes; at most {max} are accepted")]
struct TooLong {
    what: &'static str,
    len: usize,
    max: usize,
}

/// A frame of a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Captured<'a> {
    /// When it was captured, since 1970-01-01 UTC; zero where the capture does not say (pcapng Simple Packet Blocks).
    pub timestamp: Duration,
    /// As many bytes of it as were captured: with a snap length fewer than it had on the wire.
    pub bytes: &'a [u8],
}

/// The frames of a capture file, held in memory as a whole.
#[derive(Debug)]
pub struct Capture {
    file: Vec<u8>,
    frames: Vec<Entry>,
    truncated: bool,
}

#[derive(Debug)]
struct Entry {
    timestamp: Duration,
    start: usize,
    len: u32,
}

impl Capture {
    /// Reads a pcap (micro- or nanoseconds, either byte order) or pcapng file.
    ///
    /// A file that ends within a packet, as a killed `tcpdump` leaves it, gives the packets before, and says so in
    /// [`Capture::is_truncated`].
    ///
    /// # Errors
    /// When the file cannot be read, is no capture, is damaged, or has frames that are not Ethernet's.
    pub fn open(path: &Path) -> Result<Capture, CaptureError> {
        let file = std::fs::read(path).map_err(|source| CaptureError::File {
            path: path.to_owned(),
            action: "read it",
            source,
        })?;
        Capture::parse(file, path)
    }

    /// No frames.
    #[must_use]
    pub fn empty() -> Capture {
        Capture {
            file: Vec::new(),
            frames: Vec::new(),
            truncated: false,
        }
    }

    /// As [`Capture::open`], of a file's contents; `path` is what errors name.
    ///
    /// # Errors
    /// As `open`.
    pub fn parse(file: Vec<u8>, path: &Path) -> Result<Capture, CaptureError> {
        let no_header = || CaptureError::NoHeader {
            path: path.to_owned(),
            len: file.len(),
        };
        let magic = u32::from_be_bytes(*file.first_chunk().ok_or_else(no_header)?);
        let (frames, truncated) = match magic {
            0xa1b2_c3d4 | 0xa1b2_3c4d | 0xd4c3_b2a1 | 0x4d3c_b2a1 => parse_pcap(&file, path)?,
            0x0a0d_0d0a => parse_pcapng(&file, path)?,
            _ => {
                return Err(CaptureError::UnknownFormat {
                    path: path.to_owned(),
                    magic,
                });
            }
        };
        Ok(Capture {
            file,
            frames,
            truncated,
        })
    }

    /// How many frames there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Whether the file ends within a packet.
    #[must_use]
    pub fn is_truncated(&self) -> bool {
        self.truncated
    }

    /// The longest frame, bytes; 0 without frames.
    #[must_use]
    pub fn frame_len_max(&self) -> u32 {
        self.frames.iter().map(|entry| entry.len).max().unwrap_or(0)
    }

    /// The frame at `index`, in the file's order.
    #[must_use]
    pub fn frame(&self, index: usize) -> Option<Captured<'_>> {
        self.frames.get(index).map(|entry| Captured {
            timestamp: entry.timestamp,
            bytes: &self.file[entry.start..entry.start + entry.len as usize],
        })
    }

    /// The frames in the file's order.
    pub fn frames(&self) -> impl ExactSizeIterator<Item = Captured<'_>> {
        (0..self.len()).map(|index| self.frame(index).expect("index < len"))
    }
}

/// Entries, and whether the file ends within one.
type Parsed = Result<(Vec<Entry>, bool), CaptureError>;

fn parse_pcap(file: &[u8], path: &Path) -> Parsed {
    // The magic number is known to be right, and nothing else of the header can be wrong for this parser.
    let Ok((mut rest, parser)) = PcapParser::new(file) else {
        return Err(CaptureError::NoHeader {
            path: path.to_owned(),
            len: file.len(),
        });
    };
    let header = parser.header();
    check_ethernet(header.datalink, 20, path)?;
    let (unit_ns, units_per_second) = match header.ts_resolution {
        PcapTsResolution::MicroSecond => (1000, 1_000_000),
        PcapTsResolution::NanoSecond => (1, 1_000_000_000),
    };
    let mut frames = Vec::new();
    while !rest.is_empty() {
        let offset = file.len() - rest.len();
        let damaged = |source| CaptureError::Damaged {
            path: path.to_owned(),
            offset,
            source,
        };
        // Raw, because the checked form refuses frames that are longer than the header's snap length, which some
        // writers leave at 0.
        match parser.next_raw_packet(rest) {
            Ok((behind, packet)) => {
                if packet.ts_frac >= units_per_second {
                    return Err(damaged(
                        PcapValidationError::TsFracNanoTooBig(packet.ts_frac).into(),
                    ));
                }
                let timestamp = Duration::new(u64::from(packet.ts_sec), packet.ts_frac * unit_ns);
                frames.push(
                    entry(file, &packet.data, timestamp).map_err(|error| damaged(error.into()))?,
                );
                rest = behind;
            }
            Err(PcapParseError::IncompleteBuffer(needed, _)) if needed <= FRAME_LEN_MAX => {
                return Ok((frames, true));
            }
            Err(PcapParseError::IncompleteBuffer(len, _)) => {
                return Err(damaged(
                    TooLong {
                        what: "a frame",
                        len,
                        max: FRAME_LEN_MAX,
                    }
                    .into(),
                ));
            }
            Err(error) => return Err(damaged(error.into())),
        }
    }
    Ok((frames, false))
}

fn parse_pcapng(file: &[u8], path: &Path) -> Parsed {
    let mut frames = Vec::new();
    let (mut rest, mut parser) = match PcapNgParser::new(file) {
        Ok(parsed) => parsed,
        Err(PcapNgParseError::IncompleteBuffer(..)) => {
            return Err(CaptureError::NoHeader {
                path: path.to_owned(),
                len: file.len(),
            });
        }
        Err(error) => {
            return Err(CaptureError::Damaged {
                path: path.to_owned(),
                offset: 0,
                source: error.into(),
            });
        }
    };
    while !rest.is_empty() {
        let offset = file.len() - rest.len();
        let damaged = |source| CaptureError::Damaged {
            path: path.to_owned(),
            offset,
            source,
        };
        let (behind, block) = match parser.next_block(rest) {
            Ok(parsed) => parsed,
            Err(PcapNgParseError::IncompleteBuffer(needed, _)) if needed <= BLOCK_LEN_MAX => {
                return Ok((frames, true));
            }
            Err(PcapNgParseError::IncompleteBuffer(len, _)) => {
                return Err(damaged(
                    TooLong {
                        what: "a block",
                        len,
                        max: BLOCK_LEN_MAX,
                    }
                    .into(),
                ));
            }
            Err(error) => return Err(damaged(error.into())),
        };
        rest = behind;
        let frame = match &block {
            Block::InterfaceDescription(interface) => {
                check_ethernet(interface.linktype, offset, path)?;
                continue;
            }
            Block::EnhancedPacket(packet) => entry(file, &packet.data, packet.timestamp),
            Block::Packet(packet) => entry(file, &packet.data, packet.timestamp),
            Block::SimplePacket(packet) => entry(file, &packet.data, Duration::ZERO),
            _ => continue,
        };
        frames.push(frame.map_err(|error| damaged(error.into()))?);
    }
    Ok((frames, false))
}

fn check_ethernet(link: DataLink, offset: usize, path: &Path) -> Result<(), CaptureError> {
    match link {
        DataLink::ETHERNET => Ok(()),
        other => Err(CaptureError::NotEthernet {
            path: path.to_owned(),
            offset,
            link_type: other.into(),
        }),
    }
}

fn entry(file: &[u8], data: &[u8], timestamp: Duration) -> Result<Entry, TooLong> {
    // Both parsers lend slices of what they parse.
    let start = data.as_ptr().addr() - file.as_ptr().addr();
    match u32::try_from(data.len()) {
        Ok(len) if data.len() <= FRAME_LEN_MAX => Ok(Entry {
            timestamp,
            start,
            len,
        }),
        _ => Err(TooLong {
            what: "a frame",
            len: data.len(),
            max: FRAME_LEN_MAX,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pcap_file::Endianness;
    use pcap_file::pcap::{PcapHeader, PcapWriter, RawPcapPacket};
    use pcap_file::pcapng::PcapNgWriter;
    use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
    use pcap_file::pcapng::blocks::interface_description::{
        InterfaceDescriptionBlock, InterfaceDescriptionOption, InterfaceTsResolution,
    };
    use proptest::prelude::*;

    fn header(endianness: Endianness, ts_resolution: PcapTsResolution) -> PcapHeader {
        PcapHeader {
            endianness,
            ts_resolution,
            ..PcapHeader::default()
        }
    }

    /// A capture of `frames` of {seconds, fraction, length on the wire, bytes}.
    fn pcap(header: PcapHeader, frames: &[(u32, u32, u32, Vec<u8>)]) -> Vec<u8> {
        let mut writer =
            PcapWriter::with_header(Vec::new(), header).expect("a Vec takes everything");
        for (ts_sec, ts_frac, orig_len, data) in frames {
            let incl_len = u32::try_from(data.len()).expect("short");
            let packet = RawPcapPacket {
                ts_sec: *ts_sec,
                ts_frac: *ts_frac,
                incl_len,
                orig_len: *orig_len,
                data: data.into(),
            };
            writer
                .write_raw_packet(&packet)
                .expect("a Vec takes everything");
        }
        writer.into_inner()
    }

    fn pcapng(
        linktype: DataLink,
        ts_resolution: Option<InterfaceTsResolution>,
        timestamps: &[Duration],
    ) -> Vec<u8> {
        let mut writer = PcapNgWriter::with_endianness(Vec::new(), Endianness::Big)
            .expect("a Vec takes everything");
        let mut interface = InterfaceDescriptionBlock::new(linktype, 0);
        interface
            .options
            .extend(ts_resolution.map(InterfaceDescriptionOption::IfTsResol));
        writer
            .write_pcapng_block(interface)
            .expect("a Vec takes everything");
        for (fill, timestamp) in (0u8..).zip(timestamps) {
            let packet = EnhancedPacketBlock {
                interface_id: 0,
                timestamp: *timestamp,
                original_len: 1514,
                data: vec![fill; 61].into(),
                options: Vec::new(),
            };
            writer
                .write_pcapng_block(packet)
                .expect("a Vec takes everything");
        }
        writer.into_inner()
    }

    fn parse(file: Vec<u8>) -> Result<Capture, CaptureError> {
        Capture::parse(file, Path::new("some.pcap"))
    }

    #[test]
    fn every_kind_of_classic_pcap_is_read() {
        for endianness in [Endianness::Big, Endianness::Little] {
            for (resolution, nanoseconds) in [
                (PcapTsResolution::MicroSecond, 123_000),
                (PcapTsResolution::NanoSecond, 123),
            ] {
                let file = pcap(
                    header(endianness, resolution),
                    &[
                        (1_700_000_000, 123, 60, vec![1; 60]),
                        (1_700_000_001, 0, 1514, vec![2; 96]),
                    ],
                );
                let capture = parse(file).expect("well-formed");
                assert!(!capture.is_truncated());
                let frames: Vec<_> = capture.frames().collect();
                assert_eq!(
                    frames[0].timestamp,
                    Duration::new(1_700_000_000, nanoseconds)
                );
                assert_eq!(frames[0].bytes, [1; 60]);
                assert_eq!(
                    frames[1].bytes, [2; 96],
                    "as captured, though longer on the wire"
                );
                assert_eq!((capture.len(), capture.frame_len_max()), (2, 96));
            }
        }
    }

    #[test]
    fn pcapng_is_read_with_its_own_resolution_of_time() {
        let timestamps = [
            Duration::new(1_700_000_000, 5_000),
            Duration::new(1_700_000_001, 7_000),
        ];
        for resolution in [None, Some(InterfaceTsResolution::NANO)] {
            let capture =
                parse(pcapng(DataLink::ETHERNET, resolution, &timestamps)).expect("well-formed");
            assert!(capture.frames().map(|frame| frame.timestamp).eq(timestamps));
            assert_eq!(capture.frame(1).expect("two frames").bytes, [1; 61]);
        }
    }

    #[test]
    fn a_file_cut_anywhere_gives_the_frames_before_the_cut() {
        let classic = pcap(
            header(Endianness::Little, PcapTsResolution::MicroSecond),
            &[(1, 0, 60, vec![1; 60]), (2, 0, 60, vec![2; 60])],
        );
        for cut in 24..classic.len() {
            let capture = parse(classic[..cut].to_vec()).expect("truncated is not damaged");
            assert_eq!(
                (capture.len(), capture.is_truncated()),
                ((cut - 24) / 76, (cut - 24) % 76 != 0)
            );
        }
        let next_generation = pcapng(DataLink::ETHERNET, None, &[Duration::ZERO; 2]);
        let capture = parse(next_generation[..next_generation.len() - 1].to_vec())
            .expect("truncated is not damaged");
        assert_eq!((capture.len(), capture.is_truncated()), (1, true));
    }

    #[test]
    fn errors_name_the_file_the_place_and_what_is_accepted() {
        let little = |frames: &[_]| {
            pcap(
                header(Endianness::Little, PcapTsResolution::MicroSecond),
                frames,
            )
        };
        let mut raw_ip = little(&[]);
        raw_ip[20] = 101;
        let mut huge = little(&[(1, 0, 60, vec![0; 60])]);
        huge.extend([0; 8].into_iter().chain([0xff; 8]));
        let cases: [(&str, Vec<u8>, &str); 7] = [
            (
                "empty",
                vec![],
                "some.pcap: ends within its header, after 0 bytes",
            ),
            (
                "no header",
                little(&[])[..23].to_vec(),
                "some.pcap: ends within its header, after 23 bytes",
            ),
            (
                "text",
                b"hello, world".to_vec(),
                "some.pcap: begins with 0x68656c6c; accepted are pcap",
            ),
            (
                "raw IP",
                raw_ip,
                "some.pcap, offset 20: link type 101; accepted is Ethernet (1)",
            ),
            ("absurd length", huge, "some.pcap, offset 100: damaged"),
            (
                "absurd time",
                little(&[(1, 1_000_000, 60, vec![0; 60])]),
                "some.pcap, offset 24: damaged",
            ),
            (
                "cooked pcapng",
                pcapng(DataLink::LINUX_SLL, None, &[]),
                "some.pcap, offset 28: link type 113",
            ),
        ];
        for (description, file, expected) in cases {
            let error = parse(file).expect_err(description).to_string();
            assert!(error.contains(expected), "{description}: {error}");
        }
        let missing = Capture::open(Path::new("/nonexistent/some.pcap"))
            .expect_err("it does not exist")
            .to_string();
        assert_eq!(
            missing,
            "capture file /nonexistent/some.pcap: cannot read it"
        );
    }

    proptest! {
        #[test]
        fn no_file_makes_the_parser_panic(
            kind in 0..3usize,
            tail in proptest::collection::vec(any::<u8>(), 0..300),
            edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        ) {
            let mut file = match kind {
                0 => pcap(header(Endianness::Little, PcapTsResolution::NanoSecond), &[(1, 0, 60, vec![1; 60])]),
                1 => pcapng(DataLink::ETHERNET, Some(InterfaceTsResolution::NANO), &[Duration::from_secs(1); 2]),
                _ => vec![0x0a, 0x0d, 0x0d, 0x0a],
            };
            file.extend(tail);
            for (index, value) in edits {
                let index = index.index(file.len());
                file[index] = value;
            }
            if let Ok(capture) = parse(file) {
                capture.frames().for_each(|frame| assert!(frame.bytes.len() <= FRAME_LEN_MAX));
            }
        }
    }
}
