//! Taking a server out of service without cutting anybody off, or not before a deadline.

use super::place::Place;
use super::read;
use super::refusal::{invalid, refused};
use crate::config::{Listen, Problem};
use crate::connections::{self, Ending, Filter};
use crate::manage::{Actor, Edit, EditError, ManageError, Manager, Terms, Wish};
use crate::status::ServerStatus;
use proto::v1;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// How long a drain may take.
const DEADLINE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// How often the caller is told, if nothing else is asked for.
const INTERVAL: Duration = Duration::from_secs(1);
/// What may be asked for.
const INTERVALS: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(3600)];
/// Others who change the configuration at the same moment, before it is given up.
const TRIES: usize = 16;

/// What the caller of a drain gets.
pub(super) type Drained = Pin<Box<dyn Stream<Item = Result<v1::DrainResponse, Status>> + Send>>;

/// A drain as it was asked for.
#[derive(Clone, Copy, Debug)]
struct Asked {
    listen: Listen,
    address: SocketAddr,
    deadline: Option<Duration>,
    /// None: what is left goes on.
    ending: Option<Ending>,
    interval: Duration,
}

/// Sets the weight to 0, and tells of the rest until the caller goes or it is over.
pub(super) async fn start(
    manager: Arc<Manager>,
    request: &v1::DrainRequest,
    actor: &Actor,
) -> Result<Drained, Status> {
    let found = RefCell::new(Vec::new());
    let asked = read_asked(request, &Place::top(&found));
    let found = found.take();
    let asked = match asked {
        Some(asked) if found.is_empty() => asked,
        _ => return Err(invalid(&found, ToString::to_string)),
    };
    let (of, actor) = (Arc::clone(&manager), actor.clone());
    let changed = tokio::task::spawn_blocking(move || set_weight(&of, asked, &actor)).await;
    let revision = changed.unwrap_or_else(|_| Err(broken_off()))?;
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let ended = follow(&manager, asked, revision, &sender).await;
        if let Err(status) = ended {
            // Who does not listen any more needs no reason.
            let _ = sender.send(Err(status)).await;
        }
    });
    Ok(Box::pin(ReceiverStream::new(receiver)))
}

fn broken_off() -> Status {
    Status::internal("the call broke off: see uvsd's log")
}

fn read_asked(of: &v1::DrainRequest, place: &Place<'_>) -> Option<Asked> {
    let listen = read::service_key(of.service.as_ref(), &place.key("service"));
    let address = read::address(&of.address, &place.key("address"));
    let port = read::port(of.port, &place.key("port"));
    let span =
        |span: Option<&prost_types::Duration>, name, bounds: [Duration; 2], accepted: &str| {
            let Some(span) = span else { return Some(None) };
            let place = place.key(name);
            let read = Duration::try_from(*span).ok();
            let read = read.filter(|read| bounds[0] <= *read && *read <= bounds[1]);
            if read.is_none() {
                place.note(Problem::NotA {
                    value: format!("{}.{:09} s", span.seconds, span.nanos),
                    what: "a time",
                    accepted: accepted.to_owned(),
                });
            }
            read.map(Some)
        };
    let bounds = [Duration::ZERO, DEADLINE_MAX];
    let deadline = span(of.deadline.as_ref(), "deadline", bounds, "0 s to 604800 s");
    let interval = span(
        of.interval.as_ref(),
        "interval",
        INTERVALS,
        "0.1 s to 3600 s",
    );
    let at_deadline = place.key("at_deadline");
    let ending = match v1::DrainEnd::try_from(of.at_deadline) {
        Ok(v1::DrainEnd::Unspecified | v1::DrainEnd::Keep) => Some(None),
        Ok(v1::DrainEnd::Reset) => Some(Some(Ending::Reset)),
        Ok(v1::DrainEnd::Reschedule) => Some(Some(Ending::Forget)),
        Err(_) => {
            at_deadline.note(Problem::NotA {
                value: of.at_deadline.to_string(),
                what: "an end of a drain",
                accepted: "DRAIN_END_KEEP, DRAIN_END_RESET, DRAIN_END_RESCHEDULE".to_owned(),
            });
            None
        }
    };
    if of.deadline.is_none() && matches!(ending, Some(Some(_))) {
        let why = "without a deadline nothing is ended: set `deadline`, or leave this out";
        at_deadline.note(Problem::Misplaced(why));
        return None;
    }
    let (listen, port) = (listen?, port?);
    let port = if port == 0 { listen.port() } else { port };
    Some(Asked {
        listen,
        address: SocketAddr::new(address?, port),
        deadline: deadline?,
        ending: ending?,
        interval: interval?.unwrap_or(INTERVAL),
    })
}

/// Sets a server's weight to 0; the revision that did so, or that holds if it was 0 already.
fn set_weight(manager: &Manager, asked: Asked, actor: &Actor) -> Result<u64, Status> {
    let Asked {
        listen, address, ..
    } = asked;
    for _ in 0..TRIES {
        let (configuration, revision, _) = manager.current();
        let mut services = configuration.services.iter();
        let service = services.find(|service| service.listen == listen);
        let server = service
            .and_then(|service| service.servers.iter().find(|one| one.address == address))
            .cloned();
        let Some(mut server) = server else {
            let servers = service.map(|service| service.servers.iter().map(|one| one.address));
            let error = match servers {
                None => EditError::no_service(&configuration.services, listen),
                Some(servers) => EditError::NoServer(listen, address, servers.collect()),
            };
            return Err(Status::not_found(error.to_string()));
        };
        if server.weight == 0 {
            return Ok(revision);
        }
        server.weight = 0;
        let wish = Wish::Edits(vec![Edit::UpdateServer(listen, server)]);
        let terms = Terms {
            expected: Some(revision),
            ..Terms::default()
        };
        match manager.change(&wish, terms, actor) {
            Ok(outcome) => return Ok(outcome.revision),
            Err(ManageError::Outdated { .. }) => {}
            Err(error) => return Err(refused(&error, ToString::to_string)),
        }
    }
    Err(Status::aborted(
        "the configuration changes all the time: try again",
    ))
}

/// What a server has now; nothing once it is neither configured nor referred to.
fn server(manager: &Manager, asked: Asked) -> Option<ServerStatus> {
    manager.director().server(asked.listen, asked.address)
}

/// Tells how it goes on.
async fn follow(
    manager: &Arc<Manager>,
    asked: Asked,
    revision: u64,
    sender: &mpsc::Sender<Result<v1::DrainResponse, Status>>,
) -> Result<(), Status> {
    let end = asked.deadline.map(|deadline| Instant::now() + deadline);
    let mut due = tokio::time::interval(asked.interval);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let is_over = tokio::select! {
            _ = due.tick() => false,
            () = until(end) => true,
            () = sender.closed() => return Ok(()),
        };
        let server = server(manager, asked);
        let weight = server.as_ref().map_or(0, |server| server.weight);
        if weight > 0 {
            return Err(Status::aborted(format!(
                "somebody gave the server weight {weight}: the drain is over"
            )));
        }
        let mut told = told(server.as_ref(), revision);
        let is_over = is_over || end.is_some_and(|end| end <= Instant::now());
        told.done = is_over || (told.active, told.inactive, told.persistent) == (0, 0, 0);
        if !told.done {
            if sender.send(Ok(told)).await.is_err() {
                return Ok(());
            }
            continue;
        }
        let last = finish(manager, asked, told).await?;
        let _ = sender.send(Ok(last)).await;
        return Ok(());
    }
}

/// At the end: what is left goes, if it is to.
async fn finish(
    manager: &Arc<Manager>,
    asked: Asked,
    told: v1::DrainResponse,
) -> Result<v1::DrainResponse, Status> {
    let left = told.active + told.inactive + told.persistent;
    let Some(ending) = asked.ending.filter(|_| left > 0) else {
        return Ok(told);
    };
    let director = Arc::clone(manager.director());
    let filter = Filter {
        made_by: Some((asked.listen, asked.address)),
        ..Filter::default()
    };
    let ended =
        tokio::task::spawn_blocking(move || connections::end(&director, &filter, ending)).await;
    let ended = ended.map_err(|_| broken_off())?;
    let ended = ended.map_err(|stuck| Status::unavailable(stuck.to_string()))?;
    Ok(v1::DrainResponse {
        ended,
        done: true,
        ..self::told(server(manager, asked).as_ref(), told.revision)
    })
}

fn told(server: Option<&ServerStatus>, revision: u64) -> v1::DrainResponse {
    let count = |count: fn(&ServerStatus) -> u32| server.map_or(0, |server| count(server).into());
    v1::DrainResponse {
        active: count(|server| server.active),
        inactive: count(|server| server.inactive),
        persistent: count(|server| server.persistent),
        revision,
        ..v1::DrainResponse::default()
    }
}

async fn until(end: Option<Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}
