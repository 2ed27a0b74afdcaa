//! The command line.

use clap::{Parser, Subcommand};
use cli::demo::{self, Interrupt};
use cli::{bench, lab, replay, show};
use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

/// A userspace virtual server: IPVS in user space.
#[derive(Parser)]
#[command(name = "uvs", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Drive real TCP and UDP through the director, in network namespaces that nobody else sees.
    ///
    /// A client, the director and three servers run in this process. Every request is a kernel's own connection to
    /// the virtual address; its answer proves the way it took. Ends with a table; exit status 0 means that every
    /// request was served.
    Demo(demo::Options),
    /// Run the director over a capture, without a network and without root.
    ///
    /// Writes what the director would have sent, and prints a table of verdicts and drop reasons.
    Replay(replay::Options),
    /// Measure how fast the director is on this machine, without a network and without root.
    ///
    /// Its own worker over memory ports: connections are made, then packets of them forwarded, each of a connection
    /// at random. Prints a table; ends within a minute unless asked for more.
    Bench(bench::Options),
    /// Say how a running director does: workers, connections, drops, neighbours.
    Status(show::Options),
    /// List a running director's services and real servers with their connections.
    List(show::Options),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Demo(options) => run_demo(&options),
        Command::Replay(options) => run_replay(&options),
        Command::Bench(options) => run_bench(&options),
        Command::Status(options) => show::status(&options).map_err(Into::into).map(print),
        Command::List(options) => show::list(&options).map_err(Into::into).map(print),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("uvs: {error}");
        ExitCode::FAILURE
    })
}

fn run_demo(options: &demo::Options) -> Result<ExitCode, Box<dyn Error>> {
    lab::isolate()?;
    let interrupt = Interrupt::catch()?;
    let report = demo::run(options, &interrupt)?;
    let text = if options.json {
        format!("{:#}\n", report.json())
    } else {
        report.to_string()
    };
    print(text);
    Ok(match interrupt.signal() {
        Some(signal) => ExitCode::from(128 + signal),
        None if report.passed() => ExitCode::SUCCESS,
        None => ExitCode::FAILURE,
    })
}

fn run_bench(options: &bench::Options) -> Result<ExitCode, Box<dyn Error>> {
    let interrupt = Interrupt::catch()?;
    let report = bench::run(options, &interrupt)?;
    let code = print(report.to_string());
    Ok(interrupt
        .signal()
        .map_or(code, |signal| ExitCode::from(128 + signal)))
}

fn run_replay(options: &replay::Options) -> Result<ExitCode, Box<dyn Error>> {
    let (report, warnings) = replay::run(options)?;
    for warning in warnings {
        eprintln!("uvs: {warning}");
    }
    Ok(print(report.to_string()))
}

/// Whoever reads the text may have closed the pipe; the exit status still tells the outcome.
fn print(text: String) -> ExitCode {
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}
