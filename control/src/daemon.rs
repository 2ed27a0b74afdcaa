//! What uvsd does once its director runs: answers the control socket, and heeds signals.

use crate::config::{Accepted, Configuration, ReadError};
use crate::grpc::{CaptureService, ConfigurationService, ConnectionsService, DirectorService};
use crate::guard::{Access, Guard, Incoming, Tls, TlsError};
use crate::manage::{Actor, ManageError, Manager, Outcome};
use crate::notify::{self, Watchdog};
use crate::proc::Folder;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

/// How often the director is tidied and looked after: a link that goes down is seen so soon.
const ROUND: Duration = Duration::from_millis(250);
/// How long clients of the control socket may take to finish when uvsd stops.
const FAREWELL: Duration = Duration::from_secs(2);
/// Calls of one connection at once.
pub const STREAMS: u32 = 128;
/// A client is asked so often whether it is still there, and has so long to answer.
const ASK: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));
/// Bytes of a call's headers, at most.
const HEADERS_LEN: u32 = 16 << 10;

/// Why uvsd ends other than by a signal.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The control socket or the signals are out of order.
    #[error("control: {0}")]
    Io(#[from] io::Error),
    /// gRPC is out of order.
    #[error("control: {0}")]
    Grpc(#[from] tonic::transport::Error),
    /// Threads of workers have ended: packets are lost.
    #[error("workers {0:?} have ended on their own")]
    WorkersEnded(Vec<usize>),
}

/// Why a reload changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The file.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Its contents, or what is going on.
    #[error(transparent)]
    Change(#[from] ManageError),
    /// The files of TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// What uvsd serves with.
pub struct Service {
    /// Makes changes.
    pub manager: Arc<Manager>,
    /// Knows who may make them.
    pub guard: Arc<Guard>,
    /// What TLS is made of, where there is TLS.
    pub tls: Option<Arc<Tls>>,
}

/// Reads a configuration, and says what is doubtful in it.
///
/// # Errors
/// When it cannot be used.
pub fn read(file: &Path) -> Result<Configuration, ReadError> {
    let Accepted {
        configuration,
        warnings,
    } = Configuration::from_file(file)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    Ok(configuration)
}

impl Service {
    /// Takes over what the file says now, whole or not at all: see [`Manager::reload`]. Names and certificates are looked up
    /// again, and the audit log is opened again.
    ///
    /// # Errors
    /// The old configuration goes on.
    pub fn reload(&self, file: &Path) -> Result<Outcome, ReloadError> {
        // Whatever becomes of the rest: the file may have been moved away to make room.
        if let Err(error) = self.guard.audit().reopen() {
            tracing::error!("access.audit: {error}: what was open before is written to");
        }
        let configuration = read(file)?;
        let access = configuration.access.clone();
        let tls = access.tls.as_ref().map(Tls::load).transpose()?;
        let actor = Actor::of_uvsd("SIGHUP");
        let outcome = self.manager.reload(configuration, &actor)?;
        if let (Some(own), Some((new, warnings))) = (&self.tls, tls) {
            own.adopt(&new);
            warn(&warnings);
        }
        let (access, warnings) = Access::look_up(&access);
        self.guard.adopt(access);
        warn(&warnings);
        Ok(outcome)
    }
}

/// Says what is doubtful.
pub fn warn(warnings: &[String]) {
    for warning in warnings {
        tracing::warn!("{warning}");
    }
}

/// The signals that uvsd heeds, from the moment this is made: to be made before anybody can see that uvsd starts.
#[derive(Debug)]
pub struct Signals {
    hang_up: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Within a tokio runtime.
    ///
    /// # Errors
    /// When the system refuses.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new() -> io::Result<Signals> {
        Ok(Signals {
            hang_up: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }
}

/// Serves until SIGTERM or SIGINT; SIGHUP reloads `file`.
///
/// # Errors
/// When the sockets fail or a worker has ended.
pub async fn serve(
    service: Service,
    incoming: Incoming,
    signals: Signals,
    file: &Path,
) -> Result<(), ServeError> {
    let (stop, mut stopped) = watch::channel(false);
    let (health, health_service) = tonic_health::server::health_reporter();
    let wrong = |error| ServeError::Io(io::Error::other(error));
    let manager = &service.manager;
    let server = Server::builder()
        .max_concurrent_streams(STREAMS)
        .http2_keepalive_interval(Some(ASK.0))
        .http2_keepalive_timeout(Some(ASK.1))
        .http2_max_header_list_size(HEADERS_LEN)
        .layer(service.guard.layer())
        .add_service(health_service)
        .add_service(reflection().build_v1().map_err(wrong)?)
        // Many clients still ask for the version before.
        .add_service(reflection().build_v1alpha().map_err(wrong)?)
        .add_service(DirectorService::server(Arc::clone(manager.director())))
        .add_service(CaptureService::server(Arc::clone(manager.director())))
        .add_service(ConfigurationService::server(Arc::clone(manager)))
        .add_service(ConnectionsService::server(Arc::clone(manager)));
    tell_health(&health, ServingStatus::Serving).await;
    let until = async move {
        // An error means that the sender is gone: stopped as well.
        let _ = stopped.wait_for(|stopped| *stopped).await;
    };
    let mut server = tokio::spawn(server.serve_with_incoming_shutdown(incoming, until));
    notify::ready();
    let ended = tokio::select! {
        ended = &mut server => return ended.map_err(io::Error::other)?.map_err(ServeError::Grpc),
        ended = watch_over(&service, signals, file) => ended,
    };
    tell_health(&health, ServingStatus::NotServing).await;
    // A client that does not let go must not keep uvsd from stopping.
    let _ = stop.send(true);
    let _ = tokio::time::timeout(FAREWELL, server).await;
    ended
}

/// What uvsd serves, as `grpc.health.v1.Health` names it; the first is all of it.
const HEALTH: [&str; 5] = [
    "",
    "uvs.v1.Capture",
    "uvs.v1.Director",
    "uvs.v1.Configuration",
    "uvs.v1.Connections",
];

async fn tell_health(health: &HealthReporter, status: ServingStatus) {
    for name in HEALTH {
        health.set_service_status(name, status).await;
    }
}

/// What the reflection service tells of.
fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

/// Heeds signals and looks after the director, until it is to stop.
async fn watch_over(
    service: &Service,
    mut signals: Signals,
    file: &Path,
) -> Result<(), ServeError> {
    let manager = &service.manager;
    let mut watchdog = Watchdog::new();
    let mut proc = manager.director().settings.proc.clone().map(Folder::new);
    let mut round =
        tokio::time::interval(watchdog.period().map_or(ROUND, |period| period.min(ROUND)));
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => break,
            _ = signals.interrupt.recv() => break,
            _ = signals.hang_up.recv() => {
                notify::reloading();
                log_reload(service.reload(file));
                notify::ready();
            }
            _ = round.tick() => {
                manager.director().tidy();
                if let Some(proc) = &mut proc {
                    proc.refresh(manager.director());
                }
                log_roll_back(manager.tidy());
                let ended = manager.director().ended_workers();
                if !ended.is_empty() {
                    return Err(ServeError::WorkersEnded(ended));
                }
                watchdog.look(manager.director());
            }
        }
    }
    notify::stopping();
    tracing::info!("stopping");
    Ok(())
}

fn log_roll_back(back: Option<Result<Outcome, ManageError>>) {
    match back {
        None => {}
        Some(Ok(outcome)) => tracing::warn!(
            "a change was not confirmed in time and is taken back: revision {}, {}",
            outcome.revision,
            outcome.plan
        ),
        Some(Err(error)) => tracing::error!("a change was not confirmed in time: {error}"),
    }
}

fn log_reload(reloaded: Result<Outcome, ReloadError>) {
    match reloaded {
        Ok(outcome) => tracing::info!("reloaded: {}", outcome.plan),
        Err(error) => {
            for line in error.to_string().lines() {
                tracing::error!("{line}");
            }
            tracing::error!("not reloaded: the old configuration goes on");
        }
    }
}
