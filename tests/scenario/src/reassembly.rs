//! Puts fragments together again, so that what came of a fragmented datagram can be compared however it was cut on its way,
//! in a tunnel and out of it.

use crate::build::from_hex;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const ETHERNET_LEN: usize = 14;
const FRAGMENT: u8 = 44;

/// What of a packet's header is the same in all of its fragments, their identification left out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Header {
    /// Where it comes from.
    pub source: IpAddr,
    /// Where it goes to.
    pub target: IpAddr,
    /// IP protocol number of what is in it.
    pub protocol: u8,
    ttl: u8,
    tos: u8,
}

/// A whole datagram.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Datagram {
    /// The side that it left by, and the hardware addresses it bore.
    pub link: [String; 3],
    /// The header of the tunnel that it is in.
    pub tunnel: Option<Header>,
    /// Its header.
    pub header: Header,
    /// What is behind the header.
    pub payload: Vec<u8>,
}

/// A packet as it was found, whole or a part.
struct Part {
    link: [String; 3],
    tunnel: Option<Header>,
    header: Header,
    ident: u32,
    offset: usize,
    more: bool,
    payload: Vec<u8>,
}

/// The whole datagrams in frames as recordings describe them, in an order that does not depend on theirs. What is not
/// whole is left out.
#[must_use]
pub fn datagrams(frames: &[Value]) -> Vec<Datagram> {
    let outer = frames.iter().filter_map(part_of);
    let mut whole = Vec::new();
    let mut inner = Vec::new();
    for datagram in assemble(outer.collect()) {
        match datagram.header.protocol {
            4 | 41 => inner.extend(parse(
                &datagram.payload,
                datagram.link,
                Some(datagram.header),
            )),
            _ => whole.push(datagram),
        }
    }
    whole.extend(assemble(inner));
    whole.sort();
    whole
}

fn part_of(frame: &Value) -> Option<Part> {
    let text = |key: &str| frame[key].as_str().unwrap_or_default().to_owned();
    // What the kernel chose at random is an identification: the same one in all fragments of a datagram.
    let bytes = from_hex(&text("raw").replace('.', "0"))?;
    let link = [text("side"), text("smac"), text("dmac")];
    parse(bytes.get(ETHERNET_LEN..)?, link, None)
}

fn parse(packet: &[u8], link: [String; 3], tunnel: Option<Header>) -> Option<Part> {
    let half = |at: usize| Some(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]));
    let version = packet.first()? >> 4;
    if version == 6 {
        let address = |at: usize| {
            Some(Ipv6Addr::from(
                <[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?,
            ))
        };
        let body = packet.get(40..40 + usize::from(half(4)?))?;
        let mut header = Header {
            source: address(8)?.into(),
            target: address(24)?.into(),
            protocol: packet[6],
            ttl: packet[7],
            tos: half(0)?.to_be_bytes()[0] << 4 | packet[1] >> 4,
        };
        let (mut ident, mut offset, mut more, mut payload) = (0, 0, false, body);
        if header.protocol == FRAGMENT {
            header.protocol = *body.first()?;
            let word = u16::from_be_bytes([*body.get(2)?, *body.get(3)?]);
            (offset, more) = (usize::from(word & 0xfff8), word & 1 != 0);
            ident = u32::from_be_bytes(body.get(4..8)?.try_into().ok()?);
            payload = &body[8..];
        }
        let payload = payload.to_vec();
        return Some(Part {
            link,
            tunnel,
            header,
            ident,
            offset,
            more,
            payload,
        });
    }
    let address = |at: usize| {
        Some(Ipv4Addr::from(
            <[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?,
        ))
    };
    let word = half(6)?;
    Some(Part {
        link,
        tunnel,
        header: Header {
            source: address(12)?.into(),
            target: address(16)?.into(),
            protocol: packet[9],
            ttl: packet[8],
            tos: packet[1],
        },
        ident: half(4)?.into(),
        offset: usize::from(word & 0x1fff) * 8,
        more: word & 0x2000 != 0,
        payload: packet
            .get(usize::from(packet[0] & 15) * 4..usize::from(half(2)?))?
            .to_vec(),
    })
}

fn assemble(parts: Vec<Part>) -> Vec<Datagram> {
    let mut whole = Vec::new();
    let mut pieces: BTreeMap<_, BTreeMap<usize, (bool, Vec<u8>)>> = BTreeMap::new();
    for part in parts {
        let Part {
            link,
            tunnel,
            header,
            ident,
            offset,
            more,
            payload,
        } = part;
        if offset == 0 && !more {
            whole.push(Datagram {
                link,
                tunnel,
                header,
                payload,
            });
        } else {
            let key = (link, tunnel, header, ident);
            pieces
                .entry(key)
                .or_default()
                .insert(offset, (more, payload));
        }
    }
    for ((link, tunnel, header, _), pieces) in pieces {
        let mut payload = Vec::new();
        let mut ends = false;
        for (offset, (more, piece)) in pieces {
            if offset != payload.len() {
                break;
            }
            payload.extend(piece);
            ends = !more;
        }
        if ends {
            whole.push(Datagram {
                link,
                tunnel,
                header,
                payload,
            });
        }
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::Builder;
    use crate::describe::describe;
    use serde_json::json;

    fn frames(packet: &Value) -> Vec<Value> {
        let frames = Builder::default().frames(packet).unwrap();
        frames.iter().map(|(_, frame)| describe(frame)).collect()
    }

    #[test]
    fn a_datagram_is_the_same_however_it_was_cut() {
        for (source, target) in [
            ("10.64.0.7:40001", "10.0.0.100:53"),
            ("[fd00:64::7]:40001", "[fd00:a::100]:53"),
        ] {
            let packet =
                json!({"src": source, "dst": target, "proto": "udp", "payload_len": 100, "id": 7});
            let cut = |size: u64| {
                let mut packet = packet.clone();
                packet["fragment"] = json!(size);
                frames(&packet)
            };
            let whole = datagrams(&frames(&packet));
            assert_eq!(whole.len(), 1);
            let mut reversed = cut(48);
            reversed.reverse();
            assert_eq!(
                (datagrams(&cut(64)), datagrams(&reversed)),
                (whole.clone(), whole)
            );
            assert_eq!(datagrams(&cut(48)[1..]), []);
        }
    }

    #[test]
    fn fragments_within_a_tunnel_are_the_same_as_a_tunnel_in_fragments() {
        let inner = json!({"src": "10.64.0.7:1", "dst": "10.0.0.100:53", "proto": "udp", "payload_len": 100, "id": 9});
        let outer = json!({"src": "10.2.0.1", "dst": "10.2.0.11", "proto": "ipip", "id": 3});
        let with = |inner: &Value, outer: &Value| {
            let mut outer = outer.clone();
            outer["inner"] = inner.clone();
            frames(&outer)
        };
        let mut cut_outside = outer.clone();
        cut_outside["fragment"] = json!(48);
        let one = datagrams(&with(&inner, &cut_outside));
        assert_eq!(one.len(), 1);
        assert_eq!(one, datagrams(&with(&inner, &outer)));
        assert!(one[0].tunnel.is_some());
    }
}
