//! Where a director may rightly differ from the oracle, whose director is also an ordinary host with a stack of its own.
//! All such rules are here; whatever they do not name must be equal.

use crate::build::{checksum, from_hex};
use crate::describe::hex;
use crate::endpoint::Endpoint;
use serde_json::Value;
use std::net::IpAddr;

/// Seconds by which `expires` may differ: recordings ran in real time.
pub const EXPIRES_SLACK: u64 = 2;
/// The TTL of what the host's stack says itself.
const HOST_TTL: u64 = 64;

/// An injected frame, and what is known of the moment.
pub struct Moment<'m> {
    /// The frame, described.
    pub injected: &'m Value,
    /// Whether it goes to a service.
    pub for_service: bool,
    /// Whether an address is the director's.
    pub is_directors: &'m dyn Fn(IpAddr) -> bool,
}

impl Moment<'_> {
    fn from_director(&self, frame: &Value) -> bool {
        let source = address(frame, "src");
        frame["ttl"] == HOST_TTL && source.is_some_and(self.is_directors)
    }
}

/// Whether a recorded frame need not come out of uvs, and why.
#[must_use]
pub fn may_be_missing(frame: &Value, moment: &Moment<'_>) -> Option<&'static str> {
    if moment.from_director(frame) && frame["proto"] == "tcp" && text(frame, "flags").contains('R')
    {
        return Some("the host refuses a segment of no connection; uvs leaves that to the kernel");
    }
    let unreachable = frame["icmp"] == [3, 3] || frame["icmp"] == [3, 2];
    let unreachable6 = frame["icmp"] == [1, 4] || frame["icmp"] == [4, 1];
    if moment.from_director(frame) && (unreachable || unreachable6) && !moment.for_service {
        return Some("the host has no such port or protocol; uvs leaves that to the kernel");
    }
    let target = address(moment.injected, "dst");
    if target.is_some_and(|target| !(moment.is_directors)(target))
        && is_one_hop_on(moment.injected, frame)
    {
        return Some("the host forwards what passes through it; uvs leaves that to the kernel");
    }
    None
}

/// Whether a frame may come out of uvs that is not recorded, and why.
#[must_use]
pub fn may_be_extra(frame: &Value) -> Option<&'static str> {
    let announces =
        frame["proto"] == "arp" || frame["icmp"] == [135, 0] || frame["icmp"] == [136, 0];
    announces.then_some("uvs speaks ARP and ND itself, and says so when it takes an address")
}

/// Whether frames are equal in hex, a dot standing for any digit that the kernel chose.
#[must_use]
pub fn same_frame(recorded: &str, frame: &str) -> bool {
    let same = |(recorded, digit): (u8, u8)| recorded == b'.' || recorded == digit;
    recorded.len() == frame.len() && recorded.bytes().zip(frame.bytes()).all(same)
}

/// Whether the lines of a listing come in the order of the kernel's hash table, that is, in any.
#[must_use]
pub fn is_unordered(dumped: &str) -> bool {
    let mut words = dumped.split_whitespace();
    words.any(|word| {
        word == "--nosort" || word.starts_with('-') && !word.starts_with("--") && word.contains('c')
    })
}

/// Whether a frame is another, one hop further: as it was but for hardware addresses, TTL and its checksum.
fn is_one_hop_on(injected: &Value, frame: &Value) -> bool {
    let (Some(mut before), Some(after)) = (
        from_hex(text(injected, "raw")),
        from_hex(text(frame, "raw")),
    ) else {
        return false;
    };
    let ipv4 = before.get(12..14) == Some(&[8, 0]);
    let ttl_at = if ipv4 { 22 } else { 21 };
    if before.len() != after.len() || before.len() < 34 {
        return false;
    }
    before[ttl_at] = before[ttl_at].saturating_sub(1);
    if ipv4 {
        before[24..26].copy_from_slice(&[0, 0]);
        let sum = checksum(&[&before[14..34]]);
        before[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    hex(&before[12..]) == hex(&after[12..])
}

fn address(packet: &Value, key: &str) -> Option<IpAddr> {
    packet[key]
        .as_str()?
        .parse::<Endpoint>()
        .ok()
        .map(|end| end.address)
}

fn text<'v>(packet: &'v Value, key: &str) -> &'v str {
    packet[key].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::Builder;
    use crate::describe::describe;
    use serde_json::json;

    fn frame(packet: &Value) -> Value {
        let (_, frame) = Builder::default().frames(packet).unwrap().remove(0);
        describe(&frame)
    }

    fn reason(injected: &Value, out: &Value, for_service: bool) -> Option<&'static str> {
        let vip: IpAddr = "10.0.0.100".parse().unwrap();
        let moment = Moment {
            injected: &frame(injected),
            for_service,
            is_directors: &|address| address == vip,
        };
        may_be_missing(&frame(out), &moment)
    }

    #[test]
    fn only_what_the_hosts_own_stack_says_may_be_missing() {
        let syn = json!({"src": "10.64.0.7:40001", "dst": "10.0.0.100:80", "proto": "tcp"});
        let reset = json!({"src": "10.0.0.100:80", "dst": "10.64.0.7:40001", "proto": "tcp", "flags": "RA"});
        assert!(reason(&syn, &reset, false).is_some());
        let translated = json!({"src": "10.0.0.100:80", "dst": "10.64.0.7:40001", "proto": "tcp", "flags": "RA", "ttl": 63});
        assert!(reason(&syn, &translated, false).is_none());
        let unreachable = json!({"src": "10.0.0.100", "dst": "10.64.0.7", "proto": "icmp", "icmp": [3, 3], "quote": syn});
        assert!(reason(&syn, &unreachable, false).is_some());
        assert!(reason(&syn, &unreachable, true).is_none());
    }

    #[test]
    fn only_what_passes_through_may_be_left_unforwarded() {
        let passing =
            json!({"src": "10.2.0.11:9", "dst": "10.64.0.7:40001", "proto": "udp", "id": 7});
        let passed = json!({"src": "10.2.0.11:9", "dst": "10.64.0.7:40001", "proto": "udp", "id": 7, "ttl": 63});
        assert!(reason(&passing, &passed, false).is_some());
        let changed = json!({"src": "10.2.0.11:10", "dst": "10.64.0.7:40001", "proto": "udp", "id": 7, "ttl": 63});
        assert!(reason(&passing, &changed, false).is_none());
        let to_service =
            json!({"src": "10.64.0.7:9", "dst": "10.0.0.100:80", "proto": "udp", "id": 7});
        let routed = json!({"src": "10.64.0.7:9", "dst": "10.0.0.100:80", "proto": "udp", "id": 7, "ttl": 63});
        assert!(reason(&to_service, &routed, true).is_none());
    }

    #[test]
    fn dots_stand_for_any_digit() {
        assert!(same_frame("0a..ff", "0a12ff"));
        assert!(!same_frame("0a..ff", "0b12ff"));
        assert!(!same_frame("0a..", "0a12ff"));
    }

    #[test]
    fn connection_listings_have_no_order() {
        assert!(is_unordered("-Lnc") && is_unordered("-L -n -c") && is_unordered("-Ln --nosort"));
        assert!(!is_unordered("-Ln --timeout") && !is_unordered("-Ln --persistent-conn"));
    }
}
