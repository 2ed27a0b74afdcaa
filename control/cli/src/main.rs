//! The command line.

use clap::Parser;
use cli::arguments::{Arguments, Command};
use cli::demo::{self, Interrupt};
use cli::ipvsadm::{self, Called, Streams};
use cli::{
    bench, capture, compat, configure, connect, connections, doctor, drain, explain, lab, output,
    replay, show, top,
};
use std::error::Error;
use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(code) = run_ipvsadm() {
        return code;
    }
    let outcome = match Arguments::parse().command {
        Command::Demo(options) => run_demo(&options),
        Command::Replay(options) => run_replay(&options),
        Command::Bench(options) => run_bench(&options),
        Command::Status(options) => show::status(&options).map_err(Into::into).and_then(print),
        Command::List(options) if options.watch => {
            told(show::watch(&options, &mut std::io::stdout()))
        }
        Command::Zero(options) => show::zero(&options).map_err(Into::into).and_then(print),
        Command::List(options) => show::list(&options).map_err(Into::into).and_then(print),
        Command::Connections(options) => told(connections::run(&options, &mut std::io::stdout())),
        Command::Drain(options) => told(drain::run(&options, &mut std::io::stdout())),
        Command::Top(options) => told(top::run(&options)),
        Command::Doctor(options) => run_doctor(&options),
        Command::Explain(options) => explain::run(&options).map_err(Into::into).and_then(print),
        Command::Capture(options) => run_capture(&options),
        Command::Compat(options) => Err(compat::run(&options).into()),
        Command::Ipvsadm { .. } => unreachable!("its arguments are its own: see `run_ipvsadm`"),
        Command::Configure(command) => configure::run(&command)
            .map_err(Into::into)
            .map(|()| ExitCode::SUCCESS),
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

/// Called by one of ipvsadm's names, or as `uvs ipvsadm`: whatever stands behind is read as ipvsadm reads it.
fn run_ipvsadm() -> Option<ExitCode> {
    let mut arguments = std::env::args_os();
    let program = arguments.next()?;
    let called = ipvsadm::called_as(&program).or_else(|| {
        let is_command = arguments.next()? == "ipvsadm";
        is_command.then_some(Called::Ipvsadm)
    })?;
    let words: Vec<String> = arguments
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let mut streams = Streams {
        input: &mut std::io::stdin().lock(),
        output: &mut std::io::stdout().lock(),
        errors: &mut std::io::stderr().lock(),
    };
    let options = connect::Options::of_environment();
    let status = ipvsadm::run(called, &words, &options, &mut streams);
    Some(ExitCode::from(status))
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
    print(text)?;
    Ok(match interrupt.signal() {
        Some(signal) => ExitCode::from(128 + signal),
        None if report.passed() => ExitCode::SUCCESS,
        None => ExitCode::FAILURE,
    })
}

fn run_bench(options: &bench::Options) -> Result<ExitCode, Box<dyn Error>> {
    let interrupt = Interrupt::catch()?;
    let report = bench::run(options, &interrupt)?;
    let code = print(report.to_string())?;
    Ok(interrupt
        .signal()
        .map_or(code, |signal| ExitCode::from(128 + signal)))
}

fn run_doctor(options: &doctor::Options) -> Result<ExitCode, Box<dyn Error>> {
    let report = doctor::run(options);
    let text = if options.json {
        format!("{:#}\n", report.json())
    } else {
        report.to_string()
    };
    print(text)?;
    Ok(if report.passed() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
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
    print(report.to_string())
}

fn print(text: String) -> Result<ExitCode, Box<dyn Error>> {
    output::tell(&mut std::io::stdout(), &text)?;
    Ok(ExitCode::SUCCESS)
}
