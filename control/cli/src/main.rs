//! The command line.

use clap::Parser;
use cli::arguments::{Arguments, Command};
use cli::demo::{self, Interrupt};
use cli::{bench, capture, compat, connections, doctor, drain, explain, lab, replay, show, top};
use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Demo(options) => run_demo(&options),
        Command::Replay(options) => run_replay(&options),
        Command::Bench(options) => run_bench(&options),
        Command::Status(options) => show::status(&options).map_err(Into::into).map(print),
        Command::List(options) => show::list(&options).map_err(Into::into).map(print),
        Command::Connections(options) => told(connections::run(&options, &mut std::io::stdout())),
        Command::Drain(options) => told(drain::run(&options, &mut std::io::stdout())),
        Command::Top(options) => told(top::run(&options)),
        Command::Doctor(options) => Ok(run_doctor(&options)),
        Command::Explain(options) => explain::run(&options).map_err(Into::into).map(print),
        Command::Capture(options) => run_capture(&options),
        Command::Compat(options) => Err(compat::run(&options).into()),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("uvs: {error}");
        ExitCode::FAILURE
    })
}

fn told<E: Error + 'static>(outcome: Result<(), E>) -> Result<ExitCode, Box<dyn Error>> {
    outcome?;
    Ok(ExitCode::SUCCESS)
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

fn run_doctor(options: &doctor::Options) -> ExitCode {
    let report = doctor::run(options);
    let text = if options.json {
        format!("{:#}\n", report.json())
    } else {
        report.to_string()
    };
    print(text);
    if report.passed() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn run_capture(options: &capture::Options) -> Result<ExitCode, Box<dyn Error>> {
    let told = capture::run(options)?;
    eprintln!("uvs: {told}");
    Ok(ExitCode::SUCCESS)
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
