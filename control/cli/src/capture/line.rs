//! A packet in a line.

use dataplane::frame::Offload;
use dataplane::packet::{Packet, Parsed, TcpFlags, arp, parse};
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionOption;
use pcap_file::pcapng::blocks::opt_common::CommonOption;
use pcap_file::pcapng::{Block, PcapNgParseError, PcapNgParser};
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Reads the blocks of a file as they come.
#[derive(Default)]
pub(super) struct Lines {
    parser: Option<PcapNgParser>,
}

impl Lines {
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
                // Writing to a String cannot fail.
                let _ = writeln!(text, "{}", line(&packet, name.unwrap_or("?")));
            }
        }
        Ok(text)
    }
}

fn line(packet: &EnhancedPacketBlock<'_>, port: &str) -> String {
    let mut direction = "?";
    let mut comment = "";
    for option in &packet.options {
        match option {
            EnhancedPacketOption::Flags(flags) if flags & 3 == 1 => direction = "in ",
            EnhancedPacketOption::Flags(flags) if flags & 3 == 2 => direction = "out",
            EnhancedPacketOption::Common(CommonOption::Comment(text)) => comment = text,
            _ => {}
        }
    }
    let what = decode(&packet.data);
    let len = packet.original_len;
    format!(
        "{} {port} {direction} {what}, {len} bytes: {comment}",
        time(packet.timestamp)
    )
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
