//! The servers of a service: each is another host, and there is a way to it.

use super::{Checks, family, server_path};
use crate::config::mistake::{Finding, Problem};
use crate::config::model::Service;
use conntrack::Method;
use dataplane::port::PortId;
use dataplane::route::Routes;
use std::collections::HashMap;
use std::net::IpAddr;

impl Checks<'_> {
    pub(super) fn servers(&mut self, place: usize, service: &Service, routing: Option<&Routes>) {
        let mut addresses = HashMap::new();
        let virtual_address = service.listen.ip();
        for (server_place, server) in service.servers.iter().enumerate() {
            // There may be very many: a path is put together only where something is wrong.
            let path_of = |server: &usize| server_path(place, *server).key("address");
            let path = || path_of(&server_place);
            let address = server.address.ip();
            self.once(&mut addresses, &server.address, server_place, path_of);
            if address.is_ipv4() != service.listen.is_ipv4() && server.method != Method::Tun {
                let family = family(service.listen.is_ipv4());
                let accepted = format!("an {family} address, or method \"tun\"");
                self.not_a(path(), &address, "of the service's family", accepted);
                continue;
            }
            let is_virtual =
                Some(address) == virtual_address || service.addresses.contains(&address);
            if is_virtual || self.owned.contains_key(&address) {
                let accepted = "the address of another host".to_owned();
                let conflict = "is the director's own address";
                self.wrong(
                    path(),
                    Problem::Conflict {
                        value: address.to_string(),
                        conflict,
                        accepted,
                    },
                );
                continue;
            }
            match routing.and_then(|routing| routing.lookup(address)) {
                None if routing.is_none() => {}
                None => {
                    let accepted = format!(
                        "an address in {}, or a [[route]] to it",
                        self.subnets_in_words()
                    );
                    self.not_a(path(), &address, "an address with a way to it", accepted);
                }
                Some((port, _)) if !self.speaks(port, address) => {
                    let name = &self.configuration.ports[usize::from(port.0)].name;
                    let accepted = format!(
                        "an {} address in port.{name}.addresses",
                        family(address.is_ipv4())
                    );
                    let conflict = "is reached by a port without an address of this family";
                    self.wrong(
                        path(),
                        Problem::Conflict {
                            value: address.to_string(),
                            conflict,
                            accepted,
                        },
                    );
                }
                Some((_, next)) if next != address && server.method == Method::Dr => {
                    let consequence = format!(
                        "is behind the gateway {next}: DR sends it packets for {}, which a router would send back",
                        service.listen
                    );
                    let problem = Problem::Changed {
                        value: address.to_string(),
                        consequence,
                    };
                    self.doubtful.push(Finding {
                        path: path(),
                        problem,
                    });
                }
                Some(_) => {}
            }
        }
    }

    /// Whether the director has an address on the port to ask its neighbours from, and to tunnel from.
    fn speaks(&self, port: PortId, to: IpAddr) -> bool {
        let port = &self.configuration.ports[usize::from(port.0)];
        port.addresses
            .iter()
            .any(|prefix| prefix.address.is_ipv4() == to.is_ipv4())
    }
}
