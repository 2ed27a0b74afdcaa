//! What the director's tables hold, in the forms of the recordings.

use crate::bench::Bench;
use crate::kernel::Kernel;
use cli::ipvsadm::listing::{self, Counters, ListedConnection, ListedServer, ListedService};
use cli::ipvsadm::{Columns, List, Names, Protocol, ServiceKey, Subject};
use conntrack::{ConnectionView, Family, Table, Ticks};
use control::Traffic;
use control::config::Listen;
use control::status::ServerStatus;
use dataplane::calls::Calls;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

/// Buckets of the kernel's connection table, as listings tell.
pub const TABLE_SIZE: usize = 4096;

/// Counters as they were when they were last set to zero.
#[derive(Debug, Default)]
pub struct Zeros {
    servers: HashMap<(ServiceKey, SocketAddr), Counters>,
    services: HashMap<ServiceKey, Counters>,
}

impl Zeros {
    /// The counters of one service, or of all, are zero from now on.
    pub fn set(&mut self, bench: &Bench, only: Option<&ServiceKey>) {
        let is_meant = |key: &ServiceKey| only.is_none_or(|only| only == key);
        let nothing = Counters::default();
        for (key, status) in counted(bench) {
            if is_meant(&key.0) {
                self.servers.insert(key, since(status.traffic, nothing));
            }
        }
        for (key, traffic) in services_counted(bench) {
            if is_meant(&key) {
                self.services.insert(key, since(traffic, nothing));
            }
        }
    }

    /// A service is removed: if it comes back, it counts from zero.
    pub fn forget(&mut self, service: &ServiceKey) {
        self.servers.retain(|(key, _), _| key != service);
        self.services.remove(service);
    }
}

/// The kernel's services with the director's counts.
#[must_use]
pub fn services(kernel: &Kernel, bench: &Bench, zeros: &Zeros) -> Vec<ListedService> {
    let counted = counted(bench);
    let totals = services_counted(bench);
    let services = kernel.services.iter().map(|known| {
        let key = known.service.key;
        let servers = known.servers.iter().rev().map(|server| {
            let status = counted.get(&(key, server.address));
            let zero = zeros
                .servers
                .get(&(key, server.address))
                .copied()
                .unwrap_or_default();
            ListedServer {
                server: *server,
                active: status.map_or(0, |status| status.active),
                inactive: status.map_or(0, |status| status.inactive),
                persistent: status.map_or(0, |status| status.persistent),
                total: status.map_or_else(Counters::default, |status| since(status.traffic, zero)),
                rate: Counters::default(),
            }
        });
        let servers: Vec<_> = servers.collect();
        ListedService {
            service: known.service.clone(),
            total: since(
                totals.get(&key).copied().unwrap_or_default(),
                zeros.services.get(&key).copied().unwrap_or_default(),
            ),
            rate: Counters::default(),
            servers,
        }
    });
    services.collect()
}

/// `{"dump": "services"}`: `ipvsadm -Ln --exact`, parsed.
#[must_use]
pub fn services_dump(listed: &[ListedService]) -> Value {
    let mut found: Vec<Value> = Vec::new();
    for words in rows(listed, Columns::Plain) {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["->", server, forward, weight, active, inactive] => push_server(
                &mut found,
                json!({"server": server, "forward": forward, "weight": number(weight), "active": number(active),
                    "inactive": number(inactive)}),
            ),
            [protocol, address, "IPv6", scheduler, flags @ ..] => found.push(json!({
                "service": format!("{protocol} {address} IPv6"), "scheduler": scheduler, "flags": flags.join(" "),
                "servers": []})),
            [protocol, address, scheduler, flags @ ..] => found.push(json!({
                "service": format!("{protocol} {address}"), "scheduler": scheduler, "flags": flags.join(" "),
                "servers": []})),
            other => unreachable!("the listing has no row {other:?}"),
        }
    }
    sorted_by(found, &["service"])
}

/// `{"dump": "stats"}`: `ipvsadm -Ln --stats --exact`, parsed.
#[must_use]
pub fn statistics_dump(listed: &[ListedService]) -> Value {
    let mut found: Vec<Value> = Vec::new();
    for words in rows(listed, Columns::Statistics) {
        let (names, numbers) = words.split_at(words.len() - 5);
        let keys = [
            "conns",
            "in_packets",
            "out_packets",
            "in_bytes",
            "out_bytes",
        ];
        let mut row = json!({});
        for (key, value) in keys.into_iter().zip(numbers) {
            row[key] = number(value);
        }
        if names[0] == "->" {
            row["server"] = json!(names[1]);
            push_server(&mut found, row);
        } else {
            row["service"] = json!(names.join(" "));
            row["servers"] = json!([]);
            found.push(row);
        }
    }
    sorted_by(found, &["service"])
}

/// `{"dump": "conns"}`.
#[must_use]
pub fn connections_dump(listed: &[ListedConnection]) -> Value {
    let rows = listed.iter().map(|connection| {
        let mut row = json!({
            "proto": connection.protocol, "client": connection.client.to_string(),
            "virtual": connection.virtual_server.to_string(), "real": connection.real_server.to_string(),
            "state": connection.state, "expires": connection.expires_s, "origin": "LOCAL",
        });
        if let Some(local) = connection.local {
            row["local"] = json!(local.to_string());
        }
        if let Some((engine, data)) = &connection.engine {
            row["pe"] = json!(format!("{engine} {data}"));
        }
        row
    });
    sorted_by(rows.collect(), &["proto", "virtual", "client", "real"])
}

/// The director's connections.
#[must_use]
pub fn connections(bench: &Bench) -> Vec<ListedConnection> {
    let servers = bench.servers();
    let mut listed = Vec::new();
    let tables = bench.tables();
    let calls = &tables.calls;
    gather(&tables.ipv4, calls, bench.now(), servers, &mut listed);
    gather(&tables.ipv6, calls, bench.now(), servers, &mut listed);
    listed
}

fn gather<F: Family>(
    table: &Table<F>,
    calls: &Calls,
    now: Ticks,
    servers: &HashMap<u32, SocketAddr>,
    listed: &mut Vec<ListedConnection>,
) {
    table.for_each(|_, view| {
        let call = calls.get(view.template_record);
        listed.push(ListedConnection {
            engine: call.map(|call| {
                let text = String::from_utf8_lossy(&call.text()).into_owned();
                ("sip".to_owned(), text)
            }),
            ..connection(&view, now, servers)
        });
    });
}

fn connection<F: Family>(
    view: &ConnectionView<F>,
    now: Ticks,
    servers: &HashMap<u32, SocketAddr>,
) -> ListedConnection {
    let end = |(address, port): (F::Address, u16)| SocketAddr::new(address.into(), port);
    let real = end(view.real_server);
    let server = servers.get(&view.server);
    ListedConnection {
        protocol: match view.protocol {
            6 => "TCP",
            17 => "UDP",
            132 => "SCTP",
            1 | 58 => "ICMP",
            _ => "IP",
        },
        expires_s: view.expires_at.until(now).as_seconds(),
        state: view.state.name().into(),
        client: end(view.client),
        virtual_server: end(view.virtual_server),
        // An entry has no room for an address of the other family.
        real_server: server
            .copied()
            .filter(|_| real.ip().is_unspecified())
            .unwrap_or(real),
        local: view.local.map(end),
        engine: None,
    }
}

fn counted(bench: &Bench) -> HashMap<(ServiceKey, SocketAddr), ServerStatus> {
    let services = bench.director().services().into_iter();
    let servers = services.flat_map(|service| {
        let key = key_of(&service.listen);
        service
            .servers
            .into_iter()
            .map(move |server| ((key, server.address), server))
    });
    servers.collect()
}

fn services_counted(bench: &Bench) -> HashMap<ServiceKey, Traffic> {
    let services = bench.director().services().into_iter();
    services
        .map(|service| (key_of(&service.listen), service.traffic))
        .collect()
}

fn key_of(listen: &Listen) -> ServiceKey {
    match *listen {
        Listen::Address { protocol, address } => {
            let protocol = match protocol {
                control::config::Protocol::Tcp => Protocol::Tcp,
                control::config::Protocol::Udp => Protocol::Udp,
                control::config::Protocol::Sctp => Protocol::Sctp,
            };
            ServiceKey::Address(protocol, address)
        }
        Listen::Mark { mark, ipv6 } => ServiceKey::Mark { mark, ipv6 },
    }
}

fn since(traffic: Traffic, zero: Counters) -> Counters {
    Counters {
        connections: traffic.connections.saturating_sub(zero.connections),
        in_packets: traffic.in_packets.saturating_sub(zero.in_packets),
        out_packets: traffic.out_packets.saturating_sub(zero.out_packets),
        in_bytes: traffic.in_bytes.saturating_sub(zero.in_bytes),
        out_bytes: traffic.out_bytes.saturating_sub(zero.out_bytes),
    }
}

/// The words of each row of a listing, its three first lines left out.
fn rows(listed: &[ListedService], columns: Columns) -> Vec<Vec<String>> {
    let list = List {
        subject: Subject::Services(None),
        columns,
        exact: true,
        numeric: true,
        sorted: true,
        engines: false,
        json: false,
    };
    let text = listing::services(&list, listed, TABLE_SIZE, &Names::numeric());
    let rows = text.lines().skip(3);
    rows.map(|row| row.split_whitespace().map(str::to_owned).collect())
        .collect()
}

fn push_server(found: &mut [Value], row: Value) {
    let servers = found
        .last_mut()
        .and_then(|service| service["servers"].as_array_mut());
    servers
        .expect("a server's row follows its service's")
        .push(row);
}

fn number(text: &str) -> Value {
    json!(
        text.parse::<u64>()
            .expect("the listing shows numbers there")
    )
}

fn sorted_by(mut rows: Vec<Value>, keys: &[&str]) -> Value {
    rows.sort_by_key(|row| {
        let key = keys
            .iter()
            .map(|key| row[key].as_str().unwrap_or_default().to_owned());
        key.collect::<Vec<_>>()
    });
    Value::Array(rows)
}

/// Whether a text is an address, or begins with one that a port follows, as scenarios write it.
#[must_use]
pub fn address_of(text: &str) -> Option<IpAddr> {
    text.parse::<crate::endpoint::Endpoint>()
        .ok()
        .map(|end| end.address)
}
