//! Ports, routes and pools of local addresses.

use super::{Checks, family};
use crate::config::mistake::{KeyPath, Problem};
use crate::config::model::{Driver, PortSettings, Route};
use dataplane::port::dpdk_settings::pci_address;
use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;

/// The files of a port: whose, under which key, and which.
fn captures(port: &PortSettings) -> Vec<(&str, &'static str, String)> {
    let Driver::Pcap { file, output, .. } = &port.driver else {
        return Vec::new();
    };
    let named = |key, path: &Path| (port.name.as_str(), key, path.display().to_string());
    let output = output.iter().map(|output| named("output", output));
    output.chain([named("file", file)]).collect()
}

impl Checks<'_> {
    pub(super) fn ports(&mut self) {
        let ports = &self.configuration.ports;
        if ports.is_empty() {
            let accepted = "one [port.NAME] or more".to_owned();
            self.wrong(
                KeyPath::top("port"),
                Problem::Missing {
                    what: "a port",
                    accepted,
                },
            );
        }
        let mut interfaces = HashMap::new();
        let mut files: Vec<_> = ports.iter().flat_map(captures).collect();
        // What is written first, so that the complaint is about who reads it.
        files.sort_by_key(|(_, key, _)| *key != "output");
        let mut written = HashMap::new();
        for (port, key, file) in &files {
            let path = KeyPath::top("port").key(port).key(key);
            if *key == "output" || written.contains_key(file) {
                self.once(&mut written, file, path, KeyPath::clone);
            }
        }
        let mut devices = HashMap::new();
        let mut exceptions = HashMap::new();
        let names: Vec<_> = ports.iter().map(device_name).collect();
        for (port, device) in ports.iter().zip(&names) {
            let path = KeyPath::top("port").key(&port.name);
            let interface = port.driver.interface();
            if let Some(interface) = interface.filter(|interface| !interface.is_empty()) {
                self.once(
                    &mut interfaces,
                    interface,
                    path.key("interface"),
                    KeyPath::clone,
                );
            }
            if let Some(dpdk) = port.driver.device()
                && !dpdk.device.is_empty()
            {
                self.once(&mut devices, device, path.key("device"), KeyPath::clone);
                if let Some(interface) = &dpdk.exception {
                    self.once(
                        &mut exceptions,
                        interface,
                        path.key("exception_interface"),
                        KeyPath::clone,
                    );
                }
            }
            for (place, prefix) in port.addresses.iter().enumerate() {
                self.own(prefix.address, path.key("addresses").index(place));
            }
        }
    }

    pub(super) fn routes(&mut self) {
        let mut destinations = HashMap::new();
        for (place, route) in self.configuration.routes.iter().enumerate() {
            let path = KeyPath::top("route").index(place);
            self.once(&mut destinations, &route.to, path.key("to"), KeyPath::clone);
            if let Some(name) = &route.port
                && self.configuration.port_of(route).is_none()
            {
                let names = self
                    .configuration
                    .ports
                    .iter()
                    .map(|port| port.name.as_str())
                    .collect::<Vec<_>>();
                self.not_a(
                    path.key("port"),
                    name,
                    "the name of a port",
                    names.join(", "),
                );
                continue;
            }
            let Some(via) = route.via else { continue };
            if via.is_ipv4() != route.to.address.is_ipv4() {
                self.not_a(
                    path.key("via"),
                    &via,
                    "a gateway for this destination",
                    format!("an {} address", family(route.to.address.is_ipv4())),
                );
            } else if self.is_sound("port") && !self.on_link(via, route) {
                self.not_a(
                    path.key("via"),
                    &via,
                    "an address in a port's subnet",
                    self.subnets_in_words(),
                );
            }
        }
    }

    /// Whether the gateway of a route is a neighbour. Link-local ones are, on the port that is named.
    fn on_link(&self, via: IpAddr, route: &Route) -> bool {
        let link_local = matches!(via, IpAddr::V6(v6) if v6.is_unicast_link_local());
        let port = self.configuration.port_of(route);
        (link_local && route.port.is_some())
            || self
                .configuration
                .subnets()
                .any(|(of, subnet)| Some(of) == port && subnet.contains(via))
    }

    pub(super) fn lip_pools(&mut self) {
        let mut names = HashMap::new();
        for (place, pool) in self.configuration.lip_pools.iter().enumerate() {
            let path = KeyPath::top("lip_pool").index(place);
            self.once(&mut names, &pool.name, path.key("name"), KeyPath::clone);
            for (place, address) in pool.addresses.iter().enumerate() {
                self.own(*address, path.key("addresses").index(place));
            }
        }
    }
}

/// What DPDK knows a port's device by; empty where it has none.
fn device_name(port: &PortSettings) -> String {
    let Some(dpdk) = port.driver.device() else {
        return String::new();
    };
    let name = dpdk.device.split(',').next().unwrap_or_default();
    pci_address(name).unwrap_or_else(|| name.to_owned())
}
