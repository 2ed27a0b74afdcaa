//! From the tables of a TOML text to a [`Configuration`].
//!
//! A value that is not what its key takes is noted and replaced by the default, so that the rest is looked at too. An
//! element of a list that cannot be made at all is left out; [`Draft::restore`] knows which places remain.

mod access;
mod dpdk;
mod drivers;
mod metrics;
mod ports;
mod services;
pub(crate) mod words;

use super::keys;
use super::mistake::{KeyPath, Step};
use super::model::{
    Configuration, DirectorSettings, Idle, Mark, Pin, PortSettings, TimeoutSettings,
};
use super::reader::{Section, Value};
use super::{LIP_POOLS, MARKS, ROUTES, SERVICES};
use access::{parse_path, read_access};
use dataplane::snapshot::Ipvs;
use dpdk::read_dpdk;
use metrics::read_metrics;
use ports::{read_lip_pool, read_ports, read_route};
use services::read_service;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use words::{parse_network, parse_ports, parse_protocol};

/// What could be made of a text.
pub(super) struct Draft {
    pub(super) configuration: Configuration,
    /// For each list, by its path in the text: the places of those elements that are in the configuration.
    kept: HashMap<String, Vec<usize>>,
}

impl Draft {
    pub(super) fn read(top: &Section<'_, '_>) -> Draft {
        let mut kept = HashMap::new();
        let director = top.table("director", &keys::DIRECTOR);
        let timeouts = top.table("timeouts", &keys::TIMEOUTS);
        let ipvs = top.table("ipvs", &keys::IPVS);
        let dpdk = top.table("dpdk", &keys::DPDK);
        let access = top.table("access", &keys::ACCESS);
        let metrics = top.table("metrics", &keys::METRICS);
        let ports = read_ports(top);
        let configuration = Configuration {
            director: DirectorSettings {
                idle: read_idle(director.as_ref(), &ports),
                ..director.as_ref().map(read_director).unwrap_or_default()
            },
            dpdk: dpdk.as_ref().map(read_dpdk).unwrap_or_default(),
            ports,
            routes: keep(
                &mut kept,
                "route",
                top.tables("route", &keys::ROUTE, ROUTES),
                |section, _| read_route(section),
            ),
            lip_pools: keep(
                &mut kept,
                "lip_pool",
                top.tables("lip_pool", &keys::LIP_POOL, LIP_POOLS),
                |section, _| read_lip_pool(section),
            ),
            marks: keep(
                &mut kept,
                "mark",
                top.tables("mark", &keys::MARK, MARKS),
                |section, _| read_mark(section),
            ),
            services: keep(
                &mut kept,
                "service",
                top.tables("service", &keys::SERVICE, SERVICES),
                read_service,
            ),
            timeouts: timeouts.as_ref().map(read_timeouts).unwrap_or_default(),
            ipvs: ipvs.as_ref().map(read_ipvs).unwrap_or_default(),
            access: access.as_ref().map(read_access).unwrap_or_default(),
            metrics: metrics.as_ref().map(read_metrics),
        };
        Draft {
            configuration,
            kept,
        }
    }

    /// From a path in the configuration to the path in the text.
    pub(super) fn restore(&self, path: &KeyPath) -> KeyPath {
        let mut restored = KeyPath::default();
        for step in &path.0 {
            restored = match step {
                Step::Key(key) => restored.key(key),
                Step::Index(index) => {
                    let place = self
                        .kept
                        .get(&restored.to_string())
                        .and_then(|kept| kept.get(*index));
                    restored.index(place.copied().unwrap_or(*index))
                }
            };
        }
        restored
    }
}

/// Reads each section and remembers which of them yielded something.
fn keep<T>(
    kept: &mut HashMap<String, Vec<usize>>,
    name: &str,
    sections: Vec<Section<'_, '_>>,
    read: impl Fn(&Section<'_, '_>, &mut HashMap<String, Vec<usize>>) -> Option<T>,
) -> Vec<T> {
    let mut places = Vec::new();
    let mut values = Vec::new();
    let mut path = KeyPath::top(name);
    for section in &sections {
        let Some((Step::Index(place), list)) = section.path.0.split_last() else {
            unreachable!("sections of a list have an index")
        };
        path = KeyPath(list.to_vec());
        if let Some(value) = read(section, kept) {
            places.push(*place);
            values.push(value);
        }
    }
    kept.insert(path.to_string(), places);
    values
}

fn read_director(section: &Section<'_, '_>) -> DirectorSettings {
    let default = DirectorSettings::default();
    let control = section
        .parsed("control", parse_control)
        .unwrap_or(default.control);
    let netlink = section.parsed("netlink", parse_netlink);
    let workers = narrow(section.number("workers")).unwrap_or(default.workers);
    DirectorSettings {
        workers,
        connections: narrow(section.number("connections")).unwrap_or(default.connections),
        servers: narrow(section.number("servers")).unwrap_or(default.servers),
        half_open_percent: narrow(section.number("half_open_percent"))
            .unwrap_or(default.half_open_percent),
        idle: default.idle,
        pin: section
            .get("pin")
            .and_then(|value| read_pin(&value, usize::from(workers)))
            .unwrap_or(default.pin),
        netlink: netlink.unwrap_or_else(|| Some(DirectorSettings::netlink_beside(&control))),
        control,
        proc: section.parsed("proc", parse_path).or(default.proc),
        table: section.parsed("table", parse_path).or(default.table),
        state: section.parsed("state", parse_path).or(default.state),
    }
}

fn read_idle(section: Option<&Section<'_, '_>>, ports: &[PortSettings]) -> Idle {
    match section.and_then(|section| section.word("idle")) {
        Some("poll") => Idle::Poll,
        Some(_) => Idle::Sleep,
        None => Idle::by_default(ports),
    }
}

/// A number that the key's bounds already keep within its type.
fn narrow<T: TryFrom<u64>>(number: Option<u64>) -> Option<T> {
    number.and_then(|number| T::try_from(number).ok())
}

fn read_pin(value: &Value<'_, '_>, workers: usize) -> Option<Pin> {
    if let Some(pin) = value.boolean() {
        return Some(if pin { Pin::InOrder } else { Pin::Nowhere });
    }
    let list = value.list(workers);
    let cpus: Vec<u16> = list
        .iter()
        .filter_map(|cpu| {
            cpu.integer()
                .filter(|cpu| *cpu <= keys::LAST_CPU)
                .and_then(|cpu| u16::try_from(cpu).ok())
        })
        .collect();
    let distinct: std::collections::HashSet<_> = cpus.iter().collect();
    if list.is_empty() {
        return None;
    }
    if cpus.len() != workers || distinct.len() != workers {
        value.refuse();
        return None;
    }
    Some(Pin::To(cpus))
}

fn parse_control(text: &str) -> Option<PathBuf> {
    let path = Path::new(text.strip_prefix("unix:")?);
    let len = path.as_os_str().len();
    (path.is_absolute() && (2..=100).contains(&len)).then(|| path.to_owned())
}

fn parse_netlink(text: &str) -> Option<Option<PathBuf>> {
    match text {
        "none" => Some(None),
        path => parse_control(path).map(Some),
    }
}

fn read_mark(section: &Section<'_, '_>) -> Option<Mark> {
    let mark = narrow(section.number("mark"));
    let network = |name| section.parsed(name, parse_network);
    let ports = |name| section.parsed(name, parse_ports);
    let (source, destination) = (network("source"), network("destination"));
    let (source_ports, destination_ports) = (ports("source_ports"), ports("destination_ports"));
    let protocol = section.word("protocol").map(parse_protocol);
    let port = section.parsed("port", |text| Some(text.to_owned()));
    Some(Mark {
        mark: mark?,
        port,
        source,
        destination,
        protocol,
        source_ports,
        destination_ports,
    })
}

fn read_timeouts(section: &Section<'_, '_>) -> TimeoutSettings {
    let default = TimeoutSettings::default();
    TimeoutSettings {
        tcp: narrow(section.number("tcp")).unwrap_or(default.tcp),
        tcp_fin: narrow(section.number("tcp_fin")).unwrap_or(default.tcp_fin),
        udp: narrow(section.number("udp")).unwrap_or(default.udp),
    }
}

fn read_ipvs(section: &Section<'_, '_>) -> Ipvs {
    let default = Ipvs::default();
    let is_set = |name, default| switch(section, name).unwrap_or(default);
    Ipvs {
        conn_reuse_mode: narrow(section.number("conn_reuse_mode"))
            .unwrap_or(default.conn_reuse_mode),
        expire_nodest_conn: is_set("expire_nodest_conn", default.expire_nodest_conn),
        expire_quiescent_template: is_set(
            "expire_quiescent_template",
            default.expire_quiescent_template,
        ),
        sloppy_tcp: is_set("sloppy_tcp", default.sloppy_tcp),
        sloppy_sctp: is_set("sloppy_sctp", default.sloppy_sctp),
        schedule_icmp: is_set("schedule_icmp", default.schedule_icmp),
        nat_icmp_send: is_set("nat_icmp_send", default.nat_icmp_send),
        pmtu_disc: is_set("pmtu_disc", default.pmtu_disc),
        lblc_expiration: narrow(section.number("lblc_expiration"))
            .unwrap_or(default.lblc_expiration),
        lblcr_expiration: narrow(section.number("lblcr_expiration"))
            .unwrap_or(default.lblcr_expiration),
        secure_tcp: narrow(section.number("secure_tcp")).unwrap_or(default.secure_tcp),
        drop_packet: narrow(section.number("drop_packet")).unwrap_or(default.drop_packet),
        drop_entry: narrow(section.number("drop_entry")).unwrap_or(default.drop_entry),
        am_droprate: narrow(section.number("am_droprate")).unwrap_or(default.am_droprate),
        amemthresh: narrow(section.number("amemthresh")).unwrap_or(default.amemthresh),
    }
}

/// A boolean.
fn switch(section: &Section<'_, '_>, name: &str) -> Option<bool> {
    let value = section.get(name)?;
    let is_on = value.boolean();
    if is_on.is_none() {
        value.refuse();
    }
    is_on
}
