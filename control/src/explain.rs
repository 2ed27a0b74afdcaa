//! What would become of a packet, and why: the director's decision in sentences, in the order in which it is made.
//!
//! ```text
//!   where from ─▶ whose address ─▶ connection? ─▶ expected? ─▶ mark, service? ─▶ template? ─▶ scheduler ─▶ next hop
//! ```
//! Nothing is changed and no worker is asked: tables are looked up, and a scheduler's choice is foretold only where it follows
//! from what is there. What depends on the packet's contents, on its size or on flows before it, is said to.

mod choice;
mod known;
mod words;

use crate::config::{Listen, Protocol, method_word};
use crate::connections::{self, ConnectionView};
use crate::director::Director;
use conntrack::{Direction, Method};
use dataplane::port::{Mac, PortId};
use dataplane::reason::Reason;
use dataplane::snapshot::{Engine, Server, Service, Snapshot};
use dataplane::worker::{self, Prospect, prospect, server_port};
use scheduler::RealServerId;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use words::{family, first_packets, found_by, owner, remembered};

/// A packet that is asked about.
#[derive(Clone, Debug)]
pub struct Question {
    /// Of what.
    pub protocol: Protocol,
    /// Who sends it; the port is not 0.
    pub source: SocketAddr,
    /// To whom; the port is not 0.
    pub destination: SocketAddr,
    /// The port (NIC) that it comes in by; `None`: the one where the way back to its sender leads.
    pub port: Option<String>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuestionError {
    /// The director has no such port.
    #[error("{name:?} is not the name of a port; accepted: {accepted}")]
    NoPort {
        /// What was asked for.
        name: String,
        /// The names there are.
        accepted: String,
    },
    /// Source and destination are of two families.
    #[error(
        "{destination} is not of the source's family; accepted: an address as {source_address} is one"
    )]
    Families {
        /// Of the sender.
        source_address: IpAddr,
        /// Of whom it asks.
        destination: IpAddr,
    },
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// To a real server, or back to a client.
    Forwarded,
    /// It is the kernel's, or nobody's.
    Left,
    /// For a reason.
    Dropped(Reason),
}

/// Where a packet goes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// The port's name.
    pub port: String,
    /// The neighbour that it is handed to.
    pub next_hop: IpAddr,
    /// Its hardware address, if known.
    pub mac: Option<Mac>,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// In sentences, in the order in which the director decides.
    pub steps: Vec<String>,
    /// What becomes of it.
    pub verdict: Verdict,
    /// The service that it is for.
    pub service: Option<Listen>,
    /// What remembers its client.
    pub template: Option<ConnectionView>,
    /// The connection that it is of.
    pub connection: Option<ConnectionView>,
    /// The server that it goes to, or comes from. `None` where that depends on what came before.
    pub server: Option<SocketAddr>,
    /// How it is sent on.
    pub method: Option<Method>,
    /// Where to.
    pub way: Option<Way>,
}

impl Director {
    /// What would become of a packet.
    ///
    /// # Errors
    /// When the question makes no sense here.
    pub fn explain(&self, question: &Question) -> Result<Explanation, QuestionError> {
        let (source, destination) = (question.source, question.destination);
        if source.is_ipv4() != destination.is_ipv4() {
            return Err(QuestionError::Families {
                source_address: source.ip(),
                destination: destination.ip(),
            });
        }
        let snapshot = self.publisher.current();
        let (port, came) = self.way_in(&snapshot, question)?;
        let packet = worker::Question {
            port,
            protocol: question.protocol.number(),
            source,
            destination,
        };
        let prospect = prospect(&snapshot, &self.tables, &packet).unwrap_or_default();
        let mut walk = Walk {
            director: self,
            snapshot: &snapshot,
            question,
            told: Explanation {
                steps: vec![came],
                verdict: Verdict::Forwarded,
                service: None,
                template: None,
                connection: None,
                server: None,
                method: None,
                way: None,
            },
        };
        walk.decide(&prospect);
        Ok(walk.told)
    }

    /// The port that the packet comes in by, and a sentence about it.
    fn way_in(
        &self,
        snapshot: &Snapshot,
        question: &Question,
    ) -> Result<(PortId, String), QuestionError> {
        let numbered = || (0u16..).map(PortId).zip(&self.ports);
        let name = |id: PortId| {
            let port = self.ports.get(usize::from(id.0));
            port.map_or("", |port| &port.name).to_owned()
        };
        if let Some(wanted) = &question.port {
            let port = numbered().find(|(_, port)| port.name == *wanted);
            let (id, _) = port.ok_or_else(|| {
                let names = self.ports.iter().map(|port| port.name.as_str());
                QuestionError::NoPort {
                    name: wanted.clone(),
                    accepted: names.collect::<Vec<_>>().join(", "),
                }
            })?;
            return Ok((id, format!("It comes in by port {wanted}.")));
        }
        let source = question.source.ip();
        Ok(match snapshot.routes.lookup(source) {
            Some((id, _)) => (
                id,
                format!(
                    "It comes in by port {}, where the way to {source} leads; no port was named.",
                    name(id)
                ),
            ),
            None => (
                PortId(0),
                format!(
                    "It comes in by port {}, the first; no port was named, and there is no route to {source}.",
                    name(PortId(0))
                ),
            ),
        })
    }
}

/// On the way through a decision.
struct Walk<'d> {
    director: &'d Director,
    snapshot: &'d Snapshot,
    question: &'d Question,
    told: Explanation,
}

impl Walk<'_> {
    fn say(&mut self, sentence: impl Into<String>) {
        self.told.steps.push(sentence.into());
    }

    /// Says the last sentence.
    fn end(&mut self, verdict: Verdict, sentence: impl Into<String>) {
        self.told.verdict = verdict;
        self.say(sentence);
    }

    fn drop(&mut self, reason: Reason, why: &str) {
        let sentence = format!("{why}: it is dropped ({}).", reason.name());
        self.end(Verdict::Dropped(reason), sentence);
    }

    fn decide(&mut self, prospect: &Prospect) {
        let (source, destination) = (self.question.source, self.question.destination);
        if words::is_nobodys(source.ip()) {
            return self.drop(
                Reason::BadSource,
                &format!("{} is no address that a packet may come from", source.ip()),
            );
        }
        let ipv6 = destination.is_ipv6();
        let mut keys = self.snapshot.services.keys();
        if !keys.any(|key| key.address.is_ipv6() == ipv6) {
            return self.end(
                Verdict::Left,
                format!(
                    "There is no service of {}: all such packets are the kernel's.",
                    family(ipv6)
                ),
            );
        }
        let owned = self.snapshot.owned.get(&destination.ip());
        self.say(format!("{} is {}.", destination.ip(), owner(owned)));
        if let Some((id, direction)) = prospect.connection
            && let Some(view) = connections::one(self.director, ipv6, id)
        {
            if self.of_connection(view, direction) {
                return;
            }
        } else {
            self.say("It belongs to no connection that is there.");
            if let Some(id) = prospect.expected
                && let Some(view) = connections::one(self.director, ipv6, id)
            {
                self.say("A helper expects it: it begins a connection that was announced.");
                self.of_connection(view, Direction::Request);
                return;
            }
        }
        self.new_flow(prospect);
    }

    fn server(&self, id: RealServerId) -> Option<Arc<Server>> {
        self.snapshot.servers.get(id.0 as usize)?.clone()
    }

    /// A packet of no connection.
    fn new_flow(&mut self, prospect: &Prospect) {
        let source = self.question.source;
        if self.snapshot.owned.contains_key(&source.ip()) {
            return self.drop(
                Reason::BadSource,
                &format!(
                    "{} is the director's own, from where nothing comes in",
                    source.ip()
                ),
            );
        }
        if !self.snapshot.marks.is_empty() {
            self.say(match prospect.mark {
                Some(mark) => format!("The first rule that matches gives it mark {mark}."),
                None => "No rule gives it a mark.".to_owned(),
            });
        }
        let Some((service, by)) = &prospect.service else {
            return self.of_no_service();
        };
        let listen = words::listen(service, *by, self.question.protocol);
        self.told.service = Some(listen);
        self.say(found_by(&listen, *by));
        if prospect.is_kernels {
            return self.end(
                Verdict::Left,
                "It looks like data of FTP that no helper expects: it is the kernel's.",
            );
        }
        self.say(first_packets(self.question.protocol, &self.snapshot.ipvs));
        if self.snapshot.ipvs.drop_packet != 0 {
            self.say(format!(
                "drop_packet is {}: while the defence is at work, some packets that would begin connections are dropped (drop-packet).",
                self.snapshot.ipvs.drop_packet
            ));
        }
        if prospect.is_flooded && self.question.protocol != Protocol::Udp {
            self.say("Half-open connections fill their share of the table: a client's first attempt is dropped (half-open-full), and gets in when it comes again.");
        }
        self.schedule(prospect, service);
    }

    /// What nobody serves.
    fn of_no_service(&mut self) {
        let source = self.question.source;
        let protocol = self.question.protocol.number();
        let speaks = |service: &&Arc<Service>| {
            let mut servers = service.servers.iter();
            service.key.protocol == protocol
                && servers.any(|server| {
                    let by_nat = self
                        .server(server.id)
                        .is_some_and(|at| at.method == Method::Nat);
                    by_nat && SocketAddr::new(server.address, server.port) == source
                })
        };
        let speaker = self.snapshot.services.values().find(speaks).cloned();
        let none = format!(
            "No service has {} {}.",
            self.question.protocol, self.question.destination
        );
        self.say(none);
        if let Some(service) = &speaker
            && service
                .persistence
                .is_some_and(|found| found.engine == Some(Engine::Sip))
        {
            self.say("It comes from a server that keeps calls together: with a Call-ID it would be sent to the client as the service's.");
        }
        if speaker.is_some() && self.snapshot.ipvs.nat_icmp_send {
            return self.drop(
                Reason::NoConnection,
                "It comes from a NAT server, and nat_icmp_send is on: its sender is told that the port is unreachable, unless it is a reset",
            );
        }
        self.end(Verdict::Left, "It is the kernel's.");
    }

    /// Which server, and on to it.
    fn schedule(&mut self, prospect: &Prospect, service: &Arc<Service>) {
        if let Some(persistence) = &service.persistence {
            if persistence.engine.is_some() {
                self.say("The service goes by the Call-ID in the packet: a call that is remembered goes to its server, a message without one is dropped (no-call-id), and for a new call the scheduler is asked.");
                return self.choose(service, false);
            }
            let remembers = prospect.template;
            let view = remembers
                .and_then(|id| connections::one(self.director, self.question.source.is_ipv6(), id));
            if let (Some(id), Some(view)) = (remembers, view)
                && let Some(server) = self.server_of(id, view.is_ipv6())
            {
                let weight = service.servers.iter().find(|at| at.id == server.id);
                let drained = weight.is_some_and(|at| at.weight.0 == 0);
                let quiescent = drained && self.snapshot.ipvs.expire_quiescent_template;
                self.say(remembered(&view));
                if server.present && !quiescent {
                    self.told.template = Some(view);
                    return self.send(service, &server);
                }
                self.say("That server takes no connections any more: it is forgotten.");
            } else {
                self.say("The service is persistent, and nothing remembers its client: the choice will be.");
            }
        }
        self.choose(service, true);
    }

    /// Sends a new flow to a server.
    fn send(&mut self, service: &Arc<Service>, server: &Arc<Server>) {
        let virtual_port = self.question.destination.port();
        let port = server_port(service, server.port, virtual_port);
        let end = SocketAddr::new(server.address, port);
        self.told.server = Some(end);
        self.told.method = Some(server.method);
        let mut sentence = format!("It goes to {end} by {}", method_word(server.method));
        if service.one_packet
            && self.question.protocol == Protocol::Udp
            && server.method != Method::FullNat
        {
            sentence.push_str(", by itself: the service makes no connections.");
        } else {
            sentence.push_str(", and begins a connection of the worker that gets it.");
        }
        self.say(sentence);
        if server.method == Method::FullNat {
            let count = service.local_addresses.len();
            if count == 0 {
                return self.drop(
                    Reason::LipPortsExhausted,
                    "The service has no local address of its family",
                );
            }
            self.say(format!(
                "The server sees one of {count} local addresses; where no port is free it would be dropped (lip-ports-exhausted)."
            ));
        }
        let client = self.question.source.ip();
        if server.method.sees_replies() && self.snapshot.routes.lookup(client).is_none() {
            return self.drop(
                Reason::NoRoute,
                &format!("There is no route back to {client}"),
            );
        }
        self.towards_server(server);
    }

    fn towards_server(&mut self, server: &Arc<Server>) {
        self.by(server.next_hop.port, server.next_hop.address);
    }

    fn towards(&mut self, destination: IpAddr) {
        match self.snapshot.routes.lookup(destination) {
            Some((port, next_hop)) => self.by(port, next_hop),
            None => self.drop(
                Reason::NoRoute,
                &format!("There is no route to {destination}"),
            ),
        }
    }

    /// Leaves by a port to a neighbour.
    fn by(&mut self, port: PortId, next_hop: IpAddr) {
        let known = self.director.neighbours.list().into_iter();
        let known = known.filter(|(at, address, ..)| *at == port && *address == next_hop);
        let (mac, state) = known
            .map(|(_, _, mac, state)| (mac, state))
            .next()
            .unwrap_or((None, "not asked for yet"));
        let name = self.director.ports.get(usize::from(port.0));
        let name = name.map_or("", |port| &port.name).to_owned();
        self.told.way = Some(Way {
            port: name.clone(),
            next_hop,
            mac,
        });
        match mac {
            Some(mac) => self.say(format!("It leaves by port {name} to {next_hop} ({mac}, {state}).")),
            None if state == "failed" => self.drop(
                Reason::NeighbourUnreachable,
                &format!("It would leave by port {name} to {next_hop}, which did not answer and is asked again"),
            ),
            None => self.say(format!(
                "It leaves by port {name} to {next_hop}, whose hardware address is not known ({state}): it waits until that answers, 3 s at most."
            )),
        }
    }
}
