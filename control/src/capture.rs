//! A director's packets for whoever looks on: from the workers' records to the blocks of a pcapng file.
//!
//! Source: draft-ietf-opsawg-pcapng.

use crate::config::method_word;
use crate::director::Director;
use dataplane::capture::{Capture, Fate, Record, Wanted};
use dataplane::snapshot::Publisher;
use pcap_file::DataLink;
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption, InterfaceTsResolution,
};
use pcap_file::pcapng::blocks::opt_common::CommonOption;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The flags of a packet that came in, and of one that goes out.
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;
/// How long workers may take to let go of a capture: they look at least once in 10 ms.
const LET_GO: Duration = Duration::from_secs(1);

/// A capture that is on until this is dropped.
pub struct Captured {
    publisher: Arc<Publisher>,
    capture: Arc<Capture>,
    file: File,
}

impl Director {
    /// Begins a capture; `None` while another one is on.
    #[must_use]
    pub fn capture(&self, wanted: Wanted) -> Option<Captured> {
        let capture = self.publisher.captures().begin(wanted)?;
        let names = self.ports.iter().map(|port| port.name.as_str());
        Some(Captured {
            publisher: Arc::clone(&self.publisher),
            capture,
            file: File::new(names, wanted.snap_len),
        })
    }
}

impl Captured {
    /// Writes packets, while there are any, until there are so many bytes or packets. Returns how many packets.
    pub fn write(&mut self, bytes: usize, packets: u64) -> u64 {
        let mut count = 0;
        while count < packets && self.file.len() < bytes {
            let file = &mut self.file;
            if !self.capture.next(|record| file.add(record)) {
                break;
            }
            count += 1;
        }
        count
    }

    /// What was written since the last call.
    pub fn take(&mut self) -> Vec<u8> {
        self.file.take()
    }

    /// Packets that there was no room for.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.capture.missed()
    }

    /// Ends the capture; what the workers have told until then can still be written.
    pub fn end(&mut self) {
        self.publisher.captures().end_of(&self.capture);
        let until = Instant::now() + LET_GO;
        while Arc::strong_count(&self.capture) > 1 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Captured {
    fn drop(&mut self) {
        // Freed here, not by a worker.
        self.end();
    }
}

/// A pcapng file that grows.
struct File {
    writer: PcapNgWriter<Vec<u8>>,
}

impl File {
    /// With an interface for each port.
    fn new<'n>(ports: impl Iterator<Item = &'n str>, snap_len: usize) -> File {
        let mut writer = PcapNgWriter::new(Vec::new()).expect("a Vec takes everything");
        for name in ports {
            let interface = InterfaceDescriptionBlock {
                linktype: DataLink::ETHERNET,
                snaplen: u32::try_from(snap_len).unwrap_or(0),
                options: vec![
                    InterfaceDescriptionOption::IfName(Cow::Borrowed(name)),
                    InterfaceDescriptionOption::IfTsResol(InterfaceTsResolution::NANO),
                ],
            };
            writer
                .write_pcapng_block(interface)
                .expect("a Vec takes every sound block");
        }
        File { writer }
    }

    fn add(&mut self, record: &Record) {
        let flags = if record.is_leaving { OUTBOUND } else { INBOUND };
        let comment = CommonOption::Comment(Cow::Owned(comment(record)));
        let block = EnhancedPacketBlock {
            interface_id: record.port.0.into(),
            timestamp: Duration::from_nanos(record.time_ns),
            original_len: u32::try_from(record.whole_len).unwrap_or(u32::MAX),
            data: Cow::Borrowed(record.bytes()),
            options: vec![
                EnhancedPacketOption::Common(comment),
                EnhancedPacketOption::Flags(flags),
            ],
        };
        self.writer
            .write_pcapng_block(block)
            .expect("a Vec takes every sound block");
    }

    fn len(&self) -> usize {
        self.writer.get_ref().len()
    }

    fn take(&mut self) -> Vec<u8> {
        std::mem::take(self.writer.get_mut())
    }
}

/// What became of a packet, in few words.
fn comment(record: &Record) -> String {
    match record.fate {
        Fate::Forwarded(Some(towards)) => {
            let whom = if towards.is_reply { "client " } else { "" };
            format!("to {whom}{} by {}", towards.to, method_word(towards.method))
        }
        Fate::Forwarded(None) => "forwarded".to_owned(),
        Fate::Replied => "answered".to_owned(),
        Fate::Left => "left to the kernel".to_owned(),
        Fate::Waits => "waits for its neighbour, or the first fragment".to_owned(),
        Fate::Dropped(reason) => format!("dropped: {}", reason.name()),
        Fate::Waited => "forwarded, after it had waited".to_owned(),
        Fate::Originated => "the director's own".to_owned(),
    }
}
