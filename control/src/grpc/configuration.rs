//! The service `uvs.v1.Configuration`.

use super::place::Place;
use super::refusal::{field_of_state, invalid, refused};
use super::{read, write};
use crate::config::{Finding, KeyPath, Step};
use crate::manage::{Actor, Edit, ManageError, Manager, Terms, Wish};
use proto::v1;
use proto::v1::configuration_server as server;
use std::cell::RefCell;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// Edits of one call, at most.
const EDITS: usize = 10_000;
/// News that a watcher may have before it.
const NEWS: usize = 64;

/// Bytes of a message, at most: a state of as many servers as there may be.
const MESSAGE_LEN: usize = 64 << 20;

/// Answers for one manager.
#[derive(Clone)]
pub struct ConfigurationService {
    manager: Arc<Manager>,
}

impl ConfigurationService {
    /// The service of `manager`, to be handed to a tonic server.
    #[must_use]
    pub fn server(manager: Arc<Manager>) -> server::ConfigurationServer<ConfigurationService> {
        server::ConfigurationServer::new(ConfigurationService { manager })
            .max_decoding_message_size(MESSAGE_LEN)
            .max_encoding_message_size(MESSAGE_LEN)
    }

    /// Does what takes long elsewhere than where calls are answered.
    async fn with_manager<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Manager) -> Result<T, Status> + Send + 'static,
    ) -> Result<T, Status> {
        let manager = Arc::clone(&self.manager);
        let done = tokio::task::spawn_blocking(move || work(&manager)).await;
        done.unwrap_or_else(|_| Err(Status::internal("the call broke off: see uvsd's log")))
    }
}

/// What a call asks for.
enum Asked {
    State(v1::State),
    Edits(Vec<v1::Edit>),
}

/// A wish that could be read, and what its edits are about.
struct Read {
    wish: Wish,
    edits: Vec<Edit>,
}

fn read(asked: Option<Asked>, manager: &Manager) -> Result<Read, Status> {
    let found = RefCell::new(Vec::new());
    let top = Place::top(&found);
    let (current, ..) = manager.current();
    let read = match &asked {
        None => {
            top.key("change")
                .missing("what to change", "`state` or `edits`");
            None
        }
        Some(Asked::State(state)) => {
            read::state(state, &top.key("state"), current).map(|wanted| Read {
                wish: Wish::Whole(Box::new(wanted)),
                edits: Vec::new(),
            })
        }
        Some(Asked::Edits(edits)) => {
            let (all, list) = (top.key("edits"), top.key("edits"));
            let list = list.key("edits");
            let read: Vec<_> = all
                .list(edits, "edits", EDITS)
                .iter()
                .enumerate()
                .filter_map(|(index, edit)| read::edit(edit, &list.index(index), &current))
                .collect();
            Some(Read {
                wish: Wish::Edits(read.clone()),
                edits: read,
            })
        }
    };
    let found = found.take();
    match read {
        Some(read) if found.is_empty() => Ok(read),
        _ => Err(invalid(&found, ToString::to_string)),
    }
}

impl Read {
    /// The status of a wish that was not granted.
    fn refused(&self, error: &ManageError, manager: &Manager) -> Status {
        match &self.wish {
            Wish::Whole(_) => refused(error, field_of_state),
            Wish::Edits(_) => {
                let listens = self.listens(error.findings(), manager);
                refused(error, |path| self.field(path, &listens))
            }
        }
    }

    /// What the services are that findings speak of by their places in the configuration that the edits lead to.
    fn listens(
        &self,
        findings: &[Finding],
        manager: &Manager,
    ) -> Vec<Option<crate::config::Listen>> {
        if findings.is_empty() {
            return Vec::new();
        }
        let (mut configuration, ..) = manager.current();
        for edit in &self.edits {
            // Those that could not be made have another error.
            let _ = edit.make(&mut configuration);
        }
        let services = configuration.services.iter();
        services.map(|service| Some(service.listen)).collect()
    }

    /// The edit that a path of the resulting configuration is about, or the path itself.
    fn field(&self, path: &KeyPath, listens: &[Option<crate::config::Listen>]) -> String {
        let listen = match &path.0[..] {
            [Step::Key(key), Step::Index(place), ..] if key == "service" => {
                listens.get(*place).copied().flatten()
            }
            _ => None,
        };
        let mut edits = self.edits.iter();
        let place = edits.rposition(|edit| listen.is_some() && edit.service() == listen);
        match place {
            Some(place) => format!("edits.edits[{place}]"),
            None => path.to_string(),
        }
    }
}

/// Who calls, as far as is known.
pub(super) fn actor<T>(request: &Request<T>) -> Actor {
    let info = request
        .extensions()
        .get::<tonic::transport::server::UdsConnectInfo>();
    let credentials = info.and_then(|info| info.peer_cred);
    Actor {
        name: credentials.map_or_else(
            || "unknown".to_owned(),
            |credentials| format!("uid {}", credentials.uid()),
        ),
        way: "grpc".to_owned(),
    }
}

fn expected(revision: u64) -> Option<u64> {
    (revision != 0).then_some(revision)
}

#[tonic::async_trait]
impl server::Configuration for ConfigurationService {
    async fn get_configuration(
        &self,
        request: Request<v1::GetConfigurationRequest>,
    ) -> Result<Response<v1::GetConfigurationResponse>, Status> {
        let (configuration, revision, pending) = self.manager.current();
        let file = request.into_inner().with_file;
        Ok(Response::new(v1::GetConfigurationResponse {
            revision,
            state: Some(write::state(&configuration)),
            pending: pending.map(write::pending),
            file: if file {
                configuration.to_toml()
            } else {
                String::new()
            },
        }))
    }

    async fn plan_change(
        &self,
        request: Request<v1::PlanChangeRequest>,
    ) -> Result<Response<v1::PlanChangeResponse>, Status> {
        use v1::plan_change_request::Change;
        let request = request.into_inner();
        let outcome = self.with_manager(move |manager| {
            let asked = request.change.map(|change| match change {
                Change::State(state) => Asked::State(state),
                Change::Edits(edits) => Asked::Edits(edits.edits),
            });
            let read = read(asked, manager)?;
            let terms = Terms {
                expected: expected(request.expected_revision),
                ..Terms::default()
            };
            let planned = manager.plan(&read.wish, terms);
            planned.map_err(|error| read.refused(&error, manager))
        });
        let outcome = outcome.await?;
        Ok(Response::new(v1::PlanChangeResponse {
            revision: outcome.revision,
            plan: Some(write::plan(&outcome.plan)),
        }))
    }

    async fn change(
        &self,
        request: Request<v1::ChangeRequest>,
    ) -> Result<Response<v1::ChangeResponse>, Status> {
        use v1::change_request::Change;
        let actor = actor(&request);
        let request = request.into_inner();
        let outcome = self.with_manager(move |manager| {
            let asked = request.change.map(|change| match change {
                Change::State(state) => Asked::State(state),
                Change::Edits(edits) => Asked::Edits(edits.edits),
            });
            let read = read(asked, manager)?;
            let terms = Terms {
                expected: expected(request.expected_revision),
                confirm_within: request.confirm_within.map(span).transpose()?,
            };
            let changed = manager.change(&read.wish, terms, &actor);
            changed.map_err(|error| read.refused(&error, manager))
        });
        Ok(Response::new(write::changed(&outcome.await?)))
    }

    async fn confirm(
        &self,
        request: Request<v1::ConfirmRequest>,
    ) -> Result<Response<v1::ConfirmResponse>, Status> {
        let confirmed = self.manager.confirm(request.into_inner().revision);
        confirmed.map_err(|error| refused(&error, ToString::to_string))?;
        Ok(Response::new(v1::ConfirmResponse {}))
    }

    async fn roll_back(
        &self,
        request: Request<v1::RollBackRequest>,
    ) -> Result<Response<v1::RollBackResponse>, Status> {
        let actor = actor(&request);
        let revision = request.into_inner().revision;
        let outcome = self.with_manager(move |manager| {
            let back = manager.roll_back(revision, &actor);
            back.map_err(|error| refused(&error, field_of_state))
        });
        let outcome = outcome.await?;
        Ok(Response::new(v1::RollBackResponse {
            revision: outcome.revision,
            plan: Some(write::plan(&outcome.plan)),
        }))
    }

    type WatchConfigurationStream =
        Pin<Box<dyn Stream<Item = Result<v1::WatchConfigurationResponse, Status>> + Send>>;

    async fn watch_configuration(
        &self,
        _: Request<v1::WatchConfigurationRequest>,
    ) -> Result<Response<Self::WatchConfigurationStream>, Status> {
        let (mut changes, revision, pending) = self.manager.watch();
        let (sender, receiver) = tokio::sync::mpsc::channel(NEWS);
        let first = v1::WatchConfigurationResponse {
            revision,
            pending: pending.map(write::pending),
            ..v1::WatchConfigurationResponse::default()
        };
        tokio::spawn(async move {
            let mut next = Ok(first);
            while sender.send(next).await.is_ok() {
                let change = tokio::select! {
                    change = changes.recv() => change,
                    () = sender.closed() => return,
                };
                next = match change {
                    Ok(change) => Ok(write::news(&change)),
                    Err(RecvError::Closed) => return,
                    Err(RecvError::Lagged(missed)) => {
                        let why = format!(
                            "{missed} changes were missed: look at what holds, and watch again"
                        );
                        let _ = sender.send(Err(Status::data_loss(why))).await;
                        return;
                    }
                };
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// A span of time as asked for.
fn span(span: prost_types::Duration) -> Result<Duration, Status> {
    let told = format!("{}.{:09} s", span.seconds, span.nanos);
    let most = crate::manage::CONFIRMATION_MAX;
    Duration::try_from(span)
        .ok()
        .filter(|span| !span.is_zero() && *span <= most)
        .ok_or_else(|| {
            let finding = Finding {
                path: KeyPath::top("confirm_within"),
                problem: crate::config::Problem::NotA {
                    value: told,
                    what: "a time for confirmation",
                    accepted: "more than 0 s, at most 86400 s".to_owned(),
                },
            };
            invalid(&[finding], ToString::to_string)
        })
}
