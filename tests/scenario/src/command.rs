//! The commands of scenarios: `ipvsadm` on the model of the kernel's rules and on the director, `ip`, `iptables`, `sysctl`.

use crate::bench::Bench;
use crate::endpoint::Endpoint;
use crate::features;
use crate::kernel::{Kernel, Refusal};
use crate::netfilter::Netfilter;
use crate::scenario::Scenario;
use crate::tables::{self, TABLE_SIZE, Zeros};
use crate::topology::Side;
use cli::ipvsadm::listing::{self, ListedService};
use cli::ipvsadm::{self, Command, List, Names, Protocol, ServiceKey, Subject};
use control::config::TimeoutSettings;
use dataplane::snapshot::Ipvs;
use serde_json::Value;
use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};

/// What a command takes in the recordings' machine, milliseconds.
const COMMAND_MS: u64 = 60;
/// What the recordings' ipvsadm says of itself.
const VERSION: &str = "ipvsadm v1.31 2019/12/24 (compiled with popt and IPVS v1.2.1)";
/// Below this stand the kernel's settings of IPVS.
const SETTINGS: &str = "net.ipv4.vs.";

/// See the module's text.
pub struct Console {
    kernel: Kernel,
    netfilter: Netfilter,
    settings: HashMap<String, String>,
    ipvs: Ipvs,
    zeros: Zeros,
    /// The addresses of the recordings' host, beyond those of its interfaces.
    pub vips: BTreeSet<IpAddr>,
    /// What uvs cannot do of what was wanted, each thing once.
    pub missing: Vec<String>,
}

impl Console {
    /// Nothing configured yet.
    #[must_use]
    pub fn new(scenario: &Scenario) -> Console {
        let mut console = Console {
            kernel: Kernel::new(&scenario.text, &scenario.modules),
            netfilter: Netfilter::default(),
            settings: HashMap::new(),
            ipvs: Ipvs::default(),
            zeros: Zeros::default(),
            vips: virtual_addresses(scenario),
            missing: Vec::new(),
        };
        for module in &scenario.modules {
            if let Some(what) = features::module(module) {
                console.miss(what);
            }
        }
        console
    }

    /// Notes that uvs cannot do something.
    pub fn miss(&mut self, what: String) {
        if !self.missing.contains(&what) {
            self.missing.push(what);
        }
    }

    /// Runs a command; its exit status and what it prints.
    pub fn run(&mut self, bench: &mut Bench, program: &str, line: &str) -> (u8, String) {
        bench.pass_ms(COMMAND_MS);
        match program {
            "ipvsadm" => self.ipvsadm(bench, &split(line)),
            "ip" => self.ip(bench, line),
            _ => {
                let ipv6 = program.starts_with("ip6");
                if let Err(what) = self.netfilter.run(ipv6, line) {
                    self.miss(what);
                }
                self.configure(bench);
                (0, String::new())
            }
        }
    }

    /// `sysctl`.
    pub fn set(&mut self, bench: &mut Bench, name: &str, value: &str) {
        let Some(name) = name.strip_prefix(SETTINGS) else {
            self.miss(format!("{name} = {value}"));
            return;
        };
        // A file of two numbers has a tab between them, however they were written.
        let shown = value.split_whitespace().collect::<Vec<_>>().join("\t");
        self.settings.insert(name.to_owned(), shown);
        if let Some(what) = features::setting(&mut self.ipvs, name, value) {
            self.miss(what);
        }
        self.configure(bench);
    }

    /// The value of a setting of IPVS.
    #[must_use]
    pub fn setting(&self, name: &str) -> Option<String> {
        let default = || features::default_setting(name).map(str::to_owned);
        self.settings.get(name).cloned().or_else(default)
    }

    /// The services with the director's counts.
    #[must_use]
    pub fn services(&self, bench: &Bench) -> Vec<ListedService> {
        tables::services(&self.kernel, bench, &self.zeros)
    }

    /// Whether a packet, described, goes to a service.
    #[must_use]
    pub fn is_for_service(&self, packet: &Value) -> bool {
        let protocol = match packet["proto"].as_str() {
            Some("tcp") => Protocol::Tcp,
            Some("udp") => Protocol::Udp,
            Some("sctp") => Protocol::Sctp,
            _ => return false,
        };
        // Data of active FTP begin no connections, whatever the service.
        let is_ftp_data = packet["src"]
            .as_str()
            .is_some_and(|source| source.ends_with(":20"));
        if is_ftp_data {
            return false;
        }
        let target = packet["dst"]
            .as_str()
            .and_then(|text| text.parse::<Endpoint>().ok());
        let Some(Endpoint {
            address,
            port: Some(port),
        }) = target
        else {
            return false;
        };
        let service = |port| ServiceKey::Address(protocol, SocketAddr::new(address, port));
        [port, 0]
            .into_iter()
            .any(|port| self.kernel.service(&service(port)).is_some())
    }

    fn ipvsadm(&mut self, bench: &mut Bench, words: &[String]) -> (u8, String) {
        let command = match ipvsadm::parse(words) {
            Ok(command) => command,
            Err(mistake) => return (mistake.exit_status(), mistake.to_string()),
        };
        match command {
            Command::List(list) => return self.list(bench, &list),
            Command::Save { .. } => {
                return (
                    0,
                    listing::save(&self.services(bench), false, &Names::numeric()),
                );
            }
            Command::Zero(None) => self.zeros.set(bench, None),
            Command::Zero(Some(key)) => {
                if self.kernel.service(&key).is_none() {
                    return refused(&Refusal::NoService);
                }
                self.zeros.set(bench, Some(&key));
            }
            Command::Version => return (0, VERSION.to_owned()),
            // From its standard input, which is empty.
            Command::Restore { .. } | Command::Help => {}
            change => {
                self.forget_zeros(&change);
                if let Err(refusal) = self.change(change) {
                    return refused(&refusal);
                }
                self.configure(bench);
            }
        }
        (0, String::new())
    }

    /// What is removed begins at zero when it comes back.
    fn forget_zeros(&mut self, command: &Command) {
        match command {
            Command::DeleteService(key) => self.zeros.forget(key),
            Command::Clear => self.zeros = Zeros::default(),
            _ => {}
        }
    }

    fn change(&mut self, command: Command) -> Result<(), Refusal> {
        let kernel = &mut self.kernel;
        match command {
            Command::AddService(service) => kernel.add_service(service),
            Command::EditService(service) => kernel.edit_service(service),
            Command::DeleteService(key) => kernel.delete_service(&key),
            Command::AddServer(key, server) => kernel.add_server(&key, server),
            Command::EditServer {
                service, server, ..
            } => kernel.edit_server(&service, server),
            Command::DeleteServer(key, server) => kernel.delete_server(&key, server),
            Command::Clear => {
                kernel.services.clear();
                Ok(())
            }
            Command::SetTimeouts { tcp, tcp_fin, udp } => {
                kernel.set_timeouts([tcp, tcp_fin, udp]);
                Ok(())
            }
            Command::StartDaemon(daemon) => {
                let what = features::daemon(&daemon);
                kernel.start_daemon(daemon)?;
                self.miss(what);
                Ok(())
            }
            Command::StopDaemon(role) => kernel.stop_daemon(role),
            other => unreachable!("{other:?} changes nothing"),
        }
    }

    /// Hands what the kernel has been told to the director.
    fn configure(&mut self, bench: &mut Bench) {
        let (mut services, missing) = features::services(&self.kernel.services, &self.vips);
        if self.kernel.has_module("ip_vs_ftp") {
            features::help(&mut services);
        }
        let lip_pools = features::lip_pools(&self.kernel.services);
        let marks = self.netfilter.marks();
        let [tcp, tcp_fin, udp] = self.kernel.timeouts;
        let ipvs = self.ipvs;
        let applied = bench.apply(|configuration| {
            configuration.services = services;
            configuration.lip_pools = lip_pools;
            configuration.marks = marks;
            configuration.ipvs = ipvs;
            configuration.timeouts = TimeoutSettings { tcp, tcp_fin, udp };
        });
        missing.into_iter().for_each(|what| self.miss(what));
        if let Err(error) = applied {
            self.miss(format!("this configuration: {error}"));
        }
    }

    fn list(&mut self, bench: &Bench, list: &List) -> (u8, String) {
        let text = match list.subject {
            Subject::Services(only) => {
                let mut services = self.services(bench);
                if let Some(key) = only {
                    services.retain(|listed| listed.service.key == key);
                    if services.is_empty() {
                        return (1, Refusal::NoService.to_string());
                    }
                }
                // Where order does not matter, the kernel's is that of its hash table.
                listing::services(list, &services, TABLE_SIZE, &Names::numeric())
            }
            Subject::Connections => {
                listing::connections(list, &tables::connections(bench), &Names::numeric())
            }
            Subject::Timeouts => {
                let [tcp, tcp_fin, udp] = self.kernel.timeouts;
                listing::timeouts(tcp, tcp_fin, udp)
            }
            Subject::Daemons => listing::daemons(&self.kernel.daemons),
        };
        (0, text)
    }

    /// `ip link set SIDE mtu BYTES` and `ip addr add ADDRESS/LEN dev lo`.
    fn ip(&mut self, bench: &mut Bench, line: &str) -> (u8, String) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["link", "set", side, "mtu", mtu] => match (Side::named(side), mtu.parse()) {
                (Some(side), Ok(mtu)) => bench.set_mtu(side, mtu),
                _ => self.miss(format!("ip {line}")),
            },
            ["addr", "del", address, "dev", "lo"] => {
                let gone = address.split('/').next().and_then(tables::address_of);
                gone.map(|gone| self.vips.remove(&gone));
                self.configure(bench);
            }
            ["addr", "add", address, "dev", "lo"] => {
                let (text, len) = address.split_once('/').unwrap_or((address, "32"));
                let address = tables::address_of(text);
                let is_alone = matches!(len, "32" | "128");
                if is_alone && address.is_some_and(|address| self.vips.contains(&address)) {
                    return (2, "RTNETLINK answers: File exists".to_owned());
                }
                self.vips.extend(address);
                self.configure(bench);
            }
            _ => self.miss(format!("ip {line}")),
        }
        (0, String::new())
    }
}

fn refused(refusal: &Refusal) -> (u8, String) {
    (refusal.exit_status(), refusal.to_string())
}

/// The addresses that the recordings' host has besides: `vips`, and those of the services that are added.
fn virtual_addresses(scenario: &Scenario) -> BTreeSet<IpAddr> {
    let text = &scenario.text;
    let behind = |option: &str| {
        let starts: Vec<_> = text
            .match_indices(option)
            .map(|(at, found)| at + found.len())
            .collect();
        starts.into_iter().map(|at| &text[at..])
    };
    let services = behind("-A -t ").chain(behind("-A -u "));
    let services = services.filter_map(|rest| rest.split([' ', '"']).next());
    let vips = scenario.vips.iter().filter_map(|vip| vip.split('/').next());
    services
        .chain(vips)
        .filter_map(tables::address_of)
        .collect()
}

/// Splits a command line as a shell would: blanks, and quotes of both kinds.
fn split(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in line.chars() {
        match quote {
            Some(end) if c == end => quote = None,
            None if c == '"' || c == '\'' => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            None if c.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_split_as_by_a_shell() {
        assert_eq!(
            split(r#" -A  -t "a b"c -b '' "#),
            ["-A", "-t", "a bc", "-b", ""]
        );
    }
}
