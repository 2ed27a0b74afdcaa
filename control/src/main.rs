//! The daemon uvsd.

use anyhow::Context;
use clap::Parser;
use control::arguments::Arguments;
use control::config::{Configuration, TlsSettings};
use control::daemon::{self, Service, Signals};
use control::director::Director;
use control::guard::{Access, Audit, Guard, Incoming, Tls, privileges};
use control::manage::{Manager, Start};
use control::metrics;
use control::netlink::{self, Netlink};
use control::socket::ControlSocket;
use dataplane::port::Port;
use std::io::IsTerminal;
use std::net::TcpListener;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use tracing_subscriber::EnvFilter;

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
    match checked(file) {
        Ok(warnings) => {
            for warning in warnings {
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

/// What is doubtful in a file and in what it names.
fn checked(file: &Path) -> anyhow::Result<Vec<String>> {
    let accepted = Configuration::from_file(file)?;
    let mut warnings: Vec<_> = accepted.warnings.iter().map(ToString::to_string).collect();
    let access = &accepted.configuration.access;
    warnings.extend(Access::look_up(access).1);
    // As interfaces that are not there: the file is all right, but uvsd would not start here.
    match access.tls.as_ref().map(Tls::load) {
        None => {}
        Some(Ok((_, doubtful))) => warnings.extend(doubtful),
        Some(Err(error)) => warnings.push(format!("{error}; uvsd does not start without it")),
    }
    Ok(warnings)
}

fn run(file: &Path) -> anyhow::Result<()> {
    let configuration = daemon::read(file)?;
    let (control, access) = (
        configuration.director.control.clone(),
        configuration.access.clone(),
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("control thread")?;
    let inside = runtime.enter();
    let signals = Signals::new().context("signals")?;
    // The socket first: where another uvsd runs, no port is touched, and no file is written.
    let (_socket, listener) = ControlSocket::bind(&control, access.group.as_deref())?;
    let netlink = configuration.director.netlink.as_deref();
    let netlink = netlink
        .map(|path| ControlSocket::bind_datagrams(path, access.group.as_deref()))
        .transpose()?;
    let mut incoming = Incoming::default().unix(listener)?;
    let tls = access.tls.as_ref().map(encrypted).transpose()?;
    if let Some((listener, tls)) = &tls {
        incoming = incoming.tls(listener.try_clone()?, Arc::clone(tls))?;
    }
    drop(inside);
    let audit = Audit::open(access.audit.as_deref());
    let audit = Arc::new(audit.with_context(|| {
        let path = access.audit.as_deref().unwrap_or(Path::new(""));
        format!("access.audit: {}", path.display())
    })?);
    let (rights, warnings) = Access::look_up(&access);
    daemon::warn(&warnings);
    let start = Start::new(configuration);
    let metrics = metrics::Endpoint::bind(&start.configuration)?;
    let director = Arc::new(start_director(&start)?);
    tracing::info!(
        "uvsd {}: {} services, control socket {}",
        env!("CARGO_PKG_VERSION"),
        start.configuration.services.len(),
        control.display()
    );
    if let Some(takeover) = director.takeover() {
        tracing::info!("{takeover}");
    }
    daemon::warn(&director.warnings());
    let manager = Manager::started(Arc::clone(&director), &start, Arc::clone(&audit));
    let service = Service {
        manager: Arc::new(manager.context("director.state")?),
        guard: Arc::new(Guard::new(rights, audit)),
        tls: tls.map(|(_, tls)| tls),
    };
    if let Some(metrics) = metrics {
        let _inside = runtime.enter();
        metrics
            .serve(Arc::clone(&service.manager))
            .context("metrics.listen")?;
    }
    let _netlink = netlink.map(|(socket, listener)| {
        let netlink = Arc::new(Netlink::new(Arc::clone(&service.manager)));
        runtime.spawn(netlink::serve(
            netlink,
            Arc::clone(&service.guard),
            listener,
        ));
        socket
    });
    let served = runtime.block_on(daemon::serve(service, incoming, signals, file));
    // Before the director: tasks that are still there may hold it.
    drop(runtime);
    if let Some(director) = Arc::into_inner(director) {
        director.stop();
    }
    Ok(served?)
}

/// Opens the ports, gives up what is not needed any more, and starts the workers.
fn start_director(start: &Start) -> anyhow::Result<Director> {
    for told in &start.told {
        tracing::warn!("{told}");
    }
    for wrong in &start.wrong {
        tracing::error!("{wrong}");
    }
    let ports = Director::open_ports(&start.configuration)?;
    let queues = ports.iter().filter_map(|port| port.queues.first());
    let needed = privileges::needed(queues.map(|queue| queue.info().driver));
    let kept = privileges::keep(needed).context("giving up privileges")?;
    tracing::debug!("capabilities kept: {kept:?}");
    Ok(Director::start_opened(start.configuration.clone(), ports)?)
}

fn encrypted(settings: &TlsSettings) -> anyhow::Result<(TcpListener, Arc<Tls>)> {
    let (tls, warnings) = Tls::load(settings)?;
    daemon::warn(&warnings);
    let listener = TcpListener::bind(settings.listen)
        .with_context(|| format!("access.tls.listen: {}", settings.listen))?;
    Ok((listener, Arc::new(tls)))
}
