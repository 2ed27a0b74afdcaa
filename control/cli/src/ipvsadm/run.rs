//! What a command line does, with the outputs and exit statuses of ipvsadm 1.31.

use super::listing::{self, ListedService};
use super::{
    Command, List, Mistake, Names, Refusal, ServiceKey, Subject, carry, messages, parse, refusal,
    restore,
};
use crate::connect;
use crate::json;
use crate::remote::{Remote, Terms, edits};
use carry::Rules;
use proto::v1;
use std::ffi::OsStr;
use std::io::{BufReader, Read, Write};
use std::path::Path;
use tonic::{Code, Status};

/// How often a change is worked out anew because somebody else's came between.
const ATTEMPTS: usize = 5;

/// The name by which it was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Called {
    /// `ipvsadm`, or `uvs ipvsadm`.
    Ipvsadm,
    /// `ipvsadm-save`: `-S`.
    Save,
    /// `ipvsadm-restore`: `-C`, then `-R` without lines that begin with `#`.
    Restore,
}

/// What a program's own path says that it is to be.
#[must_use]
pub fn called_as(program: &OsStr) -> Option<Called> {
    match Path::new(program).file_name()?.to_str()? {
        "ipvsadm" => Some(Called::Ipvsadm),
        "ipvsadm-save" => Some(Called::Save),
        "ipvsadm-restore" => Some(Called::Restore),
        _ => None,
    }
}

/// Where rules come from, and where texts go.
pub struct Streams<'s> {
    /// For `-R`.
    pub input: &'s mut dyn Read,
    /// Listings.
    pub output: &'s mut dyn Write,
    /// What went wrong.
    pub errors: &'s mut dyn Write,
}

/// Does what a command line says; the exit status.
pub fn run(
    called: Called,
    words: &[String],
    options: &connect::Options,
    streams: &mut Streams<'_>,
) -> u8 {
    let mut session = Session {
        options,
        remote: None,
        output: streams.output,
        errors: streams.errors,
    };
    let mut input = BufReader::with_capacity(restore::READ_AHEAD, &mut *streams.input);
    let with = |first: &str| -> Vec<String> {
        let first = std::iter::once(first.to_owned());
        first.chain(words.iter().cloned()).collect()
    };
    let command = match called {
        Called::Ipvsadm => parse(words),
        Called::Save => parse(&with("-S")),
        Called::Restore => parse(&with("-R")),
    };
    match command {
        Ok(Command::Restore { atomic }) => {
            let anew = called == Called::Restore;
            restore::run(&mut session, &mut input, restore::Manner { atomic, anew })
        }
        command => session.done(command).status,
    }
}

/// What became of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Done {
    /// The exit status.
    pub(super) status: u8,
    /// Whether ipvsadm 1.31 reads no further lines of `-R` then.
    pub(super) is_last: bool,
}

/// One run of the program.
pub(super) struct Session<'s> {
    options: &'s connect::Options,
    remote: Option<Remote>,
    output: &'s mut dyn Write,
    errors: &'s mut dyn Write,
}

impl Session<'_> {
    /// Does a command, or tells the mistake.
    pub(super) fn done(&mut self, command: Result<Command, Mistake>) -> Done {
        let command = match command {
            Ok(command) => command,
            Err(mistake) => return self.mistaken(&mistake),
        };
        let is_last = matches!(command, Command::Help | Command::Version);
        match self.perform(&command) {
            Ok(()) => Done { status: 0, is_last },
            Err(refusal) => self.refused(&refusal),
        }
    }

    /// Tells a mistake.
    pub(super) fn mistaken(&mut self, mistake: &Mistake) -> Done {
        self.complain(mistake);
        Done {
            status: mistake.exit_status(),
            is_last: !matches!(mistake, Mistake::Unknown(_) | Mistake::NoValue(_)),
        }
    }

    /// Tells a refusal.
    pub(super) fn refused(&mut self, refusal: &Refusal) -> Done {
        self.complain(refusal);
        Done {
            status: refusal.exit_status(),
            is_last: *refusal == Refusal::NotListed,
        }
    }

    pub(super) fn complain(&mut self, what: &dyn std::fmt::Display) {
        // Whoever reads may have closed the pipe; the exit status still tells.
        let _ = writeln!(self.errors, "{what}");
    }

    fn print(&mut self, text: &str) {
        let _ = self.output.write_all(text.as_bytes());
    }

    /// The director.
    pub(super) fn remote(&mut self) -> Result<&Remote, Refusal> {
        if self.remote.is_none() {
            let remote = Remote::connect(self.options);
            let remote = remote.map_err(|error| Refusal::Director(error.to_string()))?;
            self.remote = Some(remote);
        }
        Ok(self.remote.as_ref().expect("it was just connected"))
    }

    fn perform(&mut self, command: &Command) -> Result<(), Refusal> {
        match command {
            Command::List(list) => self.list(list),
            Command::Save { numeric, full } => self.save(*numeric, *full),
            Command::Zero(key) => {
                let service = key.as_ref().map(messages::key);
                let zeroed = self.remote()?.zero(service);
                zeroed.map_err(|status| refusal::of_status(command, &status, None))
            }
            Command::Version => {
                self.print(&super::help::version());
                Ok(())
            }
            Command::Help => {
                self.print(&super::help::text());
                Ok(())
            }
            Command::StartDaemon(_) => Err(Refusal::Director(
                "connection synchronisation is not there yet: no daemon was started".to_owned(),
            )),
            Command::StopDaemon(_) => Err(Refusal::NoDaemon),
            Command::Restore { .. } => Err(Refusal::Director(
                "-R stands alone on its command line".to_owned(),
            )),
            change => self.change(std::slice::from_ref(change)),
        }
    }

    /// Makes the change that commands mean: all together or none.
    pub(super) fn change(&mut self, commands: &[Command]) -> Result<(), Refusal> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let (rules, revision) = if commands.iter().any(carry::needs_rules) {
                let (rules, revision) = self.rules()?;
                (Some(rules), revision)
            } else {
                (None, 0)
            };
            let mut all = Vec::new();
            for command in commands {
                all.extend(carry::edits(command, rules.as_ref())?);
            }
            let terms = Terms {
                expected_revision: revision,
                ..Terms::default()
            };
            let Err(status) = self.remote()?.change(edits(all), terms) else {
                let turned = commands.iter().zip(rules.iter().cycle());
                let turned: Vec<_> = turned
                    .filter_map(|(command, rules)| carry::turned_to_dr(command, rules))
                    .collect();
                for server in turned {
                    self.complain(&format_args!("warning: {server} was reached by NAT and is by DR now, as no method was said: -m keeps NAT"));
                }
                return Ok(());
            };
            if status.code() == Code::Aborted && attempts < ATTEMPTS {
                continue;
            }
            return Err(match commands {
                [command] => self.refusal(command, &status),
                _ => Refusal::Director(refusal::told(&status)),
            });
        }
    }

    /// The director's rules, and their revision.
    pub(super) fn rules(&mut self) -> Result<(Rules, u64), Refusal> {
        let answer = self.remote()?.configuration(false).map_err(plain)?;
        let rules = Rules::of(&answer.state.unwrap_or_default());
        let rules = rules.map_err(|error| Refusal::Director(error.to_string()))?;
        Ok((rules, answer.revision))
    }

    /// Why a single change was refused.
    fn refusal(&mut self, command: &Command, status: &Status) -> Refusal {
        let key = carry::key_of(command).filter(|_| refusal::needs_service(command, status));
        let is_there = key.and_then(|key| self.has_service(key));
        refusal::of_status(command, status, is_there)
    }

    /// Whether the director has a service, if it says.
    fn has_service(&mut self, key: &ServiceKey) -> Option<bool> {
        let answer = self.remote().ok()?.configuration(false).ok()?;
        Some(refusal::has_service(
            &answer.state.unwrap_or_default(),
            &messages::key(key),
        ))
    }

    /// The services with their counters, and as messages.
    fn services(
        &mut self,
        only: Option<ServiceKey>,
    ) -> Result<(Vec<ListedService>, v1::ListServicesResponse), Refusal> {
        let remote = self.remote()?;
        let mut answer = remote.services().map_err(plain)?;
        if let Some(only) = only {
            let wanted = Some(messages::key(&only));
            answer.services.retain(|service| service.key == wanted);
            if answer.services.is_empty() {
                return Err(Refusal::NotListed);
            }
        }
        let state = remote.configuration(false).map_err(plain)?.state;
        let state = state.unwrap_or_default();
        let listed = answer.services.iter().filter_map(|service| {
            let key = service.key.as_ref()?;
            let settings = state
                .services
                .iter()
                .find(|settings| settings.key.as_ref() == Some(key));
            let pool = settings.and_then(|settings| {
                let mut pools = state.lip_pools.iter();
                pools.find(|pool| pool.name == settings.lip_pool)
            });
            let ipv6 = messages::key_of(key)?.is_ipv6();
            messages::listed(service, pool.and_then(|pool| messages::local(pool, ipv6)))
        });
        Ok((listed.collect(), answer))
    }

    fn list(&mut self, list: &List) -> Result<(), Refusal> {
        let names = Names::new(list.numeric);
        let text = match list.subject {
            Subject::Services(only) => {
                let (services, answer) = self.services(only)?;
                if list.json {
                    json::text("ListServicesResponse", &answer)
                } else {
                    listing::services(list, &services, self.table_size()?, &names)
                }
            }
            Subject::Connections => return self.list_connections(list, &names),
            Subject::Timeouts => {
                let timeouts = self.timeouts()?;
                if list.json {
                    json::text("Timeouts", &timeouts)
                } else {
                    let [tcp, tcp_fin, udp] = seconds(timeouts);
                    listing::timeouts(tcp, tcp_fin, udp)
                }
            }
            Subject::Daemons if list.json => {
                format!("{:#}\n", serde_json::json!({ "daemons": [] }))
            }
            Subject::Daemons => listing::daemons(&[]),
        };
        self.print(&text);
        Ok(())
    }

    fn list_connections(&mut self, list: &List, names: &Names) -> Result<(), Refusal> {
        let mut all = v1::ListConnectionsResponse::default();
        let told = self
            .remote()?
            .connections(|part| all.connections.extend(part));
        told.map_err(plain)?;
        let text = if list.json {
            json::text("ListConnectionsResponse", &all)
        } else {
            let connections = all.connections.into_iter();
            let connections: Vec<_> = connections.filter_map(messages::connection).collect();
            listing::connections(list, &connections, names)
        };
        self.print(&text);
        Ok(())
    }

    fn save(&mut self, numeric: bool, full: bool) -> Result<(), Refusal> {
        let (services, _) = self.services(None)?;
        if full {
            let [tcp, tcp_fin, udp] = seconds(self.timeouts()?);
            self.print(&format!("--set {tcp} {tcp_fin} {udp}\n"));
        }
        let text = listing::save(&services, full, &Names::new(numeric));
        self.print(&text);
        Ok(())
    }

    fn timeouts(&mut self) -> Result<v1::Timeouts, Refusal> {
        let answer = self.remote()?.configuration(false).map_err(plain)?;
        let state = answer.state.unwrap_or_default();
        Ok(state.timeouts.unwrap_or_default())
    }

    /// What stands in place of the kernel's hash size: how many IPv4 connections there may be.
    fn table_size(&mut self) -> Result<usize, Refusal> {
        let status = self.remote()?.status().map_err(plain)?;
        let capacity = status.tables.first().map_or(0, |table| table.capacity);
        Ok(usize::try_from(capacity).unwrap_or(usize::MAX))
    }
}

fn seconds(of: v1::Timeouts) -> [u32; 3] {
    [of.tcp_s, of.tcp_fin_s, of.udp_s].map(Option::unwrap_or_default)
}

/// What went wrong where nothing was to be changed.
fn plain(status: Box<Status>) -> Refusal {
    Refusal::Director(refusal::told(&status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_what_it_is_called() {
        for (program, called) in [
            ("/usr/sbin/ipvsadm", Some(Called::Ipvsadm)),
            ("ipvsadm-save", Some(Called::Save)),
            ("./ipvsadm-restore", Some(Called::Restore)),
            ("uvs", None),
        ] {
            assert_eq!(called_as(OsStr::new(program)), called, "{program}");
        }
    }
}
