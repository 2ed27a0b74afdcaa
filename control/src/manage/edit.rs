//! Single changes of a configuration, as operators make them: each by itself, or several that hold together.

use crate::config::{
    Configuration, LipPool, Listen, Mark, Prefix, Route, Server, Service, TimeoutSettings,
};
use dataplane::snapshot::Ipvs;
use std::net::SocketAddr;

/// A change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// A service comes, with its servers.
    CreateService(Service),
    /// A service gets other settings; its servers stay, whatever stands here.
    UpdateService(Service),
    /// A service goes, with its servers.
    DeleteService(Listen),
    /// A server comes.
    CreateServer(Listen, Server),
    /// A server gets other settings.
    UpdateServer(Listen, Server),
    /// A server goes.
    DeleteServer(Listen, SocketAddr),
    /// A pool of local addresses comes.
    CreateLipPool(LipPool),
    /// A pool gets other addresses or ports.
    UpdateLipPool(LipPool),
    /// A pool goes.
    DeleteLipPool(String),
    /// A route comes.
    CreateRoute(Route),
    /// A destination gets another way.
    UpdateRoute(Route),
    /// A route goes.
    DeleteRoute(Prefix),
    /// These rules mark packets, in this order, and no others.
    SetMarks(Vec<Mark>),
    /// A port has these addresses of the director's own, and no others.
    SetAddresses(String, Vec<Prefix>),
    /// Timeouts.
    SetTimeouts(TimeoutSettings),
    /// Behaviour by the kernel's names.
    SetIpvs(Ipvs),
    /// All services go.
    Clear,
}

/// Why a change cannot be made: what it is about is there already, or is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// A service that is to come is there.
    #[error("service {0} exists already; accepted: one that does not, or an update")]
    ServiceExists(Listen),
    /// A service that is to change is not there.
    #[error("there is no service {0}{nearest}", nearest = near(.1))]
    NoService(Listen, Option<Listen>),
    /// A server that is to come is there.
    #[error("service {0} has a server {1} already; accepted: another one, or an update")]
    ServerExists(Listen, SocketAddr),
    /// A server that is to change is not there.
    #[error("service {0} has no server {1}; it has {list}", list = listed(.2))]
    NoServer(Listen, SocketAddr, Vec<SocketAddr>),
    /// Something else that is to come is there.
    #[error("{0} {1} exists already; accepted: another one, or an update")]
    Exists(&'static str, String),
    /// Something else that is to change is not there.
    #[error("there is no {0} {1}; there is {list}", list = known(.2))]
    Missing(&'static str, String, Vec<String>),
}

/// Names told at once.
const TOLD: usize = 8;

fn near(nearest: &Option<Listen>) -> String {
    nearest
        .map(|listen| format!("; the nearest is {listen}"))
        .unwrap_or_default()
}

fn listed(servers: &[SocketAddr]) -> String {
    known(&servers.iter().map(ToString::to_string).collect::<Vec<_>>())
}

fn known(names: &[String]) -> String {
    match names.len() {
        0 => "none".to_owned(),
        count if count > TOLD => format!("{}, and {} more", names[..TOLD].join(", "), count - TOLD),
        _ => names.join(", "),
    }
}

impl EditError {
    /// That a service is not among these.
    #[must_use]
    pub fn no_service(services: &[Service], listen: Listen) -> EditError {
        EditError::NoService(listen, nearest(services, listen))
    }
}

impl Edit {
    /// The service that it is about.
    #[must_use]
    pub fn service(&self) -> Option<Listen> {
        match self {
            Edit::CreateService(service) | Edit::UpdateService(service) => Some(service.listen),
            Edit::DeleteService(listen)
            | Edit::CreateServer(listen, _)
            | Edit::UpdateServer(listen, _)
            | Edit::DeleteServer(listen, _) => Some(*listen),
            _ => None,
        }
    }

    /// Makes the change. Whether the whole can work is not looked at.
    ///
    /// # Errors
    /// Nothing is changed then.
    pub fn make(&self, configuration: &mut Configuration) -> Result<(), EditError> {
        match self {
            Edit::CreateService(service) => {
                if configuration
                    .services
                    .iter()
                    .any(|old| old.listen == service.listen)
                {
                    return Err(EditError::ServiceExists(service.listen));
                }
                configuration.services.push(service.clone());
            }
            Edit::UpdateService(service) => {
                let old = service_of(configuration, service.listen)?;
                *old = Service {
                    servers: std::mem::take(&mut old.servers),
                    idle_edits: old.idle_edits,
                    ..service.clone()
                };
            }
            Edit::DeleteService(listen) => {
                service_of(configuration, *listen)?;
                configuration
                    .services
                    .retain(|service| service.listen != *listen);
            }
            Edit::CreateServer(listen, server) => {
                let service = service_of(configuration, *listen)?;
                if service
                    .servers
                    .iter()
                    .any(|old| old.address == server.address)
                {
                    return Err(EditError::ServerExists(*listen, server.address));
                }
                service.servers.push(server.clone());
            }
            Edit::UpdateServer(listen, server) => update_server(configuration, *listen, server)?,
            Edit::DeleteServer(listen, address) => {
                let service = service_of(configuration, *listen)?;
                let place = server_place(service, *address)?;
                service.servers.remove(place);
            }
            Edit::CreateLipPool(_) | Edit::UpdateLipPool(_) | Edit::DeleteLipPool(_) => {
                self.change_pools(configuration)?;
            }
            Edit::CreateRoute(_) | Edit::UpdateRoute(_) | Edit::DeleteRoute(_) => {
                self.change_routes(configuration)?;
            }
            Edit::SetMarks(marks) => configuration.marks.clone_from(marks),
            Edit::SetAddresses(name, addresses) => {
                let ports = &mut configuration.ports;
                let names: Vec<_> = ports.iter().map(|port| port.name.clone()).collect();
                let port = ports.iter_mut().find(|port| port.name == *name);
                let port = port.ok_or_else(|| EditError::Missing("port", name.clone(), names))?;
                port.addresses.clone_from(addresses);
            }
            Edit::SetTimeouts(timeouts) => configuration.timeouts = *timeouts,
            Edit::SetIpvs(ipvs) => configuration.ipvs = *ipvs,
            Edit::Clear => configuration.services.clear(),
        }
        Ok(())
    }

    fn change_pools(&self, configuration: &mut Configuration) -> Result<(), EditError> {
        let pools = &mut configuration.lip_pools;
        let name_of = |pool: &LipPool| pool.name.clone();
        match self {
            Edit::CreateLipPool(new) => create(pools, new.clone(), "LIP pool", name_of),
            Edit::UpdateLipPool(new) => {
                let place = place(pools, &new.name, "LIP pool", name_of)?;
                pools[place] = new.clone();
                Ok(())
            }
            Edit::DeleteLipPool(name) => {
                let place = place(pools, name, "LIP pool", name_of)?;
                pools.remove(place);
                Ok(())
            }
            _ => unreachable!("only changes of pools come here"),
        }
    }

    fn change_routes(&self, configuration: &mut Configuration) -> Result<(), EditError> {
        let routes = &mut configuration.routes;
        let name_of = |route: &Route| route.to.to_string();
        match self {
            Edit::CreateRoute(new) => create(routes, new.clone(), "route to", name_of),
            Edit::UpdateRoute(new) => {
                let place = place(routes, &new.to.to_string(), "route to", name_of)?;
                routes[place] = new.clone();
                Ok(())
            }
            Edit::DeleteRoute(to) => {
                let place = place(routes, &to.to_string(), "route to", name_of)?;
                routes.remove(place);
                Ok(())
            }
            _ => unreachable!("only changes of routes come here"),
        }
    }
}

fn create<T>(
    list: &mut Vec<T>,
    new: T,
    what: &'static str,
    name_of: impl Fn(&T) -> String,
) -> Result<(), EditError> {
    let name = name_of(&new);
    if list.iter().any(|old| name_of(old) == name) {
        return Err(EditError::Exists(what, name));
    }
    list.push(new);
    Ok(())
}

fn place<T>(
    list: &[T],
    name: &str,
    what: &'static str,
    name_of: impl Fn(&T) -> String,
) -> Result<usize, EditError> {
    let place = list.iter().position(|old| name_of(old) == name);
    place.ok_or_else(|| {
        let names = list.iter().map(name_of).collect();
        EditError::Missing(what, name.to_owned(), names)
    })
}

fn update_server(
    configuration: &mut Configuration,
    listen: Listen,
    server: &Server,
) -> Result<(), EditError> {
    let service = service_of(configuration, listen)?;
    let place = server_place(service, server.address)?;
    if service.servers[place] == *server {
        service.idle_edits += 1;
    } else {
        service.servers[place] = server.clone();
    }
    Ok(())
}

fn server_place(service: &Service, address: SocketAddr) -> Result<usize, EditError> {
    let mut servers = service.servers.iter();
    let place = servers.position(|server| server.address == address);
    place.ok_or_else(|| {
        let servers = service.servers.iter().map(|server| server.address);
        EditError::NoServer(service.listen, address, servers.collect())
    })
}

fn service_of(
    configuration: &mut Configuration,
    listen: Listen,
) -> Result<&mut Service, EditError> {
    let services = &mut configuration.services;
    match services.iter().position(|service| service.listen == listen) {
        Some(place) => Ok(&mut services[place]),
        None => Err(EditError::no_service(services, listen)),
    }
}

/// The service that was perhaps meant.
fn nearest(services: &[Service], listen: Listen) -> Option<Listen> {
    let wanted = listen.to_string();
    let likeness = |known: &Listen| strsim::jaro_winkler(&known.to_string(), &wanted);
    let known = services.iter().map(|service| service.listen);
    known.max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration() -> Configuration {
        let text = "[port.wan]\ndriver = \"memory\"\naddresses = [\"10.0.0.1/24\"]\n\
                    [[lip_pool]]\nname = \"a\"\naddresses = [\"10.0.0.200\"]\n\
                    [[route]]\nto = \"10.9.0.0/16\"\nvia = \"10.0.0.254\"\n\
                    [[service]]\nlisten = \"tcp 10.0.0.100:80\"\nmethod = \"nat\"\n\
                    [[service.server]]\naddress = \"10.0.0.11:80\"\n";
        Configuration::parse("f", text).unwrap().configuration
    }

    fn listen(text: &str) -> Listen {
        let text = format!(
            "[port.p]\ndriver = \"memory\"\n[[service]]\nlisten = \"{text}\"\nmethod = \"nat\"\n"
        );
        let accepted = Configuration::parse("f", &text).unwrap();
        accepted.configuration.services[0].listen
    }

    fn make(edit: &Edit) -> Result<Configuration, String> {
        let mut configuration = configuration();
        let made = edit.make(&mut configuration);
        match made {
            Ok(()) => Ok(configuration),
            Err(error) => {
                assert_eq!(configuration, self::configuration(), "nothing is changed");
                Err(error.to_string())
            }
        }
    }

    #[test]
    fn what_is_there_is_not_created_and_what_is_not_there_not_changed() {
        let old = configuration();
        let service = &old.services[0];
        let (there, gone) = (service.listen, listen("tcp 10.0.0.100:81"));
        let server = service.servers[0].clone();
        let other = Server {
            address: "10.0.0.12:80".parse().unwrap(),
            ..server.clone()
        };
        let pool = &old.lip_pools[0];
        let nowhere: Prefix = "10.8.0.0/16".parse().unwrap();
        for (edit, error) in [
            (
                Edit::CreateService(service.clone()),
                "service tcp 10.0.0.100:80 exists already; accepted: one that does not, or an update",
            ),
            (
                Edit::DeleteService(gone),
                "there is no service tcp 10.0.0.100:81; the nearest is tcp 10.0.0.100:80",
            ),
            (
                Edit::CreateServer(there, server.clone()),
                "service tcp 10.0.0.100:80 has a server 10.0.0.11:80 already; accepted: another one, or an update",
            ),
            (
                Edit::UpdateServer(there, other.clone()),
                "service tcp 10.0.0.100:80 has no server 10.0.0.12:80; it has 10.0.0.11:80",
            ),
            (
                Edit::DeleteServer(gone, server.address),
                "there is no service tcp 10.0.0.100:81; the nearest is tcp 10.0.0.100:80",
            ),
            (
                Edit::CreateLipPool(pool.clone()),
                "LIP pool a exists already; accepted: another one, or an update",
            ),
            (
                Edit::DeleteLipPool("b".to_owned()),
                "there is no LIP pool b; there is a",
            ),
            (
                Edit::DeleteRoute(nowhere),
                "there is no route to 10.8.0.0/16; there is 10.9.0.0/16",
            ),
            (
                Edit::SetAddresses("lan".to_owned(), Vec::new()),
                "there is no port lan; there is wan",
            ),
        ] {
            assert_eq!(make(&edit).unwrap_err(), error);
        }
    }

    #[test]
    fn services_and_servers_come_change_and_go() {
        let old = configuration();
        let there = old.services[0].listen;
        let server = old.services[0].servers[0].clone();
        let other = Server {
            address: "10.0.0.12:80".parse().unwrap(),
            ..server.clone()
        };
        let added = make(&Edit::CreateServer(there, other.clone())).unwrap();
        assert_eq!(added.services[0].servers, [server.clone(), other]);
        let heavier = Server {
            weight: 9,
            ..server.clone()
        };
        let changed = make(&Edit::UpdateServer(there, heavier.clone())).unwrap();
        assert_eq!(changed.services[0].servers, [heavier]);
        let idle = make(&Edit::UpdateServer(there, server.clone())).unwrap();
        assert_eq!(idle.services[0].idle_edits, 1);
        let none = make(&Edit::DeleteServer(there, server.address)).unwrap();
        assert!(none.services[0].servers.is_empty());
        let updated = Service {
            scheduler: "rr",
            servers: Vec::new(),
            ..old.services[0].clone()
        };
        let updated = make(&Edit::UpdateService(updated)).unwrap();
        assert_eq!(updated.services[0].scheduler, "rr");
        assert_eq!(updated.services[0].servers, [server], "they stay");
        assert!(make(&Edit::Clear).unwrap().services.is_empty());
        assert!(
            make(&Edit::DeleteService(there))
                .unwrap()
                .services
                .is_empty()
        );
    }

    #[test]
    fn pools_routes_marks_and_addresses_change() {
        let old = configuration();
        let mut pool = old.lip_pools[0].clone();
        pool.last_port = 2000;
        assert_eq!(
            make(&Edit::UpdateLipPool(pool.clone())).unwrap().lip_pools,
            [pool]
        );
        assert!(
            make(&Edit::DeleteLipPool("a".to_owned()))
                .unwrap()
                .lip_pools
                .is_empty()
        );
        let route = Route {
            via: Some("10.0.0.253".parse().unwrap()),
            ..old.routes[0].clone()
        };
        let updated = make(&Edit::UpdateRoute(route.clone())).unwrap();
        assert_eq!(updated.routes[0], route);
        assert!(
            make(&Edit::DeleteRoute(route.to))
                .unwrap()
                .routes
                .is_empty()
        );
        let address: Prefix = "10.0.0.2/24".parse().unwrap();
        let moved = make(&Edit::SetAddresses("wan".to_owned(), vec![address])).unwrap();
        assert_eq!(moved.ports[0].addresses, [address]);
        assert!(make(&Edit::SetMarks(Vec::new())).unwrap().marks.is_empty());
    }
}
