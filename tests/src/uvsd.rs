//! The daemon.

use crate::configuration::Configuration;
use crate::process::{Process, eventually};
use cli::lab::Namespace;
use nix::sys::signal::Signal;
use proto::v1::director_client::DirectorClient;
use proto::v1::{GetStatusRequest, GetStatusResponse, ListServicesRequest, RealServer};
use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

/// How long it may take to start, to reload, to stop and to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What uvsd says of itself.
#[derive(Clone, Debug)]
pub struct Status(pub GetStatusResponse);

impl Status {
    /// Drops by reason, those above zero.
    #[must_use]
    pub fn drops(&self) -> Vec<(&str, u64)> {
        let drops = self.0.drops.iter().filter(|drop| drop.packets > 0);
        drops
            .map(|drop| (drop.reason.as_str(), drop.packets))
            .collect()
    }

    /// How often one reason was met.
    ///
    /// # Panics
    /// When there is no such reason.
    #[must_use]
    pub fn dropped(&self, reason: &str) -> u64 {
        let mut drops = self.0.drops.iter();
        drops.find(|drop| drop.reason == reason).unwrap().packets
    }

    /// Frames that each worker forwarded.
    #[must_use]
    pub fn forwarded(&self) -> Vec<u64> {
        let workers = self.0.workers.iter();
        workers.map(|worker| worker.forwarded).collect()
    }

    /// Frames that the ports lost before workers saw them, up to a second ago.
    #[must_use]
    pub fn missed(&self) -> u64 {
        let workers = self.0.workers.iter();
        workers.map(|worker| worker.receive_missed).sum()
    }

    /// Connections of both families.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.0.tables.iter().map(|table| table.connections).sum()
    }
}

/// A running uvsd with a folder for its files. It is killed when this value is dropped.
#[derive(Debug)]
pub struct Uvsd {
    process: Process,
    folder: PathBuf,
    runtime: tokio::runtime::Runtime,
}

impl Uvsd {
    /// Starts it in a namespace and waits until it serves.
    ///
    /// # Panics
    /// When it does not.
    #[must_use]
    pub fn start(namespace: &Namespace, folder: &Path, configuration: &Configuration) -> Uvsd {
        Uvsd::start_as(executable(), namespace, folder, configuration)
    }

    /// As [`start`](Self::start), by another program.
    ///
    /// # Panics
    /// When it does not.
    #[must_use]
    pub fn start_as(
        program: &Path,
        namespace: &Namespace,
        folder: &Path,
        configuration: &Configuration,
    ) -> Uvsd {
        let text = configuration.text(&folder.join("uvs.sock"));
        let uvsd = Uvsd::launch_as(program, namespace, folder, &text);
        uvsd.wait_for_line("control socket");
        uvsd
    }

    /// Starts it in a namespace with a configuration's text, whatever becomes of it.
    ///
    /// # Panics
    /// When the program cannot be built.
    #[must_use]
    pub fn launch(namespace: &Namespace, folder: &Path, text: &str) -> Uvsd {
        Uvsd::launch_as(executable(), namespace, folder, text)
    }

    fn launch_as(program: &Path, namespace: &Namespace, folder: &Path, text: &str) -> Uvsd {
        let mut command = namespace.command(program.to_str().unwrap());
        command.arg("--config").arg(folder.join("uvs.toml"));
        let log = File::create(folder.join("uvsd.log")).unwrap();
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        fs::write(folder.join("uvs.toml"), text).unwrap();
        Uvsd {
            process: Process::spawn_as_is(command, None),
            folder: folder.to_owned(),
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap(),
        }
    }

    /// Everything it logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("uvsd.log")).unwrap_or_default()
    }

    /// Its Unix socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.join("uvs.sock")
    }

    /// Its number.
    #[must_use]
    pub fn pid(&self) -> nix::unistd::Pid {
        self.process.pid()
    }

    /// Lets it read another configuration, and waits until it says that it has it.
    ///
    /// # Panics
    /// When it does not.
    pub fn reload(&self, configuration: &Configuration) {
        let before = self.log().len();
        self.hang_up(&configuration.text(&self.socket()));
        let reloaded = eventually(PATIENCE, || {
            let log = self.log();
            let news = &log[before..];
            assert!(!news.contains("not reloaded"), "{news}");
            news.contains("reloaded: ").then_some(())
        });
        assert!(reloaded.is_some(), "not reloaded:\n{}", self.log());
    }

    /// Lets it read `text`, whatever it thinks of it.
    ///
    /// # Panics
    /// When it is not there.
    pub fn hang_up(&self, text: &str) {
        fs::write(self.folder.join("uvs.toml"), text).unwrap();
        self.process.signal(Signal::SIGHUP);
    }

    /// Waits for a line of its log that contains `text`, and gives the line.
    ///
    /// # Panics
    /// When none comes.
    pub fn wait_for_line(&self, text: &str) -> String {
        let find = || {
            let log = self.log();
            log.lines()
                .find(|line| line.contains(text))
                .map(str::to_owned)
        };
        eventually(PATIENCE, find)
            .unwrap_or_else(|| panic!("uvsd did not say {text:?}:\n{}", self.log()))
    }

    /// Sends it a signal and waits for its end.
    ///
    /// # Panics
    /// When it does not end.
    pub fn stop(&mut self, signal: Signal) -> ExitStatus {
        self.process.signal(signal);
        self.wait()
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not end.
    pub fn wait(&mut self) -> ExitStatus {
        let ended = eventually(PATIENCE, || self.process.ended());
        ended.unwrap_or_else(|| panic!("uvsd does not end:\n{}", self.log()))
    }

    /// Its status.
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    pub fn status(&self) -> Status {
        self.try_status()
            .unwrap_or_else(|error| panic!("no status: {error}\n{}", self.log()))
    }

    /// Its status, if it answers.
    ///
    /// # Errors
    /// In words.
    pub fn try_status(&self) -> Result<Status, String> {
        self.ask(async |mut client| {
            let response = client.get_status(GetStatusRequest {}).await;
            response.map(|response| Status(response.into_inner()))
        })
    }

    /// The servers of the virtual service at `port`, as it lists them.
    ///
    /// # Panics
    /// When it does not answer, or has no such service.
    #[must_use]
    pub fn servers(&self, port: u16) -> Vec<RealServer> {
        let listed = self.ask(async |mut client| {
            let response = client.list_services(ListServicesRequest {}).await;
            response.map(|response| response.into_inner().services)
        });
        let services = listed.unwrap_or_else(|error| panic!("no services: {error}"));
        let of = |service: &proto::v1::Service| service.key.as_ref().map(|key| key.port);
        let service = services
            .into_iter()
            .find(|service| of(service) == Some(port.into()));
        service.unwrap().servers
    }

    fn ask<T>(
        &self,
        question: impl AsyncFnOnce(
            DirectorClient<tonic::transport::Channel>,
        ) -> Result<T, tonic::Status>,
    ) -> Result<T, String> {
        let address = format!("unix:{}", self.socket().display());
        let exchange = async {
            let client = DirectorClient::connect(address).await;
            question(client.map_err(|error| error.to_string())?)
                .await
                .map_err(|error| error.to_string())
        };
        self.runtime.block_on(async {
            let answered = tokio::time::timeout(PATIENCE, exchange).await;
            answered.unwrap_or_else(|_| Err("no answer in time".to_owned()))
        })
    }
}

/// The uvsd that the variable UVSD names, or that of the same build as the test. Under cargo the latter is brought up to
/// date first: nothing else would do so. `uvs` is beside it.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn executable() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        if let Some(named) = env::var_os("UVSD") {
            let uvsd = PathBuf::from(named);
            assert!(uvsd.exists(), "UVSD: {} is missing", uvsd.display());
            return uvsd;
        }
        // target/PROFILE/deps/TEST
        let test = env::current_exe().unwrap();
        let profile = test.ancestors().nth(2).unwrap();
        let uvsd = profile.join("uvsd");
        if let Some(cargo) = env::var_os("CARGO") {
            build(&cargo, profile);
        }
        assert!(uvsd.exists(), "{} is missing: cargo build", uvsd.display());
        uvsd
    })
}

/// The `uvs` beside it.
///
/// # Panics
/// As [`executable`].
#[must_use]
pub fn client_executable() -> PathBuf {
    executable().with_file_name("uvs")
}

/// The same command as an operator's, so that nothing is built twice with other features.
fn build(cargo: &std::ffi::OsStr, profile: &Path) {
    let name = match profile.file_name().unwrap().to_str().unwrap() {
        "debug" => "dev",
        name => name,
    };
    let output = Command::new(cargo)
        .args(["build", "--quiet", "--profile", name, "--target-dir"])
        .arg(profile.parent().unwrap())
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "cargo build: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
