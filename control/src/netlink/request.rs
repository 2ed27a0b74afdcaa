//! What clients ask for: services and servers from their attributes.

use super::numbers::{AF_INET, AF_INET6, dest, flag, method, service, tunnel};
use super::refusal::Refusal;
use super::wire::Attributes;
use crate::config::keys::{self, Accepts, Table};
use crate::config::words::is_host;
use crate::config::{
    Granularity, GueChecksum, Listen, Persistence, Protocol, Server, Service, TunnelKind,
};
use conntrack::Method;
use dataplane::snapshot::Engine;
use scheduler::Options;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Bytes of a scheduler's or an engine's name, at most, without the NUL.
const NAME: usize = 15;

/// Which service is meant.
pub(super) fn listen(of: Attributes<'_>) -> Result<Listen, Refusal> {
    let family = of.u16(service::FAMILY)?;
    let family = family.ok_or(Refusal::Missing("address family of the service"))?;
    if !matches!(family, AF_INET | AF_INET6) {
        return Err(Refusal::Family(family));
    }
    if let Some(mark) = of.u32(service::MARK)?.filter(|mark| *mark != 0) {
        let ipv6 = family == AF_INET6;
        return Ok(Listen::Mark { mark, ipv6 });
    }
    let protocol = of.u16(service::PROTOCOL)?;
    let protocol = match protocol.ok_or(Refusal::Missing("protocol of the service"))? {
        6 => Protocol::Tcp,
        17 => Protocol::Udp,
        132 => Protocol::Sctp,
        other => {
            return Err(Refusal::Value {
                what: "protocol",
                value: other.to_string(),
                accepted: "6 (TCP), 17 (UDP) or 132 (SCTP)",
            });
        }
    };
    let ip = address(of, service::ADDRESS, family, "service's address")?;
    let port = of.port(service::PORT)?;
    let port = port.ok_or(Refusal::Missing("port of the service"))?;
    Ok(Listen::Address {
        protocol,
        address: SocketAddr::new(ip, port),
    })
}

fn address(
    of: Attributes<'_>,
    kind: u16,
    family: u16,
    what: &'static str,
) -> Result<IpAddr, Refusal> {
    let missing = Refusal::Missing(what);
    let ip = match family {
        AF_INET => IpAddr::from(of.address::<4>(kind)?.ok_or(missing)?),
        AF_INET6 => IpAddr::from(of.address::<16>(kind)?.ok_or(missing)?),
        other => return Err(Refusal::Family(other)),
    };
    if is_host(&ip) {
        Ok(ip)
    } else {
        Err(Refusal::Value {
            what,
            value: ip.to_string(),
            accepted: "a unicast address, not a loopback one",
        })
    }
}

/// A service's settings. Of the service that is there, `old`, stays what netlink has no words for.
///
/// Differs from IPVS: `flag-1` to `flag-3` of a scheduler that they do nothing for are not kept.
pub(super) fn service(
    of: Attributes<'_>,
    listen: Listen,
    old: Option<&Service>,
) -> Result<Service, Refusal> {
    let name = of.name(service::SCHEDULER, NAME)?;
    let name = name.ok_or(Refusal::Missing("scheduler"))?;
    let scheduler = scheduler::NAMES.iter().find(|known| **known == name);
    let scheduler = *scheduler.ok_or_else(|| Refusal::Scheduler(name.to_owned()))?;
    let engine = match of.name(service::ENGINE, NAME)? {
        None | Some("") => None,
        Some("sip") => Some(Engine::Sip),
        Some(other) => return Err(Refusal::Engine(other.to_owned())),
    };
    let flags = of.address::<8>(service::FLAGS)?;
    let [a, b, c, d, e, f, g, h] = flags.ok_or(Refusal::Missing("flags of the service"))?;
    let (value, mask) = (
        u32::from_ne_bytes([a, b, c, d]),
        u32::from_ne_bytes([e, f, g, h]),
    );
    let flags = (old.map_or(0, flags_of) & !mask) | (value & mask);
    let timeout = of.u32(service::TIMEOUT)?;
    let timeout = timeout.ok_or(Refusal::Missing("timeout of the service"))?;
    let netmask = of.address::<4>(service::NETMASK)?;
    let netmask = netmask.ok_or(Refusal::Missing("netmask of the service"))?;
    let granularity = granularity(netmask, listen.is_ipv4())?;
    let persistence = if flags & flag::PERSISTENT == 0 {
        None
    } else {
        Some(Persistence {
            timeout: within(&keys::SERVICE, "persistence_timeout", timeout)?,
            granularity,
            engine,
        })
    };
    let old_or = old.cloned().unwrap_or(Service {
        listen,
        scheduler,
        flags: Options::default(),
        method: Method::Dr,
        lip_pool: None,
        one_packet: false,
        helper: None,
        persistence: None,
        addresses: Vec::new(),
        servers: Vec::new(),
        idle_edits: 0,
    });
    let slow_start = old_or.flags.slow_start;
    let (fallback, port) = (flags & flag::FALLBACK != 0, flags & flag::PORT != 0);
    Ok(Service {
        scheduler,
        flags: Options {
            sh_fallback: fallback && scheduler == "sh",
            sh_port: port && scheduler == "sh",
            mh_fallback: fallback && scheduler == "mh",
            mh_port: port && scheduler == "mh",
            slow_start: if scheduler::has_slow_start(scheduler) {
                slow_start
            } else {
                0
            },
            ..Options::default()
        },
        one_packet: flags & flag::ONE_PACKET != 0,
        persistence,
        ..old_or
    })
}

/// The flags of a service, but the one that is always told.
pub(super) fn flags_of(service: &Service) -> u32 {
    flag_bits(
        &service.flags,
        service.one_packet,
        service.persistence.is_some(),
    )
}

/// The same, of its parts.
pub(super) fn flag_bits(options: &Options, one_packet: bool, persistent: bool) -> u32 {
    let bits = [
        (persistent, flag::PERSISTENT),
        (one_packet, flag::ONE_PACKET),
        (options.sh_fallback || options.mh_fallback, flag::FALLBACK),
        (options.sh_port || options.mh_port, flag::PORT),
    ];
    let set = bits.iter().filter(|(is_set, _)| *is_set);
    set.fold(0, |sum, (_, bit)| sum | bit)
}

/// An IPv4 netmask is in network byte order, an IPv6 prefix's length a number.
fn granularity(netmask: [u8; 4], is_ipv4: bool) -> Result<Granularity, Refusal> {
    if is_ipv4 {
        return Ok(match Ipv4Addr::from(netmask) {
            Ipv4Addr::BROADCAST => Granularity::Address,
            mask => Granularity::Netmask(mask),
        });
    }
    let len = u32::from_ne_bytes(netmask);
    match u8::try_from(len) {
        Ok(128) => Ok(Granularity::Address),
        Ok(len @ 1..=127) => Ok(Granularity::Prefix(len)),
        _ => Err(Refusal::Value {
            what: "prefix length of persistence",
            value: len.to_string(),
            accepted: "1 to 128",
        }),
    }
}

/// A granularity as a netmask attribute.
pub(super) fn netmask(granularity: Granularity, is_ipv4: bool) -> [u8; 4] {
    match granularity {
        Granularity::Address if is_ipv4 => [255; 4],
        Granularity::Address => 128u32.to_ne_bytes(),
        Granularity::Netmask(mask) => mask.octets(),
        Granularity::Prefix(len) => u32::from(len).to_ne_bytes(),
    }
}

/// The address of a server of `of_service`.
pub(super) fn server_address(
    of: Attributes<'_>,
    of_service: &Service,
) -> Result<SocketAddr, Refusal> {
    let family = match of.u16(dest::FAMILY)? {
        None | Some(0) if of_service.listen.is_ipv4() => AF_INET,
        None | Some(0) => AF_INET6,
        Some(family) => family,
    };
    let ip = address(of, dest::ADDRESS, family, "server's address")?;
    let port = of.port(dest::PORT)?;
    let port = port.ok_or(Refusal::Missing("port of the server"))?;
    Ok(SocketAddr::new(ip, port))
}

/// The address by which the service knows a server: DR and TUN servers have its port, whatever port was said of them.
pub(super) fn known_address(of_service: &Service, address: SocketAddr) -> SocketAddr {
    let mut servers = of_service.servers.iter();
    if servers.any(|server| server.address == address) {
        return address;
    }
    let forced = SocketAddr::new(address.ip(), of_service.listen.port());
    let is_forced = |server: &Server| {
        server.address == forced && matches!(server.method, Method::Dr | Method::Tun)
    };
    if of_service.servers.iter().any(is_forced) {
        forced
    } else {
        address
    }
}

/// A server's settings; `old` is the server that is there.
///
/// FULLNAT has no number of the kernel's: masquerading means it where the service, or the server that is there, has it.
///
/// Differs from IPVS: a weight is at most 65535.
pub(super) fn server(
    of: Attributes<'_>,
    of_service: &Service,
    address: SocketAddr,
    old: Option<&Server>,
) -> Result<Server, Refusal> {
    let number = |kind, what| of.u32(kind)?.ok_or(Refusal::Missing(what));
    let method = number(dest::METHOD, "forwarding method")? & method::MASK;
    let weight = number(dest::WEIGHT, "weight")?;
    let upper = number(dest::UPPER, "upper threshold")?;
    let lower = number(dest::LOWER, "lower threshold")?;
    let weight = within(&keys::SERVER, "weight", weight)?;
    if lower > upper {
        return Err(Refusal::Range {
            what: "lower threshold",
            value: lower.into(),
            accepted: format!("at most the upper one, {upper}"),
        });
    }
    let had_fullnat = match old {
        Some(old) => old.method == Method::FullNat,
        None => of_service.method == Method::FullNat,
    };
    let method = match method {
        method::MASQUERADING if had_fullnat => Method::FullNat,
        method::MASQUERADING => Method::Nat,
        method::TUNNEL => Method::Tun,
        method::DIRECT => Method::Dr,
        other => {
            return Err(Refusal::Value {
                what: "forwarding method",
                value: other.to_string(),
                accepted: "0 (Masq), 2 (Tunnel) or 3 (Route)",
            });
        }
    };
    let tunnel = tunnel_kind(of)?;
    let mut address = address;
    if matches!(method, Method::Dr | Method::Tun) {
        address.set_port(of_service.listen.port());
    }
    Ok(Server {
        address,
        weight,
        method,
        upper,
        lower,
        tunnel: if method == Method::Tun {
            tunnel
        } else {
            TunnelKind::Ipip
        },
    })
}

fn tunnel_kind(of: Attributes<'_>) -> Result<TunnelKind, Refusal> {
    let kind = of.u8(dest::TUNNEL)?.unwrap_or(tunnel::IPIP);
    let port = of.port(dest::TUNNEL_PORT)?.unwrap_or(0);
    let flags = of.u16(dest::TUNNEL_FLAGS)?.unwrap_or(0);
    match kind {
        tunnel::IPIP => Ok(TunnelKind::Ipip),
        tunnel::GRE => Ok(TunnelKind::Gre {
            checksum: flags & tunnel::CHECKSUM != 0,
        }),
        tunnel::GUE if port != 0 => Ok(TunnelKind::Gue {
            port,
            checksum: if flags & tunnel::REMOTE_CHECKSUM != 0 {
                GueChecksum::Remote
            } else if flags & tunnel::CHECKSUM != 0 {
                GueChecksum::Full
            } else {
                GueChecksum::None
            },
        }),
        tunnel::GUE => Err(Refusal::Missing("UDP port of the GUE tunnel")),
        other => Err(Refusal::Value {
            what: "kind of tunnel",
            value: other.to_string(),
            accepted: "0 (ipip), 1 (gue) or 2 (gre)",
        }),
    }
}

/// A number within the bounds of a key.
pub(super) fn within<T: TryFrom<u32>>(
    table: &Table,
    name: &'static str,
    value: u32,
) -> Result<T, Refusal> {
    let Accepts::Number(low, high) = table.key(name).accepts else {
        unreachable!("{name} is declared to take a number")
    };
    let in_bounds = (low..=high).contains(&u64::from(value));
    let number = T::try_from(value).ok().filter(|_| in_bounds);
    number.ok_or_else(|| Refusal::Range {
        what: name,
        // The kernel's clients send negative numbers as they are.
        value: value.cast_signed().into(),
        accepted: format!("{low} to {high}"),
    })
}
