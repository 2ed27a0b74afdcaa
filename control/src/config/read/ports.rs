//! Ports, routes and pools of local addresses.

use super::words::{is_host, is_interface, is_name, parse_own_address, parse_port_range};
use crate::config::keys;
use crate::config::mistake::Problem;
use crate::config::model::{AnsweredBy, Driver, LipPool, PortSettings, Route};
use crate::config::reader::Section;
use crate::config::{ADDRESSES_PER_PORT, LIPS_PER_POOL, PORTS, Prefix};
use dataplane::port::af_xdp::Checksums;

pub(super) fn read_ports(top: &Section<'_, '_>) -> Vec<PortSettings> {
    let sections = top.named("port", &keys::PORT);
    if sections.len() > PORTS {
        top.note(
            "port",
            Problem::TooMany {
                count: sections.len(),
                what: "ports",
                limit: PORTS,
            },
        );
        return Vec::new();
    }
    sections
        .iter()
        .map(|(name, section)| read_port(name, section))
        .collect()
}

fn read_port(name: &str, section: &Section<'_, '_>) -> PortSettings {
    if !is_name(name) {
        section.refuse_name(name, "a port's name", "1 to 32 letters, digits, '-' or '_'");
    }
    let interface = section.parsed("interface", |text| {
        is_interface(text).then(|| text.to_owned())
    });
    let checksums = section.word("checksums").map(|word| match word {
        "trust" => Checksums::Trust,
        _ => Checksums::Verify,
    });
    let driver = section.word("driver");
    if checksums.is_some() && driver != Some("af_xdp") {
        section.note(
            "checksums",
            Problem::Misplaced("only driver \"af_xdp\" has this choice"),
        );
    }
    let driver = match driver {
        Some("memory") => {
            if interface.is_some() {
                section.note(
                    "interface",
                    Problem::Misplaced(
                        "only drivers \"af_packet\" and \"af_xdp\" have an interface",
                    ),
                );
            }
            Driver::Memory
        }
        Some("af_xdp") => {
            needs_interface(
                section,
                interface.as_ref(),
                "the interface of driver \"af_xdp\"",
            );
            Driver::AfXdp {
                interface: interface.unwrap_or_default(),
                checksums,
            }
        }
        Some(_) => {
            let what = "the interface of driver \"af_packet\"";
            needs_interface(section, interface.as_ref(), what);
            Driver::AfPacket {
                interface: interface.unwrap_or_default(),
            }
        }
        None => Driver::Memory,
    };
    let addresses = section
        .get("addresses")
        .map(|value| value.list(ADDRESSES_PER_PORT))
        .unwrap_or_default();
    PortSettings {
        name: name.to_owned(),
        driver,
        addresses: addresses
            .iter()
            .filter_map(|value| value.parse(parse_own_address))
            .collect(),
        answered_by: match section.word("answered_by") {
            Some("kernel") => AnsweredBy::Kernel,
            _ => AnsweredBy::Uvs,
        },
    }
}

/// Notes that a driver's interface is missing, if it is.
fn needs_interface(section: &Section<'_, '_>, interface: Option<&String>, what: &'static str) {
    if interface.is_none() && section.is_absent("interface") {
        let accepted = "1 to 15 bytes without '/', ':' or blanks".to_owned();
        section.note("interface", Problem::Missing { what, accepted });
    }
}

pub(super) fn read_route(section: &Section<'_, '_>) -> Option<Route> {
    let via = section.parsed("via", |text| text.parse().ok().filter(is_host));
    let port = section.parsed("port", |text| Some(text.to_owned()));
    let to = section.parsed("to", |text| {
        text.parse()
            .ok()
            .filter(|to: &Prefix| to.network() == to.address)
    })?;
    if via.is_none() && section.is_absent("via") && section.is_absent("port") {
        let accepted = "`via = \"GATEWAY\"`, `port = \"NAME\"` or both".to_owned();
        section.note(
            "via",
            Problem::Missing {
                what: "the way there",
                accepted,
            },
        );
    }
    Some(Route { to, via, port })
}

pub(super) fn read_lip_pool(section: &Section<'_, '_>) -> Option<LipPool> {
    let name = section.parsed("name", |text| is_name(text).then(|| text.to_owned()));
    let ports = section.parsed("ports", parse_port_range);
    let addresses = section.get("addresses").map(|value| {
        if value.is_empty_list() {
            value.refuse();
        }
        value.list(LIPS_PER_POOL)
    });
    let (first_port, last_port) = ports.unwrap_or((1024, 65535));
    let addresses = addresses.unwrap_or_default();
    let addresses = addresses
        .iter()
        .filter_map(|value| value.parse(|text| text.parse().ok().filter(is_host)));
    Some(LipPool {
        name: name?,
        addresses: addresses.collect(),
        first_port,
        last_port,
    })
}
