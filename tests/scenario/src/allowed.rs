//! Where a director may rightly differ from the oracle, whose director is also an ordinary host with a stack of its own.
//! All such rules are here; whatever they do not name must be equal.

use crate::build::{checksum, from_hex};
use crate::describe::hex;
use crate::endpoint::Endpoint;
use crate::reassembly::Datagram;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::net::IpAddr;

/// Seconds by which `expires` may differ: recordings ran in real time.
pub const EXPIRES_SLACK: u64 = 2;
/// The TTL of what the host's stack says itself.
const HOST_TTL: u64 = 64;
const ETHERNET_LEN: usize = 14;
const IPV4_HEADER_LEN: usize = 20;
const IPV6_HEADER_LEN: u64 = 40;

/// A file whose last line is what passes in a second: recordings ran in real time.
pub const RATES: &str = "/proc/net/ip_vs_stats";

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
    fn is_from_director(&self, frame: &Value) -> bool {
        let source = address(frame, "src");
        frame["ttl"] == HOST_TTL && source.is_some_and(self.is_directors)
    }
}

/// Whether a recorded frame need not come out of uvs, and why.
#[must_use]
pub fn may_be_missing(frame: &Value, moment: &Moment<'_>) -> Option<&'static str> {
    if moment.is_from_director(frame)
        && frame["proto"] == "tcp"
        && text(frame, "flags").contains('R')
    {
        return Some("the host refuses a segment of no connection; uvs leaves that to the kernel");
    }
    let unreachable = frame["icmp"] == json!([3, 3]) || frame["icmp"] == json!([3, 2]);
    let unreachable6 = frame["icmp"] == json!([1, 4]) || frame["icmp"] == json!([4, 1]);
    if moment.is_from_director(frame) && (unreachable || unreachable6) && !moment.for_service {
        return Some("the host has no such port or protocol; uvs leaves that to the kernel");
    }
    let target = address(moment.injected, "dst");
    if moment.is_from_director(frame) && is_from_the_stack_alone(moment, frame) {
        return Some("the host answers for itself; uvs leaves that to the kernel");
    }
    if target.is_some_and(|target| !(moment.is_directors)(target))
        && is_one_hop_on(moment.injected, frame)
    {
        return Some("the host forwards what passes through it; uvs leaves that to the kernel");
    }
    None
}

/// Whether a frame answers what only a host answers: ICMP timestamp requests, echo requests to groups, in fragments or to
/// an address without a service.
fn is_from_the_stack_alone(moment: &Moment<'_>, frame: &Value) -> bool {
    let injected = moment.injected;
    let asked =
        |request: u64, reply: u64| injected["icmp"][0] == request && frame["icmp"][0] == reply;
    let is_to_group = address(injected, "dst").is_some_and(|target| target.is_multicast());
    let is_cut = injected.get("frag").is_some();
    asked(13, 14)
        || (is_to_group || is_cut || !moment.for_service) && (asked(8, 0) || asked(128, 129))
}

/// Whether a frame may come out of uvs that is not recorded, and why. What the kernel should have sent and counted is
/// credited.
pub fn may_be_extra(
    frame: &Value,
    moment: &Moment<'_>,
    credits: &mut Credits,
) -> Option<&'static str> {
    if frame["proto"] == "arp"
        || frame["icmp"] == json!([135, 0])
        || frame["icmp"] == json!([136, 0])
    {
        return Some("uvs speaks ARP and ND itself, and says so when it takes an address");
    }
    let relayed = moment.injected["proto"] == "icmp6" && moment.injected["icmp"] == frame["icmp"];
    if relayed && frame.get("quote").is_some() && frame["side"] == "client" {
        credits.relayed(moment.injected, frame);
        return Some(
            "the kernel loses ICMPv6 errors of the servers' side about NAT connections: its fault",
        );
    }
    None
}

/// What uvs rightly counts otherwise than the kernel, by service, and by service and server: packets and bytes more.
#[derive(Debug, Default)]
pub struct Credits {
    outwards: HashMap<String, (u64, u64)>,
}

impl Credits {
    /// Whether a counter differs by just what is credited to it. `name` is a service's, or a service's and a server's.
    #[must_use]
    pub fn explain(&self, name: &str, key: &str, recorded: &Value, actual: &Value) -> bool {
        let bytes = match key {
            "out_packets" => false,
            "out_bytes" => true,
            _ => return false,
        };
        let credit = self
            .outwards
            .get(name)
            .map_or(0, |credit| if bytes { credit.1 } else { credit.0 });
        recorded
            .as_u64()
            .is_some_and(|recorded| actual.as_u64() == Some(recorded + credit))
    }

    fn relayed(&mut self, injected: &Value, frame: &Value) {
        let protocol = text(&frame["quote"], "proto").to_uppercase();
        let service = format!("{protocol} {}", text(&frame["quote"], "dst"));
        let bytes = frame["len"].as_u64().unwrap_or(0) + IPV6_HEADER_LEN;
        add(
            &mut self.outwards,
            &service,
            text(&injected["quote"], "dst"),
            (1, bytes),
        );
    }
}

fn add(credits: &mut HashMap<String, (u64, u64)>, service: &str, server: &str, more: (u64, u64)) {
    for name in [service.to_owned(), format!("{service} {server}")] {
        let (packets, bytes) = credits.entry(name).or_default();
        *packets += more.0;
        *bytes += more.1;
    }
}

/// Whether the frames that came of fragments are rightly others than recorded, and why.
#[must_use]
pub fn same_datagrams(recorded: &[Datagram], actual: &[Datagram]) -> Option<&'static str> {
    (recorded == actual).then_some(
        "the kernel puts datagrams together and cuts them again; uvs passes each fragment on",
    )
}

/// Whether two frames are equal in hex, but for what a director may set otherwise. A dot stands for a digit that the kernel
/// chose.
#[must_use]
pub fn same_frame(recorded: &Value, actual: &Value, moment: &Moment<'_>) -> bool {
    let (expected, frame) = (text(recorded, "raw"), text(actual, "raw"));
    if recorded["side"] != actual["side"] || expected.len() != frame.len() {
        return false;
    }
    let mut expected = expected.as_bytes().to_vec();
    if actual["csum"] == "ok" {
        for place in free_bytes(actual, moment) {
            if let Some(digits) = expected.get_mut(2 * place..2 * place + 2) {
                digits.fill(b'.');
            }
        }
    }
    expected
        .iter()
        .zip(frame.bytes())
        .all(|(expected, digit)| *expected == b'.' || *expected == digit)
}

/// The bytes of a relayed ICMP error that need not be as the kernel set them: the MTU of a tunnel router's "fragmentation
/// needed", where the kernel tells the one it knew before (its fault), and with it the message's checksum.
fn free_bytes(frame: &Value, moment: &Moment<'_>) -> Vec<usize> {
    let about_tunnel = moment.injected["quote"].get("inner").is_some();
    if !about_tunnel || frame["icmp"] != json!([3, 4]) {
        return Vec::new();
    }
    let icmp = ETHERNET_LEN + IPV4_HEADER_LEN;
    [2, 3, 6, 7].map(|at| icmp + at).to_vec()
}

/// Whether the lines of a listing come in the order of the kernel's hash table, that is, in any.
#[must_use]
pub fn is_unordered(dumped: &str) -> bool {
    if dumped.starts_with("/proc/net/ip_vs") && dumped != RATES {
        return true;
    }
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
    fn answers_that_a_host_alone_gives_may_be_missing() {
        let ask = |kind: u8, target: &str| json!({"src": "10.64.0.7", "dst": target, "proto": "icmp", "icmp": [kind, 0]});
        let reply = |kind: u8| json!({"src": "10.0.0.100", "dst": "10.64.0.7", "proto": "icmp", "icmp": [kind, 0]});
        assert!(reason(&ask(13, "10.0.0.100"), &reply(14), false).is_some());
        assert!(reason(&ask(8, "224.0.0.1"), &reply(0), false).is_some());
        assert!(reason(&ask(8, "10.0.0.100"), &reply(0), false).is_some());
        assert!(reason(&ask(8, "10.0.0.100"), &reply(0), true).is_none());
        assert!(reason(&ask(13, "10.0.0.100"), &reply(0), true).is_none());
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

    const NOTHING: Moment<'static> = Moment {
        injected: &Value::Null,
        for_service: false,
        is_directors: &|_| false,
    };

    #[test]
    fn dots_stand_for_any_digit_and_sides_count() {
        let frame = |side: &str, raw: &str| json!({"side": side, "raw": raw});
        let recorded = frame("client", "0a..ff");
        assert!(same_frame(&recorded, &frame("client", "0a12ff"), &NOTHING));
        for other in [
            frame("client", "0b12ff"),
            frame("client", "0a12"),
            frame("server", "0a12ff"),
        ] {
            assert!(!same_frame(&recorded, &other, &NOTHING), "{other}");
        }
    }

    #[test]
    fn an_error_about_a_tunnel_may_tell_another_mtu_and_nothing_else() {
        let quote = json!({"src": "10.64.0.7:1", "dst": "10.0.0.100:53", "proto": "udp", "payload": "x", "id": 8});
        let error = |mtu: u16, quote: &Value| {
            frame(
                &json!({"src": "10.0.0.100", "dst": "10.64.0.7", "proto": "icmp",
            "icmp": [3, 4], "mtu": mtu, "id": 7, "quote": quote}),
            )
        };
        let tunnels = frame(
            &json!({"src": "10.2.0.254", "dst": "10.2.0.1", "proto": "icmp", "icmp": [3, 4],
            "mtu": 1400, "quote": {"src": "10.2.0.1", "dst": "10.3.0.21", "proto": "ipip", "inner": quote}}),
        );
        let (recorded, other) = (error(1480, &quote), error(1380, &quote));
        let mut quote = quote;
        quote["csum"] = json!("bad");
        let another = error(1480, &quote);
        let moment = Moment {
            injected: &tunnels,
            ..NOTHING
        };
        assert!(same_frame(&recorded, &other, &moment));
        assert!(!same_frame(&recorded, &other, &NOTHING));
        assert!(!same_frame(&recorded, &another, &moment));
    }

    #[test]
    fn what_the_kernel_loses_is_credited_once_and_to_the_right_names() {
        let injected = json!({"proto": "icmp6", "icmp": [1, 4], "quote": {"dst": "[fd00:2::11]:5353", "proto": "udp"}});
        let relayed = json!({"icmp": [1, 4], "side": "client", "len": 61,
            "quote": {"dst": "[fd00:a::100]:53", "proto": "udp"}});
        let moment = Moment {
            injected: &injected,
            ..NOTHING
        };
        let mut credits = Credits::default();
        assert!(may_be_extra(&relayed, &moment, &mut credits).is_some());
        assert!(may_be_extra(&relayed, &NOTHING, &mut credits).is_none());
        for name in [
            "UDP [fd00:a::100]:53",
            "UDP [fd00:a::100]:53 [fd00:2::11]:5353",
        ] {
            assert!(credits.explain(name, "out_bytes", &json!(54), &json!(155)));
            assert!(!credits.explain(name, "out_bytes", &json!(54), &json!(54)));
            assert!(!credits.explain(name, "in_bytes", &json!(54), &json!(155)));
        }
    }

    #[test]
    fn connection_listings_have_no_order() {
        assert!(is_unordered("-Lnc") && is_unordered("-L -n -c") && is_unordered("-Ln --nosort"));
        assert!(is_unordered("/proc/net/ip_vs") && !is_unordered(RATES));
        assert!(!is_unordered("-Ln --timeout") && !is_unordered("-Ln --persistent-conn"));
    }
}
