//! `uvs doctor`: is this machine fit for the director, and what is to be done where it is not?
//!
//! Most checks read files below a root folder (`/proc`, `/sys`) and the configuration, and yield findings; one asks on the links
//! (`arp.rs`), and some ask a running uvsd. Nothing is changed.

mod arp;
mod cpus;
mod devices;
mod interfaces;
mod kernel;
mod machine;
mod memory;
mod report;
mod servers;
#[cfg(test)]
mod tests;

pub use report::{Finding, Report, Verdict};

use crate::connect::{self, ConnectError};
use crate::show;
use control::config::Configuration;
use machine::Machine;
use proto::v1;
use std::path::{Path, PathBuf};

/// What to look at.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The configuration that the machine is to be fit for.
    #[arg(long, value_name = "FILE", default_value = "/etc/uvs/uvs.toml")]
    pub config: PathBuf,
    /// The control socket, where uvsd may be running; without it, that of the configuration.
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Print JSON instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// Looks at this machine.
#[must_use]
pub fn run(options: &Options) -> Report {
    let mut report = Report::default();
    let configuration = match Configuration::from_file(&options.config) {
        Ok(accepted) => {
            let file = options.config.display();
            report.ok("configuration", format!("{file} can be used"));
            for warning in accepted.warnings {
                report.warn("configuration", warning.to_string(), "see uvs.toml(5)");
            }
            Some(accepted.configuration)
        }
        Err(error) => {
            report.fail(
                "configuration",
                error.to_string(),
                "correct the file, or name another one with --config",
            );
            None
        }
    };
    examine(
        &Machine::new(Path::new("/")),
        configuration.as_ref(),
        &mut report,
    );
    if let Some(configuration) = &configuration {
        servers::ways(configuration, &mut report);
        arp::answered(configuration, &mut report);
    }
    let of_configuration = configuration.map(|configuration| configuration.director.control);
    if let Some(socket) = options.socket.clone().or(of_configuration) {
        let connect = connect::Options::socket(&socket);
        let answer = show::fetch(&connect);
        if let Ok(status) = &answer {
            servers::neighbours(status, &mut report);
            if let Ok(services) = show::fetch_services(&connect) {
                servers::answers(&services, &mut report);
            }
        }
        judge_uvsd(&socket, answer, &mut report);
    }
    report
}

/// All checks of the machine; those that need a configuration are left out without one.
fn examine(machine: &Machine, configuration: Option<&Configuration>, report: &mut Report) {
    kernel::version(machine, report);
    if let Some(configuration) = configuration {
        kernel::capabilities(machine, configuration, report);
        kernel::forwarding(machine, configuration, report);
        memory::huge_pages(machine, configuration, report);
        cpus::workers(machine, configuration, report);
        cpus::pinning(machine, configuration, report);
        interfaces::all(machine, configuration, report);
        devices::of_dpdk(machine, configuration, report);
    }
    memory::locked(machine, report);
    cpus::governor(machine, configuration, report);
    devices::pci(machine, report);
}

/// What a running uvsd says of itself.
fn judge_uvsd(
    socket: &Path,
    answer: Result<v1::GetStatusResponse, ConnectError>,
    report: &mut Report,
) {
    let status = match answer {
        Ok(status) => status,
        Err(error @ ConnectError::Unreachable { .. }) if socket.exists() => {
            let advice = "start uvsd (systemctl start uvsd); a socket of a killed one is replaced";
            report.fail("uvsd", error.to_string(), advice);
            return;
        }
        Err(ConnectError::Unreachable { .. }) => {
            report.note("uvsd", format!("none runs at {}", socket.display()));
            return;
        }
        Err(error) => {
            let advice = "uvs status tells more; the log of uvsd tells most";
            report.fail("uvsd", error.to_string(), advice);
            return;
        }
    };
    let ended = status.workers.iter().filter(|worker| !worker.running);
    match ended.count() {
        0 => {
            let workers = status.workers.len();
            let version = &status.version;
            report.ok("uvsd", format!("{version} runs with {workers} workers"));
        }
        ended => report.fail(
            "uvsd",
            format!("{ended} of its {} workers have ended", status.workers.len()),
            "restart uvsd, and report what its log says",
        ),
    }
    for warning in status.warnings {
        report.warn("uvsd", warning, "see uvs status");
    }
}
