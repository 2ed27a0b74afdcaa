//! A director with memory ports that answers on a control socket, as uvsd does.

use control::Director;
use control::config::Configuration;
use control::grpc::{ConfigurationService, ConnectionsService, DirectorService};
use control::manage::Manager;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio_stream::wrappers::UnixListenerStream;

/// See the module's text. It ends when this is dropped.
pub(crate) struct Bed {
    /// For files of the test, and the socket.
    pub(crate) folder: TempDir,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Bed {
    /// A director of a configuration.
    pub(crate) fn new(text: &str) -> Bed {
        let configuration = Configuration::parse("f", text).unwrap().configuration;
        Bed::of(Director::start(configuration).unwrap())
    }

    /// A director that runs already.
    pub(crate) fn of(director: Director) -> Bed {
        let director = Arc::new(director);
        let manager = Arc::new(Manager::new(Arc::clone(&director), 1));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, is_ready) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let listener = tokio::net::UnixListener::bind(&path).unwrap();
                ready.send(()).unwrap();
                let server = tonic::transport::Server::builder()
                    .add_service(DirectorService::server(director))
                    .add_service(ConnectionsService::server(Arc::clone(&manager)))
                    .add_service(ConfigurationService::server(manager));
                let incoming = UnixListenerStream::new(listener);
                tokio::select! {
                    served = server.serve_with_incoming(incoming) => served.unwrap(),
                    _ = stopped => {}
                }
            });
        });
        is_ready.recv().unwrap();
        Bed {
            folder,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// The director's end; the folder stays.
    pub(crate) fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A test that fails has said why.
            let _ = thread.join();
        }
    }

    /// The control socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("s")
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.stop();
    }
}
