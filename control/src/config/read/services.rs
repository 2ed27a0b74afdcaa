//! Services and their servers.

use super::words::{is_host, parse_granularity, parse_listen, parse_method, parse_server};
use super::{keep, narrow, switch};
use crate::config::keys;
use crate::config::mistake::Problem;
use crate::config::model::{Granularity, GueChecksum, Persistence, Server, Service, TunnelKind};
use crate::config::reader::{Section, Value};
use crate::config::{ADDRESSES_PER_SERVICE, SERVERS};
use conntrack::Method;
use dataplane::helper::Helper;
use dataplane::snapshot::Engine;
use scheduler::Options;
use std::collections::HashMap;

pub(super) fn read_service(
    section: &Section<'_, '_>,
    kept: &mut HashMap<String, Vec<usize>>,
) -> Option<Service> {
    let listen = section.parsed("listen", parse_listen);
    let scheduler = section.word("scheduler").unwrap_or("wlc");
    let method = section.word("method").map(parse_method);
    let lip_pool = section.parsed("lip_pool", |text| Some(text.to_owned()));
    let flags = section
        .get("flags")
        .map(|value| read_flags(&value, scheduler))
        .unwrap_or_default();
    let flags = Options {
        slow_start: narrow(section.number("slow_start")).unwrap_or(0),
        ..flags
    };
    let one_packet = switch(section, "one_packet").unwrap_or(false);
    let helper = section.word("helper").map(|_| Helper::Ftp);
    let persistence = read_persistence(section);
    let addresses = section
        .get("addresses")
        .map(|value| value.list(ADDRESSES_PER_SERVICE))
        .unwrap_or_default();
    let addresses = addresses
        .iter()
        .filter_map(|value| value.parse(|text| text.parse().ok().filter(is_host)))
        .collect();
    // A service without its own words is still read to the end, for the mistakes in its servers.
    let port = listen.map_or(0, |listen| listen.port());
    let sections = section.tables("server", &keys::SERVER, SERVERS);
    let servers = keep(kept, "server", sections, |section, _| {
        read_server(section, port, method)
    });
    Some(Service {
        listen: listen?,
        scheduler,
        flags,
        method: method?,
        lip_pool,
        one_packet,
        helper,
        persistence,
        addresses,
        servers,
        idle_edits: 0,
    })
}

/// Granularity and engine without a timeout are noted: they would do nothing.
fn read_persistence(section: &Section<'_, '_>) -> Option<Persistence> {
    let timeout = narrow(section.number("persistence_timeout"));
    let granularity = section.parsed("persistence_granularity", parse_granularity);
    let engine = section.word("persistence_engine").map(|_| Engine::Sip);
    if section.is_absent("persistence_timeout") {
        for name in ["persistence_granularity", "persistence_engine"] {
            if !section.is_absent(name) {
                let why = "only a service with persistence_timeout is persistent";
                section.note(name, Problem::Misplaced(why));
            }
        }
    }
    timeout.map(|timeout| Persistence {
        timeout,
        granularity: granularity.unwrap_or(Granularity::Address),
        engine,
    })
}

fn read_flags(value: &Value<'_, '_>, scheduler: &str) -> Options {
    let mut flags = Options::default();
    for item in value.list(4) {
        let Some(flag) = item.parse(|text| flag(scheduler, text)) else {
            continue;
        };
        if std::mem::replace(flag(&mut flags), true) {
            item.refuse();
        }
    }
    flags
}

/// Where a flag of a scheduler stands.
fn flag(scheduler: &str, text: &str) -> Option<fn(&mut Options) -> &mut bool> {
    match (scheduler, text) {
        ("sh", "sh-port") => Some(|flags| &mut flags.sh_port),
        ("sh", "sh-fallback") => Some(|flags| &mut flags.sh_fallback),
        ("mh", "mh-port") => Some(|flags| &mut flags.mh_port),
        ("mh", "mh-fallback") => Some(|flags| &mut flags.mh_fallback),
        _ => None,
    }
}

fn read_server(section: &Section<'_, '_>, port: u16, of_service: Option<Method>) -> Option<Server> {
    let weight = narrow(section.number("weight")).unwrap_or(1);
    let upper = narrow(section.number("upper")).unwrap_or(0);
    let lower = narrow(section.number("lower")).unwrap_or(0);
    let method = section.word("method").map(parse_method).or(of_service);
    let tunnel = read_tunnel(section, method);
    let address = section.parsed("address", |text| parse_server(text, port))?;
    // Where the service's own method is missing, that was noted there.
    Some(Server {
        address,
        weight,
        method: method.unwrap_or(Method::Nat),
        upper,
        lower,
        tunnel,
    })
}

/// Keys that another one rules out are noted, the first reason alone.
fn read_tunnel(section: &Section<'_, '_>, method: Option<Method>) -> TunnelKind {
    let kind = section.word("tunnel");
    let port = narrow(section.number("tunnel_port"));
    let checksum = section.word("tunnel_checksum");
    let misplaced = |name: &str, why: &'static str| {
        if !section.is_absent(name) {
            section.note(name, Problem::Misplaced(why));
        }
    };
    if method.is_some_and(|method| method != Method::Tun) {
        for name in ["tunnel", "tunnel_port", "tunnel_checksum"] {
            misplaced(name, "only method \"tun\" has a tunnel");
        }
        return TunnelKind::Ipip;
    }
    match kind {
        Some("gue") => {
            if section.is_absent("tunnel_port") {
                section.note(
                    "tunnel_port",
                    Problem::Missing {
                        what: "the UDP port of tunnel \"gue\"",
                        accepted: "1 to 65535".to_owned(),
                    },
                );
            }
            TunnelKind::Gue {
                port: port.unwrap_or(0),
                checksum: match checksum {
                    Some("full") => GueChecksum::Full,
                    Some("remote") => GueChecksum::Remote,
                    _ => GueChecksum::None,
                },
            }
        }
        Some("gre") => {
            misplaced("tunnel_port", "only tunnel \"gue\" has a port");
            if checksum == Some("remote") {
                misplaced(
                    "tunnel_checksum",
                    "only tunnel \"gue\" has a remote checksum",
                );
            }
            TunnelKind::Gre {
                checksum: checksum == Some("full"),
            }
        }
        // Of an unknown kind nobody knows what it takes.
        None if !section.is_absent("tunnel") => TunnelKind::Ipip,
        _ => {
            misplaced("tunnel_port", "only tunnel \"gue\" has a port");
            misplaced(
                "tunnel_checksum",
                "only tunnels \"gre\" and \"gue\" have a checksum",
            );
            TunnelKind::Ipip
        }
    }
}
