//! How every command of `uvs` that needs a running director asks it: over its control socket, or over TLS.

use std::path::{Path, PathBuf};
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};

/// How long a director may take to answer.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Where the director listens.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The control socket of uvsd (`director.control` in its configuration).
    #[arg(
        long,
        value_name = "PATH",
        env = "UVS_SOCKET",
        default_value = "/run/uvs/uvs.sock"
    )]
    pub socket: PathBuf,
}

impl Options {
    /// As the environment says, for programs whose arguments are not ours.
    #[must_use]
    pub fn of_environment() -> Options {
        use clap::{Args, FromArgMatches};
        let command = Options::augment_args(clap::Command::new("uvs"));
        let matches = command.get_matches_from(["uvs"]);
        Options::from_arg_matches(&matches).expect("every option has a default or none")
    }

    /// A control socket.
    #[must_use]
    pub fn socket(path: &Path) -> Options {
        Options {
            socket: path.to_owned(),
        }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody listens at the socket.
    #[error(
        "{}: {error}; accepted: the control socket of a running uvsd (--socket)", .path.display()
    )]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        error: String,
    },
    /// The director refused, or broke off.
    #[error("the director answered: {}", .0.message())]
    Refused(#[from] Box<tonic::Status>),
    /// There is no runtime to ask with.
    #[error("no runtime: {0}")]
    Runtime(#[from] std::io::Error),
}

/// Connects, and waits for the answer to one request: `ask(options, async |channel| DirectorClient::new(channel).get_status(…).await)`.
///
/// # Errors
/// When the director cannot be reached or does not grant it.
pub fn ask<T>(
    options: &Options,
    request: impl AsyncFnOnce(Channel) -> Result<tonic::Response<T>, tonic::Status>,
) -> Result<T, ConnectError> {
    run(options, async |channel| {
        let answer = request(channel).await.map_err(Box::new)?;
        Ok(answer.into_inner())
    })
}

/// Connects, and does `work` with the channel until it ends.
///
/// # Errors
/// When the director cannot be reached, and what `work` returns.
pub fn run<T, E: From<ConnectError>>(
    options: &Options,
    work: impl AsyncFnOnce(Channel) -> Result<T, E>,
) -> Result<T, E> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ConnectError::Runtime)?;
    runtime.block_on(async { work(connect(options).await?).await })
}

/// A connection to the director.
///
/// # Errors
/// When it cannot be had.
pub async fn connect(options: &Options) -> Result<Channel, ConnectError> {
    let unreachable = |error: tonic::transport::Error| ConnectError::Unreachable {
        path: options.socket.clone(),
        error: innermost(&error),
    };
    let endpoint =
        Endpoint::from_shared(format!("unix:{}", options.socket.display())).map_err(unreachable)?;
    patient(endpoint).connect().await.map_err(unreachable)
}

fn patient(endpoint: Endpoint) -> Endpoint {
    endpoint.connect_timeout(PATIENCE).timeout(PATIENCE)
}

/// The cause at the bottom: "No such file or directory" says more than "transport error".
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
