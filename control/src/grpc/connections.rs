//! The service `uvs.v1.Connections`.

use super::drain::{self, Drained};
use super::place::Place;
use super::refusal::invalid;
use super::{configuration, read, write};
use crate::config::{Prefix, Problem, Protocol};
use crate::connections::{self, ConnectionView, Ending, Filter, Templates};
use crate::director::Director;
use crate::manage::Manager;
use proto::v1;
use proto::v1::connections_server as server;
use std::cell::RefCell;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// Connections in a message.
const CHUNK: usize = 1000;
/// Messages that wait for a reader.
const MESSAGES: usize = 4;
/// Walks through the tables at once: each keeps a thread busy, or waiting for its reader.
const WALKS: usize = 32;

/// Answers for one manager.
#[derive(Clone)]
pub struct ConnectionsService {
    manager: Arc<Manager>,
    walks: Arc<Semaphore>,
}

impl ConnectionsService {
    /// The service of `manager`, to be handed to a tonic server.
    #[must_use]
    pub fn server(manager: Arc<Manager>) -> server::ConnectionsServer<ConnectionsService> {
        server::ConnectionsServer::new(ConnectionsService {
            manager,
            walks: Arc::new(Semaphore::new(WALKS)),
        })
    }

    /// Walks through the tables elsewhere than where calls are answered.
    fn walk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Director) -> T + Send + 'static,
    ) -> Result<tokio::task::JoinHandle<T>, Status> {
        let Ok(turn) = Arc::clone(&self.walks).try_acquire_owned() else {
            return Err(Status::resource_exhausted(format!(
                "{WALKS} calls are walking through the connections already: try again when one of them has ended"
            )));
        };
        let director = Arc::clone(self.manager.director());
        Ok(tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work(&director)
        }))
    }
}

fn broken_off(_: tokio::task::JoinError) -> Status {
    Status::internal("the call broke off: see uvsd's log")
}

#[tonic::async_trait]
impl server::Connections for ConnectionsService {
    type ListConnectionsStream =
        Pin<Box<dyn Stream<Item = Result<v1::ListConnectionsResponse, Status>> + Send>>;

    async fn list_connections(
        &self,
        request: Request<v1::ListConnectionsRequest>,
    ) -> Result<Response<Self::ListConnectionsStream>, Status> {
        let request = request.into_inner();
        let filter = filter(request.filter.as_ref())?;
        let limit = match request.limit {
            0 => u64::MAX,
            limit => limit,
        };
        let (sender, receiver) = mpsc::channel(MESSAGES);
        self.walk(move |director| list(director, &filter, limit, &sender))?;
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn count_connections(
        &self,
        request: Request<v1::CountConnectionsRequest>,
    ) -> Result<Response<v1::CountConnectionsResponse>, Status> {
        let filter = filter(request.into_inner().filter.as_ref())?;
        let counted = self.walk(move |director| connections::count(director, &filter))?;
        let connections = counted.await.map_err(broken_off)?;
        Ok(Response::new(v1::CountConnectionsResponse { connections }))
    }

    async fn kill_connections(
        &self,
        request: Request<v1::KillConnectionsRequest>,
    ) -> Result<Response<v1::KillConnectionsResponse>, Status> {
        let request = request.into_inner();
        let filter = filter(request.filter.as_ref())?;
        if filter.is_empty() != request.all {
            let found = RefCell::new(Vec::new());
            let top = Place::top(&found);
            match request.all {
                true => top.key("all").note(Problem::Misplaced(
                    "`all` means all connections, a filter means some: one or the other",
                )),
                false => top
                    .key("filter")
                    .missing("which connections", "a field of the filter, or `all`"),
            }
            return Err(invalid(&found.take(), ToString::to_string));
        }
        let ended =
            self.walk(move |director| connections::end(director, &filter, Ending::Forget))?;
        let ended = ended.await.map_err(broken_off)?;
        let killed = ended.map_err(|stuck| Status::unavailable(stuck.to_string()))?;
        Ok(Response::new(v1::KillConnectionsResponse { killed }))
    }

    type DrainStream = Drained;

    async fn drain(
        &self,
        request: Request<v1::DrainRequest>,
    ) -> Result<Response<Self::DrainStream>, Status> {
        let actor = configuration::actor(&request);
        let request = request.into_inner();
        let drained = drain::start(Arc::clone(&self.manager), &request, &actor);
        drained.await.map(Response::new)
    }

    async fn explain(
        &self,
        _: Request<v1::ExplainRequest>,
    ) -> Result<Response<v1::ExplainResponse>, Status> {
        Err(Status::unimplemented("not there yet"))
    }
}

/// Sends what a filter lets through, a message at a time, until the reader goes.
fn list(
    director: &Director,
    filter: &Filter,
    limit: u64,
    sender: &mpsc::Sender<Result<v1::ListConnectionsResponse, Status>>,
) {
    let mut left = limit;
    let mut chunk = Vec::new();
    let send = |connections: Vec<v1::Connection>| {
        let message = v1::ListConnectionsResponse { connections };
        match sender.blocking_send(Ok(message)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    };
    let walked = connections::for_each(director, filter, |view| {
        chunk.push(connection(&view));
        left -= 1;
        if chunk.len() == CHUNK || left == 0 {
            send(std::mem::take(&mut chunk))?;
        }
        match left {
            0 => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    });
    if walked.is_continue() && !chunk.is_empty() {
        // The last; whether it is read does not matter.
        let _ = send(chunk);
    }
}

/// A connection as a message.
pub(super) fn connection(view: &ConnectionView) -> v1::Connection {
    let protocol = match view.protocol {
        6 => v1::Protocol::Tcp,
        17 => v1::Protocol::Udp,
        132 => v1::Protocol::Sctp,
        _ => v1::Protocol::Unspecified,
    };
    let engine_data = view.engine_data.as_deref().map(String::from_utf8_lossy);
    v1::Connection {
        protocol: protocol.into(),
        client: view.client.ip().to_string(),
        client_port: view.client.port().into(),
        r#virtual: view.virtual_server.ip().to_string(),
        virtual_port: view.virtual_server.port().into(),
        server: view.real_server.ip().to_string(),
        server_port: view.real_server.port().into(),
        method: write::method(view.method).into(),
        state: view.state_name().to_owned(),
        expires_ms: u64::try_from(view.left.as_millis()).unwrap_or(u64::MAX),
        template: view.template,
        local: view.local.map_or(String::new(), |end| end.ip().to_string()),
        local_port: view.local.map_or(0, |end| end.port().into()),
        worker: view.owner.into(),
        has_service: view.has_service,
        mark: view.mark().unwrap_or(0),
        // There is one engine.
        engine: engine_data.as_ref().map_or("", |_| "sip").to_owned(),
        engine_data: engine_data.unwrap_or_default().into_owned(),
    }
}

/// The filter that a message means.
fn filter(of: Option<&v1::ConnectionFilter>) -> Result<Filter, Status> {
    let Some(of) = of else {
        return Ok(Filter::default());
    };
    let found = RefCell::new(Vec::new());
    let top = Place::top(&found);
    let filter = read_filter(of, &top.key("filter"));
    let found = found.take();
    match filter {
        Some(filter) if found.is_empty() => Ok(filter),
        _ => Err(invalid(&found, ToString::to_string)),
    }
}

fn read_filter(of: &v1::ConnectionFilter, place: &Place<'_>) -> Option<Filter> {
    let network = |text: &str, name: &'static str| network(text, &place.key(name));
    let port = |value: u32, name: &'static str| {
        let port = read::port(value, &place.key(name));
        port.map(|port| (port != 0).then_some(port))
    };
    let protocol: Option<Option<Protocol>> = read::protocol(of.protocol, &place.key("protocol"));
    let method = read::method(of.method, &place.key("method"));
    let client = network(&of.client, "client");
    let client_port = port(of.client_port, "client_port");
    let virtual_address = network(&of.r#virtual, "virtual");
    let virtual_port = port(of.virtual_port, "virtual_port");
    let server = network(&of.server, "server");
    let server_port = port(of.server_port, "server_port");
    let state = state(&of.state, &place.key("state"));
    let owner = worker(of.worker_from_one, &place.key("worker_from_one"));
    let templates = templates(of.templates, &place.key("templates"));
    Some(Filter {
        protocol: protocol?,
        client: client?,
        client_port: client_port?,
        virtual_address: virtual_address?,
        virtual_port: virtual_port?,
        server: server?,
        server_port: server_port?,
        state: state?,
        method: method?,
        owner: owner?,
        templates: templates?,
        made_by: None,
    })
}

/// The inner `None` for none, as in the others.
fn network(text: &str, place: &Place<'_>) -> Option<Option<Prefix>> {
    if text.is_empty() {
        return Some(None);
    }
    let of_address = |address: IpAddr| Prefix {
        address,
        len: if address.is_ipv4() { 32 } else { 128 },
    };
    let parsed = match text.parse() {
        Ok(address) => Some(of_address(address)),
        Err(_) => text.parse().ok(),
    };
    if parsed.is_none() {
        place.note(Problem::NotA {
            value: format!("{text:?}"),
            what: "a network",
            accepted: "an address, or one with a length, such as \"10.3.0.0/16\" or \"fd00::/64\""
                .to_owned(),
        });
    }
    parsed.map(Some)
}

fn state(text: &str, place: &Place<'_>) -> Option<Option<&'static str>> {
    if text.is_empty() {
        return Some(None);
    }
    let named = connections::state_named(text);
    if named.is_none() {
        place.note(Problem::NotA {
            value: format!("{text:?}"),
            what: "a state",
            accepted: connections::states().collect::<Vec<_>>().join(", "),
        });
    }
    named.map(Some)
}

fn worker(from_one: u32, place: &Place<'_>) -> Option<Option<u16>> {
    let Some(index) = from_one.checked_sub(1) else {
        return Some(None);
    };
    let owner = u16::try_from(index).ok();
    if owner.is_none() {
        place.note(Problem::NotA {
            value: from_one.to_string(),
            what: "the number of a worker",
            accepted: "1 to 65536, or 0 for any".to_owned(),
        });
    }
    owner.map(Some)
}

fn templates(value: i32, place: &Place<'_>) -> Option<Templates> {
    match v1::Templates::try_from(value) {
        Ok(v1::Templates::Unspecified) => Some(Templates::With),
        Ok(v1::Templates::Without) => Some(Templates::Without),
        Ok(v1::Templates::Only) => Some(Templates::Only),
        Err(_) => {
            place.note(Problem::NotA {
                value: value.to_string(),
                what: "a choice of templates",
                accepted: "TEMPLATES_WITHOUT, TEMPLATES_ONLY, or neither".to_owned(),
            });
            None
        }
    }
}
