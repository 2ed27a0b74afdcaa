//! The rules of the kernel's tables: what it accepts, what it refuses and with which words, what it remembers.

use crate::topology::{Side, is_own};
pub use cli::ipvsadm::Refusal;
use cli::ipvsadm::{Daemon, Method, Role, Server, Service, ServiceKey};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

/// The kernel's schedulers; uvs has others besides.
const SCHEDULERS: [&str; 13] = [
    "rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "fo", "ovf", "mh",
];

/// A service and its servers, the oldest first.
#[derive(Clone, Debug)]
pub struct KernelService {
    /// As it was last described.
    pub service: Service,
    /// As they were last described.
    pub servers: Vec<Server>,
    /// How often one of them was described anew.
    pub edits: u64,
}

/// What the kernel has been told.
#[derive(Debug)]
pub struct Kernel {
    /// In the order of adding.
    pub services: Vec<KernelService>,
    /// Of ESTABLISHED, FIN_WAIT and UDP, seconds.
    pub timeouts: [u32; 3],
    /// Those that run, with everything filled in.
    pub daemons: Vec<Daemon>,
    modules: BTreeSet<String>,
}

impl Kernel {
    /// With the modules that the recordings load: schedulers that the scenario names behind `-s`, and `modules`.
    #[must_use]
    pub fn new(text: &str, modules: &[String]) -> Kernel {
        let named = |scheduler: &&str| {
            text.match_indices(&format!("-s {scheduler}"))
                .any(|(at, found)| {
                    let next = text[at + found.len()..].chars().next();
                    !next.is_some_and(|next| next.is_alphanumeric() || next == '_')
                })
        };
        let schedulers = SCHEDULERS.iter().filter(|scheduler| named(scheduler));
        Kernel {
            services: Vec::new(),
            timeouts: [900, 120, 300],
            daemons: Vec::new(),
            modules: schedulers
                .map(|name| format!("ip_vs_{name}"))
                .chain(modules.iter().cloned())
                .collect(),
        }
    }

    /// Whether a module was loaded.
    #[must_use]
    pub fn has_module(&self, name: &str) -> bool {
        self.modules.contains(name)
    }

    /// The service of a key.
    #[must_use]
    pub fn service(&self, key: &ServiceKey) -> Option<&KernelService> {
        self.services.iter().find(|known| known.service.key == *key)
    }

    /// `-A`.
    ///
    /// # Errors
    /// As the kernel.
    pub fn add_service(&mut self, service: Service) -> Result<(), Refusal> {
        if self.service(&service.key).is_some() {
            return Err(Refusal::ServiceExists);
        }
        self.check_modules(&service)?;
        self.services.push(KernelService {
            service,
            servers: Vec::new(),
            edits: 0,
        });
        Ok(())
    }

    /// `-E`.
    ///
    /// # Errors
    /// As the kernel.
    pub fn edit_service(&mut self, service: Service) -> Result<(), Refusal> {
        let place = self.place(&service.key).ok_or(Refusal::NoService)?;
        self.check_modules(&service)?;
        let mut servers = self.services[place].servers.iter();
        servers
            .try_for_each(|server| service.takes(server))
            .map_err(Refusal::FullNat)?;
        self.services[place].service = service;
        Ok(())
    }

    /// `-D`.
    ///
    /// # Errors
    /// As the kernel.
    pub fn delete_service(&mut self, key: &ServiceKey) -> Result<(), Refusal> {
        let place = self.place(key).ok_or(Refusal::NoService)?;
        self.services.remove(place);
        Ok(())
    }

    /// `-a`.
    ///
    /// # Errors
    /// As the kernel.
    pub fn add_server(&mut self, key: &ServiceKey, server: Server) -> Result<(), Refusal> {
        let place = self.place(key).ok_or(Refusal::ServiceNotDefined)?;
        let address = server.address.ip();
        if address.is_ipv6() != key.is_ipv6() && !self.daemons.is_empty() {
            return Err(Refusal::Invalid);
        }
        check_thresholds(&server)?;
        let KernelService {
            service, servers, ..
        } = &mut self.services[place];
        service.takes(&server).map_err(Refusal::FullNat)?;
        if servers.iter().any(|known| known.address == server.address) {
            return Err(Refusal::ServerExists);
        }
        if !is_unicast(address) {
            return Err(Refusal::Invalid);
        }
        servers.push(server);
        Ok(())
    }

    /// `-e`.
    ///
    /// # Errors
    /// As the kernel.
    pub fn edit_server(&mut self, key: &ServiceKey, server: Server) -> Result<(), Refusal> {
        let place = self.place(key).ok_or(Refusal::ServiceNotDefined)?;
        check_thresholds(&server)?;
        let service = &mut self.services[place];
        service.service.takes(&server).map_err(Refusal::FullNat)?;
        let mut servers = service.servers.iter_mut();
        let known = servers.find(|known| known.address == server.address);
        *known.ok_or(Refusal::NoServer)? = server;
        service.edits += 1;
        Ok(())
    }

    /// `-d`.
    ///
    /// # Errors
    /// As the kernel.
    pub fn delete_server(&mut self, key: &ServiceKey, address: SocketAddr) -> Result<(), Refusal> {
        let place = self.place(key).ok_or(Refusal::ServiceNotDefined)?;
        let servers = &mut self.services[place].servers;
        let server = servers.iter().position(|known| known.address == address);
        servers.remove(server.ok_or(Refusal::NoServer)?);
        Ok(())
    }

    /// `--set`: 0 keeps.
    pub fn set_timeouts(&mut self, seconds: [u32; 3]) {
        for (timeout, new) in self.timeouts.iter_mut().zip(seconds) {
            if new != 0 {
                *timeout = new;
            }
        }
    }

    /// `--start-daemon`.
    ///
    /// # Errors
    /// As the kernel.
    pub fn start_daemon(&mut self, mut daemon: Daemon) -> Result<(), Refusal> {
        let mut services = self.services.iter();
        let mixed = |service: &KernelService| {
            let ipv6 = service.service.key.is_ipv6();
            service
                .servers
                .iter()
                .any(|server| server.address.is_ipv6() != ipv6)
        };
        if services.any(mixed) {
            return Err(Refusal::Invalid);
        }
        if self.daemons.iter().any(|known| known.role == daemon.role) {
            return Err(Refusal::DaemonRuns);
        }
        if Side::named(&daemon.interface).is_none() {
            return Err(Refusal::NoDevice);
        }
        // An MTU of 1500 less IP and UDP headers.
        let room = if daemon.group.is_some_and(|group| group.is_ipv6()) {
            1452
        } else {
            1472
        };
        daemon.len_max = if daemon.len_max == 0 {
            room
        } else {
            daemon.len_max
        };
        daemon.port = if daemon.port == 0 { 8848 } else { daemon.port };
        daemon.ttl = daemon.ttl.max(1);
        self.daemons.push(daemon);
        self.daemons
            .sort_by_key(|daemon| daemon.role == Role::Backup);
        Ok(())
    }

    /// `--stop-daemon`.
    ///
    /// # Errors
    /// As the kernel.
    pub fn stop_daemon(&mut self, role: Role) -> Result<(), Refusal> {
        let place = self.daemons.iter().position(|daemon| daemon.role == role);
        self.daemons.remove(place.ok_or(Refusal::NoDaemon)?);
        Ok(())
    }

    fn place(&self, key: &ServiceKey) -> Option<usize> {
        self.services
            .iter()
            .position(|known| known.service.key == *key)
    }

    fn check_modules(&self, service: &Service) -> Result<(), Refusal> {
        let scheduler = format!("ip_vs_{}", service.scheduler);
        let engine = service
            .engine
            .as_ref()
            .map(|engine| format!("ip_vs_pe_{engine}"));
        let loaded = |module: &String| self.modules.contains(module);
        if loaded(&scheduler) && engine.as_ref().is_none_or(loaded) {
            Ok(())
        } else {
            Err(Refusal::NoModule)
        }
    }
}

fn check_thresholds(server: &Server) -> Result<(), Refusal> {
    if server.lower > server.upper {
        return Err(Refusal::Thresholds);
    }
    Ok(())
}

fn is_unicast(address: IpAddr) -> bool {
    !address.is_multicast() && !address.is_unspecified()
}

/// Whether packets for a server's address would stay with the director: what uvs does not do.
#[must_use]
pub fn stays_here(server: &Server) -> bool {
    let address = server.address.ip();
    server.method != Method::FullNat && (address.is_loopback() || is_own(address))
}
