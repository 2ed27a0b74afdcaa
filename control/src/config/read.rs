//! From the tables of a TOML text to a [`Configuration`].
//!
//! A value that is not what its key takes is noted and replaced by the default, so that the rest is looked at too. An
//! element of a list that cannot be made at all is left out; [`Draft::restore`] knows which places remain.

use super::keys;
use super::mistake::{KeyPath, Problem, Step};
use super::model::{
    AnsweredBy, Configuration, DirectorSettings, Driver, Granularity, GueChecksum, Idle, LipPool,
    Listen, Mark, Persistence, Pin, PortSettings, Protocol, Route, Server, Service,
    TimeoutSettings, TunnelKind,
};
use super::reader::{Section, Value};
use super::{
    ADDRESSES_PER_PORT, ADDRESSES_PER_SERVICE, LIP_POOLS, LIPS_PER_POOL, MARKS, PORTS, Prefix,
    ROUTES, SERVERS, SERVICES,
};
use conntrack::Method;
use dataplane::helper::Helper;
use dataplane::snapshot::{Engine, Ipvs};
use scheduler::Options;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

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
        let configuration = Configuration {
            director: director.as_ref().map(read_director).unwrap_or_default(),
            ports: read_ports(top),
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
    let workers = narrow(section.number("workers")).unwrap_or(default.workers);
    DirectorSettings {
        workers,
        connections: narrow(section.number("connections")).unwrap_or(default.connections),
        servers: narrow(section.number("servers")).unwrap_or(default.servers),
        half_open_percent: narrow(section.number("half_open_percent"))
            .unwrap_or(default.half_open_percent),
        idle: match section.word("idle") {
            Some("poll") => Idle::Poll,
            _ => Idle::Sleep,
        },
        pin: section
            .get("pin")
            .and_then(|value| read_pin(&value, usize::from(workers)))
            .unwrap_or(default.pin),
        control: section
            .parsed("control", parse_control)
            .unwrap_or(default.control),
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

fn read_ports(top: &Section<'_, '_>) -> Vec<PortSettings> {
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
    let driver = match section.word("driver") {
        Some("memory") => {
            if interface.is_some() {
                section.note(
                    "interface",
                    Problem::Misplaced("only driver \"af_packet\" has an interface"),
                );
            }
            Driver::Memory
        }
        Some(_) => {
            if interface.is_none() && section.is_absent("interface") {
                let accepted = "1 to 15 bytes without '/', ':' or blanks".to_owned();
                section.note(
                    "interface",
                    Problem::Missing {
                        what: "the interface of driver \"af_packet\"",
                        accepted,
                    },
                );
            }
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

fn read_route(section: &Section<'_, '_>) -> Option<Route> {
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

fn read_lip_pool(section: &Section<'_, '_>) -> Option<LipPool> {
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

fn read_service(
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

fn parse_method(word: &str) -> Method {
    match word {
        "nat" => Method::Nat,
        "dr" => Method::Dr,
        "tun" => Method::Tun,
        "fullnat" => Method::FullNat,
        _ => unreachable!("the key takes these words alone"),
    }
}

fn parse_own_address(text: &str) -> Option<Prefix> {
    text.parse()
        .ok()
        .filter(|prefix: &Prefix| is_host(&prefix.address))
}

fn parse_listen(text: &str) -> Option<Listen> {
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

fn parse_protocol(word: &str) -> Protocol {
    match word {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => unreachable!("the key takes these words alone"),
    }
}

fn parse_network(text: &str) -> Option<Prefix> {
    let network: Prefix = text.parse().ok()?;
    (network.network() == network.address).then_some(network)
}

/// One port or a range of them.
fn parse_ports(text: &str) -> Option<(u16, u16)> {
    match text.parse() {
        Ok(port) => Some((port, port)).filter(|_| port != 0),
        Err(_) => parse_port_range(text),
    }
}

fn parse_granularity(text: &str) -> Option<Granularity> {
    match text.parse() {
        Ok(len) => (1..=128).contains(&len).then_some(Granularity::Prefix(len)),
        Err(_) => text.parse().ok().map(Granularity::Netmask),
    }
}

/// `ADDRESS:PORT` or the address alone.
fn parse_server(text: &str, default_port: u16) -> Option<SocketAddr> {
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
fn parse_socket(text: &str) -> Option<SocketAddr> {
    text.parse()
        .ok()
        .filter(|address| !matches!(address, SocketAddr::V6(v6) if v6.scope_id() != 0))
}

fn parse_port_range(text: &str) -> Option<(u16, u16)> {
    let (low, high) = text.split_once('-')?;
    let (low, high) = (low.parse().ok()?, high.parse().ok()?);
    (low > 0 && low <= high).then_some((low, high))
}

/// Whether a host can have the address: unicast, not loopback, not an IPv4 address in IPv6 form.
fn is_host(address: &IpAddr) -> bool {
    let unusual = address.is_unspecified() || address.is_multicast() || address.is_loopback();
    let of_family = match address {
        IpAddr::V4(v4) => *v4 != Ipv4Addr::BROADCAST,
        IpAddr::V6(v6) => v6.to_ipv4_mapped().is_none(),
    };
    !unusual && of_family
}

fn is_name(text: &str) -> bool {
    (1..=32).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

/// Source: Linux net/core/dev.c, dev_valid_name().
fn is_interface(text: &str) -> bool {
    (1..=15).contains(&text.len())
        && !matches!(text, "." | "..")
        && !text
            .chars()
            .any(|character| character.is_whitespace() || matches!(character, '/' | ':' | '\0'))
}
