//! A packet in a line: of text, or of JSON.

use dataplane::frame::Offload;
use dataplane::packet::{Packet, Parsed, TcpFlags, arp, parse};
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionOption;
use pcap_file::pcapng::blocks::opt_common::CommonOption;
use pcap_file::pcapng::{Block, PcapNgParseError, PcapNgParser};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Reads the blocks of a file as they come.
pub(super) struct Lines {
    parser: Option<PcapNgParser>,
    json: bool,
}

impl Lines {
    pub(super) fn new(json: bool) -> Lines {
        Lines { parser: None, json }
    }

    /// Lines for the packets in whole blocks of a file.
    pub(super) fn of(&mut self, mut blocks: &[u8]) -> Result<String, Box<PcapNgParseError>> {
        let mut text = String::new();
        let parser = match &mut self.parser {
            Some(parser) => parser,
            none => {
                let (rest, parser) = PcapNgParser::new(blocks)?;
                blocks = rest;
                none.insert(parser)
            }
        };
        while !blocks.is_empty() {
            let (rest, block) = parser.next_block(blocks)?;
            blocks = rest;
            if let Block::EnhancedPacket(packet) = block {
                let interface = parser.packet_interface(&packet);
                let mut options = interface.iter().flat_map(|interface| &interface.options);
                let name = options.find_map(|option| match option {
                    InterfaceDescriptionOption::IfName(name) => Some(&**name),
                    _ => None,
                });
                let seen = Seen::of(&packet, name.unwrap_or("?"));
                // Writing to a String cannot fail.
                let _ = match self.json {
                    true => writeln!(text, "{}", seen.json()),
                    false => writeln!(text, "{}", seen.line()),
                };
            }
        }
        Ok(text)
    }
}

/// What is told of a packet.
struct Seen<'p> {
    /// Since 1970.
    time: Duration,
    port: &'p str,
    direction: &'static str,
    what: String,
    len: u32,
    comment: &'p str,
}

impl<'p> Seen<'p> {
    fn of(packet: &'p EnhancedPacketBlock<'_>, port: &'p str) -> Seen<'p> {
        let mut seen = Seen {
            time: packet.timestamp,
            port,
            direction: "?",
            what: decode(&packet.data),
            len: packet.original_len,
            comment: "",
        };
        for option in &packet.options {
            match option {
                EnhancedPacketOption::Flags(flags) if flags & 3 == 1 => seen.direction = "in",
                EnhancedPacketOption::Flags(flags) if flags & 3 == 2 => seen.direction = "out",
                EnhancedPacketOption::Common(CommonOption::Comment(text)) => seen.comment = text,
                _ => {}
            }
        }
        seen
    }

    fn line(&self) -> String {
        format!(
            "{} {} {:<3} {}, {} bytes: {}",
            time(self.time),
            self.port,
            self.direction,
            self.what,
            self.len,
            self.comment
        )
    }

    fn json(&self) -> Value {
        json!({
            "time_ns": u64::try_from(self.time.as_nanos()).unwrap_or(u64::MAX),
            "port": self.port,
            "direction": self.direction,
            "packet": self.what,
            "bytes": self.len,
            "comment": self.comment,
        })
    }
}

/// The time of day, UTC.
fn time(since_1970: Duration) -> String {
    let second = since_1970.as_secs() % 86_400;
    let (hour, minute) = (second / 3600, second / 60 % 60);
    let nanos = since_1970.subsec_nanos();
    format!("{hour:02}:{minute:02}:{:02}.{nanos:09}", second % 60)
}

fn decode(frame: &[u8]) -> String {
    match parse(frame, &Offload::NONE) {
        Parsed::Ipv4(packet) => transport(
            &packet,
            packet.tuple.source.into(),
            packet.tuple.destination.into(),
        ),
        Parsed::Ipv6(packet) => transport(
            &packet,
            packet.tuple.source.into(),
            packet.tuple.destination.into(),
        ),
        Parsed::Arp => match arp::parse(frame) {
            Ok(message) => match message.operation {
                arp::Operation::Request => {
                    format!("ARP who has {}, tell {}", message.target, message.sender)
                }
                arp::Operation::Reply => {
                    format!("ARP {} is at {}", message.sender, message.sender_mac)
                }
            },
            Err(_) => "ARP, malformed".to_owned(),
        },
        Parsed::Other => "no IP".to_owned(),
        // Also of one that is cut or bigger than its link: whoever wants more has `-w`.
        Parsed::Drop(reason) => format!("not read ({})", reason.name()),
    }
}

fn transport<F: dataplane::packet::Family>(
    packet: &Packet<F>,
    source: IpAddr,
    destination: IpAddr,
) -> String {
    let tuple = &packet.tuple;
    let (from, to) = (
        SocketAddr::new(source, tuple.source_port),
        SocketAddr::new(destination, tuple.destination_port),
    );
    match tuple.protocol {
        6 => format!("TCP {from} > {to} [{}]", flags(packet.tcp_flags)),
        17 => format!("UDP {from} > {to}"),
        132 => format!("SCTP {from} > {to}"),
        1 | 58 => format!("ICMP {source} > {destination}"),
        4 | 41 => format!("IP in IP {source} > {destination}"),
        number => format!("protocol {number} {source} > {destination}"),
    }
}

/// As tcpdump writes them.
fn flags(flags: TcpFlags) -> String {
    let letters = [
        (2, 'S'),
        (1, 'F'),
        (8, 'P'),
        (4, 'R'),
        (0x20, 'U'),
        (0x10, '.'),
    ];
    let set = letters.iter().filter(|(bit, _)| flags.0 & bit != 0);
    let text: String = set.map(|(_, letter)| letter).collect();
    if text.is_empty() {
        "none".to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_told_in_words_and_as_json() {
        let seen = Seen {
            time: Duration::new(86_400 + 3_661, 5),
            port: "wan",
            direction: "in",
            what: "TCP 10.0.0.9:4000 > 10.0.0.100:80 [S]".to_owned(),
            len: 60,
            comment: "dropped: no-server",
        };
        assert_eq!(
            seen.line(),
            "01:01:01.000000005 wan in  TCP 10.0.0.9:4000 > 10.0.0.100:80 [S], 60 bytes: dropped: no-server"
        );
        let told = seen.json();
        assert_eq!(told["time_ns"], 90_061_000_000_005_u64);
        assert_eq!(
            (&told["direction"], &told["bytes"]),
            (&json!("in"), &json!(60))
        );
    }

    #[test]
    fn times_are_of_the_day() {
        assert_eq!(time(Duration::new(86_400 + 3_661, 5)), "01:01:01.000000005");
    }

    #[test]
    fn flags_are_written_as_by_tcpdump() {
        assert_eq!(flags(TcpFlags(0x12)), "S.");
        assert_eq!(flags(TcpFlags(0x18)), "P.");
        assert_eq!(flags(TcpFlags(0)), "none");
    }

    #[test]
    fn what_is_no_packet_is_said_to_be_none() {
        assert_eq!(decode(&[0; 10]), "not read (truncated)");
    }
}
