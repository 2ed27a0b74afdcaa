//! Ports, routes and pools of local addresses.

use super::drivers::read_driver;
use super::words::{is_host, is_name, parse_own_address, parse_port_range};
use crate::config::keys;
use crate::config::mistake::Problem;
use crate::config::model::{AnsweredBy, LipPool, PortSettings, Route};
use crate::config::reader::Section;
use crate::config::{ADDRESSES_PER_PORT, LIPS_PER_POOL, PORTS, Prefix};

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
    let addresses = section
        .get("addresses")
        .map(|value| value.list(ADDRESSES_PER_PORT))
        .unwrap_or_default();
    PortSettings {
        name: name.to_owned(),
        driver: read_driver(name, section),
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
