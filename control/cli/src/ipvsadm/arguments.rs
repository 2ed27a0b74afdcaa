//! A command line becomes a [`Command`], or a [`Mistake`].
//!
//! Mistakes are looked for in the order in which ipvsadm 1.31 finds them: word by word, then stray words, then options that
//! the command does not know or lacks, then what the values mean together.

use super::address::{endpoint, mask, number, timeout};
use super::options::{Meaning, Met, Options, Verb, What};
use super::{
    Columns, Command, Daemon, List, LocalAddresses, Mask, Method, Mistake, Persistence, Protocol,
    Role, Server, Service, ServiceKey, Subject, Tunnel, TunnelChecksum,
};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

/// `-p` without a value, seconds.
const PERSISTENCE_S: u32 = 360;
const SCHEDULER: &str = "wlc";
/// The interface of a daemon that is told none.
const INTERFACE: &str = "eth0";
const WEIGHT_MAX: u32 = i32::MAX.unsigned_abs();

/// Reads what stands behind the program's name.
///
/// Host and service names are looked up, so it may take as long as that takes.
///
/// # Errors
/// When it is not a command line of ipvsadm; the mistake has its text and exit status.
pub fn parse(words: &[String]) -> Result<Command, Mistake> {
    if words.is_empty() {
        return Ok(Command::List(Line::new(Verb::List).list()));
    }
    let mut options = Options::new(words);
    let first = options.next().ok_or(Mistake::NoCommand)?;
    let Ok(Met {
        meaning: Meaning::Command(verb),
        value,
        ..
    }) = first
    else {
        return Err(Mistake::NoCommand);
    };
    let mut line = Line::new(verb);
    line.role = role(verb, value)?;
    while let Some(met) = options.next() {
        line.take(met?)?;
    }
    if matches!(verb, Verb::Version | Verb::Help) {
        return line.command();
    }
    let mut stray = options.stray.into_iter();
    if verb == Verb::Set {
        for seconds in &mut line.timeouts {
            *seconds = timeout(&stray.next().ok_or(Mistake::ThreeTimeouts)?, 0)?;
        }
    }
    if let Some(word) = stray.next() {
        return Err(Mistake::Stray(word));
    }
    line.check_options()?;
    line.command()
}

fn role(verb: Verb, value: Option<String>) -> Result<Role, Mistake> {
    match (verb, value.as_deref()) {
        (Verb::StartDaemon, Some("master")) | (Verb::StopDaemon, Some("master")) => {
            Ok(Role::Master)
        }
        (Verb::StartDaemon, Some("backup")) | (Verb::StopDaemon, Some("backup")) => {
            Ok(Role::Backup)
        }
        (Verb::StartDaemon, _) => Err(Mistake::IllegalValue("start-daemon parameter")),
        // ipvsadm 1.31 says so.
        (Verb::StopDaemon, _) => Err(Mistake::IllegalValue("start_daemon")),
        _ => Ok(Role::Master),
    }
}

/// What a command line has said so far.
struct Line {
    verb: Verb,
    said: BTreeSet<What>,
    role: Role,
    service: Option<ServiceKey>,
    scheduler: Option<String>,
    persistence_s: u32,
    mask: Option<Mask>,
    flags: Vec<String>,
    engine: Option<String>,
    local: Option<LocalAddresses>,
    server: Option<(IpAddr, Option<u16>)>,
    method: &'static str,
    weight: u32,
    thresholds: [u32; 2],
    tunnel: &'static str,
    tunnel_port: u16,
    timeouts: [u32; 3],
    daemon: Daemon,
}

impl Line {
    fn new(verb: Verb) -> Line {
        Line {
            verb,
            said: BTreeSet::new(),
            role: Role::Master,
            service: None,
            scheduler: None,
            persistence_s: PERSISTENCE_S,
            mask: None,
            flags: Vec::new(),
            engine: None,
            local: None,
            server: None,
            method: "gatewaying",
            weight: 1,
            thresholds: [0; 2],
            tunnel: "ipip",
            tunnel_port: 0,
            timeouts: [0; 3],
            daemon: Daemon {
                role: Role::Master,
                interface: INTERFACE.to_owned(),
                sync_id: 0,
                len_max: 0,
                group: None,
                port: 0,
                ttl: 0,
            },
        }
    }

    fn has(&self, what: What) -> bool {
        self.said.contains(&what)
    }

    /// Takes the next option over.
    fn take(&mut self, met: Met) -> Result<(), Mistake> {
        let what = match met.meaning {
            Meaning::Command(_) => return Err(Mistake::SecondCommand(met.word)),
            Meaning::Sorted => return Ok(()),
            Meaning::Ipv6 => {
                let Some(ServiceKey::Mark { ipv6, .. }) = &mut self.service else {
                    return Err(Mistake::SixBeforeMark);
                };
                *ipv6 = true;
                return Ok(());
            }
            Meaning::Option(what) => what,
        };
        if !self.said.insert(what) {
            return Err(Mistake::Repeated(what.name()));
        }
        let value = met.value.as_deref().unwrap_or_default();
        let number =
            |least, most, what| number(value, least..=most).ok_or(Mistake::IllegalValue(what));
        let small =
            |number: u32| u16::try_from(number).expect("it was held within the bounds of 16 bits");
        match what {
            What::Service => self.service = Some(service_key(met.name, value)?),
            What::Scheduler => self.scheduler = Some(value.to_owned()),
            What::Persistent if met.value.is_some() => self.persistence_s = timeout(value, 1)?,
            What::Netmask => {
                let ipv6 = self.service.is_some_and(|service| service.is_ipv6());
                self.mask = Some(mask(value, ipv6)?);
            }
            What::Engine => self.engine = Some(value.to_owned()),
            What::LocalAddresses => {
                let local = LocalAddresses::parse(value);
                self.local = Some(local.ok_or(Mistake::IllegalValue("local address"))?);
            }
            What::Flags => {
                let flags = value.split(',').filter(|flag| !flag.is_empty());
                self.flags = flags.map(str::to_owned).collect();
            }
            What::Server => {
                let protocol = match self.service {
                    Some(ServiceKey::Address(protocol, _)) => protocol,
                    _ => Protocol::Tcp,
                };
                let server = endpoint(value, protocol);
                self.server =
                    Some(server.ok_or(Mistake::IllegalValue("real server address[:port]"))?);
            }
            What::Method => self.method = met.name,
            What::Weight => self.weight = number(0, WEIGHT_MAX, "weight")?,
            What::Upper => self.thresholds[0] = number(0, WEIGHT_MAX, "u_threshold")?,
            What::Lower => self.thresholds[1] = number(0, WEIGHT_MAX, "l_threshold")?,
            What::TunnelType => {
                let types = ["ipip", "gue", "gre"];
                let known = types.into_iter().find(|known| *known == value);
                self.tunnel = known.ok_or(Mistake::IllegalValue("tunnel type"))?;
            }
            What::TunnelPort => self.tunnel_port = small(number(1, 65535, "tunnel port")?),
            What::Interface => self.daemon.interface = value.to_owned(),
            What::SyncId => {
                self.daemon.sync_id = number(0, 255, "syncid")?.to_be_bytes()[3];
            }
            What::SyncLen => self.daemon.len_max = small(number(1, 65507, "sync-maxlen")?),
            What::Group => self.daemon.group = Some(group(value)?),
            What::GroupPort => self.daemon.port = small(number(1, 65535, "mcast-port")?),
            What::GroupTtl => self.daemon.ttl = number(1, 255, "mcast-ttl")?.to_be_bytes()[3],
            _ => {}
        }
        Ok(())
    }

    /// Options that the command does not take, or lacks, or that exclude each other.
    fn check_options(&self) -> Result<(), Mistake> {
        let (needed, taken) = self.verb.options();
        let command = self.verb.name();
        for what in self.said.iter().chain(needed).collect::<BTreeSet<_>>() {
            let option = what.name();
            if !self.has(*what) {
                return Err(Mistake::Missing { option, command });
            }
            if !needed.contains(what) && !taken.contains(what) {
                return Err(Mistake::Illegal { option, command });
            }
        }
        if self.verb != Verb::List {
            return Ok(());
        }
        let subjects = [What::Connection, What::Service, What::Timeout, What::Daemon];
        let mut said = subjects
            .into_iter()
            .filter(|what| self.has(*what))
            .map(What::name);
        if let (Some(first), Some(second)) = (said.next(), said.next()) {
            return Err(Mistake::Conflict {
                first,
                second,
                command,
            });
        }
        Ok(())
    }

    fn command(&self) -> Result<Command, Mistake> {
        let service = || self.service.expect("the options were checked");
        Ok(match self.verb {
            Verb::AddService => Command::AddService(self.service()?),
            Verb::EditService => Command::EditService(self.service()?),
            Verb::DeleteService => Command::DeleteService(service()),
            Verb::AddServer => Command::AddServer(service(), self.server()?),
            Verb::EditServer => Command::EditServer {
                service: service(),
                server: self.server()?,
                method_is_said: self.has(What::Method),
            },
            Verb::DeleteServer => {
                Command::DeleteServer(service(), self.server_address(Method::Nat))
            }
            Verb::List => {
                self.check_columns()?;
                Command::List(self.list())
            }
            Verb::Zero => Command::Zero(self.service),
            Verb::Clear => Command::Clear,
            Verb::Restore => Command::Restore {
                atomic: self.has(What::Atomic),
            },
            Verb::Save => Command::Save {
                numeric: self.has(What::Numeric),
                full: self.has(What::Full),
            },
            Verb::Set => {
                let [tcp, tcp_fin, udp] = self.timeouts;
                Command::SetTimeouts { tcp, tcp_fin, udp }
            }
            Verb::StartDaemon => Command::StartDaemon(Daemon {
                role: self.role,
                ..self.daemon.clone()
            }),
            Verb::StopDaemon => Command::StopDaemon(self.role),
            Verb::Version => Command::Version,
            Verb::Help => Command::Help,
        })
    }

    fn service(&self) -> Result<Service, Mistake> {
        let key = self.service.expect("the options were checked");
        let is_persistent = self.has(What::Persistent);
        if let ServiceKey::Address(protocol, address) = key {
            if address.port() == 0 && !is_persistent {
                return Err(Mistake::ZeroPort);
            }
            if self.has(What::OnePacket) && protocol != Protocol::Udp {
                return Err(Mistake::OnePacketNotUdp);
            }
        }
        if let Some(local) = &self.local
            && !local.are_of_family(key.is_ipv6())
        {
            return Err(Mistake::LocalOfOtherFamily);
        }
        let scheduler = self
            .scheduler
            .clone()
            .unwrap_or_else(|| SCHEDULER.to_owned());
        // A mask of the other family was given before the service was known: it has no effect then.
        let whole = Mask::whole(key.is_ipv6());
        let same_family = |mask: &Mask| matches!(mask, Mask::Ipv6(_)) == key.is_ipv6();
        Ok(Service {
            key,
            flags: flags(&self.flags, &scheduler)?,
            scheduler,
            persistence: is_persistent.then(|| Persistence {
                timeout_s: self.persistence_s,
                mask: self.mask.filter(same_family).unwrap_or(whole),
            }),
            one_packet: self.has(What::OnePacket),
            engine: self.engine.clone(),
            local: self.local.clone(),
        })
    }

    fn server(&self) -> Result<Server, Mistake> {
        let service = self.service.expect("the options were checked");
        let (address, _) = self.server.expect("the options were checked");
        if address.is_ipv6() != service.is_ipv6() && self.method != "ipip" {
            return Err(Mistake::OtherFamily);
        }
        let method = match self.method {
            "masquerading" => Method::Nat,
            "ipip" => Method::Tun(self.tunnel()?),
            "fullnat" => Method::FullNat,
            _ => Method::Dr,
        };
        let tunnel_options = What::TunnelType..=What::TunnelRemoteChecksum;
        if self.method != "ipip" && self.said.range(tunnel_options).next().is_some() {
            return Err(Mistake::NotATunnel);
        }
        Ok(Server {
            address: self.server_address(method),
            method,
            weight: self.weight,
            upper: self.thresholds[0],
            lower: self.thresholds[1],
        })
    }

    /// The server's address. Where its port was not said, or DR or TUN leave it as it is, it is the service's.
    fn server_address(&self, method: Method) -> SocketAddr {
        let (address, port) = self.server.expect("the options were checked");
        let keeps_port = matches!(method, Method::Dr | Method::Tun(_));
        let port = match self.service {
            Some(ServiceKey::Address(_, service)) => {
                port.filter(|_| !keeps_port).unwrap_or(service.port())
            }
            _ => port.unwrap_or(0),
        };
        SocketAddr::new(address, port)
    }

    fn tunnel(&self) -> Result<Tunnel, Mistake> {
        let tunnel = self.tunnel;
        let illegal: &[What] = match tunnel {
            "gue" => &[],
            "gre" => &[What::TunnelPort, What::TunnelRemoteChecksum],
            _ => &[
                What::TunnelPort,
                What::TunnelNoChecksum,
                What::TunnelChecksum,
                What::TunnelRemoteChecksum,
            ],
        };
        if let Some(what) = illegal.iter().find(|what| self.has(**what)) {
            let option = what.name();
            return Err(Mistake::TunnelIllegal { option, tunnel });
        }
        if tunnel == "gue" && !self.has(What::TunnelPort) {
            let option = What::TunnelPort.name();
            return Err(Mistake::TunnelMissing { option, tunnel });
        }
        let checksums = [
            What::TunnelNoChecksum,
            What::TunnelChecksum,
            What::TunnelRemoteChecksum,
        ];
        let mut said = checksums.into_iter().filter(|what| self.has(*what));
        let checksum = said.next();
        if let (Some(first), Some(second)) = (checksum, said.next()) {
            let (first, second) = (first.name(), second.name());
            return Err(Mistake::TunnelConflict {
                first,
                second,
                tunnel,
            });
        }
        let checksum = match checksum {
            Some(What::TunnelChecksum) => TunnelChecksum::Plain,
            Some(What::TunnelRemoteChecksum) => TunnelChecksum::Remote,
            _ => TunnelChecksum::None,
        };
        Ok(match tunnel {
            "gre" => Tunnel::Gre(checksum),
            "gue" => Tunnel::Gue {
                port: self.tunnel_port,
                checksum,
            },
            _ => Tunnel::Ipip,
        })
    }

    /// Connections, timeouts and daemons have columns of their own.
    fn check_columns(&self) -> Result<(), Mistake> {
        let other = [What::Connection, What::Timeout, What::Daemon];
        let columns = [What::Statistics, What::Rate, What::Thresholds];
        let engines = [What::Timeout, What::Daemon]
            .iter()
            .any(|what| self.has(*what));
        let wrong =
            other.iter().any(|what| self.has(*what)) && columns.iter().any(|what| self.has(*what));
        if wrong || engines && self.has(What::PersistentConnections) {
            return Err(Mistake::ColumnsConflict);
        }
        Ok(())
    }

    fn list(&self) -> List {
        let subject = if self.has(What::Connection) {
            Subject::Connections
        } else if self.has(What::Timeout) {
            Subject::Timeouts
        } else if self.has(What::Daemon) {
            Subject::Daemons
        } else {
            Subject::Services(self.service)
        };
        let columns = [
            (What::Statistics, Columns::Statistics),
            (What::Rate, Columns::Rates),
            (What::Thresholds, Columns::Thresholds),
            (What::PersistentConnections, Columns::Persistent),
            (What::TunnelInfo, Columns::Tunnels),
        ];
        let said = columns.into_iter().find(|(what, _)| self.has(*what));
        List {
            subject,
            columns: said.map_or(Columns::Plain, |(_, columns)| columns),
            exact: self.has(What::Exact),
            numeric: self.has(What::Numeric),
            sorted: !self.has(What::NoSort),
            engines: self.has(What::PersistentConnections),
            json: self.has(What::Json),
        }
    }
}

fn service_key(option: &str, value: &str) -> Result<ServiceKey, Mistake> {
    let protocol = match option {
        "tcp-service" => Protocol::Tcp,
        "udp-service" => Protocol::Udp,
        "sctp-service" => Protocol::Sctp,
        _ => {
            let mark = number(value, 1..=u32::MAX).ok_or_else(|| Mistake::InvalidValue {
                what: "fwmark",
                value: value.to_owned(),
            })?;
            return Ok(ServiceKey::Mark { mark, ipv6: false });
        }
    };
    let address = endpoint(value, protocol);
    let (address, port) = address.ok_or(Mistake::IllegalValue("virtual server address[:port]"))?;
    let address = SocketAddr::new(address, port.unwrap_or(0));
    Ok(ServiceKey::Address(protocol, address))
}

fn flags(names: &[String], scheduler: &str) -> Result<[bool; 3], Mistake> {
    let mut flags = [false; 3];
    for name in names {
        let (place, of) = match name.as_str() {
            "flag-1" => (0, None),
            "flag-2" => (1, None),
            "flag-3" => (2, None),
            "sh-fallback" => (0, Some("sh")),
            "sh-port" => (1, Some("sh")),
            "mh-fallback" => (0, Some("mh")),
            "mh-port" => (1, Some("mh")),
            _ => return Err(Mistake::UnknownFlag(name.clone())),
        };
        if of.is_some_and(|of| of != scheduler) {
            return Err(Mistake::ForeignFlag(name.clone()));
        }
        flags[place] = true;
    }
    Ok(flags)
}

fn group(text: &str) -> Result<IpAddr, Mistake> {
    let family = if text.contains(':') { "IPv6" } else { "IPv4" };
    let group = text.parse().ok().filter(IpAddr::is_multicast);
    group.ok_or_else(|| Mistake::NotMulticast {
        family,
        value: text.to_owned(),
    })
}
