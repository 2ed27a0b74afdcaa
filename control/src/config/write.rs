//! From a [`Configuration`] to the text that [`Configuration::parse`] makes it of: what keys have by default is left out.

use super::access::AccessSettings;
use super::model::{
    AnsweredBy, Configuration, DirectorSettings, DpdkDevice, DpdkSettings, Driver, Granularity,
    GueChecksum, Idle, LipPool, Mark, MetricsSettings, Pin, PortSettings, Route, Server, Service,
    Spread, TimeoutSettings, TunnelKind,
};
use conntrack::Method;
use dataplane::helper::Helper;
use dataplane::port::af_xdp::Checksums;
use dataplane::snapshot::{Engine, Ipvs};
use scheduler::Options;
use std::fmt::Display;
use toml::{Table, Value};

impl Configuration {
    /// The configuration as TOML, with everything that is not by default. Idle edits are no setting and are left out.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut top = Table::new();
        put_table(&mut top, "director", self.director());
        put_table(&mut top, "timeouts", timeouts(self.timeouts));
        put_table(&mut top, "ipvs", ipvs(&self.ipvs));
        if let Some(settings) = &self.metrics {
            // Also where it is empty: its being there counts.
            put(&mut top, "metrics", metrics(settings));
        }
        let ports = self
            .ports
            .iter()
            .map(|settings| (settings.name.clone(), Value::Table(port(settings))));
        put_table(&mut top, "port", ports.collect());
        put_table(&mut top, "dpdk", dpdk(&self.dpdk));
        put_tables(&mut top, "route", self.routes.iter().map(route));
        put_tables(&mut top, "lip_pool", self.lip_pools.iter().map(lip_pool));
        put_tables(&mut top, "mark", self.marks.iter().map(mark));
        put_tables(&mut top, "service", self.services.iter().map(service));
        put_table(&mut top, "access", access(&self.access));
        toml::to_string(&top).expect("tables, strings, numbers and booleans can all be written")
    }
}

impl Configuration {
    fn director(&self) -> Table {
        let mut table = director(&self.director);
        let default = Idle::by_default(&self.ports);
        if self.director.idle != default {
            let word = match self.director.idle {
                Idle::Sleep => "sleep",
                Idle::Poll => "poll",
            };
            text(&mut table, "idle", word);
        }
        table
    }
}

fn director(settings: &DirectorSettings) -> Table {
    let default = DirectorSettings::default();
    let mut table = Table::new();
    number(&mut table, "workers", settings.workers, default.workers);
    number(
        &mut table,
        "connections",
        settings.connections,
        default.connections,
    );
    number(&mut table, "servers", settings.servers, default.servers);
    number(
        &mut table,
        "half_open_percent",
        settings.half_open_percent,
        default.half_open_percent,
    );
    match &settings.pin {
        Pin::Nowhere => {}
        Pin::InOrder => put(&mut table, "pin", true),
        Pin::To(cpus) => {
            let cpus = cpus.iter().map(|cpu| Value::Integer((*cpu).into()));
            put(&mut table, "pin", cpus.collect::<Vec<_>>());
        }
    }
    if settings.control != default.control {
        let path = format!("unix:{}", settings.control.display());
        text(&mut table, "control", path);
    }
    if settings.netlink != Some(DirectorSettings::netlink_beside(&settings.control)) {
        let path = settings.netlink.as_ref();
        let path = path.map(|path| format!("unix:{}", path.display()));
        text(&mut table, "netlink", path.as_deref().unwrap_or("none"));
    }
    maybe(
        &mut table,
        "proc",
        settings.proc.as_ref().map(|path| path.display()),
    );
    maybe(
        &mut table,
        "table",
        settings.table.as_ref().map(|path| path.display()),
    );
    maybe(
        &mut table,
        "state",
        settings.state.as_ref().map(|path| path.display()),
    );
    table
}

fn access(settings: &AccessSettings) -> Table {
    let default = AccessSettings::default();
    let mut table = Table::new();
    maybe(&mut table, "group", settings.group.as_ref());
    texts(&mut table, "viewers", &settings.viewers);
    texts(&mut table, "operators", &settings.operators);
    texts(&mut table, "admins", &settings.admins);
    texts(&mut table, "captures", &settings.captures);
    let audit = settings.audit.as_ref().map(|path| path.display());
    maybe(&mut table, "audit", audit);
    number(&mut table, "rate", settings.rate, default.rate);
    if let Some(tls) = &settings.tls {
        let mut own = Table::new();
        text(&mut own, "listen", tls.listen);
        text(&mut own, "certificate", tls.certificate.display());
        text(&mut own, "key", tls.key.display());
        text(&mut own, "client_ca", tls.client_ca.display());
        put_table(&mut table, "tls", own);
    }
    table
}

fn port(settings: &PortSettings) -> Table {
    let mut table = Table::new();
    match &settings.driver {
        Driver::AfPacket { interface } => {
            text(&mut table, "driver", "af_packet");
            text(&mut table, "interface", interface);
        }
        Driver::AfXdp {
            interface,
            checksums,
        } => {
            text(&mut table, "driver", "af_xdp");
            text(&mut table, "interface", interface);
            maybe(&mut table, "checksums", checksums.map(checksums_word));
        }
        Driver::Dpdk(own) => {
            text(&mut table, "driver", "dpdk");
            device(&mut table, &settings.name, own);
        }
        Driver::Automatic {
            device: own,
            interface,
            checksums,
        } => {
            text(&mut table, "driver", "auto");
            maybe(&mut table, "interface", interface.as_ref());
            maybe(&mut table, "checksums", checksums.map(checksums_word));
            if let Some(own) = own {
                device(&mut table, &settings.name, own);
            }
        }
        Driver::Pcap {
            file,
            infinite,
            output,
        } => {
            text(&mut table, "driver", "pcap");
            text(&mut table, "file", file.display());
            if *infinite {
                put(&mut table, "infinite", true);
            }
            maybe(
                &mut table,
                "output",
                output.as_ref().map(|path| path.display()),
            );
        }
        Driver::Memory => text(&mut table, "driver", "memory"),
    }
    texts(&mut table, "addresses", &settings.addresses);
    if settings.answered_by == AnsweredBy::Kernel {
        text(&mut table, "answered_by", "kernel");
    }
    table
}

fn checksums_word(checksums: Checksums) -> &'static str {
    match checksums {
        Checksums::Verify => "verify",
        Checksums::Trust => "trust",
    }
}

/// A device of DPDK, of the port called `name`.
fn device(table: &mut Table, name: &str, device: &DpdkDevice) {
    text(table, "device", &device.device);
    if let Some(mtu) = device.mtu {
        put(table, "mtu", i64::from(mtu));
    }
    match device.spread {
        Spread::Flow => {}
        Spread::Source => text(table, "rss", "source"),
        Spread::Destination => text(table, "rss", "destination"),
    }
    if let Some(interface) = &device.exception {
        text(table, "exception", "tap");
        if *interface != format!("uvs-{name}") {
            text(table, "exception_interface", interface);
        }
    }
}

/// `[dpdk]`.
fn dpdk(settings: &DpdkSettings) -> Table {
    let default = DpdkSettings::default();
    let mut table = Table::new();
    if !settings.huge_pages {
        put(&mut table, "huge_pages", false);
    }
    if let Some(memory) = settings.memory_mib {
        put(&mut table, "memory_mib", i64::from(memory));
    }
    texts(&mut table, "arguments", &settings.arguments);
    let (receive, transmit) = (settings.receive_descriptors, settings.transmit_descriptors);
    number(
        &mut table,
        "receive_descriptors",
        receive,
        default.receive_descriptors,
    );
    number(
        &mut table,
        "transmit_descriptors",
        transmit,
        default.transmit_descriptors,
    );
    number(&mut table, "mbufs", settings.mbufs, default.mbufs);
    table
}

fn route(route: &Route) -> Table {
    let mut table = Table::new();
    text(&mut table, "to", route.to);
    maybe(&mut table, "via", route.via);
    maybe(&mut table, "port", route.port.as_ref());
    table
}

fn lip_pool(pool: &LipPool) -> Table {
    let mut table = Table::new();
    text(&mut table, "name", &pool.name);
    texts(&mut table, "addresses", &pool.addresses);
    if (pool.first_port, pool.last_port) != (1024, 65535) {
        let ports = format!("{}-{}", pool.first_port, pool.last_port);
        text(&mut table, "ports", ports);
    }
    table
}

fn mark(mark: &Mark) -> Table {
    let range = |(first, last)| format!("{first}-{last}");
    let mut table = Table::new();
    put(&mut table, "mark", i64::from(mark.mark));
    maybe(&mut table, "port", mark.port.as_ref());
    maybe(&mut table, "source", mark.source);
    maybe(&mut table, "destination", mark.destination);
    maybe(&mut table, "protocol", mark.protocol);
    maybe(&mut table, "source_ports", mark.source_ports.map(range));
    maybe(
        &mut table,
        "destination_ports",
        mark.destination_ports.map(range),
    );
    table
}

fn service(service: &Service) -> Table {
    let mut table = Table::new();
    text(&mut table, "listen", service.listen);
    text(&mut table, "scheduler", service.scheduler);
    let flags = scheduler_flags(&service.flags);
    texts(&mut table, "flags", &flags);
    number(&mut table, "slow_start", service.flags.slow_start, 0);
    text(&mut table, "method", method(service.method));
    maybe(&mut table, "lip_pool", service.lip_pool.as_ref());
    if service.one_packet {
        put(&mut table, "one_packet", true);
    }
    if let Some(Helper::Ftp) = service.helper {
        text(&mut table, "helper", "ftp");
    }
    if let Some(persistence) = service.persistence {
        put(
            &mut table,
            "persistence_timeout",
            i64::from(persistence.timeout),
        );
        if persistence.granularity != Granularity::Address {
            text(
                &mut table,
                "persistence_granularity",
                persistence.granularity,
            );
        }
        if let Some(Engine::Sip) = persistence.engine {
            text(&mut table, "persistence_engine", "sip");
        }
    }
    texts(&mut table, "addresses", &service.addresses);
    let servers = service.servers.iter().map(|own| server(own, service));
    put_tables(&mut table, "server", servers);
    table
}

/// The flags of schedulers that are set, by their names in files and commands.
#[must_use]
pub fn scheduler_flags(flags: &Options) -> Vec<&'static str> {
    let flags = [
        (flags.sh_port, "sh-port"),
        (flags.sh_fallback, "sh-fallback"),
        (flags.mh_port, "mh-port"),
        (flags.mh_fallback, "mh-fallback"),
    ];
    let set = flags.iter().filter(|(is_set, _)| *is_set);
    set.map(|(_, name)| *name).collect()
}

fn server(server: &Server, of: &Service) -> Table {
    let mut table = Table::new();
    let address = server.address;
    if address.port() == 0 || address.port() == of.listen.port() {
        text(&mut table, "address", address.ip());
    } else {
        text(&mut table, "address", address);
    }
    if server.method != of.method {
        text(&mut table, "method", method(server.method));
    }
    number(&mut table, "weight", server.weight, 1);
    number(&mut table, "upper", server.upper, 0);
    number(&mut table, "lower", server.lower, 0);
    let full = |checksum: bool| checksum.then_some("full");
    match server.tunnel {
        TunnelKind::Ipip => {}
        TunnelKind::Gre { checksum } => {
            text(&mut table, "tunnel", "gre");
            maybe(&mut table, "tunnel_checksum", full(checksum));
        }
        TunnelKind::Gue { port, checksum } => {
            text(&mut table, "tunnel", "gue");
            put(&mut table, "tunnel_port", i64::from(port));
            let checksum = match checksum {
                GueChecksum::Remote => Some("remote"),
                checksum => full(checksum == GueChecksum::Full),
            };
            maybe(&mut table, "tunnel_checksum", checksum);
        }
    }
    table
}

/// The name of a forwarding method in files and commands.
pub(crate) fn method(method: Method) -> &'static str {
    match method {
        Method::Nat => "nat",
        Method::Dr => "dr",
        Method::Tun => "tun",
        Method::FullNat => "fullnat",
        Method::Local => unreachable!("no configuration has it"),
    }
}

fn timeouts(settings: TimeoutSettings) -> Table {
    let default = TimeoutSettings::default();
    let mut table = Table::new();
    number(&mut table, "tcp", settings.tcp, default.tcp);
    number(&mut table, "tcp_fin", settings.tcp_fin, default.tcp_fin);
    number(&mut table, "udp", settings.udp, default.udp);
    table
}

fn ipvs(settings: &Ipvs) -> Table {
    let of = |ipvs: &Ipvs| {
        let Ipvs {
            conn_reuse_mode,
            expire_nodest_conn,
            expire_quiescent_template,
            sloppy_tcp,
            sloppy_sctp,
            schedule_icmp,
            nat_icmp_send,
            pmtu_disc,
            lblc_expiration,
            lblcr_expiration,
            secure_tcp,
            drop_packet,
            drop_entry,
            am_droprate,
            amemthresh,
        } = *ipvs;
        let small = |number: u8| Value::Integer(number.into());
        let number = |number: u32| Value::Integer(number.into());
        [
            ("conn_reuse_mode", small(conn_reuse_mode)),
            ("expire_nodest_conn", expire_nodest_conn.into()),
            (
                "expire_quiescent_template",
                expire_quiescent_template.into(),
            ),
            ("sloppy_tcp", sloppy_tcp.into()),
            ("sloppy_sctp", sloppy_sctp.into()),
            ("schedule_icmp", schedule_icmp.into()),
            ("nat_icmp_send", nat_icmp_send.into()),
            ("pmtu_disc", pmtu_disc.into()),
            ("lblc_expiration", number(lblc_expiration)),
            ("lblcr_expiration", number(lblcr_expiration)),
            ("secure_tcp", small(secure_tcp)),
            ("drop_packet", small(drop_packet)),
            ("drop_entry", small(drop_entry)),
            ("am_droprate", number(am_droprate)),
            ("amemthresh", number(amemthresh)),
        ]
    };
    let pairs = of(settings).into_iter().zip(of(&Ipvs::default()));
    let other = pairs.filter(|(is, default)| is != default);
    other
        .map(|((name, value), _)| (name.to_owned(), value))
        .collect()
}

fn metrics(settings: &MetricsSettings) -> Table {
    let default = MetricsSettings::default();
    let mut table = Table::new();
    if settings.listen != default.listen {
        text(&mut table, "listen", settings.listen);
    }
    for (name, is_on, by_default) in [
        ("services", settings.services, default.services),
        ("servers", settings.servers, default.servers),
        ("neighbours", settings.neighbours, default.neighbours),
        (
            "port_statistics",
            settings.port_statistics,
            default.port_statistics,
        ),
    ] {
        if is_on != by_default {
            put(&mut table, name, is_on);
        }
    }
    table
}

fn put(table: &mut Table, name: &str, value: impl Into<Value>) {
    table.insert(name.to_owned(), value.into());
}

fn text(table: &mut Table, name: &str, value: impl Display) {
    put(table, name, value.to_string());
}

fn maybe(table: &mut Table, name: &str, value: Option<impl Display>) {
    if let Some(value) = value {
        text(table, name, value);
    }
}

fn texts(table: &mut Table, name: &str, values: &[impl Display]) {
    if !values.is_empty() {
        let texts = values.iter().map(|value| Value::String(value.to_string()));
        put(table, name, texts.collect::<Vec<_>>());
    }
}

fn number<T: Into<i64> + PartialEq>(table: &mut Table, name: &str, value: T, default: T) {
    if value != default {
        put(table, name, value.into());
    }
}

fn put_table(top: &mut Table, name: &str, table: Table) {
    if !table.is_empty() {
        put(top, name, table);
    }
}

fn put_tables(top: &mut Table, name: &str, tables: impl Iterator<Item = Table>) {
    let tables: Vec<_> = tables.map(Value::Table).collect();
    if !tables.is_empty() {
        put(top, name, tables);
    }
}
