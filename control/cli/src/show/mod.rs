//! `uvs status` and `uvs list`: what a running director says of itself over its control socket.

mod listing;
mod state;

use proto::v1;
use proto::v1::director_client::DirectorClient;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};

/// How long a director may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where the director listens.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The control socket of uvsd (`director.control` in its configuration).
    #[arg(long, value_name = "PATH", default_value = "/run/uvs/uvs.sock")]
    pub socket: PathBuf,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ShowError {
    /// Nobody listens.
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

/// The table of `uvs status`.
///
/// # Errors
/// When the director does not answer.
pub fn status(options: &Options) -> Result<String, ShowError> {
    Ok(state::table(&fetch(&options.socket)?))
}

/// What the director says of itself.
pub(crate) fn fetch(socket: &Path) -> Result<v1::GetStatusResponse, ShowError> {
    ask(socket, async |client| {
        client.get_status(v1::GetStatusRequest {}).await
    })
}

/// The table of `uvs list`.
///
/// # Errors
/// When the director does not answer.
pub fn list(options: &Options) -> Result<String, ShowError> {
    let services = ask(&options.socket, async |client| {
        client.list_services(v1::ListServicesRequest {}).await
    })?;
    Ok(listing::table(&services.services))
}

fn ask<T>(
    path: &Path,
    request: impl AsyncFnOnce(&mut DirectorClient<Channel>) -> Result<tonic::Response<T>, tonic::Status>,
) -> Result<T, ShowError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let unreachable = |error: tonic::transport::Error| ShowError::Unreachable {
            path: path.to_owned(),
            error: innermost(&error),
        };
        let endpoint = Endpoint::from_shared(format!("unix:{}", path.display()))
            .map_err(unreachable)?
            .connect_timeout(PATIENCE)
            .timeout(PATIENCE);
        let mut client = DirectorClient::new(endpoint.connect().await.map_err(unreachable)?);
        let answer = request(&mut client).await.map_err(Box::new)?;
        Ok(answer.into_inner())
    })
}

/// The cause at the bottom: "No such file or directory" says more than "transport error".
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
