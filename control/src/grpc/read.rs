//! From messages to settings. What is wrong is noted with its place; what can be made of the rest is looked at all the same,
//! and thrown away.

use super::place::Place;
use crate::config::keys::{IPVS, LIP_POOL, MARK, PORT, ROUTE, SERVER, SERVICE, TIMEOUTS};
use crate::config::words::{is_host, is_name, parse_granularity, parse_network, parse_own_address};
use crate::config::{
    ADDRESSES_PER_PORT, ADDRESSES_PER_SERVICE, Configuration, Granularity, GueChecksum, LIP_POOLS,
    LIPS_PER_POOL, LipPool, Listen, MARKS, Mark, PORTS, Persistence, Prefix, Problem, Protocol,
    ROUTES, Route, SERVERS, SERVICES, Server, Service, TimeoutSettings, TunnelKind,
};
use crate::manage::Edit;
use conntrack::Method;
use dataplane::helper::Helper;
use dataplane::snapshot::{Engine, Ipvs};
use proto::v1;
use scheduler::Options;
use std::net::{IpAddr, SocketAddr};

/// The configuration that holds now, with everything changeable as the state says.
pub(super) fn state(
    state: &v1::State,
    place: &Place<'_>,
    current: Configuration,
) -> Option<Configuration> {
    let (services_at, ports_at) = (place.key("services"), place.key("ports"));
    let services = services_at.list(&state.services, "services", SERVICES);
    let services = each(services, &services_at, service);
    let listed = ports_at.list(&state.ports, "ports", PORTS);
    let addresses = each(listed, &ports_at, port_addresses);
    let pools_at = place.key("lip_pools");
    let pools = pools_at.list(&state.lip_pools, "LIP pools", LIP_POOLS);
    let lip_pools = each(pools, &pools_at, lip_pool);
    let routes_at = place.key("routes");
    let routes = each(
        routes_at.list(&state.routes, "routes", ROUTES),
        &routes_at,
        route,
    );
    let marks = marks(&state.marks, &place.key("marks"));
    let timeouts = timeouts(
        state.timeouts.as_ref(),
        &place.key("timeouts"),
        TimeoutSettings::default(),
    );
    let ipvs = ipvs(state.ipvs.as_ref(), &place.key("ipvs"), Ipvs::default());
    let mut wanted = Configuration {
        routes: routes?,
        lip_pools: lip_pools?,
        marks: marks?,
        services: services?,
        timeouts: timeouts?,
        ipvs: ipvs?,
        ..current
    };
    for port in &mut wanted.ports {
        port.addresses.clear();
    }
    for (index, (name, addresses)) in addresses?.into_iter().enumerate() {
        let names = || {
            let names = wanted.ports.iter().map(|port| port.name.as_str());
            names.collect::<Vec<_>>().join(", ")
        };
        let Some(place_of) = wanted.ports.iter().position(|port| port.name == name) else {
            ports_at.index(index).key("port").note(Problem::NotA {
                value: format!("{name:?}"),
                what: "the name of a port",
                accepted: names(),
            });
            return None;
        };
        wanted.ports[place_of].addresses = addresses;
    }
    Some(wanted)
}

/// All of a list's elements, if each can be read.
fn each<M, T>(
    messages: &[M],
    place: &Place<'_>,
    read: impl Fn(&M, &Place<'_>) -> Option<T>,
) -> Option<Vec<T>> {
    let mut is_whole = true;
    let mut values = Vec::with_capacity(messages.len());
    for (index, message) in messages.iter().enumerate() {
        match read(message, &place.index(index)) {
            Some(value) => values.push(value),
            None => is_whole = false,
        }
    }
    is_whole.then_some(values)
}

/// A step of a change. What is left open in it is as in `current`.
pub(super) fn edit(edit: &v1::Edit, place: &Place<'_>, current: &Configuration) -> Option<Edit> {
    use v1::edit::Edit as Message;
    let Some(step) = &edit.edit else {
        place.missing("what to do", "one of the fields of Edit");
        return None;
    };
    let at = |name| place.key(name);
    match step {
        Message::CreateService(of) => service(of, &at("create_service")).map(Edit::CreateService),
        Message::UpdateService(of) => {
            let place = at("update_service");
            if !of.servers.is_empty() {
                let why = "an update of a service leaves its servers as they are";
                place.key("servers").note(Problem::Misplaced(why));
            }
            service(of, &place).map(Edit::UpdateService)
        }
        Message::DeleteService(of) => key(of, &at("delete_service")).map(Edit::DeleteService),
        Message::CreateServer(of) => {
            let (listen, server) = of_service(of, &at("create_server"), current)?;
            Some(Edit::CreateServer(listen, server))
        }
        Message::UpdateServer(of) => {
            let (listen, server) = of_service(of, &at("update_server"), current)?;
            Some(Edit::UpdateServer(listen, server))
        }
        Message::DeleteServer(of) => {
            let place = at("delete_server");
            let listen = service_key(of.service.as_ref(), &place.key("service"));
            let address = address(&of.address, &place.key("address"));
            let port = port(of.port, &place.key("port"));
            let (listen, address, port) = (listen?, address?, port?);
            let port = if port == 0 { listen.port() } else { port };
            Some(Edit::DeleteServer(listen, SocketAddr::new(address, port)))
        }
        Message::CreateLipPool(of) => lip_pool(of, &at("create_lip_pool")).map(Edit::CreateLipPool),
        Message::UpdateLipPool(of) => lip_pool(of, &at("update_lip_pool")).map(Edit::UpdateLipPool),
        Message::DeleteLipPool(name) => Some(Edit::DeleteLipPool(name.clone())),
        Message::CreateRoute(of) => route(of, &at("create_route")).map(Edit::CreateRoute),
        Message::UpdateRoute(of) => route(of, &at("update_route")).map(Edit::UpdateRoute),
        Message::DeleteRoute(to) => network(to, &at("delete_route"), "to").map(Edit::DeleteRoute),
        Message::SetMarks(of) => {
            marks(&of.marks, &at("set_marks").key("marks")).map(Edit::SetMarks)
        }
        Message::SetAddresses(of) => {
            let (name, addresses) = port_addresses(of, &at("set_addresses"))?;
            Some(Edit::SetAddresses(name, addresses))
        }
        Message::SetTimeouts(of) => {
            timeouts(Some(of), &at("set_timeouts"), current.timeouts).map(Edit::SetTimeouts)
        }
        Message::SetIpvs(of) => ipvs(Some(of), &at("set_ipvs"), current.ipvs).map(Edit::SetIpvs),
        Message::Clear(v1::Clear {}) => Some(Edit::Clear),
    }
}

fn of_service(
    of: &v1::ServiceServer,
    place: &Place<'_>,
    current: &Configuration,
) -> Option<(Listen, Server)> {
    let listen = service_key(of.service.as_ref(), &place.key("service"));
    let server_place = place.key("server");
    let Some(settings) = &of.server else {
        server_place.missing("the server", "its settings");
        return None;
    };
    let listen = listen?;
    // Of a service that is not there the server gets NAT here; the edit fails for want of the service.
    let mut services = current.services.iter();
    let method = services
        .find(|service| service.listen == listen)
        .map_or(Method::Nat, |service| service.method);
    let server = server(settings, &server_place, listen.port(), Some(method))?;
    Some((listen, server))
}

pub(super) fn service_key(of: Option<&v1::ServiceKey>, place: &Place<'_>) -> Option<Listen> {
    if of.is_none() {
        place.missing("the service", "protocol, address and port, or a mark");
    }
    key(of?, place)
}

pub(super) fn key(of: &v1::ServiceKey, place: &Place<'_>) -> Option<Listen> {
    if of.mark != 0 {
        if !of.address.is_empty() || of.port != 0 || of.protocol != 0 {
            let why = "a mark's service has no protocol, address and port";
            place.key("mark").note(Problem::Misplaced(why));
            return None;
        }
        return Some(Listen::Mark {
            mark: of.mark,
            ipv6: of.mark_ipv6,
        });
    }
    let protocol = protocol(of.protocol, &place.key("protocol"));
    if protocol == Some(None) {
        let accepted = "PROTOCOL_TCP, PROTOCOL_UDP, PROTOCOL_SCTP, or a mark instead";
        place.key("protocol").missing("the protocol", accepted);
    }
    let address = address(&of.address, &place.key("address"));
    let port = port(of.port, &place.key("port"));
    Some(Listen::Address {
        protocol: protocol??,
        address: SocketAddr::new(address?, port?),
    })
}

fn service(of: &v1::ServiceSettings, place: &Place<'_>) -> Option<Service> {
    let listen = service_key(of.key.as_ref(), &place.key("key"));
    let scheduler = match of.scheduler.as_str() {
        "" => Some("wlc"),
        name => place.key("scheduler").word(name, &SERVICE, "scheduler"),
    };
    let flags = flags(&of.flags, scheduler.unwrap_or(""), &place.key("flags"));
    let slow_start = place
        .key("slow_start_s")
        .number(of.slow_start_s, &SERVICE, "slow_start");
    let method_at = place.key("method");
    let method = method(of.method, &method_at);
    if method == Some(None) {
        method_at.missing("how packets reach the servers", METHODS);
    }
    let helper = match of.helper.as_str() {
        "" => Some(None),
        name => {
            let word = place.key("helper").word(name, &SERVICE, "helper");
            word.map(|_| Some(Helper::Ftp))
        }
    };
    let persistence = match &of.persistence {
        None => Some(None),
        Some(settings) => persistence(settings, &place.key("persistence")).map(Some),
    };
    let addresses_at = place.key("addresses");
    let listed = addresses_at.list(&of.addresses, "addresses", ADDRESSES_PER_SERVICE);
    let addresses = each(listed, &addresses_at, |text, place| address(text, place));
    let servers_at = place.key("servers");
    let port = listen.map_or(0, |listen| listen.port());
    let listed = servers_at.list(&of.servers, "servers", SERVERS);
    let servers = each(listed, &servers_at, |of, place| {
        server(of, place, port, method.flatten())
    });
    Some(Service {
        listen: listen?,
        scheduler: scheduler?,
        flags: Options {
            slow_start: slow_start?,
            ..flags?
        },
        method: method??,
        lip_pool: some(&of.lip_pool),
        one_packet: of.one_packet,
        helper: helper?,
        persistence: persistence?,
        addresses: addresses?,
        servers: servers?,
        idle_edits: 0,
    })
}

/// A name, unless it is empty.
fn some(name: &str) -> Option<String> {
    (!name.is_empty()).then(|| name.to_owned())
}

fn flags(names: &[String], scheduler: &str, place: &Place<'_>) -> Option<Options> {
    let mut options = Options::default();
    let mut is_whole = true;
    for (index, name) in names.iter().enumerate() {
        let flag = match (scheduler, name.as_str()) {
            ("sh", "sh-port") => &mut options.sh_port,
            ("sh", "sh-fallback") => &mut options.sh_fallback,
            ("mh", "mh-port") => &mut options.mh_port,
            ("mh", "mh-fallback") => &mut options.mh_fallback,
            _ => {
                let key = SERVICE.key("flags");
                place.index(index).refuse(format_args!("{name:?}"), key);
                is_whole = false;
                continue;
            }
        };
        *flag = true;
    }
    is_whole.then_some(options)
}

fn persistence(of: &v1::Persistence, place: &Place<'_>) -> Option<Persistence> {
    let timeout = place
        .key("timeout_s")
        .number(of.timeout_s, &SERVICE, "persistence_timeout");
    let granularity = match of.granularity.as_str() {
        "" => Some(Granularity::Address),
        text => place.key("granularity").parsed(
            text,
            &SERVICE,
            "persistence_granularity",
            parse_granularity,
        ),
    };
    let engine = match of.engine.as_str() {
        "" => Some(None),
        name => {
            let place = place.key("engine");
            let word = place.word(name, &SERVICE, "persistence_engine");
            word.map(|_| Some(Engine::Sip))
        }
    };
    Some(Persistence {
        timeout: timeout?,
        granularity: granularity?,
        engine: engine?,
    })
}

fn server(
    of: &v1::ServerSettings,
    place: &Place<'_>,
    service_port: u16,
    service_method: Option<Method>,
) -> Option<Server> {
    let address = address(&of.address, &place.key("address"));
    let port = port(of.port, &place.key("port"));
    let weight = match of.weight {
        None => Some(1),
        Some(weight) => place.key("weight").number(weight, &SERVER, "weight"),
    };
    let method = method(of.method, &place.key("method"))?.or(service_method);
    let tunnel = match &of.tunnel {
        None => Some(TunnelKind::Ipip),
        Some(_) if method.is_some_and(|method| method != Method::Tun) => {
            let why = "only METHOD_TUN has a tunnel";
            place.key("tunnel").note(Problem::Misplaced(why));
            None
        }
        Some(settings) => tunnel(settings, &place.key("tunnel")),
    };
    let port = match port? {
        0 => service_port,
        port => port,
    };
    Some(Server {
        address: SocketAddr::new(address?, port),
        weight: weight?,
        // Where the service's own is missing, that was noted there.
        method: method.unwrap_or(Method::Nat),
        upper: of.upper,
        lower: of.lower,
        tunnel: tunnel?,
    })
}

fn tunnel(of: &v1::Tunnel, place: &Place<'_>) -> Option<TunnelKind> {
    let checksum = v1::TunnelChecksum::try_from(of.checksum).ok();
    let kind = v1::TunnelKind::try_from(of.kind).ok();
    if checksum.is_none() {
        let key = SERVER.key("tunnel_checksum");
        place.key("checksum").refuse(of.checksum, key);
    }
    if kind.is_none() {
        place.key("kind").refuse(of.kind, SERVER.key("tunnel"));
    }
    let (kind, checksum) = (kind?, checksum?);
    let misplaced = |name, why| place.key(name).note(Problem::Misplaced(why));
    let is_gue = kind == v1::TunnelKind::Gue;
    let full = checksum == v1::TunnelChecksum::Full;
    let remote = checksum == v1::TunnelChecksum::Remote;
    if of.port != 0 && !is_gue {
        misplaced("port", "only TUNNEL_KIND_GUE has a port");
        return None;
    }
    if remote && !is_gue {
        misplaced("checksum", "only TUNNEL_KIND_GUE has a remote checksum");
        return None;
    }
    match kind {
        v1::TunnelKind::Gue => {
            let port = place.key("port").number(of.port, &SERVER, "tunnel_port")?;
            let checksum = match checksum {
                v1::TunnelChecksum::Full => GueChecksum::Full,
                v1::TunnelChecksum::Remote => GueChecksum::Remote,
                _ => GueChecksum::None,
            };
            Some(TunnelKind::Gue { port, checksum })
        }
        v1::TunnelKind::Gre => Some(TunnelKind::Gre { checksum: full }),
        _ if full => {
            misplaced("checksum", "only GRE and GUE have a checksum");
            None
        }
        _ => Some(TunnelKind::Ipip),
    }
}

fn lip_pool(of: &v1::LipPool, place: &Place<'_>) -> Option<LipPool> {
    let name = name(&of.name, &place.key("name"));
    let at = place.key("addresses");
    if of.addresses.is_empty() {
        at.missing("the pool's addresses", "one or more");
    }
    let listed = at.list(&of.addresses, "addresses", LIPS_PER_POOL);
    let addresses = each(listed, &at, |text, place| address(text, place));
    let first = port(of.first_port, &place.key("first_port"));
    let last = port(of.last_port, &place.key("last_port"));
    let or = |port: u16, default| if port == 0 { default } else { port };
    let (first_port, last_port) = (or(first?, 1024), or(last?, 65535));
    if first_port > last_port {
        let range = format!("{first_port}-{last_port}");
        place.key("first_port").refuse(range, LIP_POOL.key("ports"));
        return None;
    }
    Some(LipPool {
        name: name?,
        addresses: addresses.filter(|addresses| !addresses.is_empty())?,
        first_port,
        last_port,
    })
}

fn route(of: &v1::Route, place: &Place<'_>) -> Option<Route> {
    let to = network(&of.to, &place.key("to"), "to");
    let via = match of.via.as_str() {
        "" => Some(None),
        text => {
            let parse = |text: &str| text.parse().ok().filter(is_host);
            let via = place.key("via").parsed(text, &ROUTE, "via", parse);
            via.map(Some)
        }
    };
    if of.via.is_empty() && of.port.is_empty() {
        let accepted = "`via`, `port` or both";
        place.key("via").missing("the way there", accepted);
        return None;
    }
    Some(Route {
        to: to?,
        via: via?,
        port: some(&of.port),
    })
}

fn marks(of: &[v1::Mark], place: &Place<'_>) -> Option<Vec<Mark>> {
    each(place.list(of, "marks", MARKS), place, mark)
}

fn mark(of: &v1::Mark, place: &Place<'_>) -> Option<Mark> {
    let mark = place.key("mark").number(of.mark, &MARK, "mark");
    let prefix = |text: &str, name: &'static str| match text {
        "" => Some(None),
        text => {
            let place = place.key(name);
            place.parsed(text, &MARK, name, parse_network).map(Some)
        }
    };
    let ports = |range: Option<&v1::PortRange>, name: &'static str| match range {
        None => Some(None),
        Some(range) => port_range(range, &place.key(name), name).map(Some),
    };
    let source = prefix(&of.source, "source");
    let destination = prefix(&of.destination, "destination");
    let protocol = protocol(of.protocol, &place.key("protocol"));
    let source_ports = ports(of.source_ports.as_ref(), "source_ports");
    let destination_ports = ports(of.destination_ports.as_ref(), "destination_ports");
    Some(Mark {
        mark: mark?,
        port: some(&of.port),
        source: source?,
        destination: destination?,
        protocol: protocol?,
        source_ports: source_ports?,
        destination_ports: destination_ports?,
    })
}

fn port_range(of: &v1::PortRange, place: &Place<'_>, key: &str) -> Option<(u16, u16)> {
    let ends = (u16::try_from(of.first).ok(), u16::try_from(of.last).ok());
    match ends {
        (Some(first), Some(last)) if first > 0 && first <= last => Some((first, last)),
        _ => {
            let range = format!("{}-{}", of.first, of.last);
            place.refuse(range, MARK.key(key));
            None
        }
    }
}

fn port_addresses(of: &v1::PortAddresses, place: &Place<'_>) -> Option<(String, Vec<Prefix>)> {
    let at = place.key("addresses");
    let listed = at.list(&of.addresses, "addresses", ADDRESSES_PER_PORT);
    let addresses = each(listed, &at, |text, place| {
        place.parsed(text, &PORT, "addresses", parse_own_address)
    });
    let name = name(&of.port, &place.key("port"));
    Some((name?, addresses?))
}

fn timeouts(
    of: Option<&v1::Timeouts>,
    place: &Place<'_>,
    unset: TimeoutSettings,
) -> Option<TimeoutSettings> {
    let Some(of) = of else { return Some(unset) };
    let seconds = |value: Option<u32>, name, field, unset| match value {
        None => Some(unset),
        Some(value) => place.key(field).number(value, &TIMEOUTS, name),
    };
    let tcp = seconds(of.tcp_s, "tcp", "tcp_s", unset.tcp);
    let tcp_fin = seconds(of.tcp_fin_s, "tcp_fin", "tcp_fin_s", unset.tcp_fin);
    let udp = seconds(of.udp_s, "udp", "udp_s", unset.udp);
    Some(TimeoutSettings {
        tcp: tcp?,
        tcp_fin: tcp_fin?,
        udp: udp?,
    })
}

fn ipvs(of: Option<&v1::Ipvs>, place: &Place<'_>, unset: Ipvs) -> Option<Ipvs> {
    let Some(of) = of else { return Some(unset) };
    let mode = |value: Option<u32>, name: &'static str, unset: u8| match value {
        None => Some(unset),
        Some(value) => place.key(name).number(value, &IPVS, name),
    };
    let number = |value: Option<u32>, field, name, unset: u32| match value {
        None => Some(unset),
        Some(value) => place.key(field).number(value, &IPVS, name),
    };
    let conn_reuse_mode = mode(of.conn_reuse_mode, "conn_reuse_mode", unset.conn_reuse_mode);
    let secure_tcp = mode(of.secure_tcp, "secure_tcp", unset.secure_tcp);
    let drop_packet = mode(of.drop_packet, "drop_packet", unset.drop_packet);
    let drop_entry = mode(of.drop_entry, "drop_entry", unset.drop_entry);
    let lblc_expiration = number(
        of.lblc_expiration_s,
        "lblc_expiration_s",
        "lblc_expiration",
        unset.lblc_expiration,
    );
    let lblcr_expiration = number(
        of.lblcr_expiration_s,
        "lblcr_expiration_s",
        "lblcr_expiration",
        unset.lblcr_expiration,
    );
    let am_droprate = number(
        of.am_droprate,
        "am_droprate",
        "am_droprate",
        unset.am_droprate,
    );
    let amemthresh = number(of.amemthresh, "amemthresh", "amemthresh", unset.amemthresh);
    Some(Ipvs {
        conn_reuse_mode: conn_reuse_mode?,
        expire_nodest_conn: of.expire_nodest_conn.unwrap_or(unset.expire_nodest_conn),
        expire_quiescent_template: of
            .expire_quiescent_template
            .unwrap_or(unset.expire_quiescent_template),
        sloppy_tcp: of.sloppy_tcp.unwrap_or(unset.sloppy_tcp),
        sloppy_sctp: of.sloppy_sctp.unwrap_or(unset.sloppy_sctp),
        schedule_icmp: of.schedule_icmp.unwrap_or(unset.schedule_icmp),
        nat_icmp_send: of.nat_icmp_send.unwrap_or(unset.nat_icmp_send),
        pmtu_disc: of.pmtu_disc.unwrap_or(unset.pmtu_disc),
        lblc_expiration: lblc_expiration?,
        lblcr_expiration: lblcr_expiration?,
        secure_tcp: secure_tcp?,
        drop_packet: drop_packet?,
        drop_entry: drop_entry?,
        am_droprate: am_droprate?,
        amemthresh: amemthresh?,
    })
}

const METHODS: &str = "METHOD_NAT, METHOD_DR, METHOD_TUN, METHOD_FULLNAT";

/// The inner `None` for unspecified.
pub(super) fn method(value: i32, place: &Place<'_>) -> Option<Option<Method>> {
    match v1::Method::try_from(value) {
        Ok(v1::Method::Unspecified) => Some(None),
        Ok(v1::Method::Nat) => Some(Some(Method::Nat)),
        Ok(v1::Method::Dr) => Some(Some(Method::Dr)),
        Ok(v1::Method::Tun) => Some(Some(Method::Tun)),
        Ok(v1::Method::Fullnat) => Some(Some(Method::FullNat)),
        Err(_) => {
            place.note(Problem::NotA {
                value: value.to_string(),
                what: "a forwarding method",
                accepted: METHODS.to_owned(),
            });
            None
        }
    }
}

/// The inner `None` for unspecified.
pub(super) fn protocol(value: i32, place: &Place<'_>) -> Option<Option<Protocol>> {
    match v1::Protocol::try_from(value) {
        Ok(v1::Protocol::Unspecified) => Some(None),
        Ok(v1::Protocol::Tcp) => Some(Some(Protocol::Tcp)),
        Ok(v1::Protocol::Udp) => Some(Some(Protocol::Udp)),
        Ok(v1::Protocol::Sctp) => Some(Some(Protocol::Sctp)),
        Err(_) => {
            place.note(Problem::NotA {
                value: value.to_string(),
                what: "a protocol",
                accepted: "PROTOCOL_TCP, PROTOCOL_UDP, PROTOCOL_SCTP".to_owned(),
            });
            None
        }
    }
}

pub(super) fn address(text: &str, place: &Place<'_>) -> Option<IpAddr> {
    let address = text.parse().ok().filter(is_host);
    if address.is_none() {
        place.note(Problem::NotA {
            value: format!("{text:?}"),
            what: "a host's address",
            accepted: "a unicast IPv4 or IPv6 address, such as \"10.0.0.11\" or \"fd00::11\""
                .to_owned(),
        });
    }
    address
}

pub(super) fn port(value: u32, place: &Place<'_>) -> Option<u16> {
    let port = u16::try_from(value).ok();
    if port.is_none() {
        place.note(Problem::NotA {
            value: value.to_string(),
            what: "a port",
            accepted: "0 to 65535".to_owned(),
        });
    }
    port
}

fn name(text: &str, place: &Place<'_>) -> Option<String> {
    let name = is_name(text).then(|| text.to_owned());
    if name.is_none() {
        place.note(Problem::NotA {
            value: format!("{text:?}"),
            what: "a name",
            accepted: "1 to 32 letters, digits, '-' or '_'".to_owned(),
        });
    }
    name
}

fn network(text: &str, place: &Place<'_>, key: &str) -> Option<Prefix> {
    place.parsed(text, &ROUTE, key, parse_network)
}
