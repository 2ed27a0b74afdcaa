//! Where the packets of a configuration go: its subnets and routes.

use super::Prefix;
use super::model::{Configuration, Route};
use dataplane::port::PortId;
use dataplane::route::{self, Routes};

impl Configuration {
    /// The subnets of all ports' addresses, and the port of each.
    pub(crate) fn subnets(&self) -> impl Iterator<Item = (PortId, Prefix)> + Clone {
        let numbered = (0u16..).map(PortId).zip(&self.ports);
        numbered.flat_map(|(port, settings)| {
            settings.addresses.iter().map(move |prefix| (port, *prefix))
        })
    }

    /// The port that a route leaves by, if it can be told.
    pub(crate) fn port_of(&self, route: &Route) -> Option<PortId> {
        match (&route.port, route.via) {
            (Some(name), _) => (0u16..)
                .map(PortId)
                .zip(&self.ports)
                .find(|(_, port)| port.name == *name)
                .map(|(id, _)| id),
            (None, Some(via)) => {
                let of_via = self.subnets().filter(|(_, subnet)| subnet.contains(via));
                of_via
                    .max_by_key(|(_, subnet)| subnet.len)
                    .map(|(port, _)| port)
            }
            (None, None) => None,
        }
    }

    /// The way to every destination: the subnets on the ports' links and the routes.
    #[must_use]
    pub fn routing(&self) -> Routes {
        let mut routes = Routes::default();
        for (port, subnet) in self.subnets() {
            routes.insert(
                subnet.address,
                subnet.len,
                route::Route {
                    port,
                    gateway: None,
                },
            );
        }
        for route in &self.routes {
            if let Some(port) = self.port_of(route) {
                routes.insert(
                    route.to.address,
                    route.to.len,
                    route::Route {
                        port,
                        gateway: route.via,
                    },
                );
            }
        }
        routes
    }
}
