//! A network with servers, a director and a client.

use crate::configuration::{Configuration, ECHO_PORT, HTTP_PORT, IPERF_PORT};
use crate::driver::Driver;
use crate::iperf::{self, Stream};
use crate::server::{EchoServer, Nginx};
use crate::uvsd::Uvsd;
use cli::lab::topology::server_address;
use cli::lab::{Namespace, Topology};
use std::env;
use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use tempfile::TempDir;

/// How many lines of a log are shown when a test fails.
const TAIL: usize = 30;

/// A topology whose servers run nginx and a UDP echo, and uvsd in the director's place.
#[derive(Debug)]
pub struct Scene {
    /// The director.
    pub uvsd: Uvsd,
    /// Of the servers, by number.
    pub nginx: Vec<Nginx>,
    /// What uvsd was started with.
    pub configuration: Configuration,
    /// The network.
    pub topology: Topology,
    _echo: Vec<EchoServer>,
    folder: TempDir,
    _turn: File,
}

impl Scene {
    /// With `servers` servers, whether the configuration uses them or not. Tests wait here for one another: the
    /// machine is one.
    ///
    /// # Panics
    /// When something does not start, as without root.
    #[must_use]
    pub fn new(configuration: Configuration, servers: u8) -> Scene {
        let turn = wait_for_turn();
        let (method, family) = (configuration.method, configuration.family);
        let queues = configuration.queues();
        let topology = Topology::with_queues(method, &configuration.families(), servers, queues)
            .unwrap_or_else(|error| panic!("the tests' network: {error}"));
        Driver::of_tests().prepare(&topology);
        let folder = tempfile::tempdir().unwrap();
        let mut nginx = Vec::new();
        let mut echo = Vec::new();
        for (index, server) in (0..servers).zip(&topology.servers) {
            let at = |port| server_address(method, family, index, port);
            let own = folder.path().join(format!("nginx{index}"));
            nginx.push(Nginx::start(&server.namespace, &own, at(HTTP_PORT)));
            echo.push(EchoServer::start(&server.namespace, index, at(ECHO_PORT)));
        }
        let uvsd = Uvsd::start(&topology.director, folder.path(), &configuration);
        Scene {
            uvsd,
            nginx,
            configuration,
            topology,
            _echo: echo,
            folder,
            _turn: turn,
        }
    }

    /// The client's namespace.
    #[must_use]
    pub fn client(&self) -> &Namespace {
        &self.topology.client
    }

    /// Where the files are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The virtual service at `port`.
    #[must_use]
    pub fn virtual_address(&self, port: u16) -> SocketAddr {
        self.configuration.virtual_address(port)
    }

    /// The URL of `path` at the virtual HTTP service; `path` without the leading slash.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.virtual_address(HTTP_PORT))
    }

    /// One TCP connection of iperf3, for two seconds; `reverse`: the server sends. The server is a new one: between two
    /// runs iperf3 stops listening, and resets who comes too early.
    ///
    /// # Panics
    /// When it fails.
    #[must_use]
    pub fn iperf(&self, reverse: bool) -> Stream {
        let Configuration { method, family, .. } = self.configuration;
        let first = self.configuration.servers[0].index;
        let _server = iperf::serve(
            &self.topology.servers[usize::from(first)].namespace,
            server_address(method, family, first, IPERF_PORT),
        );
        iperf::stream(self.client(), self.virtual_address(IPERF_PORT), reverse)
    }

    /// Kills uvsd, or what is left of it, and starts it anew.
    pub fn restart(&mut self) {
        self.restart_as(crate::uvsd::executable());
    }

    /// The same, by another program.
    pub fn restart_as(&mut self, program: &Path) {
        self.uvsd = Uvsd::start_as(
            program,
            &self.topology.director,
            self.folder.path(),
            &self.configuration,
        );
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        eprintln!("--- uvsd:\n{}", tail(&self.uvsd.log()));
        for (number, nginx) in self.nginx.iter().enumerate() {
            eprintln!("--- nginx {number}:\n{}", tail(&nginx.log()));
        }
        match self.uvsd.try_status() {
            Ok(status) => {
                eprintln!("--- dropped: {:?}", status.drops());
                eprintln!("--- workers: {:?}", status.0.workers);
                for port in &status.0.ports {
                    let counted = port.statistics.iter().filter(|counted| counted.value > 0);
                    let counted: Vec<_> = counted
                        .map(|counted| format!("{} {}", counted.name, counted.value))
                        .collect();
                    eprintln!("--- port {}: {}", port.name, counted.join(", "));
                }
                eprintln!("--- neighbours: {:?}", status.0.neighbours);
            }
            Err(error) => eprintln!("--- no status: {error}"),
        }
    }
}

fn tail(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(TAIL)..].join("\n")
}

/// A lock on the folder of the test's executable: it holds between threads and between processes, and leaves nothing.
fn wait_for_turn() -> File {
    let test = env::current_exe().unwrap();
    let folder = File::open(test.parent().unwrap()).unwrap();
    folder.lock().unwrap();
    folder
}
