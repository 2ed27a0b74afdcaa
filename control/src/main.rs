//! The daemon uvsd.

use anyhow::Context;
use clap::Parser;
use control::arguments::Arguments;
use control::daemon::{self, Signals};
use control::director::Director;
use control::manage::Manager;
use control::netlink::{self, Netlink};
use control::socket::ControlSocket;
use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use tracing_subscriber::EnvFilter;

/// Of the configuration that the file gives.
const FIRST_REVISION: u64 = 1;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.check {
        return check(&arguments.config);
    }
    // What to log comes from UVS_LOG, such as "debug"; without it, what an operator wants to know.
    let filter = EnvFilter::try_from_env("UVS_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    match run(&arguments.config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            for line in format!("{error:#}").lines() {
                tracing::error!("{line}");
            }
            ExitCode::FAILURE
        }
    }
}

fn check(file: &Path) -> ExitCode {
    match control::config::Configuration::from_file(file) {
        Ok(accepted) => {
            for warning in accepted.warnings {
                eprintln!("warning: {warning}");
            }
            println!("OK");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(file: &Path) -> anyhow::Result<()> {
    let configuration = daemon::read(file)?;
    let control = configuration.director.control.clone();
    let services = configuration.services.len();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("control thread")?;
    let signals = {
        let _inside = runtime.enter();
        Signals::new().context("signals")?
    };
    // The socket first: where another uvsd runs, no port is touched.
    let (_socket, listener) = ControlSocket::bind(&control)?;
    let netlink = configuration.director.netlink.as_deref();
    let netlink = netlink.map(ControlSocket::bind_datagrams).transpose()?;
    let director = Arc::new(Director::start(configuration)?);
    let version = env!("CARGO_PKG_VERSION");
    tracing::info!(
        "uvsd {version}: {services} services, control socket {}",
        control.display()
    );
    if let Some(takeover) = director.takeover() {
        tracing::info!("{takeover}");
    }
    for warning in director.warnings() {
        tracing::warn!("{warning}");
    }
    let manager = Arc::new(Manager::new(Arc::clone(&director), FIRST_REVISION));
    let _netlink = netlink.map(|(socket, listener)| {
        let netlink = Arc::new(Netlink::new(Arc::clone(&manager)));
        runtime.spawn(netlink::serve(netlink, listener));
        socket
    });
    let served = runtime.block_on(daemon::serve(manager, listener, signals, file));
    // Before the director: tasks that are still there may hold it.
    drop(runtime);
    if let Some(director) = Arc::into_inner(director) {
        director.stop();
    }
    Ok(served?)
}
