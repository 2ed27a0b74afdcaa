//! Services, servers, networks and times as a person types them.

use proto::v1;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// What is not a service.
const SERVICE: &str = "not a service; accepted: 10.0.0.100:80 (TCP), udp:10.0.0.100:53, tcp:[fd00::100]:80, mark:7, mark:7:ipv6";

/// A service: `10.0.0.100:80` (TCP), `udp:10.0.0.100:53`, `"udp 10.0.0.100:53"`, `mark:7`, `mark:7:ipv6`.
///
/// # Errors
/// When it is none of these.
pub fn service(text: &str) -> Result<v1::ServiceKey, String> {
    let lower = text.to_ascii_lowercase();
    let split = lower.split_once([':', ' ']);
    let named = |name| {
        split
            .filter(|(word, _)| *word == name)
            .map(|(_, rest)| rest)
    };
    if let Some(mark) = named("mark") {
        let (number, family) = mark.split_once([':', ' ']).unwrap_or((mark, ""));
        let number = number.parse().ok().filter(|number| *number != 0);
        return match (number, family) {
            (Some(mark), "" | "ipv6") => Ok(v1::ServiceKey {
                mark,
                mark_ipv6: !family.is_empty(),
                ..v1::ServiceKey::default()
            }),
            _ => Err(SERVICE.to_owned()),
        };
    }
    let protocols = [
        ("tcp", v1::Protocol::Tcp),
        ("udp", v1::Protocol::Udp),
        ("sctp", v1::Protocol::Sctp),
    ];
    let (protocol, rest) = protocols
        .iter()
        .find_map(|(name, protocol)| named(name).map(|rest| (*protocol, rest)))
        .unwrap_or((v1::Protocol::Tcp, lower.as_str()));
    let address: SocketAddr = rest.parse().map_err(|_| SERVICE.to_owned())?;
    Ok(v1::ServiceKey {
        protocol: protocol.into(),
        address: address.ip().to_string(),
        port: address.port().into(),
        ..v1::ServiceKey::default()
    })
}

/// A server: an address, with a port or without.
///
/// # Errors
/// When it is none.
pub fn server(text: &str) -> Result<(IpAddr, u16), String> {
    let address = text
        .parse()
        .map(|address: SocketAddr| (address.ip(), address.port()));
    address
        .or_else(|_| text.parse().map(|address: IpAddr| (address, 0)))
        .map_err(|_| {
            "not a server; accepted: 10.0.0.11:80, 10.0.0.11, [fd00::11]:80, fd00::11".to_owned()
        })
}

/// One end of a packet: an address and a port.
///
/// # Errors
/// When it is none.
pub fn packet_end(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        "not an address with its port; accepted: 10.0.0.9:40000, [fd00::9]:40000".to_owned()
    })
}

/// A network or an address, and a port; either may be left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct End {
    /// "10.0.0.0/8" or "10.0.0.1"; empty: any.
    pub network: String,
    /// 0: any.
    pub port: u16,
}

/// One end of connections: `10.0.0.0/8`, `10.0.0.1:80`, `[fd00::1]:80`, `fd00::/64`, `:80`.
///
/// # Errors
/// When it is none of these.
pub fn end(text: &str) -> Result<End, String> {
    const WHAT: &str = "not an address, network or port; accepted: 10.0.0.0/8, 10.0.0.1, 10.0.0.1:80, [fd00::1]:80, fd00::/64, :80";
    let is_ipv6_alone =
        text.ends_with(']') || (!text.starts_with('[') && text.matches(':').count() > 1);
    let (network, port) = match text.rsplit_once(':') {
        Some(split) if !is_ipv6_alone => split,
        _ => (text, ""),
    };
    let network = network.trim_start_matches('[').trim_end_matches(']');
    let (address, len) = network.split_once('/').unwrap_or((network, "0"));
    let is_network = network.is_empty()
        || match address.parse() {
            Ok(IpAddr::V4(_)) => len.parse().is_ok_and(|len: u8| len <= 32),
            Ok(IpAddr::V6(_)) => len.parse().is_ok_and(|len: u8| len <= 128),
            Err(_) => false,
        };
    let port = match port {
        "" if !network.is_empty() && !text.ends_with(':') => Some(0),
        port => port.parse().ok().filter(|port| *port != 0),
    };
    match port {
        Some(port) if is_network => Ok(End {
            network: network.to_owned(),
            port,
        }),
        _ => Err(WHAT.to_owned()),
    }
}

/// A span of time: `500ms`, `60s`, `5m`, `1h`; without a unit, seconds.
///
/// # Errors
/// When it is none.
pub fn span(text: &str) -> Result<Duration, String> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let millis: u64 = match unit {
        "ms" => 1,
        "" | "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => 0,
    };
    let number: Option<u64> = number.parse().ok().filter(|_| millis > 0);
    let span = number.and_then(|number| number.checked_mul(millis));
    let span = span.map(Duration::from_millis);
    span.ok_or_else(|| "not a time; accepted: 500ms, 60s, 5m, 1h".to_owned())
}

/// An address and a port beside each other.
#[must_use]
pub fn joined(address: &str, port: u32) -> String {
    if address.contains(':') {
        format!("[{address}]:{port}")
    } else {
        format!("{address}:{port}")
    }
}

/// A service in few words: "TCP 10.0.0.100:80", "FWM 7 IPv6".
#[must_use]
pub fn named(key: &v1::ServiceKey) -> String {
    let protocol = match key.protocol() {
        v1::Protocol::Tcp => "TCP",
        v1::Protocol::Udp => "UDP",
        v1::Protocol::Sctp => "SCTP",
        v1::Protocol::Unspecified => "FWM",
    };
    match (key.mark, key.mark_ipv6) {
        (0, _) => format!("{protocol} {}", joined(&key.address, key.port)),
        (mark, false) => format!("{protocol} {mark}"),
        (mark, true) => format!("{protocol} {mark} IPv6"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]
mod tests {
    use super::*;

    #[test]
    fn services_are_read_as_they_are_typed() {
        for (text, name) in [
            ("10.0.0.100:80", "TCP 10.0.0.100:80"),
            ("udp:10.0.0.100:53", "UDP 10.0.0.100:53"),
            ("SCTP 10.0.0.100:9", "SCTP 10.0.0.100:9"),
            ("[fd00::100]:80", "TCP [fd00::100]:80"),
            ("tcp:[fd00::100]:80", "TCP [fd00::100]:80"),
            ("mark:7", "FWM 7"),
            ("mark 7 ipv6", "FWM 7 IPv6"),
        ] {
            assert_eq!(named(&service(text).unwrap()), name);
        }
        for text in [
            "",
            "10.0.0.100",
            "mark:0",
            "mark:7:ipv4",
            "icmp:10.0.0.1:8",
            "tcp:",
        ] {
            assert!(service(text).unwrap_err().contains("accepted"), "{text}");
        }
    }

    #[test]
    fn ends_of_connections_are_networks_and_ports() {
        for (text, network, port) in [
            ("10.0.0.0/8", "10.0.0.0/8", 0),
            ("10.0.0.1:80", "10.0.0.1", 80),
            ("[fd00::1]:80", "fd00::1", 80),
            ("fd00::/64", "fd00::/64", 0),
            ("[fd00::1]", "fd00::1", 0),
            (":80", "", 80),
        ] {
            let expected = End {
                network: network.to_owned(),
                port,
            };
            assert_eq!(end(text).as_ref(), Ok(&expected), "{text}");
        }
        for text in [
            "",
            ":",
            "10.0.0.1:",
            "10.0.0.1:0",
            "10.0.0.0/33",
            "x",
            "10.0.0.1:65536",
        ] {
            assert!(end(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_have_units() {
        for (text, millis) in [
            ("500ms", 500),
            ("60s", 60_000),
            ("5m", 300_000),
            ("2", 2000),
        ] {
            assert_eq!(span(text), Ok(Duration::from_millis(millis)));
        }
        for text in ["", "s", "-1s", "1d", "1.5s"] {
            assert!(span(text).is_err(), "{text}");
        }
    }
}
