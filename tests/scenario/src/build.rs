//! Frames from the descriptions of scenarios.

use crate::endpoint::{Endpoint, PROTOCOLS, TCP_FLAGS};
use crate::topology::{Side, mac_of, source_of};
use dataplane::port::Mac;
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::IpAddr;

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP6: u8 = 58;
const FRAGMENT: u8 = 44;

/// What cannot be made a frame of.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// A key that every packet needs.
    #[error("a packet without \"{0}\"")]
    Missing(&'static str),
    /// A key with a value that it cannot have.
    #[error("a packet whose \"{key}\" is {value}")]
    Bad {
        /// The key.
        key: &'static str,
        /// Its value, as JSON.
        value: String,
    },
    /// Source and destination of two families.
    #[error("a packet from {0} to {1}: two families")]
    Families(IpAddr, IpAddr),
}

/// Makes frames, and counts the identifications it gives them.
#[derive(Debug, Default)]
pub struct Builder {
    idents: BTreeSet<u64>,
}

impl Builder {
    /// The frames that a description stands for, in the order in which they are to be injected, with their side.
    ///
    /// # Errors
    /// When the description makes no sense.
    pub fn frames(&mut self, packet: &Value) -> Result<Vec<(Side, Vec<u8>)>, BuildError> {
        let source = endpoint(packet, "src")?;
        let (mut side, mut source_mac) = source_of(source.address);
        if let Some(name) = packet.get("side") {
            side = name
                .as_str()
                .and_then(Side::named)
                .ok_or_else(|| bad(packet, "side"))?;
        }
        let mut target_mac = side.mac();
        for (key, mac) in [("smac", &mut source_mac), ("dmac", &mut target_mac)] {
            if packet.get(key).is_some() {
                *mac = read_mac(packet, key)?;
            }
        }
        let counted = 0x1001 + u64::try_from(self.idents.len()).unwrap_or(0) % 0xe000;
        let ident = number(packet, "id", counted)?;
        self.idents.insert(ident);
        if packet.get("raw").is_some() {
            return Ok(vec![(side, hex(packet, "raw")?)]);
        }
        let packets = build(packet, ident)?;
        let order: Vec<usize> = match packet.get("order").and_then(Value::as_array) {
            Some(order) => order
                .iter()
                .filter_map(|place| usize::try_from(place.as_u64()?).ok())
                .collect(),
            None => (0..packets.len()).collect(),
        };
        let chosen = order
            .into_iter()
            .map(|place| packets.get(place).ok_or_else(|| bad(packet, "order")));
        chosen
            .map(|bytes| Ok((side, ethernet(bytes?, source_mac, target_mac))))
            .collect()
    }
}

/// The Internet checksum. Source: RFC 1071.
#[must_use]
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u64;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u64::from(u16::from_be_bytes([
                pair[0],
                pair.get(1).copied().unwrap_or(0),
            ]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !low16(sum)
}

/// The pseudo header that a transport checksum covers. Source: RFC 9293 §3.1, RFC 8200 §8.1.
#[must_use]
pub fn pseudo_header(source: IpAddr, target: IpAddr, protocol: u8, len: usize) -> Vec<u8> {
    let mut header = [octets(source), octets(target)].concat();
    if source.is_ipv6() {
        header.extend(low32(len as u64).to_be_bytes());
        header.extend([0, 0, 0, protocol]);
    } else {
        header.extend([0, protocol]);
        header.extend(low16(len as u64).to_be_bytes());
    }
    header
}

fn build(packet: &Value, ident: u64) -> Result<Vec<Vec<u8>>, BuildError> {
    let (source, target) = (endpoint(packet, "src")?, endpoint(packet, "dst")?);
    if source.address.is_ipv6() != target.address.is_ipv6() {
        return Err(BuildError::Families(source.address, target.address));
    }
    let name = packet.get("proto").ok_or(BuildError::Missing("proto"))?;
    let named = PROTOCOLS
        .iter()
        .find(|(known, _)| name.as_str() == Some(known));
    let protocol = match named {
        Some((_, protocol)) => *protocol,
        None => name
            .as_u64()
            .and_then(|number| u8::try_from(number).ok())
            .ok_or_else(|| bad(packet, "proto"))?,
    };
    let body = match named.map(|(known, _)| *known) {
        Some("tcp") => tcp(packet, &source, &target)?,
        Some("udp") => udp(packet, &source, &target)?,
        Some("icmp" | "icmp6") => icmp(packet, &source, &target, protocol, ident)?,
        Some("ipip" | "ip6") => inner(packet, "inner", ident)?,
        _ => payload(packet)?,
    };
    let ident = number(packet, "id", ident)?;
    let header =
        |protocol, len, fragment| header(packet, &source, &target, protocol, len, ident, fragment);
    let size = usize::try_from(number(packet, "fragment", 0)?).unwrap_or(0);
    if size == 0 {
        return Ok(vec![[header(protocol, body.len(), 0)?, body].concat()]);
    }
    let pieces = body.chunks(size).enumerate().map(|(place, piece)| {
        let start = place * size;
        let more = start + size < body.len();
        if source.address.is_ipv6() {
            let mut extension = vec![protocol, 0];
            extension.extend(low16((start | usize::from(more)) as u64).to_be_bytes());
            extension.extend(low32(ident).to_be_bytes());
            return Ok([
                header(FRAGMENT, 8 + piece.len(), 0)?,
                extension,
                piece.to_vec(),
            ]
            .concat());
        }
        let fragment = low16((start / 8) as u64) | if more { 0x2000 } else { 0 };
        Ok([header(protocol, piece.len(), fragment)?, piece.to_vec()].concat())
    });
    pieces.collect()
}

fn tcp(packet: &Value, source: &Endpoint, target: &Endpoint) -> Result<Vec<u8>, BuildError> {
    let letters = packet
        .get("flags")
        .map_or(Some("S"), Value::as_str)
        .ok_or_else(|| bad(packet, "flags"))?;
    let mut flags = 0_u8;
    for letter in letters.chars() {
        flags |= 1 << TCP_FLAGS.find(letter).ok_or_else(|| bad(packet, "flags"))?;
    }
    let mut options = hex(packet, "options")?;
    options.resize(options.len().next_multiple_of(4), 0);
    let words = u8::try_from(5 + options.len() / 4).map_err(|_| bad(packet, "options"))?;
    let acknowledged = if letters.contains('A') { 2000 } else { 0 };
    let mut segment = ports(source, target);
    segment.extend(low32(number(packet, "seq", 1000)?).to_be_bytes());
    segment.extend(low32(number(packet, "ack", acknowledged)?).to_be_bytes());
    segment.extend([words << 4, flags]);
    segment.extend(low16(number(packet, "win", 64240)?).to_be_bytes());
    segment.extend([0; 4]);
    segment.extend(options);
    segment.extend(payload(packet)?);
    let pseudo = pseudo_header(source.address, target.address, TCP, segment.len());
    let sum = checksum(&[&pseudo, &segment]);
    put_checksum(&mut segment, 16, sum, packet.get("csum"));
    Ok(segment)
}

fn udp(packet: &Value, source: &Endpoint, target: &Endpoint) -> Result<Vec<u8>, BuildError> {
    let payload = payload(packet)?;
    let mut datagram = ports(source, target);
    datagram.extend(low16(8 + payload.len() as u64).to_be_bytes());
    datagram.extend([0; 2]);
    datagram.extend(payload);
    let pseudo = pseudo_header(source.address, target.address, UDP, datagram.len());
    let sum = match checksum(&[&pseudo, &datagram]) {
        0 => 0xffff,
        sum => sum,
    };
    put_checksum(&mut datagram, 6, sum, packet.get("csum"));
    Ok(datagram)
}

fn icmp(
    packet: &Value,
    source: &Endpoint,
    target: &Endpoint,
    protocol: u8,
    ident: u64,
) -> Result<Vec<u8>, BuildError> {
    let pair = |key| -> Result<(u64, u64), BuildError> {
        let pair = packet.get(key).ok_or(BuildError::Missing(key))?;
        let half = |place: usize| {
            pair.get(place)
                .and_then(Value::as_u64)
                .ok_or_else(|| bad(packet, key))
        };
        Ok((half(0)?, half(1)?))
    };
    let (kind, code) = pair("icmp")?;
    let mut message = vec![kind.to_be_bytes()[7], code.to_be_bytes()[7], 0, 0];
    if packet.get("mtu").is_some() {
        message.extend(low32(number(packet, "mtu", 0)?).to_be_bytes());
    } else if packet.get("echo").is_some() {
        let (id, sequence) = pair("echo")?;
        message.extend(low16(id).to_be_bytes());
        message.extend(low16(sequence).to_be_bytes());
    } else {
        message.extend([0; 4]);
    }
    if packet.get("quote").is_some() {
        let quote = inner(packet, "quote", ident)?;
        let len =
            usize::try_from(number(packet, "quote_len", quote.len() as u64)?).unwrap_or(usize::MAX);
        message.extend(&quote[..len.min(quote.len())]);
    } else {
        message.extend(payload(packet)?);
    }
    let pseudo = match protocol {
        ICMP6 => pseudo_header(source.address, target.address, protocol, message.len()),
        _ => Vec::new(),
    };
    let sum = checksum(&[&pseudo, &message]);
    put_checksum(&mut message, 2, sum, packet.get("csum"));
    Ok(message)
}

/// The packet within a packet.
fn inner(packet: &Value, key: &'static str, ident: u64) -> Result<Vec<u8>, BuildError> {
    let inner = packet.get(key).ok_or(BuildError::Missing(key))?;
    build(inner, ident)?
        .into_iter()
        .next()
        .ok_or_else(|| bad(packet, key))
}

fn header(
    packet: &Value,
    source: &Endpoint,
    target: &Endpoint,
    protocol: u8,
    len: usize,
    ident: u64,
    fragment: u16,
) -> Result<Vec<u8>, BuildError> {
    let tos = number(packet, "tos", 0)?;
    let ttl = number(packet, "ttl", 64)?.to_be_bytes()[7];
    if source.address.is_ipv6() {
        let word = 6 << 28 | tos << 20 | number(packet, "flow", 0)?;
        let mut header = low32(word).to_be_bytes().to_vec();
        header.extend(low16(len as u64).to_be_bytes());
        header.extend([protocol, ttl]);
        return Ok([header, octets(source.address), octets(target.address)].concat());
    }
    let keep = packet.get("df").and_then(Value::as_bool).unwrap_or(false);
    let fragment = fragment | if keep { 0x4000 } else { 0 };
    let mut header = vec![0x45, tos.to_be_bytes()[7]];
    header.extend(low16(20 + len as u64).to_be_bytes());
    header.extend(low16(ident).to_be_bytes());
    header.extend(fragment.to_be_bytes());
    header.extend([ttl, protocol, 0, 0]);
    header.extend([octets(source.address), octets(target.address)].concat());
    let sum = checksum(&[&header]);
    put_checksum(&mut header, 10, sum, packet.get("ip_csum"));
    Ok(header)
}

fn ethernet(packet: &[u8], source: Mac, target: Mac) -> Vec<u8> {
    let kind: [u8; 2] = if packet[0] >> 4 == 6 {
        [0x86, 0xdd]
    } else {
        [8, 0]
    };
    [&target.0, &source.0, kind.as_slice(), packet].concat()
}

/// Stores a checksum: the right one, or what the description wants instead.
fn put_checksum(bytes: &mut [u8], at: usize, sum: u16, wanted: Option<&Value>) {
    let sum = match wanted.and_then(Value::as_str) {
        Some("bad") => sum ^ 0x5555,
        Some("zero") => 0,
        _ => sum,
    };
    bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

fn payload(packet: &Value) -> Result<Vec<u8>, BuildError> {
    if packet.get("payload_hex").is_some() {
        return hex(packet, "payload_hex");
    }
    if packet.get("payload_len").is_some() {
        let len = number(packet, "payload_len", 0)?;
        return Ok((0..len).map(|place| place.to_be_bytes()[7]).collect());
    }
    match packet.get("payload") {
        None => Ok(Vec::new()),
        Some(text) => text
            .as_str()
            .map(|text| text.as_bytes().to_vec())
            .ok_or_else(|| bad(packet, "payload")),
    }
}

fn ports(source: &Endpoint, target: &Endpoint) -> Vec<u8> {
    let ports = [source, target].map(|end| end.port.unwrap_or(0).to_be_bytes());
    ports.concat()
}

fn endpoint(packet: &Value, key: &'static str) -> Result<Endpoint, BuildError> {
    let text = packet.get(key).ok_or(BuildError::Missing(key))?;
    text.as_str()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| bad(packet, key))
}

fn number(packet: &Value, key: &'static str, default: u64) -> Result<u64, BuildError> {
    match packet.get(key) {
        None => Ok(default),
        Some(value) => value.as_u64().ok_or_else(|| bad(packet, key)),
    }
}

/// The bytes of a hexadecimal text; none where there is no text.
fn hex(packet: &Value, key: &'static str) -> Result<Vec<u8>, BuildError> {
    let text = match packet.get(key) {
        None => "",
        Some(text) => text.as_str().ok_or_else(|| bad(packet, key))?,
    };
    from_hex(text).ok_or_else(|| bad(packet, key))
}

/// The bytes of hexadecimal digits.
#[must_use]
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    let pairs = (0..text.len()).step_by(2);
    pairs
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok())
        .collect()
}

fn read_mac(packet: &Value, key: &'static str) -> Result<Mac, BuildError> {
    let text = packet[key].as_str().ok_or_else(|| bad(packet, key))?;
    if let Ok(address) = text.parse() {
        return Ok(mac_of(address));
    }
    let bytes = from_hex(&text.replace(':', "")).and_then(|bytes| bytes.try_into().ok());
    bytes.map(Mac).ok_or_else(|| bad(packet, key))
}

fn bad(packet: &Value, key: &'static str) -> BuildError {
    BuildError::Bad {
        key,
        value: packet[key].to_string(),
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn low16(number: u64) -> u16 {
    let [.., a, b] = number.to_be_bytes();
    u16::from_be_bytes([a, b])
}

fn low32(number: u64) -> u32 {
    let [.., a, b, c, d] = number.to_be_bytes();
    u32::from_be_bytes([a, b, c, d])
}
