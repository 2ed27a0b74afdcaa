//! Whole configurations: `uvs plan`, `apply`, `confirm`, `rollback`, `watch`, `export`, `import`.

use super::{Asking, Changing, ConfigureError, print, table};
use crate::ipvsadm::{self, Called, Rules, Streams, words_of};
use crate::json;
use crate::output;
use crate::remote::{Remote, Terms, Wish};
use control::config::{Accepted, Configuration, FILE_LEN};
use control::grpc::messages::state_of;
use proto::v1;
use std::io::Read;
use std::path::Path;

/// What a file would change.
#[derive(Debug, clap::Args)]
pub struct Plan {
    /// A configuration file, as uvsd reads it (uvs.toml(5)); - for the standard input.
    file: String,
    #[command(flatten)]
    asking: Asking,
}

impl Plan {
    pub(super) fn run(&self) -> Result<(), ConfigureError> {
        let wanted = configuration(&self.file)?;
        let remote = self.asking.remote()?;
        tell_fixed(&remote, &wanted)?;
        let planned = remote.plan(Wish::State(state_of(&wanted)), Terms::default())?;
        print(&if self.asking.json {
            json::text("PlanChangeResponse", &planned)
        } else {
            table::planned(&planned)
        })
    }
}

/// A file that is to hold.
#[derive(Debug, clap::Args)]
pub struct Apply {
    /// A configuration file, as uvsd reads it (uvs.toml(5)); - for the standard input.
    file: String,
    #[command(flatten)]
    changing: Changing,
}

impl Apply {
    pub(super) fn run(&self) -> Result<(), ConfigureError> {
        let wanted = configuration(&self.file)?;
        let remote = self.changing.asking.remote()?;
        tell_fixed(&remote, &wanted)?;
        self.changing
            .make(&remote, Wish::State(state_of(&wanted)), 0)
    }
}

/// Reads a configuration, and says what is doubtful in it.
fn configuration(file: &str) -> Result<Configuration, ConfigureError> {
    let Accepted {
        configuration,
        warnings,
    } = if file == "-" {
        Configuration::parse(file, &text_of(file)?)?
    } else {
        Configuration::from_file(Path::new(file))?
    };
    for warning in warnings {
        eprintln!("warning: {warning}");
    }
    Ok(configuration)
}

/// The text of a file, or of the standard input.
fn text_of(file: &str) -> Result<String, ConfigureError> {
    let unreadable = |error| ConfigureError::Unreadable {
        file: file.to_owned(),
        error,
    };
    let mut source: Box<dyn Read> = if file == "-" {
        Box::new(std::io::stdin().lock())
    } else {
        Box::new(std::fs::File::open(file).map_err(unreadable)?)
    };
    let mut text = String::new();
    let limit = FILE_LEN as u64;
    let read = (&mut source).take(limit + 1).read_to_string(&mut text);
    if read.map_err(unreadable)? as u64 > limit {
        return Err(unreadable(std::io::ErrorKind::FileTooLarge.into()));
    }
    Ok(text)
}

/// Says so where a file differs from what runs in what is fixed at the start.
fn tell_fixed(remote: &Remote, wanted: &Configuration) -> Result<(), ConfigureError> {
    let file = remote.configuration(true)?.file;
    let Ok(Accepted { configuration, .. }) = Configuration::parse("uvsd", &file) else {
        // A newer uvsd may say what is not known here.
        return Ok(());
    };
    let ports = |of: &Configuration| -> Vec<_> {
        let ports = of.ports.iter();
        ports
            .map(|port| (port.name.clone(), port.driver.clone(), port.answered_by))
            .collect()
    };
    let mut differs = Vec::new();
    for (is_other, what) in [
        (configuration.director != wanted.director, "[director]"),
        (configuration.dpdk != wanted.dpdk, "[dpdk]"),
        (
            ports(&configuration) != ports(wanted),
            "[port] but for addresses",
        ),
    ] {
        if is_other {
            differs.push(what);
        }
    }
    if !differs.is_empty() {
        eprintln!(
            "warning: {} in the file are not what uvsd runs with: they hold after a restart with the file, the rest is looked at alone",
            differs.join(", ")
        );
    }
    Ok(())
}

/// A change that may stay.
#[derive(Debug, clap::Args)]
pub struct Confirm {
    /// Its revision; without it, the one that waits.
    revision: Option<u64>,
    #[command(flatten)]
    asking: Asking,
}

impl Confirm {
    pub(super) fn run(&self) -> Result<(), ConfigureError> {
        let remote = self.asking.remote()?;
        let revision = waiting(&remote, self.revision)?;
        remote.confirm(revision)?;
        print(&if self.asking.json {
            json::text("ConfirmRequest", &v1::ConfirmRequest { revision })
        } else {
            format!("revision {revision} stays\n")
        })
    }
}

/// A change that goes.
#[derive(Debug, clap::Args)]
pub struct Rollback {
    /// Its revision; without it, the one that waits for its confirmation.
    revision: Option<u64>,
    #[command(flatten)]
    asking: Asking,
}

impl Rollback {
    pub(super) fn run(&self) -> Result<(), ConfigureError> {
        let remote = self.asking.remote()?;
        let revision = waiting(&remote, self.revision)?;
        let answer = remote.roll_back(revision)?;
        print(&if self.asking.json {
            json::text("RollBackResponse", &answer)
        } else {
            table::told(answer.revision, answer.plan.as_ref(), None)
        })
    }
}

/// The revision that was said, or the one that waits.
fn waiting(remote: &Remote, said: Option<u64>) -> Result<u64, ConfigureError> {
    if let Some(said) = said {
        return Ok(said);
    }
    let pending = remote.configuration(false)?.pending;
    let pending = pending.ok_or(ConfigureError::NothingPending)?;
    Ok(pending.revision)
}

/// Tells every change: a line and its table, or a line of JSON.
pub(super) fn watch(asking: &Asking) -> Result<(), ConfigureError> {
    let mut failed = None;
    let is_over = asking.remote()?.watch(|change| {
        let text = if asking.json {
            format!("{}\n", json::of("WatchConfigurationResponse", &change))
        } else {
            news(&change)
        };
        let told = output::tell(&mut std::io::stdout(), &text);
        told.unwrap_or_else(|error| {
            failed = Some(error);
            false
        })
    })?;
    match failed {
        Some(error) => Err(error.into()),
        None if is_over => Err(ConfigureError::Ended),
        // Nobody listens any more: enough is said.
        None => Ok(()),
    }
}

fn news(change: &v1::WatchConfigurationResponse) -> String {
    let told = table::told(
        change.revision,
        change.plan.as_ref(),
        change.pending.as_ref(),
    );
    match &change.time {
        None => told,
        Some(time) => format!("{time} {} {told}", change.actor),
    }
}

/// In which words a configuration is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// As the file that uvsd starts with (uvs.toml(5)).
    Toml,
    /// As rules for `ipvsadm -R`: services, servers, timeouts.
    Ipvsadm,
}

/// The running configuration as text.
#[derive(Debug, clap::Args)]
pub struct Export {
    /// In which words.
    #[arg(long, value_enum, default_value = "toml", conflicts_with = "json")]
    format: Format,
    #[command(flatten)]
    asking: Asking,
}

impl Export {
    pub(super) fn run(&self) -> Result<(), ConfigureError> {
        if self.asking.json {
            let answer = self.asking.remote()?.configuration(false)?;
            return print(&json::text("GetConfigurationResponse", &answer));
        }
        match self.format {
            Format::Toml => print(&self.asking.remote()?.configuration(true)?.file),
            Format::Ipvsadm => {
                let words = ["-n", "--full"].map(str::to_owned);
                let (mut rules, mut errors) = (Vec::new(), Vec::new());
                let mut streams = Streams {
                    input: &mut std::io::empty(),
                    output: &mut rules,
                    errors: &mut errors,
                };
                let status = ipvsadm::run(Called::Save, &words, &self.asking.connect, &mut streams);
                if status != 0 {
                    let why = String::from_utf8_lossy(&errors).trim().to_owned();
                    return Err(Box::new(tonic::Status::unknown(why)).into());
                }
                print(&String::from_utf8_lossy(&rules))
            }
        }
    }
}

/// Rules in the words of ipvsadm.
#[derive(Debug, clap::Args)]
pub struct Import {
    /// Rules, as `ipvsadm -S -n` writes them; - for the standard input.
    file: String,
    /// Only write them as a configuration file's tables; no director is asked.
    #[arg(long, conflicts_with_all = ["dry_run", "expect_revision", "confirm_within", "json"])]
    to_toml: bool,
    #[command(flatten)]
    changing: Changing,
}

impl Import {
    pub(super) fn run(&self) -> Result<(), ConfigureError> {
        let text = text_of(&self.file)?;
        if self.to_toml {
            let mut rules = Rules::none();
            take(&mut rules, &self.file, &text)?;
            return print(&tables(rules.configuration()));
        }
        let remote = self.changing.asking.remote()?;
        let answer = remote.configuration(false)?;
        let mut rules = Rules::of(&answer.state.unwrap_or_default())?;
        let cleared = rules.change(&ipvsadm::Command::Clear);
        cleared.map_err(|refusal| line_error(&self.file, 0, &refusal))?;
        take(&mut rules, &self.file, &text)?;
        let state = state_of(rules.configuration());
        self.changing
            .make(&remote, Wish::State(state), answer.revision)
    }
}

/// Takes rules over, line by line.
fn take(rules: &mut Rules, file: &str, text: &str) -> Result<(), ConfigureError> {
    for (number, line) in (1..).zip(text.lines()) {
        let words = words_of(line);
        if words.is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        let command = ipvsadm::parse(&words);
        let command = command.map_err(|mistake| line_error(file, number, &mistake))?;
        let changed = rules.change(&command);
        changed.map_err(|refusal| line_error(file, number, &refusal))?;
    }
    Ok(())
}

fn line_error(file: &str, line: usize, why: &dyn std::fmt::Display) -> ConfigureError {
    ConfigureError::Line {
        file: file.to_owned(),
        line,
        why: why.to_string(),
    }
}

/// The tables of a configuration file that rules make: ports, and what is fixed at the start, are to be added.
fn tables(of: &Configuration) -> String {
    let text = of.to_toml();
    let mut tables: toml::Table = toml::from_str(&text).expect("what the writer wrote can be read");
    tables.retain(|name, _| matches!(name, "service" | "lip_pool" | "timeouts"));
    let written = toml::to_string(&tables).expect("what was read can be written");
    format!("# [director] and [port.NAME] are to be added: uvs.toml(5).\n{written}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_become_the_tables_of_a_file() {
        let rules = "# saved\n-A -t 10.0.0.100:80 -s wrr -p 60\n\n\
                     ipvsadm -a -t 10.0.0.100:80 -r 10.2.0.11:8080 -m -w 3\n--set 60 0 0\n";
        let mut known = Rules::none();
        take(&mut known, "f", rules).unwrap();
        let text = tables(known.configuration());
        let file =
            format!("{text}\n[port.lan]\ndriver = \"memory\"\naddresses = [\"10.2.0.1/24\"]\n");
        let read = Configuration::parse("f", &file).unwrap().configuration;
        assert_eq!(read.services, known.configuration().services);
        assert_eq!(read.services[0].servers[0].weight, 3);
        assert_eq!((read.timeouts.tcp, read.timeouts.udp), (60, 300));
    }

    #[test]
    fn a_line_that_cannot_be_done_is_told_with_its_place() {
        for (rules, expected) in [
            (
                "-A -t 10.0.0.100:80\n-A -t 10.0.0.100:80\n",
                "f:2: Service already exists",
            ),
            (
                "-A -t 10.0.0.100\n",
                "f:1: Zero port specified for non-persistent service",
            ),
            ("-Ln\n", "f:1: "),
        ] {
            let error = take(&mut Rules::none(), "f", rules).unwrap_err();
            assert!(error.to_string().starts_with(expected), "{error}");
        }
    }
}
