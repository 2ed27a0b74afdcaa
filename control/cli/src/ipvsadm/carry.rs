//! Commands as edits of a director's configuration.
//!
//! A service with `--laddr` has a pool of local addresses of its own, which comes and goes with it. What a director knows of a
//! service and ipvsadm does not (its helper, its slow start, a mark's addresses) stays when the service is edited.

use super::{Command, Method, Mistake, Refusal, Server, Service, ServiceKey, messages};
use control::config::keys::{Accepts, SERVICE};
use control::config::{Configuration, Finding, Listen};
use control::grpc::messages as director;
use proto::v1;
use proto::v1::edit::Edit;
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

/// What the names of pools begin with that come with `--laddr`.
const POOL: &str = "ipvsadm-";

/// The rules that a director has, as far as a command depends on them; and what becomes of them by further commands.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    configuration: Configuration,
}

impl Rules {
    /// No rules at all.
    pub(crate) fn none() -> Rules {
        Rules::with_ports(&[])
    }

    fn with_ports(names: &[&str]) -> Rules {
        let names = if names.is_empty() { &["none"] } else { names };
        let ports = names
            .iter()
            .map(|name| format!("[port.{name}]\ndriver = \"memory\"\n"));
        let text = ports.collect::<String>();
        let accepted = Configuration::parse("rules", &text);
        let accepted = accepted
            .expect("ports of this driver need nothing, and the names are those of a director");
        Rules {
            configuration: accepted.configuration,
        }
    }

    /// Those of a director.
    ///
    /// # Errors
    /// When its state makes no sense here: it is newer than this.
    pub(crate) fn of(state: &v1::State) -> Result<Rules, director::MessageError> {
        let ports = state.ports.iter().map(|port| port.port.as_str());
        let Rules { configuration } = Rules::with_ports(&ports.collect::<Vec<_>>());
        let configuration = director::configuration_of(state, configuration)?;
        Ok(Rules { configuration })
    }

    /// As a configuration, with ports that only have their names.
    pub(crate) fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    /// Whether a command's service is there.
    fn service(&self, key: &ServiceKey) -> Option<&control::config::Service> {
        let listen = listen(key);
        let mut services = self.configuration.services.iter();
        services.find(|service| service.listen == listen)
    }

    /// Does what a command says, and tells the edits.
    ///
    /// # Errors
    /// As a director would.
    pub(crate) fn change(&mut self, command: &Command) -> Result<Vec<Edit>, Refusal> {
        let edits = edits(command, Some(self))?;
        for edit in &edits {
            let edit = v1::Edit {
                edit: Some(edit.clone()),
            };
            director::make(&edit, &mut self.configuration)
                .map_err(|error| self.refusal(command, &error))?;
        }
        Ok(edits)
    }

    /// A refusal without a director, as one with.
    fn refusal(&self, command: &Command, error: &director::MessageError) -> Refusal {
        use control::manage::EditError;
        let code = match error {
            director::MessageError::Edit(
                EditError::ServiceExists(_) | EditError::ServerExists(..) | EditError::Exists(..),
            ) => tonic::Code::AlreadyExists,
            director::MessageError::Edit(_) => tonic::Code::NotFound,
            director::MessageError::Wrong(_) => tonic::Code::InvalidArgument,
        };
        let is_there = key_of(command).map(|key| self.service(key).is_some());
        let violations = match error {
            director::MessageError::Wrong(findings) => findings.iter().map(violation).collect(),
            director::MessageError::Edit(_) => Vec::new(),
        };
        let details = ErrorDetails::with_bad_request(violations);
        let status = tonic::Status::with_error_details(code, error.to_string(), details);
        super::refusal::of_status(command, &status, is_there)
    }

    /// A name for a pool that no pool has.
    fn free_pool(&self) -> String {
        let pools = &self.configuration.lip_pools;
        (1_u32..)
            .map(|number| format!("{POOL}{number}"))
            .find(|name| pools.iter().all(|pool| pool.name != *name))
            .expect("there are fewer pools than numbers")
    }

    /// The pool that came with a service, unless others use it too.
    fn own_pool(&self, service: &control::config::Service) -> Option<String> {
        let name = service.lip_pool.as_ref()?;
        let users = self.configuration.services.iter();
        let users = users.filter(|service| service.lip_pool.as_ref() == Some(name));
        (name.starts_with(POOL) && users.count() == 1).then(|| name.clone())
    }
}

fn violation(finding: &Finding) -> FieldViolation {
    FieldViolation::new(finding.path.to_string(), finding.problem.to_string())
}

fn listen(key: &ServiceKey) -> Listen {
    use control::config::Protocol as Known;
    match *key {
        ServiceKey::Address(protocol, address) => Listen::Address {
            protocol: match protocol {
                super::Protocol::Tcp => Known::Tcp,
                super::Protocol::Udp => Known::Udp,
                super::Protocol::Sctp => Known::Sctp,
            },
            address,
        },
        ServiceKey::Mark { mark, ipv6 } => Listen::Mark { mark, ipv6 },
    }
}

/// The service that a command is about.
pub(super) fn key_of(command: &Command) -> Option<&ServiceKey> {
    match command {
        Command::AddService(service) | Command::EditService(service) => Some(&service.key),
        Command::DeleteService(key)
        | Command::AddServer(key, _)
        | Command::EditServer { service: key, .. }
        | Command::DeleteServer(key, _) => Some(key),
        Command::Zero(key) => key.as_ref(),
        _ => None,
    }
}

/// Whether what a command does depends on the rules that are there.
pub(super) fn needs_rules(command: &Command) -> bool {
    match command {
        Command::AddService(service) => service.local.is_some(),
        Command::EditService(_) | Command::DeleteService(_) | Command::Clear => true,
        Command::AddServer(_, server) => is_delicate(server),
        Command::EditServer {
            server,
            method_is_said,
            ..
        } => !method_is_said || is_delicate(server),
        _ => false,
    }
}

fn is_delicate(server: &Server) -> bool {
    server.method == Method::FullNat || server.lower > server.upper
}

/// The server that an edit without a method turns from NAT into DR, where it does.
pub(super) fn turned_to_dr(command: &Command, rules: &Rules) -> Option<String> {
    let Command::EditServer {
        service,
        server,
        method_is_said: false,
    } = command
    else {
        return None;
    };
    let listen = listen(service);
    let service = rules.service(service)?;
    // By DR it is known by the service's port.
    let old = service
        .servers
        .iter()
        .find(|old| old.address == server.address)?;
    (old.method == conntrack::Method::Nat).then(|| format!("{} of {listen}", server.address))
}

/// The edits that a command means.
///
/// # Errors
/// When it cannot be done, as far as that can be told from here.
pub(super) fn edits(command: &Command, rules: Option<&Rules>) -> Result<Vec<Edit>, Refusal> {
    match command {
        Command::AddService(service) => {
            check_engine(service, rules)?;
            let mut settings = messages::settings(service).map_err(Refusal::Director)?;
            let mut edits = Vec::new();
            if let (Some(local), Some(rules)) = (&service.local, rules) {
                let name = rules.free_pool();
                edits.push(Edit::CreateLipPool(messages::pool(&name, local)));
                take_pool(&mut settings, name);
            }
            edits.push(Edit::CreateService(settings));
            Ok(edits)
        }
        Command::EditService(service) => edit_service(service, rules),
        Command::DeleteService(key) => {
            let old = rules.and_then(|rules| rules.service(key));
            let pool = old.and_then(|old| rules?.own_pool(old));
            let mut edits = vec![Edit::DeleteService(messages::key(key))];
            edits.extend(pool.map(Edit::DeleteLipPool));
            Ok(edits)
        }
        Command::AddServer(key, server) => {
            check_server(key, server, rules)?;
            service_server(key, server).map(|of| vec![Edit::CreateServer(of)])
        }
        Command::EditServer {
            service, server, ..
        } => {
            check_server(service, server, rules)?;
            service_server(service, server).map(|of| vec![Edit::UpdateServer(of)])
        }
        Command::DeleteServer(key, address) => Ok(vec![Edit::DeleteServer(v1::ServerKey {
            service: Some(messages::key(key)),
            address: address.ip().to_string(),
            port: address.port().into(),
        })]),
        Command::Clear => {
            let mut edits = vec![Edit::Clear(v1::Clear {})];
            let pools = rules
                .iter()
                .flat_map(|rules| &rules.configuration.lip_pools);
            let names = pools.map(|pool| pool.name.clone());
            edits.extend(
                names
                    .filter(|name| name.starts_with(POOL))
                    .map(Edit::DeleteLipPool),
            );
            Ok(edits)
        }
        Command::SetTimeouts { tcp, tcp_fin, udp } => {
            let unless_kept = |seconds: u32| (seconds != 0).then_some(seconds);
            Ok(vec![Edit::SetTimeouts(v1::Timeouts {
                tcp_s: unless_kept(*tcp),
                tcp_fin_s: unless_kept(*tcp_fin),
                udp_s: unless_kept(*udp),
            })])
        }
        other => Err(Refusal::Director(format!(
            "{other:?} is no change of rules; accepted: -A, -E, -D, -a, -e, -d, -C and --set"
        ))),
    }
}

fn take_pool(settings: &mut v1::ServiceSettings, name: String) {
    settings.lip_pool = name;
    // Only services by FULLNAT have a pool; each server says its own method besides.
    settings.method = v1::Method::Fullnat.into();
}

fn edit_service(service: &Service, rules: Option<&Rules>) -> Result<Vec<Edit>, Refusal> {
    let Some((rules, old)) = rules.and_then(|rules| Some((rules, rules.service(&service.key)?)))
    else {
        return Err(Refusal::NoService);
    };
    check_engine(service, None)?;
    let kept = director::service_of(old);
    let mut settings = v1::ServiceSettings {
        method: kept.method,
        lip_pool: kept.lip_pool,
        helper: kept.helper,
        addresses: kept.addresses,
        ..messages::settings(service).map_err(Refusal::Director)?
    };
    if settings.scheduler == kept.scheduler {
        settings.slow_start_s = kept.slow_start_s;
    }
    let mut edits = Vec::new();
    if let Some(local) = &service.local {
        match rules.own_pool(old) {
            Some(name) => edits.push(Edit::UpdateLipPool(messages::pool(&name, local))),
            None => {
                let name = rules.free_pool();
                edits.push(Edit::CreateLipPool(messages::pool(&name, local)));
                take_pool(&mut settings, name);
            }
        }
    }
    edits.push(Edit::UpdateService(settings));
    Ok(edits)
}

/// Without persistence an engine has nothing to do, and the director is not told of it; the kernel looks for it all the same.
fn check_engine(service: &Service, rules: Option<&Rules>) -> Result<(), Refusal> {
    let Some(engine) = &service.engine else {
        return Ok(());
    };
    let Accepts::Word(known) = SERVICE.key("persistence_engine").accepts else {
        unreachable!("the key is declared to take a word")
    };
    if service.persistence.is_some() || known.contains(&engine.as_str()) {
        return Ok(());
    }
    match rules.and_then(|rules| rules.service(&service.key)) {
        Some(_) => Err(Refusal::ServiceExists),
        None => Err(Refusal::NoModule),
    }
}

/// What the director leaves to its callers, and what FULLNAT needs.
fn check_server(key: &ServiceKey, server: &Server, rules: Option<&Rules>) -> Result<(), Refusal> {
    let Some(rules) = rules.filter(|_| is_delicate(server)) else {
        return Ok(());
    };
    let service = rules.service(key).ok_or(Refusal::ServiceNotDefined)?;
    if server.lower > server.upper {
        return Err(Refusal::Thresholds);
    }
    if server.method == Method::FullNat {
        if service.lip_pool.is_none() {
            return Err(Refusal::FullNat(Mistake::NoLocalAddresses));
        }
        if service.one_packet {
            return Err(Refusal::FullNat(Mistake::OnePacketFullNat));
        }
    }
    Ok(())
}

fn service_server(key: &ServiceKey, server: &Server) -> Result<v1::ServiceServer, Refusal> {
    Ok(v1::ServiceServer {
        service: Some(messages::key(key)),
        server: Some(messages::server(server).map_err(Refusal::Director)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(line: &str) -> Command {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        super::super::parse(&words).unwrap()
    }

    fn change(rules: &mut Rules, line: &str) -> Result<Vec<Edit>, Refusal> {
        rules.change(&command(line))
    }

    #[test]
    fn local_addresses_come_and_go_with_their_service() {
        let mut rules = Rules::none();
        for (line, pools) in [
            ("-A -t 10.0.0.1:80 --laddr 10.2.0.200", vec!["10.2.0.200"]),
            (
                "-A -t 10.0.0.2:80 --laddr 10.2.0.201:5-9",
                vec!["10.2.0.200", "10.2.0.201"],
            ),
            (
                "-a -t 10.0.0.1:80 -r 10.2.0.11 --fullnat",
                vec!["10.2.0.200", "10.2.0.201"],
            ),
            (
                "-E -t 10.0.0.1:80 --laddr 10.2.0.202",
                vec!["10.2.0.202", "10.2.0.201"],
            ),
            ("-E -t 10.0.0.1:80 -s rr", vec!["10.2.0.202", "10.2.0.201"]),
            ("-D -t 10.0.0.1:80", vec!["10.2.0.201"]),
            (
                "-A -t 10.0.0.3:80 --laddr 10.2.0.203",
                vec!["10.2.0.201", "10.2.0.203"],
            ),
            ("-C", vec![]),
        ] {
            change(&mut rules, line).unwrap();
            let known = rules.configuration().lip_pools.iter();
            let known: Vec<_> = known.map(|pool| pool.addresses[0].to_string()).collect();
            assert_eq!(known, pools, "{line}");
        }
    }

    #[test]
    fn what_ipvsadm_does_not_know_stays_when_a_service_is_edited() {
        let state = v1::State {
            services: vec![v1::ServiceSettings {
                key: Some(messages::key(
                    key_of(&command("-D -t 10.0.0.1:21")).unwrap(),
                )),
                scheduler: "wlc".to_owned(),
                method: v1::Method::Nat.into(),
                helper: "ftp".to_owned(),
                slow_start_s: 30,
                ..v1::ServiceSettings::default()
            }],
            ..v1::State::default()
        };
        let mut rules = Rules::of(&state).unwrap();
        change(&mut rules, "-E -t 10.0.0.1:21 -s wlc -p 60").unwrap();
        let service = director::service_of(&rules.configuration().services[0]);
        assert_eq!((service.helper.as_str(), service.slow_start_s), ("ftp", 30));
        assert_eq!(service.persistence.unwrap().timeout_s, 60);
        change(&mut rules, "-E -t 10.0.0.1:21 -s sh").unwrap();
        let service = director::service_of(&rules.configuration().services[0]);
        assert_eq!((service.helper.as_str(), service.slow_start_s), ("ftp", 0));
    }

    #[test]
    fn what_cannot_be_done_is_told_as_the_kernel_tells_it() {
        let mut rules = Rules::none();
        for line in [
            "-A -t 10.0.0.1:80",
            "-A -u 10.0.0.1:80 -o",
            "-a -t 10.0.0.1:80 -r 10.2.0.1 -m",
        ] {
            change(&mut rules, line).unwrap();
        }
        for (line, expected) in [
            ("-A -t 10.0.0.1:80", Refusal::ServiceExists),
            ("-A -t 10.0.0.1:80 -s nosuch", Refusal::ServiceExists),
            ("-E -t 10.0.0.9:80", Refusal::NoService),
            ("-D -t 10.0.0.9:80", Refusal::NoService),
            ("-A -t 10.0.0.2:80 --pe nosuch", Refusal::NoModule),
            ("-a -t 10.0.0.9:80 -r 10.2.0.1", Refusal::ServiceNotDefined),
            (
                "-a -t 10.0.0.9:80 -r 10.2.0.1 -x 1 -y 2",
                Refusal::ServiceNotDefined,
            ),
            (
                "-a -t 10.0.0.1:80 -r 10.2.0.1 -x 1 -y 2",
                Refusal::Thresholds,
            ),
            ("-a -t 10.0.0.1:80 -r 10.2.0.1 -m", Refusal::ServerExists),
            ("-a -t 10.0.0.1:80 -r 224.0.0.1", Refusal::Invalid),
            ("-d -t 10.0.0.1:80 -r 10.2.0.2", Refusal::NoServer),
            (
                "-a -t 10.0.0.1:80 -r 10.2.0.2 --fullnat",
                Refusal::FullNat(Mistake::NoLocalAddresses),
            ),
        ] {
            assert_eq!(change(&mut rules, line).unwrap_err(), expected, "{line}");
        }
        let heavy = change(&mut rules, "-a -t 10.0.0.1:80 -r 10.2.0.2 -w 65536").unwrap_err();
        assert!(
            heavy.to_string().contains("accepted: 0 to 65535"),
            "{heavy}"
        );
        let flagged = change(&mut rules, "-A -t 10.0.0.3:80 -b flag-1").unwrap_err();
        assert!(
            flagged.to_string().contains("wlc has no such flag"),
            "{flagged}"
        );
    }

    #[test]
    fn an_edit_without_a_method_turns_nat_into_dr() {
        let mut rules = Rules::none();
        change(&mut rules, "-A -t 10.0.0.1:80").unwrap();
        change(&mut rules, "-a -t 10.0.0.1:80 -r 10.2.0.1 -m").unwrap();
        let turned = |line| turned_to_dr(&command(line), &rules);
        assert_eq!(
            turned("-e -t 10.0.0.1:80 -r 10.2.0.1 -w 2").as_deref(),
            Some("10.2.0.1:80 of tcp 10.0.0.1:80")
        );
        assert_eq!(turned("-e -t 10.0.0.1:80 -r 10.2.0.1 -g"), None);
        assert_eq!(turned("-e -t 10.0.0.1:80 -r 10.2.0.2"), None);
    }
}
