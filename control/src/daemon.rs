//! What uvsd does once its director runs: answers the control socket, and heeds signals.

use crate::config::{Accepted, Configuration, ReadError};
use crate::grpc::{ConfigurationService, ConnectionsService, DirectorService};
use crate::manage::{Actor, ManageError, Manager, Outcome, Terms, Wish};
use crate::notify::{self, Watchdog};
use std::io;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

/// How often the director is tidied and looked after: a link that goes down is seen so soon.
const ROUND: Duration = Duration::from_millis(250);
/// How long clients of the control socket may take to finish when uvsd stops.
const FAREWELL: Duration = Duration::from_secs(2);

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

/// Takes over what the file says now, whole or not at all: also what was changed otherwise since.
///
/// # Errors
/// The old configuration goes on.
pub fn reload(manager: &Manager, file: &Path) -> Result<Outcome, ReloadError> {
    let wish = Wish::Whole(Box::new(read(file)?));
    let actor = Actor::of_uvsd("SIGHUP");
    Ok(manager.change(&wish, Terms::default(), &actor)?)
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
/// When the socket fails or a worker has ended.
pub async fn serve(
    manager: Arc<Manager>,
    listener: UnixListener,
    signals: Signals,
    file: &Path,
) -> Result<(), ServeError> {
    listener.set_nonblocking(true)?;
    let incoming = UnixListenerStream::new(tokio::net::UnixListener::from_std(listener)?);
    let (stop, mut stopped) = watch::channel(false);
    let server = Server::builder()
        .add_service(DirectorService::server(Arc::clone(manager.director())))
        .add_service(ConfigurationService::server(Arc::clone(&manager)))
        .add_service(ConnectionsService::server(Arc::clone(&manager)));
    let until = async move {
        // An error means that the sender is gone: stopped as well.
        let _ = stopped.wait_for(|stopped| *stopped).await;
    };
    let mut server = tokio::spawn(server.serve_with_incoming_shutdown(incoming, until));
    notify::ready();
    let ended = tokio::select! {
        ended = &mut server => return ended.map_err(io::Error::other)?.map_err(ServeError::Grpc),
        ended = watch_over(&manager, signals, file) => ended,
    };
    // A client that does not let go must not keep uvsd from stopping.
    let _ = stop.send(true);
    let _ = tokio::time::timeout(FAREWELL, server).await;
    ended
}

/// Heeds signals and looks after the director, until it is to stop.
async fn watch_over(
    manager: &Manager,
    mut signals: Signals,
    file: &Path,
) -> Result<(), ServeError> {
    let mut watchdog = Watchdog::new();
    let mut round =
        tokio::time::interval(watchdog.period().map_or(ROUND, |period| period.min(ROUND)));
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => break,
            _ = signals.interrupt.recv() => break,
            _ = signals.hang_up.recv() => {
                notify::reloading();
                log_reload(reload(manager, file));
                notify::ready();
            }
            _ = round.tick() => {
                manager.director().tidy();
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
