//! What commands are about, as it is typed: services, servers, times.

use super::ConfigureError;
use proto::v1;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// What a service is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Kind {
    /// TCP to an address.
    Tcp,
    /// UDP to an address.
    Udp,
    /// SCTP to an address.
    Sctp,
    /// IPv4 packets with a mark.
    Mark,
    /// IPv6 packets with a mark.
    Mark6,
}

/// A service.
#[derive(Clone, Debug, clap::Args)]
pub struct Key {
    /// What kind of service.
    #[arg(value_enum, value_name = "KIND")]
    kind: Kind,
    /// ADDRESS:PORT or [IPV6]:PORT, an address alone for all ports; of a mark its number.
    #[arg(value_name = "ADDRESS:PORT|MARK")]
    end: String,
}

impl Key {
    pub(super) fn new(kind: Kind, end: String) -> Key {
        Key { kind, end }
    }

    /// The key as a message.
    pub(super) fn message(&self) -> Result<v1::ServiceKey, ConfigureError> {
        let protocol = match self.kind {
            Kind::Mark | Kind::Mark6 => {
                let mark = self.end.parse().ok().filter(|mark| *mark != 0);
                return Ok(v1::ServiceKey {
                    mark: mark.ok_or_else(|| not_a(&self.end, "a mark", "1 to 4294967295"))?,
                    mark_ipv6: self.kind == Kind::Mark6,
                    ..v1::ServiceKey::default()
                });
            }
            Kind::Tcp => v1::Protocol::Tcp,
            Kind::Udp => v1::Protocol::Udp,
            Kind::Sctp => v1::Protocol::Sctp,
        };
        let (address, port) = endpoint(&self.end, "a service's address")?;
        Ok(v1::ServiceKey {
            protocol: protocol.into(),
            address: address.to_string(),
            port: port.into(),
            ..v1::ServiceKey::default()
        })
    }
}

/// An address with its port; 0 where it has none.
pub(super) fn endpoint(text: &str, what: &'static str) -> Result<(IpAddr, u16), ConfigureError> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok((address.ip(), address.port()));
    }
    let address = text.parse().map(|address| (address, 0));
    address.map_err(|_| {
        let accepted = "ADDRESS:PORT, [IPV6]:PORT or an address alone, such as 10.0.0.100:80";
        not_a(text, what, accepted)
    })
}

/// First and last port: PORT or LOW-HIGH.
pub(super) fn ports(text: &str) -> Result<(u32, u32), ConfigureError> {
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (port(first), port(last)) {
        (Some(first), Some(last)) if first <= last => Ok((first.into(), last.into())),
        _ => Err(not_a(
            text,
            "a range of ports",
            "PORT or LOW-HIGH within 1 to 65535",
        )),
    }
}

pub(super) fn not_a(value: &str, what: &'static str, accepted: &str) -> ConfigureError {
    ConfigureError::NotA {
        value: value.to_owned(),
        what,
        accepted: accepted.to_owned(),
    }
}

/// A key as it is typed and read.
pub(super) fn key_text(key: &v1::ServiceKey) -> String {
    let kind = match key.protocol() {
        v1::Protocol::Tcp => "tcp",
        v1::Protocol::Udp => "udp",
        v1::Protocol::Sctp => "sctp",
        v1::Protocol::Unspecified if key.mark_ipv6 => return format!("mark6 {}", key.mark),
        v1::Protocol::Unspecified => return format!("mark {}", key.mark),
    };
    format!("{kind} {}", end_text(&key.address, key.port))
}

/// An address with its port as it is typed and read.
pub(super) fn end_text(address: &str, port: u32) -> String {
    if address.contains(':') {
        format!("[{address}]:{port}")
    } else {
        format!("{address}:{port}")
    }
}

/// A span of time, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span(pub(super) i64);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Span, String> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = match &text[digits.len()..] {
            "s" | "" => Some(1),
            "m" => Some(60),
            "h" => Some(3600),
            _ => None,
        };
        let seconds = digits.parse::<u32>().ok();
        match (seconds, unit) {
            (Some(seconds), Some(unit)) => Ok(Span(i64::from(seconds) * unit)),
            _ => Err(
                "accepted: a number of seconds, or one with s, m or h, such as 90s or 10m"
                    .to_owned(),
            ),
        }
    }
}

impl Span {
    pub(super) fn message(self) -> prost_types::Duration {
        prost_types::Duration {
            seconds: self.0,
            nanos: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_typed_as_they_are_read() {
        for (kind, address) in [
            (Kind::Tcp, "10.0.0.100:80"),
            (Kind::Udp, "[fd00::100]:53"),
            (Kind::Mark, "7"),
            (Kind::Mark6, "7"),
        ] {
            let key = Key::new(kind, address.to_owned());
            let text = key_text(&key.message().unwrap());
            let (_, typed) = text.split_once(' ').unwrap();
            assert_eq!(typed, address);
        }
        for (kind, address) in [
            (Kind::Tcp, "10.0.0.300:80"),
            (Kind::Mark, "0"),
            (Kind::Mark, "x"),
        ] {
            let error = Key::new(kind, address.to_owned()).message().unwrap_err();
            assert!(error.to_string().contains("; accepted: "), "{error}");
        }
    }

    #[test]
    fn spans_have_units() {
        for (text, seconds) in [("60", 60), ("60s", 60), ("10m", 600), ("1h", 3600)] {
            assert_eq!(text.parse(), Ok(Span(seconds)));
        }
        for text in ["", "s", "-1s", "1d", "1.5s", "1ms"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }

    #[test]
    fn ranges_of_ports_are_one_port_or_two() {
        assert_eq!(ports("53").unwrap(), (53, 53));
        assert_eq!(ports("5000-5999").unwrap(), (5000, 5999));
        for text in ["0", "9-5", "1-65536", "x", "1-"] {
            assert!(ports(text).is_err(), "{text}");
        }
    }
}
