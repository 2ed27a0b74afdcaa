//! What is there, as messages.

use super::Daemon;
use super::numbers::{AF_INET, AF_INET6, daemon, dest, flag, method, service, stats, top, tunnel};
use super::request::{flag_bits, netmask};
use super::wire::Body;
use crate::config::{Granularity, GueChecksum, Listen, TunnelKind};
use crate::rates::Rates;
use crate::status::{ServerStatus, ServiceStatus};
use crate::traffic::Traffic;
use conntrack::Method;
use std::net::IpAddr;

fn family(is_ipv4: bool) -> u16 {
    if is_ipv4 { AF_INET } else { AF_INET6 }
}

/// An address in the room of the longest.
fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V6(v6) => v6.octets(),
        IpAddr::V4(v4) => {
            let mut octets = [0; 16];
            octets[..4].copy_from_slice(&v4.octets());
            octets
        }
    }
}

/// Puts a service where a command's attributes stand.
pub(super) fn put_service(body: &mut Body<'_>, status: &ServiceStatus) {
    body.nested(top::SERVICE, |body| {
        let is_ipv4 = status.listen.is_ipv4();
        body.u16(service::FAMILY, family(is_ipv4));
        match status.listen {
            Listen::Mark { mark, .. } => body.u32(service::MARK, mark),
            Listen::Address { protocol, address } => {
                body.u16(service::PROTOCOL, protocol.number().into());
                body.bytes(service::ADDRESS, &octets(address.ip()));
                body.port(service::PORT, address.port());
            }
        }
        body.name(service::SCHEDULER, status.scheduler);
        let persistence = status.persistence.as_ref();
        if persistence.is_some_and(|persistence| persistence.engine.is_some()) {
            body.name(service::ENGINE, "sip");
        }
        let bits = flag_bits(&status.flags, status.one_packet, persistence.is_some());
        let flags = [(bits | flag::HASHED).to_ne_bytes(), [0xff; 4]];
        body.bytes(service::FLAGS, flags.as_flattened());
        body.u32(
            service::TIMEOUT,
            persistence.map_or(0, |persistence| persistence.timeout),
        );
        let granularity =
            persistence.map_or(Granularity::Address, |persistence| persistence.granularity);
        body.bytes(service::NETMASK, &netmask(granularity, is_ipv4));
        put_stats(
            body,
            [service::STATS, service::STATS64],
            &status.traffic,
            &status.rates,
        );
    });
}

/// Puts a server where a command's attributes stand.
pub(super) fn put_server(body: &mut Body<'_>, status: &ServerStatus) {
    body.nested(top::DEST, |body| {
        body.bytes(dest::ADDRESS, &octets(status.address.ip()));
        body.port(dest::PORT, status.address.port());
        let method = match status.method {
            Method::Nat | Method::FullNat => method::MASQUERADING,
            Method::Tun => method::TUNNEL,
            Method::Dr => method::DIRECT,
            Method::Local => method::LOCAL,
        };
        body.u32(dest::METHOD, method);
        body.u32(dest::WEIGHT, status.weight.into());
        let (kind, port, flags) = tunnel_words(status.tunnel);
        body.u8(dest::TUNNEL, kind);
        body.port(dest::TUNNEL_PORT, port);
        body.u16(dest::TUNNEL_FLAGS, flags);
        body.u32(dest::UPPER, status.upper);
        body.u32(dest::LOWER, status.lower);
        body.u32(dest::ACTIVE, status.active);
        body.u32(dest::INACTIVE, status.inactive);
        body.u32(dest::PERSISTENT, status.persistent);
        body.u16(dest::FAMILY, family(status.address.is_ipv4()));
        put_stats(
            body,
            [dest::STATS, dest::STATS64],
            &status.traffic,
            &status.rates,
        );
    });
}

fn tunnel_words(kind: TunnelKind) -> (u8, u16, u16) {
    match kind {
        TunnelKind::Ipip => (tunnel::IPIP, 0, 0),
        TunnelKind::Gre { checksum } => {
            let flags = if checksum { tunnel::CHECKSUM } else { 0 };
            (tunnel::GRE, 0, flags)
        }
        TunnelKind::Gue { port, checksum } => {
            let flags = match checksum {
                GueChecksum::None => 0,
                GueChecksum::Full => tunnel::CHECKSUM,
                GueChecksum::Remote => tunnel::REMOTE_CHECKSUM,
            };
            (tunnel::GUE, port, flags)
        }
    }
}

/// Statistics as old clients read them, and with 64 bits each.
fn put_stats(body: &mut Body<'_>, [old, new]: [u16; 2], traffic: &Traffic, rates: &Rates) {
    let totals = [
        (stats::CONNECTIONS, traffic.connections),
        (stats::IN_PACKETS, traffic.in_packets),
        (stats::OUT_PACKETS, traffic.out_packets),
        (stats::IN_BYTES, traffic.in_bytes),
        (stats::OUT_BYTES, traffic.out_bytes),
    ];
    // In the order of the totals.
    let rates = [
        rates.connections,
        rates.in_packets,
        rates.out_packets,
        rates.in_bytes,
        rates.out_bytes,
    ];
    body.nested(old, |body| {
        for (kind, value) in totals {
            if matches!(kind, stats::IN_BYTES | stats::OUT_BYTES) {
                body.u64(kind, value);
            } else {
                body.u32(kind, low(value));
            }
        }
        for (kind, rate) in (stats::FIRST_RATE..).zip(rates) {
            body.u32(kind, u32::try_from(rate).unwrap_or(u32::MAX));
        }
    });
    body.nested(new, |body| {
        for (kind, value) in totals {
            body.u64(kind, value);
        }
        for (kind, rate) in (stats::FIRST_RATE..).zip(rates) {
            body.u64(kind, rate);
        }
    });
}

/// The old counters have 32 bits and begin anew.
fn low(value: u64) -> u32 {
    u32::try_from(value & u64::from(u32::MAX)).expect("the other bits are masked")
}

/// Puts a daemon where a command's attributes stand.
pub(super) fn put_daemon(body: &mut Body<'_>, state: u32, of: &Daemon) {
    body.nested(top::DAEMON, |body| {
        body.u32(daemon::STATE, state);
        body.name(daemon::INTERFACE, &of.interface);
        body.u32(daemon::ID, of.id);
        body.u16(daemon::LARGEST, of.largest);
        body.u16(daemon::PORT, of.port);
        body.u8(daemon::TTL, of.ttl);
        match of.group {
            IpAddr::V4(v4) => body.bytes(daemon::GROUP, &v4.octets()),
            IpAddr::V6(v6) => body.bytes(daemon::GROUP6, &v6.octets()),
        }
    });
}
