//! The command line.

use clap::{Parser, Subcommand};
use cli::demo::{self, Interrupt};
use cli::lab;
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
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Demo(options) => run_demo(&options),
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
    // Whoever reads the table may have closed the pipe; the exit status still tells the outcome.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(match interrupt.signal() {
        Some(signal) => ExitCode::from(128 + signal),
        None if report.passed() => ExitCode::SUCCESS,
        None => ExitCode::FAILURE,
    })
}
