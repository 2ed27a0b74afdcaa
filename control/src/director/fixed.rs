//! What a configuration cannot change while a director runs.

use crate::config::{Configuration, PortSettings};
use std::net::SocketAddr;

/// Where metrics are served.
fn metrics_listen(configuration: &Configuration) -> Option<SocketAddr> {
    configuration.metrics.as_ref().map(|metrics| metrics.listen)
}

/// The keys in which two configurations differ and must not.
pub(super) fn fixed_keys(old: &Configuration, new: &Configuration) -> Vec<String> {
    let (from, to) = (&old.director, &new.director);
    let of_director = [
        (from.workers != to.workers, "director.workers"),
        (from.connections != to.connections, "director.connections"),
        (from.servers != to.servers, "director.servers"),
        (
            from.half_open_percent != to.half_open_percent,
            "director.half_open_percent",
        ),
        (from.idle != to.idle, "director.idle"),
        (from.pin != to.pin, "director.pin"),
        (from.control != to.control, "director.control"),
        (from.netlink != to.netlink, "director.netlink"),
        (from.proc != to.proc, "director.proc"),
        (old.dpdk != new.dpdk, "dpdk"),
        (from.table != to.table, "director.table"),
        (from.state != to.state, "director.state"),
        (old.access.group != new.access.group, "access.group"),
        (old.access.audit != new.access.audit, "access.audit"),
        (listen(old) != listen(new), "access.tls.listen"),
        (metrics_listen(old) != metrics_listen(new), "metrics.listen"),
    ];
    let mut keys: Vec<_> = of_director
        .iter()
        .filter(|(differ, _)| *differ)
        .map(|(_, key)| (*key).to_owned())
        .collect();
    let fixed = |ports: &[PortSettings]| -> Vec<_> {
        ports
            .iter()
            .map(|port| (port.name.clone(), port.driver.clone()))
            .collect()
    };
    let (from, to) = (fixed(&old.ports), fixed(&new.ports));
    if from != to {
        let differing = from
            .iter()
            .filter(|port| !to.contains(port))
            .chain(to.iter().filter(|port| !from.contains(port)));
        let mut names: Vec<_> = differing.map(|(name, _)| format!("port.{name}")).collect();
        names.dedup();
        keys.extend(if names.is_empty() {
            vec!["port: the order".to_owned()]
        } else {
            names
        });
    }
    keys
}

/// Where the gRPC service listens for TLS.
fn listen(configuration: &Configuration) -> Option<SocketAddr> {
    configuration.access.tls.as_ref().map(|tls| tls.listen)
}
