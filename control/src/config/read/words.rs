//! What stands inside strings: addresses, networks, ports, names.

use crate::config::Prefix;
use crate::config::model::{Granularity, Listen, Protocol};
use conntrack::Method;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

pub(super) fn parse_method(word: &str) -> Method {
    match word {
        "nat" => Method::Nat,
        "dr" => Method::Dr,
        "tun" => Method::Tun,
        "fullnat" => Method::FullNat,
        _ => unreachable!("the key takes these words alone"),
    }
}

pub(super) fn parse_own_address(text: &str) -> Option<Prefix> {
    text.parse()
        .ok()
        .filter(|prefix: &Prefix| is_host(&prefix.address))
}

pub(super) fn parse_listen(text: &str) -> Option<Listen> {
    let (protocol, address) = text.split_once(' ')?;
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        "mark" => {
            let (mark, ipv6) = match address.strip_suffix(" ipv6") {
                Some(mark) => (mark, true),
                None => (address, false),
            };
            let mark = mark.parse().ok().filter(|mark| *mark != 0)?;
            return Some(Listen::Mark { mark, ipv6 });
        }
        _ => return None,
    };
    let address: SocketAddr = parse_socket(address)?;
    is_host(&address.ip()).then_some(Listen::Address { protocol, address })
}

pub(super) fn parse_protocol(word: &str) -> Protocol {
    match word {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => unreachable!("the key takes these words alone"),
    }
}

pub(super) fn parse_network(text: &str) -> Option<Prefix> {
    let network: Prefix = text.parse().ok()?;
    (network.network() == network.address).then_some(network)
}

/// One port or a range of them.
pub(super) fn parse_ports(text: &str) -> Option<(u16, u16)> {
    match text.parse() {
        Ok(port) => Some((port, port)).filter(|_| port != 0),
        Err(_) => parse_port_range(text),
    }
}

pub(super) fn parse_granularity(text: &str) -> Option<Granularity> {
    match text.parse() {
        Ok(len) => (1..=128).contains(&len).then_some(Granularity::Prefix(len)),
        Err(_) => text.parse().ok().map(Granularity::Netmask),
    }
}

/// `ADDRESS:PORT` or the address alone.
pub(super) fn parse_server(text: &str, default_port: u16) -> Option<SocketAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .unwrap_or(text);
    let address = match bare.parse::<IpAddr>() {
        Ok(address) => SocketAddr::new(address, default_port),
        Err(_) => parse_socket(text).filter(|address| address.port() != 0)?,
    };
    is_host(&address.ip()).then_some(address)
}

/// Without scope ids, which a director has no use for.
pub(super) fn parse_socket(text: &str) -> Option<SocketAddr> {
    text.parse()
        .ok()
        .filter(|address| !matches!(address, SocketAddr::V6(v6) if v6.scope_id() != 0))
}

pub(super) fn parse_port_range(text: &str) -> Option<(u16, u16)> {
    let (low, high) = text.split_once('-')?;
    let (low, high) = (low.parse().ok()?, high.parse().ok()?);
    (low > 0 && low <= high).then_some((low, high))
}

/// Whether a host can have the address: unicast, not loopback, not an IPv4 address in IPv6 form.
pub(super) fn is_host(address: &IpAddr) -> bool {
    let unusual = address.is_unspecified() || address.is_multicast() || address.is_loopback();
    let of_family = match address {
        IpAddr::V4(v4) => *v4 != Ipv4Addr::BROADCAST,
        IpAddr::V6(v6) => v6.to_ipv4_mapped().is_none(),
    };
    !unusual && of_family
}

pub(super) fn is_name(text: &str) -> bool {
    (1..=32).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

/// Whether a file can have such a name.
pub(super) fn is_path(text: &str) -> bool {
    !text.is_empty() && !text.contains('\0')
}

/// Source: Linux net/core/dev.c, dev_valid_name().
pub(super) fn is_interface(text: &str) -> bool {
    (1..=15).contains(&text.len())
        && !matches!(text, "." | "..")
        && !text
            .chars()
            .any(|character| character.is_whitespace() || matches!(character, '/' | ':' | '\0'))
}
