//! The kernel's way of managing IPVS, for unmodified `ipvsadm`, `keepalived` and `ldirectord`: generic netlink, family "IPVS",
//! over a Unix socket of whole datagrams. The preload library (`control/preload`) brings the programs here.
//!
//! ```text
//!   ipvsadm ─ libnl ─ sendmsg ─▶ preload library ─▶ socket ─▶ wire ─▶ request ─▶ Manager::change
//!                                                               ◀── dump, acknowledgement, errno
//! ```
//!
//! Answers are those of the kernel, errors by the same numbers. What uvs has beyond it: a FULLNAT server is told as
//! masquerading, which is what old tools know, and stays FULLNAT when they change its weight.
//!
//! Differs from IPVS: daemons of synchronisation are remembered and told, and nothing is synchronised.
//!
//! Source: Linux net/netfilter/ipvs/ip_vs_ctl.c (behaviour), include/uapi/linux/ip_vs.h.

mod daemons;
mod dump;
mod files;
mod numbers;
mod refusal;
mod request;
mod socket;
mod wire;

pub use socket::serve;

use crate::config::{Configuration, Listen, Service, TimeoutSettings, keys};
use crate::guard::{self, Role, Roles, WrittenBy};
use crate::manage::{Actor, Edit, Manager, Terms, Wish};
use crate::proc::File;
use crate::status::ServiceStatus;
use daemons::{Daemon, Daemons};
use numbers::{command, control, info, message, top};
use parking_lot::Mutex;
use refusal::Refusal;
use rustix::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};
use wire::{Attributes, Body, Header, Message, Writer};

/// How old a listing may be: a client that lists services one by one does not make each of them anew.
const LISTING_AGE: Duration = Duration::from_millis(100);

/// What the director is, to clients of the kernel's IPVS. See the module's text.
pub struct Netlink {
    manager: Arc<Manager>,
    daemons: Mutex<Daemons>,
    listing: Mutex<Option<(Instant, Arc<[ServiceStatus]>)>>,
}

/// What a datagram is answered with.
#[derive(Debug, Default)]
pub struct Answer {
    /// In this order.
    pub datagrams: Vec<Vec<u8>>,
    /// An open file that goes with the first of them.
    pub file: Option<OwnedFd>,
    /// What is to be written into the audit log, beside changes: the method of `uvs.v1` that does the same, and why it was refused.
    pub noted: Vec<(&'static str, Option<String>)>,
}

/// What a message leads to, beside messages of its own.
enum Reply {
    /// An acknowledgement, if it was asked for.
    Done,
    /// The end of a listing.
    Listed,
    /// A file.
    File(OwnedFd),
}

impl Netlink {
    /// Of a director.
    #[must_use]
    pub fn new(manager: Arc<Manager>) -> Netlink {
        Netlink {
            manager,
            daemons: Mutex::default(),
            listing: Mutex::default(),
        }
    }

    /// Answers a datagram of whoever `actor` is, as far as his roles let him ask.
    #[must_use]
    pub fn answer(&self, datagram: &[u8], actor: &Actor, roles: Roles) -> Answer {
        let mut writer = Writer::default();
        let mut file = None;
        let mut noted = Vec::new();
        for asked in wire::messages(datagram) {
            let Header { kind, flags, .. } = asked.header;
            let is_request = flags & message::REQUEST != 0 && kind >= message::FIRST_TYPE;
            let reply = match is_request {
                // Netlink's own messages are acknowledged and mean nothing.
                false => Ok(Reply::Done),
                true => self.request(&asked, actor, roles, &mut writer),
            };
            if is_request && let Some(note) = note(&asked, &reply) {
                noted.push(note);
            }
            let code = match reply {
                Ok(Reply::Done) if flags & message::ACK != 0 => 0,
                Ok(Reply::Done) => continue,
                Ok(Reply::Listed) => {
                    let header = reply_to(&asked, message::DONE, message::MULTI);
                    writer.message(header, |body| body.raw(&[0; 4]));
                    continue;
                }
                Ok(Reply::File(opened)) => {
                    file = Some(opened);
                    0
                }
                Err(refusal) => {
                    if refusal.is_telling() {
                        tracing::info!("netlink, {}: refused: {refusal}", actor.name);
                    }
                    refusal.errno().raw_os_error()
                }
            };
            acknowledge(&mut writer, &asked, code);
        }
        Answer {
            datagrams: writer.finish(),
            file,
            noted,
        }
    }

    fn request(
        &self,
        asked: &Message<'_>,
        actor: &Actor,
        roles: Roles,
        writer: &mut Writer,
    ) -> Result<Reply, Refusal> {
        let need = |role: Role| match roles.has(role) {
            true => Ok(()),
            false => Err(Refusal::Forbidden(role)),
        };
        need(Role::Viewer)?;
        let Some((&[command, _, _, _], attributes)) = asked.payload().split_first_chunk() else {
            return Err(Refusal::Malformed);
        };
        let attributes = Attributes::parse(attributes)?;
        match asked.header.kind {
            message::CONTROL => {
                family(asked, command, attributes, writer)?;
                Ok(Reply::Done)
            }
            numbers::FAMILY => match command {
                command::GET_SERVICE
                | command::GET_DEST
                | command::GET_DAEMON
                | command::GET_CONFIG
                | command::GET_INFO => self.get(asked, command, attributes, writer),
                _ => {
                    need(Role::Operator)?;
                    self.set(command, attributes, actor).map(|()| Reply::Done)
                }
            },
            numbers::FILE => {
                let file = files::named(attributes)?;
                if file == File::Connections {
                    need(Role::Capture)?;
                }
                files::open(self, file).map(Reply::File)
            }
            other => Err(Refusal::Unknown(other.to_string())),
        }
    }

    fn get(
        &self,
        asked: &Message<'_>,
        command: u8,
        attributes: Attributes<'_>,
        writer: &mut Writer,
    ) -> Result<Reply, Refusal> {
        let is_dump = asked.header.flags & message::DUMP == message::DUMP;
        let mut tell = |flags, command, fill: &mut dyn FnMut(&mut Body<'_>)| {
            writer.message(reply_to(asked, numbers::FAMILY, flags), |body| {
                body.command(command, numbers::FAMILY_VERSION);
                fill(body);
            });
        };
        match command {
            command::GET_SERVICE if is_dump => {
                for service in self.listing().iter() {
                    tell(message::MULTI, command::NEW_SERVICE, &mut |body| {
                        dump::put_service(body, service);
                    });
                }
                return Ok(Reply::Listed);
            }
            command::GET_DEST if is_dump => {
                // A listing of what is not there is empty, as in the kernel.
                if let Ok(service) = self.listed(attributes) {
                    for server in service.servers.iter().rev() {
                        tell(message::MULTI, command::NEW_DEST, &mut |body| {
                            dump::put_server(body, server);
                        });
                    }
                }
                return Ok(Reply::Listed);
            }
            command::GET_DAEMON if is_dump => {
                for (state, daemon) in self.daemons.lock().running() {
                    tell(message::MULTI, command::NEW_DAEMON, &mut |body| {
                        dump::put_daemon(body, state, daemon);
                    });
                }
                return Ok(Reply::Listed);
            }
            command::GET_SERVICE => {
                let service = self.listed(attributes)?;
                tell(0, command::NEW_SERVICE, &mut |body| {
                    dump::put_service(body, &service);
                });
            }
            command::GET_CONFIG => {
                let timeouts = self.with(|configuration| configuration.timeouts);
                tell(0, command::SET_CONFIG, &mut |body| {
                    body.u32(top::TIMEOUT_TCP, timeouts.tcp);
                    body.u32(top::TIMEOUT_TCP_FIN, timeouts.tcp_fin);
                    body.u32(top::TIMEOUT_UDP, timeouts.udp);
                });
            }
            command::GET_INFO => {
                let size = self.table_size();
                tell(0, command::SET_INFO, &mut |body| {
                    body.u32(info::VERSION, numbers::IPVS_VERSION);
                    body.u32(info::TABLE_SIZE, size);
                });
            }
            other => return Err(Refusal::Command(other)),
        }
        Ok(Reply::Done)
    }

    fn set(&self, command: u8, attributes: Attributes<'_>, actor: &Actor) -> Result<(), Refusal> {
        let edit = match command {
            command::NEW_SERVICE
            | command::SET_SERVICE
            | command::DEL_SERVICE
            | command::NEW_DEST
            | command::SET_DEST
            | command::DEL_DEST => self.edit(command, attributes)?,
            command::SET_CONFIG => {
                let timeouts = self.with(|configuration| configuration.timeouts);
                Edit::SetTimeouts(wanted_timeouts(attributes, timeouts)?)
            }
            command::FLUSH => Edit::Clear,
            command::ZERO => return self.zero(attributes),
            command::NEW_DAEMON => return self.daemons.lock().start(attributes),
            command::DEL_DAEMON => return self.daemons.lock().stop(attributes),
            other => return Err(Refusal::Command(other)),
        };
        let wish = Wish::Edits(vec![edit]);
        self.manager.change(&wish, Terms::default(), actor)?;
        *self.listing.lock() = None;
        Ok(())
    }

    /// Sets the counters of the service that is named, or of all, to 0.
    fn zero(&self, attributes: Attributes<'_>) -> Result<(), Refusal> {
        let of_service = attributes.nested(top::SERVICE)?;
        let listen = of_service.map(request::listen).transpose()?;
        let is_there = self.manager.director().zero_counters(listen);
        *self.listing.lock() = None;
        match listen {
            Some(listen) if !is_there => Err(Refusal::NoService(listen)),
            _ => Ok(()),
        }
    }

    /// A change of a service or of a server.
    fn edit(&self, command: u8, attributes: Attributes<'_>) -> Result<Edit, Refusal> {
        let of_service = attributes.nested(top::SERVICE)?;
        let of_service = of_service.ok_or(Refusal::Missing("service"))?;
        let listen = request::listen(of_service)?;
        let old = self.with(|configuration| find(configuration, listen).cloned());
        if command == command::NEW_SERVICE {
            let service = request::service(of_service, listen, None)?;
            return match old {
                None => Ok(Edit::CreateService(service)),
                Some(_) => Err(Refusal::ServiceExists(listen)),
            };
        }
        let old = old.ok_or(Refusal::NoService(listen))?;
        match command {
            command::SET_SERVICE => {
                let service = request::service(of_service, listen, Some(&old))?;
                return Ok(Edit::UpdateService(service));
            }
            command::DEL_SERVICE => return Ok(Edit::DeleteService(listen)),
            _ => {}
        }
        let of_server = attributes.nested(top::DEST)?;
        let of_server = of_server.ok_or(Refusal::Missing("server"))?;
        let address = request::server_address(of_server, &old)?;
        let known = request::known_address(&old, address);
        let server = |old_server| request::server(of_server, &old, address, old_server);
        Ok(match command {
            command::NEW_DEST => Edit::CreateServer(listen, server(None)?),
            command::DEL_DEST => Edit::DeleteServer(listen, known),
            _ => {
                let old_server = old.servers.iter().find(|server| server.address == known);
                let mut server = server(old_server)?;
                server.address = known;
                Edit::UpdateServer(listen, server)
            }
        })
    }

    fn with<T>(&self, look: impl FnOnce(&Configuration) -> T) -> T {
        look(&self.manager.director().current.lock().configuration)
    }

    /// The services as they are now, or were a moment ago.
    fn listing(&self) -> Arc<[ServiceStatus]> {
        let mut kept = self.listing.lock();
        if let Some((made, listing)) = &*kept
            && made.elapsed() < LISTING_AGE
        {
            return Arc::clone(listing);
        }
        let listing = Arc::from(self.manager.director().services());
        *kept = Some((Instant::now(), Arc::clone(&listing)));
        listing
    }

    /// The service that the attributes name.
    fn listed(&self, attributes: Attributes<'_>) -> Result<ServiceStatus, Refusal> {
        let of_service = attributes.nested(top::SERVICE)?;
        let listen = request::listen(of_service.ok_or(Refusal::Missing("service"))?)?;
        let listing = self.listing();
        // They are in order.
        let place = listing.binary_search_by_key(&listen, |service| service.listen);
        let place = place.map_err(|_| Refusal::NoService(listen))?;
        Ok(listing[place].clone())
    }

    /// Room for connections of a family, which is what the kernel's size of its table tells most nearly.
    fn table_size(&self) -> u32 {
        self.manager.director().settings.connections
    }
}

fn find(configuration: &Configuration, listen: Listen) -> Option<&Service> {
    let mut services = configuration.services.iter();
    services.find(|service| service.listen == listen)
}

/// What a message of the reply begins with.
fn reply_to(asked: &Message<'_>, kind: u16, flags: u16) -> Header {
    Header {
        kind,
        flags,
        ..asked.header
    }
}

/// What the audit log is to tell of a request: refusals, looks at connections, counters that begin anew.
fn note(
    asked: &Message<'_>,
    reply: &Result<Reply, Refusal>,
) -> Option<(&'static str, Option<String>)> {
    let (&[command, ..], attributes) = asked.payload().split_first_chunk::<4>()?;
    let shows_connections = || {
        let file = Attributes::parse(attributes).and_then(files::named);
        matches!(file, Ok(File::Connections))
    };
    let method = match asked.header.kind {
        numbers::FILE if shows_connections() => "/uvs.v1.Connections/ListConnections",
        numbers::FAMILY => match command {
            command::ZERO => "/uvs.v1.Director/ZeroCounters",
            command::GET_SERVICE
            | command::GET_DEST
            | command::GET_DAEMON
            | command::GET_CONFIG
            | command::GET_INFO => "/uvs.v1.Director/ListServices",
            _ => "/uvs.v1.Configuration/Change",
        },
        _ => "/uvs.v1.Director/ListServices",
    };
    let is_written = guard::needed(method).is_some_and(|(_, by)| by == WrittenBy::Guard);
    match reply {
        Err(refusal @ Refusal::Forbidden(_)) => Some((method, Some(refusal.to_string()))),
        Ok(_) if is_written => Some((method, None)),
        _ => None,
    }
}

/// An error, or that there was none: 0. An error repeats the message.
///
/// By itself, as the kernel sends it: clients read an answer, then wait for this.
fn acknowledge(writer: &mut Writer, asked: &Message<'_>, code: i32) {
    writer.cut();
    let flags = if code == 0 { message::CAPPED } else { 0 };
    writer.message(reply_to(asked, message::ERROR, flags), |body| {
        body.raw(&(-code).to_ne_bytes());
        if code == 0 {
            body.raw(&asked.whole[..message::HEADER_LEN]);
        } else {
            body.raw(asked.whole);
        }
    });
    writer.cut();
}

/// nlctrl: the number of family IPVS, the only one there is.
fn family(
    asked: &Message<'_>,
    command: u8,
    attributes: Attributes<'_>,
    writer: &mut Writer,
) -> Result<(), Refusal> {
    if command != control::GET_FAMILY {
        return Err(Refusal::Command(command));
    }
    let name = attributes.name(control::FAMILY_NAME, numbers::NAME_LEN)?;
    let number = attributes.u16(control::FAMILY_ID)?;
    let is_ours = match (name, number) {
        (Some(name), _) => name == numbers::FAMILY_NAME,
        (None, Some(number)) => number == numbers::FAMILY,
        (None, None) => true,
    };
    if !is_ours {
        let asked = name.map_or_else(|| format!("{number:?}"), str::to_owned);
        return Err(Refusal::Unknown(asked));
    }
    writer.message(reply_to(asked, message::CONTROL, 0), |body| {
        body.command(control::NEW_FAMILY, control::VERSION);
        body.name(control::FAMILY_NAME, numbers::FAMILY_NAME);
        body.u16(control::FAMILY_ID, numbers::FAMILY);
        body.u32(control::FAMILY_VERSION, numbers::FAMILY_VERSION.into());
        body.u32(control::HEADER_SIZE, 0);
        body.u32(control::LARGEST_ATTRIBUTE, top::LARGEST);
    });
    Ok(())
}

/// Those that are asked for; 0 keeps what there is.
fn wanted_timeouts(
    attributes: Attributes<'_>,
    now: TimeoutSettings,
) -> Result<TimeoutSettings, Refusal> {
    let wanted = |kind, name, now| match attributes.u32(kind)? {
        None | Some(0) => Ok(now),
        Some(seconds) => request::within(&keys::TIMEOUTS, name, seconds),
    };
    Ok(TimeoutSettings {
        tcp: wanted(top::TIMEOUT_TCP, "tcp", now.tcp)?,
        tcp_fin: wanted(top::TIMEOUT_TCP_FIN, "tcp_fin", now.tcp_fin)?,
        udp: wanted(top::TIMEOUT_UDP, "udp", now.udp)?,
    })
}

#[cfg(test)]
mod tests;
