//! What a running director is told, as a person types it: `uvs service add`, `uvs plan`, `uvs watch` and their like.
//!
//! ```text
//!   arguments ─ service, server, parts (single edits) ─┐
//!   files ───── whole (plan, apply, export, import) ───┴─ change ─▶ a director ─▶ table, or JSON
//! ```

mod change;
mod error;
mod parts;
mod server;
mod service;
mod subject;
mod table;
mod whole;

pub use error::ConfigureError;

use crate::connect;
use crate::output;
use crate::remote::Remote;
use subject::Span;

/// Commands that look at a director's configuration or change it.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Virtual services: what clients address.
    #[command(subcommand)]
    Service(service::Command),
    /// Real servers of a service.
    #[command(subcommand)]
    Server(server::Command),
    /// Pools of local addresses for FULLNAT.
    #[command(subcommand)]
    Pool(parts::Pool),
    /// Static routes.
    #[command(subcommand)]
    Route(parts::Route),
    /// Rules that mark packets for services; the first that matches holds.
    #[command(subcommand)]
    Mark(parts::Mark),
    /// The director's own addresses on its ports.
    #[command(subcommand)]
    Address(parts::Address),
    /// How long idle connections are remembered.
    #[command(subcommand)]
    Timeout(parts::Timeout),
    /// Behaviour by the kernel's names (net.ipv4.vs).
    #[command(subcommand)]
    Ipvs(parts::Ipvs),
    /// Say what a configuration file would change. Nothing is changed.
    Plan(whole::Plan),
    /// Let a running director take a configuration file over: whole or not at all, without a restart.
    ///
    /// What is fixed at the start (`director`, `dpdk`, drivers of ports) holds after a restart with the file.
    Apply(whole::Apply),
    /// Keep a change that was made with --confirm-within.
    Confirm(whole::Confirm),
    /// Take a change back that waits for its confirmation.
    Rollback(whole::Rollback),
    /// Tell every change from now on, as it is made, until interrupted.
    Watch(Asking),
    /// Write the running configuration: as the file that uvsd starts with, or as rules for `ipvsadm -R`.
    Export(whole::Export),
    /// Take over rules as `ipvsadm -S` writes them: in place of all services that are there, whole or not at all.
    Import(whole::Import),
}

/// Whom to ask, and how to show the answer.
#[derive(Clone, Debug, clap::Args)]
pub struct Asking {
    #[command(flatten)]
    connect: connect::Options,
    /// Show the answer as JSON.
    #[arg(long)]
    json: bool,
}

impl Asking {
    fn remote(&self) -> Result<Remote, ConfigureError> {
        Ok(Remote::connect(&self.connect)?)
    }
}

/// On what terms a change is made.
#[derive(Clone, Debug, clap::Args)]
pub struct Changing {
    #[command(flatten)]
    asking: Asking,
    /// Only say what would change.
    #[arg(long)]
    dry_run: bool,
    /// Only if this revision holds: nobody has changed anything since it was looked at.
    #[arg(long, value_name = "REVISION")]
    expect_revision: Option<u64>,
    /// Take the change back after this time, such as 60s or 10m, unless `uvs confirm` comes before.
    #[arg(long, value_name = "TIME")]
    confirm_within: Option<Span>,
}

/// Does a command. Texts go to the standard output as they come.
///
/// # Errors
/// When the director cannot be reached, or does not do it.
pub fn run(command: &Command) -> Result<(), ConfigureError> {
    match command {
        Command::Service(command) => command.run(),
        Command::Server(command) => command.run(),
        Command::Pool(command) => command.run(),
        Command::Route(command) => command.run(),
        Command::Mark(command) => command.run(),
        Command::Address(command) => command.run(),
        Command::Timeout(command) => command.run(),
        Command::Ipvs(command) => command.run(),
        Command::Plan(command) => command.run(),
        Command::Apply(command) => command.run(),
        Command::Confirm(command) => command.run(),
        Command::Rollback(command) => command.run(),
        Command::Watch(asking) => whole::watch(asking),
        Command::Export(command) => command.run(),
        Command::Import(command) => command.run(),
    }
}

fn print(text: &str) -> Result<(), ConfigureError> {
    output::tell(&mut std::io::stdout(), text)?;
    Ok(())
}
