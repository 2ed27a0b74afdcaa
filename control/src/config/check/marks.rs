//! Marks, and what services of marks need.

use super::{Checks, family};
use crate::config::mistake::{Finding, KeyPath, Problem};
use crate::config::model::{Listen, Service};
use std::collections::HashMap;

impl Checks<'_> {
    pub(super) fn marks(&mut self) {
        for (place, mark) in self.configuration.marks.iter().enumerate() {
            let path = KeyPath::top("mark").index(place);
            let mut ports = self.configuration.ports.iter();
            if let Some(name) = &mark.port
                && !ports.any(|port| port.name == *name)
            {
                let names = self
                    .configuration
                    .ports
                    .iter()
                    .map(|port| port.name.as_str());
                let names = names.collect::<Vec<_>>().join(", ");
                self.not_a(path.key("port"), name, "the name of a port", names);
            }
            if let (Some(source), Some(destination)) = (mark.source, mark.destination)
                && source.address.is_ipv4() != destination.address.is_ipv4()
            {
                let accepted = format!("an {} network", family(source.address.is_ipv4()));
                let path = path.key("destination");
                self.not_a(path, &destination, "of the source's family", accepted);
            }
        }
    }

    /// A mark's service that nothing can reach is doubtful: rules or addresses may be about to follow.
    pub(super) fn reaches(&mut self, service: &Service, path: &KeyPath) {
        let Listen::Mark { mark, .. } = service.listen else {
            return;
        };
        let value = service.listen.to_string();
        let mut marks = self.configuration.marks.iter();
        if !marks.any(|rule| rule.mark == mark) {
            let consequence = "is given by no [[mark]]: the service gets no packet".to_owned();
            self.doubtful.push(Finding {
                path: path.key("listen"),
                problem: Problem::Changed { value, consequence },
            });
        } else if service.addresses.is_empty() {
            let consequence =
                "has no addresses: packets to addresses of other services alone are looked at"
                    .to_owned();
            self.doubtful.push(Finding {
                path: path.key("listen"),
                problem: Problem::Changed { value, consequence },
            });
        }
    }

    pub(super) fn addresses(&mut self, service: &Service, path: &KeyPath) {
        if service.addresses.is_empty() {
            return;
        }
        let path = path.key("addresses");
        if service.listen.ip().is_some() {
            let why = "only a mark's service has addresses beside `listen`";
            return self.wrong(path, Problem::Misplaced(why));
        }
        let mut seen = HashMap::new();
        for (place, address) in service.addresses.iter().enumerate() {
            self.once(&mut seen, address, path.index(place), KeyPath::clone);
            if address.is_ipv4() != service.listen.is_ipv4() {
                let accepted = format!("an {} address", family(service.listen.is_ipv4()));
                let path = path.index(place);
                self.not_a(path, address, "of the service's family", accepted);
            }
        }
    }
}
