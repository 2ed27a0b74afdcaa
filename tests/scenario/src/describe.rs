//! Frames described in the words of the recordings, for comparing field by field.

use crate::build::{checksum, pseudo_header};
use crate::endpoint::{Endpoint, PROTOCOLS, TCP_FLAGS};
use serde_json::{Map, Value, json};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

type Fields = Map<String, Value>;

/// Describes a whole Ethernet frame, `raw` included.
#[must_use]
pub fn describe(frame: &[u8]) -> Value {
    let mut fields = Map::new();
    if let Some((ethernet, rest)) = frame.split_at_checked(14) {
        put(&mut fields, "smac", mac(&ethernet[6..12]));
        put(&mut fields, "dmac", mac(&ethernet[..6]));
        match [ethernet[12], ethernet[13]] {
            [0x08, 0x00] | [0x86, 0xdd] => fields.extend(ip(rest, false)),
            [0x08, 0x06] => put(&mut fields, "proto", "arp"),
            kind => put(&mut fields, "ethertype", hex(&kind)),
        }
    }
    put(&mut fields, "raw", hex(frame));
    Value::Object(fields)
}

/// Lower-case hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A description in a few words.
#[must_use]
pub fn words(packet: &Value) -> String {
    let text = |key: &str| packet[key].as_str().unwrap_or("?").to_owned();
    let mut words = format!(
        "{} > {} {}",
        text("src"),
        text("dst"),
        packet["proto"].to_string().replace('"', "")
    );
    for key in ["flags", "icmp", "ttl", "len", "frag"] {
        if let Some(value) = packet.get(key) {
            let _ = write!(words, " {key}={}", value.to_string().replace('"', ""));
        }
    }
    for key in ["inner", "quote"] {
        if packet.get(key).is_some() {
            let _ = write!(words, " {key} [{}]", self::words(&packet[key]));
        }
    }
    words
}

fn put(fields: &mut Fields, key: &str, value: impl Into<Value>) {
    fields.insert(key.to_owned(), value.into());
}

fn mac(bytes: &[u8]) -> String {
    bytes
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<Vec<_>>()
        .join(":")
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn protocol_name(protocol: u8) -> Value {
    let named = PROTOCOLS.iter().find(|(_, number)| *number == protocol);
    named.map_or(json!(protocol), |(name, _)| json!(name))
}

/// What a quote shows may end anywhere, so that its checksums cannot be judged.
fn ip(packet: &[u8], quoted: bool) -> Fields {
    let shortest = match packet.first().map(|first| first >> 4) {
        None => return Map::new(),
        Some(6) => 40,
        Some(_) => 20,
    };
    if packet.len() < shortest {
        let mut fields = Map::new();
        put(&mut fields, "short", hex(packet));
        return fields;
    }
    if shortest == 40 {
        ipv6(packet, quoted)
    } else {
        ipv4(packet, quoted)
    }
}

fn ipv4(packet: &[u8], quoted: bool) -> Fields {
    let mut fields = Map::new();
    let header_len = usize::from(packet[0] & 15) * 4;
    let (len, fragment) = (half(packet, 2), half(packet, 6));
    let address = |at| IpAddr::V4(Ipv4Addr::from_bits(word(packet, at)));
    let (source, target) = (address(12), address(16));
    let end = if quoted {
        packet.len()
    } else {
        usize::from(len).min(packet.len())
    };
    let body = packet.get(header_len..end).unwrap_or_default();
    let header = &packet[..header_len.min(packet.len())];
    put(&mut fields, "src", source.to_string());
    put(&mut fields, "dst", target.to_string());
    put(&mut fields, "proto", protocol_name(packet[9]));
    put(&mut fields, "ttl", packet[8]);
    put(&mut fields, "tos", packet[1]);
    put(&mut fields, "id", half(packet, 4));
    put(&mut fields, "len", len);
    put(&mut fields, "df", fragment & 0x4000 != 0);
    put(
        &mut fields,
        "ip_csum",
        if checksum(&[header]) == 0 {
            "ok"
        } else {
            "bad"
        },
    );
    let (offset, more) = ((fragment & 0x1fff) * 8, fragment & 0x2000 != 0);
    if offset != 0 || more {
        put(&mut fields, "frag", json!([offset, more]));
    }
    if offset == 0 {
        transport(
            &mut fields,
            source,
            target,
            packet[9],
            body,
            !quoted && !more,
        );
    }
    fields
}

fn ipv6(packet: &[u8], quoted: bool) -> Fields {
    let mut fields = Map::new();
    let first = word(packet, 0);
    let len = half(packet, 4);
    let address = |at: usize| {
        let bytes: [u8; 16] = packet[at..at + 16].try_into().expect("sixteen bytes");
        IpAddr::V6(Ipv6Addr::from(bytes))
    };
    let (source, target) = (address(8), address(24));
    let end = if quoted {
        packet.len()
    } else {
        (40 + usize::from(len)).min(packet.len())
    };
    let mut body = &packet[40..end];
    put(&mut fields, "src", source.to_string());
    put(&mut fields, "dst", target.to_string());
    put(&mut fields, "ttl", packet[7]);
    put(&mut fields, "tos", first >> 20 & 0xff);
    put(&mut fields, "flow", first & 0xf_ffff);
    put(&mut fields, "len", len);
    let (mut protocol, mut offset, mut more) = (packet[6], 0, false);
    while body.len() >= 8 {
        let skipped = match protocol {
            0 => "hop-by-hop",
            43 => "routing",
            60 => "destination",
            44 => {
                offset = half(body, 2) & 0xfff8;
                more = body[3] & 1 != 0;
                put(&mut fields, "frag", json!([offset, more]));
                put(&mut fields, "id", word(body, 4));
                (protocol, body) = (body[0], &body[8..]);
                continue;
            }
            _ => break,
        };
        let headers = fields.entry("headers").or_insert_with(|| json!([]));
        if let Some(headers) = headers.as_array_mut() {
            headers.push(json!(skipped));
        }
        let next = body[0];
        body = body
            .get((usize::from(body[1]) + 1) * 8..)
            .unwrap_or_default();
        protocol = next;
    }
    put(&mut fields, "proto", protocol_name(protocol));
    if offset == 0 {
        transport(
            &mut fields,
            source,
            target,
            protocol,
            body,
            !quoted && !more,
        );
    }
    fields
}

/// Describes what follows the IP header. `whole`: nothing of it is missing, so that its checksum can be judged.
fn transport(
    fields: &mut Fields,
    source: IpAddr,
    target: IpAddr,
    protocol: u8,
    body: &[u8],
    whole: bool,
) {
    if matches!(protocol, 6 | 17 | 132) && body.len() >= 4 {
        for (key, address, at) in [("src", source, 0), ("dst", target, 2)] {
            let port = Some(half(body, at));
            put(fields, key, Endpoint { address, port }.to_string());
        }
    }
    if protocol == 6 && body.len() >= 8 {
        put(fields, "seq", word(body, 4));
    }
    let verdict = |at: usize| {
        let pseudo = match protocol {
            1 => Vec::new(),
            _ => pseudo_header(source, target, protocol, body.len()),
        };
        match (protocol, half(body, at)) {
            (17, 0) => "zero",
            _ if checksum(&[&pseudo, body]) == 0 => "ok",
            _ => "bad",
        }
    };
    match protocol {
        6 if body.len() >= 20 => {
            let header_len = usize::from(body[12] >> 4) * 4;
            let set = TCP_FLAGS
                .char_indices()
                .filter(|(bit, _)| body[13] >> bit & 1 != 0);
            put(
                fields,
                "flags",
                set.map(|(_, flag)| flag).collect::<String>(),
            );
            put(fields, "ack", word(body, 8));
            put(fields, "win", half(body, 14));
            put(fields, "payload_len", body.len().saturating_sub(header_len));
            if header_len > 20 {
                put(
                    fields,
                    "options",
                    hex(&body[20..header_len.min(body.len())]),
                );
            }
            if whole {
                put(fields, "csum", verdict(16));
            }
        }
        17 if body.len() >= 8 => {
            put(fields, "payload_len", i32::from(half(body, 4)) - 8);
            if whole {
                put(fields, "csum", verdict(6));
            }
        }
        1 | 58 if body.len() >= 8 => {
            icmp(fields, protocol, body);
            if whole {
                put(fields, "csum", verdict(2));
            }
        }
        4 | 41 => put(fields, "inner", Value::Object(ip(body, !whole))),
        47 if body.len() >= 4 => {
            let (flags, kind) = (half(body, 0), half(body, 2));
            let optional = [0x8000, 0x2000, 0x1000]
                .into_iter()
                .filter(|bit| flags & bit != 0)
                .count();
            put(
                fields,
                "gre",
                json!({"flags": format!("{flags:04x}"), "type": format!("{kind:04x}")}),
            );
            if matches!(kind, 0x0800 | 0x86dd) {
                let inner = body.get(4 + 4 * optional..).unwrap_or_default();
                put(fields, "inner", Value::Object(ip(inner, !whole)));
            }
        }
        6 => {}
        _ => put(fields, "payload_len", body.len()),
    }
}

fn icmp(fields: &mut Fields, protocol: u8, body: &[u8]) {
    let (kind, code) = (body[0], body[1]);
    let is_error = match protocol {
        1 => matches!(kind, 3 | 4 | 5 | 11 | 12),
        _ => kind < 128,
    };
    put(fields, "icmp", json!([kind, code]));
    if (protocol, kind, code) == (1, 3, 4) || (protocol, kind) == (58, 2) {
        put(fields, "mtu", word(body, 4));
    }
    if is_error {
        put(fields, "quote", Value::Object(ip(&body[8..], true)));
        put(fields, "quote_len", body.len() - 8);
    } else {
        put(fields, "echo", json!([half(body, 4), half(body, 6)]));
        put(fields, "payload_len", body.len() - 8);
    }
}
