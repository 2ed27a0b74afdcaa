//! From a director's state to the values of metrics.

use super::catalogue::{APPLY, FAMILIES, Family, Kind};
use crate::config::{Listen, MetricsSettings, method_word};
use crate::manage::Manager;
use crate::status::{PortStatus, ServiceStatus, Status, WorkerStatus};
use dataplane::port::handle::Link;
use prometheus::core::Collector;
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use std::collections::{BTreeMap, HashMap};

/// The states of neighbours, as [`NeighbourTable::list`](dataplane::neighbour::NeighbourTable::list) names them.
const NEIGHBOUR_STATES: [&str; 4] = ["reachable", "stale", "incomplete", "failed"];

/// All values at this moment, those without any left out.
pub(super) fn gather(manager: &Manager, settings: &MetricsSettings) -> Vec<MetricFamily> {
    let director = manager.director();
    let mut sheet = Sheet::default();
    let status = director.status();
    whole(&mut sheet, manager, &status);
    if settings.services || settings.servers {
        for service in director.services() {
            let name = service.listen.to_string();
            if settings.services {
                self::service(&mut sheet, &name, &service);
            }
            if settings.servers {
                servers(&mut sheet, &name, &service);
            }
        }
    }
    for (index, status) in status.workers.iter().enumerate() {
        worker(&mut sheet, &index.to_string(), status);
    }
    tables(&mut sheet, &status);
    neighbours(&mut sheet, &status, settings.neighbours);
    for status in &status.ports {
        port(&mut sheet, status, settings.port_statistics);
    }
    let mut families = sheet.families();
    let place = families
        .iter()
        .position(|family| family.name() == "uvs_warnings");
    let applies = director.applies.collect();
    let at = place.unwrap_or(families.len());
    families.splice(at..at, applies);
    families
}

/// A histogram of how long changes take.
pub(crate) fn applies() -> prometheus::Histogram {
    let family = FAMILIES.iter().find(|family| family.name == APPLY);
    let help = family.map_or("", |family| family.help);
    let buckets = vec![
        0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    ];
    let options = prometheus::HistogramOpts::new(APPLY, help).buckets(buckets);
    prometheus::Histogram::with_opts(options).expect("the name and the buckets are sound")
}

/// Values on their way.
#[derive(Default)]
struct Sheet {
    values: HashMap<&'static str, Vec<Metric>>,
}

impl Sheet {
    fn add(&mut self, name: &'static str, labels: &[&str], value: f64) {
        let family = family(name);
        assert_eq!(family.labels.len(), labels.len(), "labels of {name}");
        let pairs = family.labels.iter().zip(labels).map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        });
        let mut metric = Metric::from_label(pairs.collect());
        match family.kind {
            Kind::Counter => {
                let mut counter = Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
            }
            Kind::Gauge | Kind::Histogram => {
                let mut gauge = Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
            }
        }
        self.values.entry(name).or_default().push(metric);
    }

    fn count(&mut self, name: &'static str, labels: &[&str], value: u64) {
        self.add(name, labels, float(value));
    }

    fn families(mut self) -> Vec<MetricFamily> {
        let families = FAMILIES.iter().filter_map(|family| {
            let values = self.values.remove(family.name)?;
            let mut told = MetricFamily::default();
            told.set_name(family.name.to_owned());
            told.set_help(family.help.to_owned());
            told.set_field_type(match family.kind {
                Kind::Counter => MetricType::COUNTER,
                Kind::Gauge => MetricType::GAUGE,
                Kind::Histogram => MetricType::HISTOGRAM,
            });
            told.set_metric(values);
            Some(told)
        });
        families.collect()
    }
}

fn family(name: &str) -> &'static Family {
    FAMILIES
        .iter()
        .find(|family| family.name == name)
        .unwrap_or_else(|| unreachable!("{name} is not in the catalogue"))
}

/// Prometheus has no other numbers; exact up to 2^53.
#[allow(
    clippy::cast_precision_loss,
    reason = "counters stay below 2^53 for centuries"
)]
fn float(value: u64) -> f64 {
    value as f64
}

fn switch(is_on: bool) -> f64 {
    f64::from(u8::from(is_on))
}

fn whole(sheet: &mut Sheet, manager: &Manager, status: &Status) {
    sheet.count("uvs_build_info", &[env!("CARGO_PKG_VERSION")], 1);
    sheet.add("uvs_uptime_seconds", &[], status.uptime.as_secs_f64());
    sheet.count("uvs_revision", &[], manager.revision());
    sheet.count("uvs_configuration_version", &[], status.version);
    let seen = manager.director().publisher.seen_by_all();
    sheet.count("uvs_configuration_seen_version", &[], seen);
    sheet.count("uvs_warnings", &[], status.warnings.len() as u64);
    for (reason, packets) in &status.drops {
        sheet.count("uvs_dropped_packets_total", &[reason.name()], *packets);
    }
    let (all, used) = status.lip_ports;
    sheet.count("uvs_lip_ports", &[], all);
    sheet.count("uvs_lip_ports_in_use", &[], used);
}

fn service(sheet: &mut Sheet, name: &str, status: &ServiceStatus) {
    let labels = &[name];
    sheet.count("uvs_service_info", &[name, status.scheduler], 1);
    sheet.count("uvs_service_servers", labels, status.servers.len() as u64);
    let weights = status.servers.iter().map(|server| u64::from(server.weight));
    sheet.count("uvs_service_weight", labels, weights.sum());
    let traffic = status.traffic;
    sheet.count("uvs_service_connections_total", labels, traffic.connections);
    sheet.count("uvs_service_in_packets_total", labels, traffic.in_packets);
    sheet.count("uvs_service_in_bytes_total", labels, traffic.in_bytes);
    sheet.count("uvs_service_out_packets_total", labels, traffic.out_packets);
    sheet.count("uvs_service_out_bytes_total", labels, traffic.out_bytes);
}

fn servers(sheet: &mut Sheet, service: &str, status: &ServiceStatus) {
    for server in &status.servers {
        let address = match status.listen {
            // The port of a mark's server that has none is whatever the client asks for.
            Listen::Mark { .. } if server.address.port() == 0 => server.address.ip().to_string(),
            _ => server.address.to_string(),
        };
        let labels = &[service, &*address];
        let method = method_word(server.method);
        sheet.count("uvs_server_info", &[service, &address, method], 1);
        sheet.count("uvs_server_weight", labels, server.weight.into());
        for (state, count) in [("active", server.active), ("inactive", server.inactive)] {
            let labels = &[service, &*address, state];
            sheet.count("uvs_server_connections", labels, count.into());
        }
        sheet.count(
            "uvs_server_persistent_templates",
            labels,
            server.persistent.into(),
        );
        sheet.count("uvs_server_upper_threshold", labels, server.upper.into());
        let traffic = server.traffic;
        sheet.count("uvs_server_connections_total", labels, traffic.connections);
        sheet.count("uvs_server_in_packets_total", labels, traffic.in_packets);
        sheet.count("uvs_server_in_bytes_total", labels, traffic.in_bytes);
        sheet.count("uvs_server_out_packets_total", labels, traffic.out_packets);
        sheet.count("uvs_server_out_bytes_total", labels, traffic.out_bytes);
    }
}

fn worker(sheet: &mut Sheet, index: &str, status: &WorkerStatus) {
    let labels = &[index];
    sheet.add("uvs_worker_up", labels, switch(status.running));
    for (name, value) in [
        ("uvs_worker_received_packets_total", status.received),
        ("uvs_worker_forwarded_packets_total", status.forwarded),
        ("uvs_worker_replied_packets_total", status.replied),
        ("uvs_worker_left_packets_total", status.exceptions),
        ("uvs_worker_waited_packets_total", status.waiting),
        ("uvs_worker_dropped_packets_total", status.dropped),
        ("uvs_worker_connections_total", status.connections),
        ("uvs_worker_bursts_total", status.bursts),
        ("uvs_worker_sleeps_total", status.sleeps),
        (
            "uvs_worker_receive_missed_packets_total",
            status.receive_missed,
        ),
        ("uvs_worker_transmit_errors_total", status.transmit_errors),
        (
            "uvs_worker_half_open_replaced_total",
            status.half_open_replaced,
        ),
        ("uvs_worker_helpers_refused_total", status.helpers_refused),
        (
            "uvs_worker_fragments_forgotten_total",
            status.fragments_forgotten,
        ),
    ] {
        sheet.count(name, labels, value);
    }
}

fn tables(sheet: &mut Sheet, status: &Status) {
    for (family, table) in ["ipv4", "ipv6"].into_iter().zip(&status.tables) {
        let labels = &[family];
        sheet.count("uvs_table_capacity", labels, table.capacity.into());
        sheet.count("uvs_table_connections", labels, table.entries);
        sheet.count("uvs_table_half_open", labels, table.half_open.into());
        let limit = table.half_open_limit.into();
        sheet.count("uvs_table_half_open_limit", labels, limit);
        for (reason, count) in [
            ("full", table.inserts_refused_full),
            ("half-open", table.inserts_refused_half_open),
        ] {
            let labels = &[family, reason];
            sheet.count("uvs_table_refused_connections_total", labels, count);
        }
        sheet.count("uvs_table_bytes", labels, table.bytes);
    }
}

fn neighbours(sheet: &mut Sheet, status: &Status, is_each: bool) {
    let ports = status.ports.iter().map(|port| port.info.name.as_str());
    let mut counts: BTreeMap<(&str, &str), u64> = ports
        .flat_map(|port| NEIGHBOUR_STATES.map(|state| ((port, state), 0)))
        .collect();
    for neighbour in &status.neighbours {
        *counts
            .entry((&neighbour.port, neighbour.state))
            .or_default() += 1;
        if is_each {
            let labels = &[&*neighbour.port, &*neighbour.address.to_string()];
            let is_known = switch(neighbour.mac.is_some());
            sheet.add("uvs_neighbour_up", labels, is_known);
        }
    }
    for ((port, state), count) in counts {
        sheet.count("uvs_neighbours", &[port, state], count);
    }
}

fn port(sheet: &mut Sheet, status: &PortStatus, has_statistics: bool) {
    let name = &*status.info.name;
    let labels = &[name];
    sheet.add("uvs_port_up", labels, switch(status.state.link == Link::Up));
    sheet.count("uvs_port_mtu_bytes", labels, status.state.mtu.into());
    for (metric, value) in [
        (
            "uvs_port_receive_missed_packets_total",
            status.receive_missed,
        ),
        ("uvs_port_transmit_errors_total", status.transmit_errors),
    ] {
        sheet.count(metric, labels, value);
    }
    if has_statistics {
        // A driver may say the same name twice.
        let statistics: BTreeMap<_, _> = status.statistics.iter().cloned().collect();
        for (statistic, value) in statistics {
            sheet.count("uvs_port_statistic", &[name, &statistic], value);
        }
    }
}
