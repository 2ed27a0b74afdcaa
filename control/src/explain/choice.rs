//! What the scheduler of a service would choose.

use super::Walk;
use dataplane::reason::Reason;
use dataplane::snapshot::Service;
use scheduler::{Flow, Foresight, RealServer, foresee};
use std::net::SocketAddr;
use std::sync::Arc;

/// Servers that a sentence lists.
const LISTED: usize = 16;
/// What the choice depends on where servers take turns, and where destinations are remembered.
const TURN: &str = "on whose turn it is there: each new connection moves that on";
const REMEMBERED: &str = "on what it remembers of the destination";
/// FTP's port for commands.
const FTP: u16 = dataplane::snapshot::FTP_PORT;

impl Walk<'_> {
    /// The scheduler's choice. `is_asked` is false where it is asked only perhaps.
    pub(super) fn choose(&mut self, service: &Arc<Service>, is_asked: bool) {
        let servers = &service.servers;
        let (usable, others): (Vec<_>, Vec<_>) =
            servers.iter().partition(|server| server.is_usable());
        if !others.is_empty() {
            let others = listed(&others, |server| match server.weight.0 {
                0 => "weight 0".to_owned(),
                _ => "at its upper threshold".to_owned(),
            });
            self.say(format!("These servers get no new connections: {others}."));
        }
        let flow = Flow {
            client: self.question.source.ip(),
            client_port: self.question.source.port(),
            virtual_address: self.question.destination.ip(),
            virtual_port: self.question.destination.port(),
            protocol: self.question.protocol.number(),
        };
        let name = &*service.scheduler;
        let options = &service.scheduler_options;
        match foresee(name, options, &flow, servers) {
            _ if usable.is_empty() => self.nobody("No server is usable"),
            Foresight::Certain(Some(at)) => {
                let chosen = end(&servers[at]);
                self.say(format!(
                    "{name} chooses {chosen}, as for every flow with the same hash."
                ));
                self.chosen(service, &servers[at], is_asked);
            }
            Foresight::Certain(None) => {
                let why = format!("{name} has nobody else for flows with this hash");
                self.nobody(&why);
            }
            Foresight::ByLoad(Some(at)) => {
                let loads = listed(&usable, load);
                let chosen = end(&servers[at]);
                self.say(format!(
                    "{name} chooses {chosen}, as loads are now: {loads}."
                ));
                self.chosen(service, &servers[at], is_asked);
            }
            Foresight::ByLoad(None) => {
                let why = format!("{name} takes none of the servers as loads are now");
                self.nobody(&why);
            }
            Foresight::Open => self.open(service, &usable, is_asked),
        }
    }

    fn chosen(&mut self, service: &Arc<Service>, server: &RealServer, is_asked: bool) {
        let Some(known) = self.server(server.id) else {
            return;
        };
        if is_asked {
            self.send(service, &known);
        }
    }

    /// A choice that depends on flows before it.
    fn open(&mut self, service: &Arc<Service>, usable: &[&RealServer], is_asked: bool) {
        let name = &*service.scheduler;
        // These take none but usable ones, whatever came before.
        if let ([only], "rr" | "wrr" | "twos") = (usable, name) {
            self.say(format!("{name} chooses {}, the only one.", end(only)));
            return self.chosen(service, only, is_asked);
        }
        let (how, then) = match name {
            _ if service.scheduler_options.slow_start > 0 => (
                "gives servers that have joined a part of their weight, by when they did",
                "on the time since",
            ),
            "rr" => ("takes servers in turn, each worker by itself", TURN),
            "wrr" => (
                "takes servers in turn by weight, each worker by itself",
                TURN,
            ),
            "twos" => (
                "takes the less loaded of two drawn at random",
                "on what it draws then",
            ),
            "lblc" => (
                "takes the server that the destination had before, or else the least loaded",
                REMEMBERED,
            ),
            "lblcr" => (
                "takes one of the servers that the destination had before, or else the least loaded",
                REMEMBERED,
            ),
            _ => ("goes by what came before", "on what that one has seen"),
        };
        let loads = listed(usable, load);
        self.say(format!(
            "{name} {how}: one of {loads}. Which one depends on the worker that gets the packet and {then}; so no single one is told."
        ));
    }

    /// Nobody takes it.
    fn nobody(&mut self, why: &str) {
        if self.is_ftp() && self.question.destination.port() != FTP {
            let sentence =
                format!("{why}, and it asks FTP's service for another port: it is the kernel's.");
            return self.end(super::Verdict::Left, sentence);
        }
        let why = format!("{why}, and its sender is told that the port is unreachable");
        self.drop(Reason::NoServer, &why);
    }

    /// Whether the service that was found is FTP's.
    fn is_ftp(&self) -> bool {
        self.told.service.is_some_and(|listen| listen.port() == FTP)
    }
}

fn end(server: &RealServer) -> String {
    match server.port {
        // Whatever the client asks for.
        0 => server.address.to_string(),
        port => SocketAddr::new(server.address, port).to_string(),
    }
}

fn load(server: &RealServer) -> String {
    format!(
        "weight {}, {} active, {} inactive",
        server.weight.0,
        server.load.active(),
        server.load.inactive()
    )
}

/// Servers and what is to be said of each, as many as a sentence bears.
fn listed(servers: &[&RealServer], about: impl Fn(&RealServer) -> String) -> String {
    let told = servers.iter().take(LISTED);
    let mut told: Vec<_> = told
        .map(|server| format!("{} ({})", end(server), about(server)))
        .collect();
    if servers.len() > LISTED {
        told.push(format!("and {} more", servers.len() - LISTED));
    }
    told.join(", ")
}
