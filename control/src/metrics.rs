//! Counters for Prometheus, over HTTP: `GET /metrics`, and nothing else.
//!
//! ```text
//!   bind ─▶ Endpoint ── serve ─▶ a task for each connection, 16 at most ─▶ one answer ─▶ closed
//!                                           └─ values are gathered beside the control thread, two at a time
//! ```
//! Whoever reaches the address may read; so it is a loopback address unless the configuration says otherwise.

mod catalogue;
mod gather;

pub use catalogue::{FAMILIES, Family, Kind};
pub(crate) use gather::applies;

use crate::config::{Configuration, MetricsSettings};
use crate::manage::Manager;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use prometheus::TextEncoder;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Connections at a time; more wait in the kernel's queue.
const CONNECTIONS: usize = 16;
/// Answers that are made at a time.
const SCRAPES: usize = 2;
/// How long a connection may take, from its beginning to its end.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of a request's head, at most: the least that hyper knows.
const REQUEST_LEN: usize = 8192;
/// Before another connection is accepted when the system refuses one.
const PAUSE: Duration = Duration::from_millis(100);

/// Why metrics cannot be served.
#[derive(Debug, thiserror::Error)]
#[error(
    "metrics.listen: {address}: {error}; accepted: an address of this host and a port that is free"
)]
pub struct BindError {
    address: SocketAddr,
    error: io::Error,
}

/// Where metrics are served.
#[derive(Debug)]
pub struct Endpoint {
    listener: std::net::TcpListener,
}

impl Endpoint {
    /// Listens where the configuration says, if it does.
    ///
    /// # Errors
    /// When the address is not to be had.
    pub fn bind(configuration: &Configuration) -> Result<Option<Endpoint>, BindError> {
        let Some(MetricsSettings { listen, .. }) = configuration.metrics else {
            return Ok(None);
        };
        let bound = std::net::TcpListener::bind(listen).and_then(|listener| {
            listener.set_nonblocking(true)?;
            Ok(Endpoint { listener })
        });
        bound.map(Some).map_err(|error| BindError {
            address: listen,
            error,
        })
    }

    /// Answers as long as the runtime runs. Within a tokio runtime.
    ///
    /// # Errors
    /// When the runtime refuses the socket.
    pub fn serve(self, manager: Arc<Manager>) -> io::Result<()> {
        let listener = TcpListener::from_std(self.listener)?;
        tokio::spawn(accept(listener, manager));
        Ok(())
    }
}

async fn accept(listener: TcpListener, manager: Arc<Manager>) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    let scrapes = Arc::new(Semaphore::new(SCRAPES));
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let (manager, scrapes) = (Arc::clone(&manager), Arc::clone(&scrapes));
        tokio::spawn(async move {
            // Too slow, broken off or no HTTP: nobody is there to be told.
            let _ = tokio::time::timeout(PATIENCE, answer_one(stream, manager, scrapes)).await;
            drop(permit);
        });
    }
}

/// Answers the one request of a connection.
async fn answer_one(
    stream: TcpStream,
    manager: Arc<Manager>,
    scrapes: Arc<Semaphore>,
) -> Result<(), hyper::Error> {
    let service = service_fn(move |request| {
        let (manager, scrapes) = (Arc::clone(&manager), Arc::clone(&scrapes));
        async move { Ok::<_, Infallible>(answer(&request, manager, &scrapes).await) }
    });
    hyper::server::conn::http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(REQUEST_LEN)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

async fn answer(
    request: &Request<Incoming>,
    manager: Arc<Manager>,
    scrapes: &Semaphore,
) -> Response<Full<Bytes>> {
    if request.uri().path() != "/metrics" {
        return text(
            StatusCode::NOT_FOUND,
            "nothing is here; accepted: GET /metrics\n",
        );
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "accepted: GET /metrics\n");
        let allowed = hyper::header::HeaderValue::from_static("GET, HEAD");
        response.headers_mut().insert(ALLOW, allowed);
        return response;
    }
    // Closed by nobody.
    let _permit = scrapes.acquire().await;
    let made = tokio::task::spawn_blocking(move || metrics(&manager)).await;
    match made {
        Ok(body) => text(StatusCode::OK, body),
        Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "a fault of uvsd's\n"),
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let kind = hyper::header::HeaderValue::from_static(prometheus::TEXT_FORMAT);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// All metrics as Prometheus reads them (text format 0.0.4).
///
/// # Panics
/// When a metric has no values: a fault in `gather`.
#[must_use]
pub fn metrics(manager: &Manager) -> String {
    let settings = manager.director().configuration().metrics;
    let families = gather::gather(manager, &settings.unwrap_or_default());
    TextEncoder::new()
        .encode_to_string(&families)
        .expect("families without values are left out")
}
