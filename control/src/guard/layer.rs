//! The guard as a layer of a tonic server.

use super::{Admitted, Caller, Guard, Record, Told};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tower_layer::Layer;

/// Puts a [`Guard`] before services.
#[derive(Clone)]
pub struct GuardLayer {
    guard: Arc<Guard>,
}

impl GuardLayer {
    pub(super) fn new(guard: Arc<Guard>) -> GuardLayer {
        GuardLayer { guard }
    }
}

impl<S> Layer<S> for GuardLayer {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded {
            guard: Arc::clone(&self.guard),
            inner,
        }
    }
}

/// A service behind a [`Guard`].
#[derive(Clone)]
pub struct Guarded<S> {
    guard: Arc<Guard>,
    inner: S,
}

impl<S> Service<http::Request<Body>> for Guarded<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future =
        Pin<Box<dyn Future<Output = Result<http::Response<Body>, S::Error>> + Send + 'static>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let path = request.uri().path().to_owned();
        let caller = request.extensions().get::<Caller>();
        let admitted = match self.guard.admit(caller, &path) {
            Ok(admitted) => admitted,
            Err(status) => return Box::pin(async move { Ok(status.into_http()) }),
        };
        let Admitted { actor, is_written } = admitted;
        request.extensions_mut().insert(actor.clone());
        let answer = self.inner.call(request);
        if !is_written {
            return Box::pin(answer);
        }
        let guard = Arc::clone(&self.guard);
        Box::pin(async move {
            let answer = answer.await?;
            // What begins with its status has failed at once.
            let status = Status::from_header_map(answer.headers());
            let told = status.as_ref().map_or(Told::Done, Told::failed);
            guard.audit().write(&Record::of(&actor, &path, told));
            Ok(answer)
        })
    }
}
