//! The values of options: addresses, ports by number or name, whole numbers.

use super::{Mask, Mistake, Protocol};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::ops::RangeInclusive;

/// Where services(5) are.
pub(super) const SERVICES: &str = "/etc/services";

/// Longest timeout: 31 days, in seconds.
pub(super) const TIMEOUT_MAX: u32 = 31 * 24 * 3600;

/// A whole number in decimal, a sign allowed, within bounds.
pub(super) fn number(text: &str, bounds: RangeInclusive<u32>) -> Option<u32> {
    let number = text.parse::<u32>().ok()?;
    bounds.contains(&number).then_some(number)
}

/// A timeout in seconds: for `-p` at least 1, for `--set` 0 as well.
pub(super) fn timeout(text: &str, least: u32) -> Result<u32, Mistake> {
    number(text, least..=TIMEOUT_MAX).ok_or_else(|| Mistake::InvalidValue {
        what: "timeout",
        value: text.to_owned(),
    })
}

/// `ADDRESS`, `ADDRESS:PORT` or `[IPV6]:PORT`.
///
/// As with ipvsadm 1.31, an IPv6 address in brackets has a port, and one without brackets has none.
pub(super) fn endpoint(text: &str, protocol: Protocol) -> Option<(IpAddr, Option<u16>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once("]:")?;
        let address: Ipv6Addr = address.parse().ok()?;
        return Some((address.into(), Some(port_of(port, protocol)?)));
    }
    if let Ok(address) = text.parse::<Ipv6Addr>() {
        return Some((address.into(), None));
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port_of(port, protocol)?)),
        None => (text, None),
    };
    Some((host_address(host)?, port))
}

/// An IPv4 address in any of the forms of inet_aton(3), or the first one that a host's name has.
fn host_address(host: &str) -> Option<IpAddr> {
    if let Ok(address) = host.parse::<Ipv4Addr>() {
        return Some(address.into());
    }
    if host
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.')
    {
        return short_address(host).map(IpAddr::from);
    }
    if !host
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
    {
        return None;
    }
    let mut addresses = (host, 0).to_socket_addrs().ok()?;
    addresses
        .find(SocketAddr::is_ipv4)
        .map(|address| address.ip())
}

/// `10.1` for 10.0.0.1: the last part fills what the others leave.
fn short_address(host: &str) -> Option<Ipv4Addr> {
    let parts: Vec<u32> = host
        .split('.')
        .map(|part| part.parse().ok())
        .collect::<Option<_>>()?;
    let (last, leading) = parts.split_last()?;
    if leading.len() > 3 || leading.iter().any(|part| *part > 255) {
        return None;
    }
    let room = 32 - 8 * u32::try_from(leading.len()).ok()?;
    if room < 32 && *last >> room != 0 {
        return None;
    }
    let high = leading
        .iter()
        .enumerate()
        .fold(0, |bits, (place, part)| bits | part << (24 - 8 * place));
    Some(Ipv4Addr::from_bits(high | last))
}

fn port_of(text: &str, protocol: Protocol) -> Option<u16> {
    match text.parse::<u16>() {
        Ok(port) => Some(port),
        Err(_) if text.starts_with(|first: char| first.is_ascii_alphabetic()) => {
            let services = std::fs::read_to_string(SERVICES).ok()?;
            named_port(&services, text, protocol)
        }
        Err(_) => None,
    }
}

fn word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}

/// The name that a port has in the text of services(5).
pub(super) fn port_name(services: &str, port: u16, protocol: Protocol) -> Option<String> {
    let wanted = format!("{port}/{}", word(protocol));
    services.lines().find_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        let name = words.next()?;
        (words.next()? == wanted).then(|| name.to_owned())
    })
}

/// The port of a service's name or alias in the text of services(5).
fn named_port(services: &str, name: &str, protocol: Protocol) -> Option<u16> {
    let wanted = word(protocol);
    services.lines().find_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        let first = words.next()?;
        let (port, protocol) = words.next()?.split_once('/')?;
        let known = first == name || words.any(|alias| alias == name);
        (known && protocol == wanted).then(|| port.parse().ok())?
    })
}

/// `-M`: a netmask, or for IPv6 the length of a prefix (what follows the digits is ignored, as by ipvsadm 1.31).
pub(super) fn mask(text: &str, ipv6: bool) -> Result<Mask, Mistake> {
    if !ipv6 {
        let mask = text
            .parse::<Ipv4Addr>()
            .ok()
            .or_else(|| short_address(text));
        let mask = mask.ok_or(Mistake::IllegalValue("virtual server persistent mask"))?;
        return Ok(Mask::Ipv4(mask.to_bits()));
    }
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    match text[..digits].parse() {
        Ok(len @ 1..=128) => Ok(Mask::Ipv6(len)),
        _ => Err(Mistake::IllegalValue("ipv6 netmask")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(text: &str) -> Option<String> {
        let (address, port) = endpoint(text, Protocol::Tcp)?;
        Some(SocketAddr::new(address, port.unwrap_or(0)).to_string())
    }

    #[test]
    fn endpoints_are_read_as_ipvsadm_reads_them() {
        for (text, expected) in [
            ("10.0.0.7", Some("10.0.0.7:0")),
            ("10.0.0.7:080", Some("10.0.0.7:80")),
            ("10.0.0.7:+80", Some("10.0.0.7:80")),
            ("10.0.7:90", Some("10.0.0.7:90")),
            ("10.7", Some("10.0.0.7:0")),
            ("[fd00:0:0::7]:90", Some("[fd00::7]:90")),
            ("fd00::8", Some("[fd00::8]:0")),
            ("10.0.0.7:", None),
            (":80", None),
            ("10.0.0.300:80", None),
            ("10.0.0.0.7", None),
            ("10.0.0.7:65536", None),
            ("10.0.0.7:-1", None),
            ("10.0.0.7:0x50", None),
            ("[fd00::9]", None),
            ("[fd00::9]:80x", None),
            ("[fd00::9]80", None),
            ("", None),
        ] {
            assert_eq!(tcp(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn a_port_may_be_a_name_of_the_services_file() {
        let services = "# comment\nhttp\t80/tcp www # web\ndomain 53/tcp\ndomain 53/udp\n";
        assert_eq!(named_port(services, "www", Protocol::Tcp), Some(80));
        assert_eq!(named_port(services, "http", Protocol::Udp), None);
        assert_eq!(named_port(services, "domain", Protocol::Udp), Some(53));
        assert_eq!(named_port(services, "web", Protocol::Tcp), None);
    }

    #[test]
    fn masks_are_netmasks_or_prefix_lengths() {
        assert_eq!(mask("255.0.255.0", false), Ok(Mask::Ipv4(0xff00_ff00)));
        assert_eq!(mask("64", true), Ok(Mask::Ipv6(64)));
        assert_eq!(mask("24x", true), Ok(Mask::Ipv6(24)));
        for text in ["0", "129", "x", "255.255.0.0"] {
            assert!(mask(text, true).is_err(), "{text}");
        }
        assert!(mask("x", false).is_err());
    }
}
