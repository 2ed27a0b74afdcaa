//! Counters and rates, again and again; and their return to 0.

use super::place::Place;
use super::refusal::invalid;
use super::{read, service, status};
use crate::config::Problem;
use crate::director::Director;
use proto::v1;
use std::cell::RefCell;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::MissedTickBehavior;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// Between two messages, if nothing else is asked for.
const INTERVAL_MS: u32 = 1000;
/// What may be asked for.
const INTERVALS_MS: std::ops::RangeInclusive<u32> = 100..=3_600_000;

/// What a watcher of statistics gets.
pub(super) type Statistics =
    Pin<Box<dyn Stream<Item = Result<v1::WatchStatisticsResponse, Status>> + Send>>;

/// Services and status until the caller goes. Who reads slowly gets fewer messages.
pub(super) fn watch(
    director: Arc<Director>,
    request: &v1::WatchStatisticsRequest,
) -> Result<Statistics, Status> {
    let interval = match request.interval_ms {
        0 => INTERVAL_MS,
        asked => asked,
    };
    if !INTERVALS_MS.contains(&interval) {
        let found = RefCell::new(Vec::new());
        Place::top(&found).key("interval_ms").note(Problem::NotA {
            value: interval.to_string(),
            what: "a time between two messages",
            accepted: format!("{} to {}", INTERVALS_MS.start(), INTERVALS_MS.end()),
        });
        return Err(invalid(&found.take(), ToString::to_string));
    }
    let mut due = tokio::time::interval(Duration::from_millis(interval.into()));
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        let mut before = None;
        loop {
            tokio::select! {
                _ = due.tick() => {}
                () = sender.closed() => return,
            }
            // Before they are asked for: what is sent is of the moment in which there is room for it.
            let Ok(room) = sender.reserve().await else {
                return;
            };
            let now = Instant::now();
            let elapsed = before.map_or(Duration::ZERO, |before| now.duration_since(before));
            before = Some(now);
            let director = Arc::clone(&director);
            let message = tokio::task::spawn_blocking(move || v1::WatchStatisticsResponse {
                services: director.services().iter().map(service).collect(),
                status: Some(status(&director.status())),
                elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            });
            let message = message.await;
            room.send(message.map_err(|_| Status::internal("the call broke off: see uvsd's log")));
        }
    });
    Ok(Box::pin(ReceiverStream::new(receiver)))
}

/// Sets counters to 0.
pub(super) fn zero(director: &Director, request: &v1::ZeroCountersRequest) -> Result<(), Status> {
    let found = RefCell::new(Vec::new());
    let listen = match &request.service {
        None => None,
        Some(key) => match read::key(key, &Place::top(&found).key("service")) {
            None => return Err(invalid(&found.take(), ToString::to_string)),
            listen => listen,
        },
    };
    if director.zero_counters(listen) {
        return Ok(());
    }
    let listen = listen.map(|listen| listen.to_string()).unwrap_or_default();
    Err(Status::not_found(format!("there is no service {listen}")))
}
