//! How every command of `uvs` that needs a running director asks it: over its control socket, or over TLS.

use proto::v1::configuration_client::ConfigurationClient;
use proto::v1::connections_client::ConnectionsClient;
use proto::v1::director_client::DirectorClient;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

/// Where a director listens unless its configuration says otherwise.
pub(crate) const SOCKET: &str = "/run/uvs/uvs.sock";
/// How long a director may be silent: until it is there, and until it answers a ping of HTTP/2 while it works on something.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Between two pings.
const PINGS: Duration = Duration::from_secs(2);
/// How long it may work on something.
const WORK: Duration = Duration::from_secs(600);
/// Bytes of an answer, at most: services, or a state, of as many servers as there may be.
const ANSWER_LEN: usize = 64 << 20;

/// Where the director listens.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Options {
    /// The control socket of uvsd (`director.control` in its configuration).
    #[arg(
        long,
        value_name = "PATH",
        env = "UVS_SOCKET",
        default_value = SOCKET
    )]
    pub socket: PathBuf,
    /// A uvsd elsewhere, such as `https://director:7443` (`access.tls.listen` in its configuration); in place of the socket.
    #[arg(
        long,
        value_name = "URL",
        env = "UVS_ADDRESS",
        conflicts_with = "socket",
        requires_all = ["ca", "certificate", "key"]
    )]
    pub address: Option<String>,
    /// Who signed that uvsd's certificate (PEM).
    #[arg(long, value_name = "FILE", env = "UVS_CA", requires = "address")]
    pub ca: Option<PathBuf>,
    /// Who you are: your certificate (PEM).
    #[arg(
        long,
        value_name = "FILE",
        env = "UVS_CERTIFICATE",
        requires = "address"
    )]
    pub certificate: Option<PathBuf>,
    /// The private key of your certificate (PEM).
    #[arg(long, value_name = "FILE", env = "UVS_KEY", requires = "address")]
    pub key: Option<PathBuf>,
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
            address: None,
            ca: None,
            certificate: None,
            key: None,
        }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody listens at the socket.
    #[error(
        "{}: {error}; accepted: the control socket of a running uvsd (--socket){}", .path.display(), hint(.error)
    )]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        error: String,
    },
    /// Nobody listens at the address, or either side does not accept the other's certificate.
    #[error(
        "{address}: {error}; accepted: https:// and the name and port of a running uvsd whose certificate --ca signed, and a certificate that its `access.tls.client_ca` signed (--address)"
    )]
    Elsewhere {
        /// The address.
        address: String,
        /// What went wrong.
        error: String,
    },
    /// A file cannot be read.
    #[error("{}: {error}; accepted: a readable file in PEM (--{option})", .path.display())]
    File {
        /// Which option names it.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// The director refused, or broke off.
    #[error("{}", answered(.0))]
    Refused(#[from] Box<tonic::Status>),
    /// There is no runtime to ask with.
    #[error("no runtime: {0}")]
    Runtime(#[from] std::io::Error),
}

/// What else a user can do who is not let in.
fn hint(error: &str) -> &'static str {
    if error.starts_with("Permission denied") {
        ", for root and the members of its group (access.group in uvsd's configuration)"
    } else {
        ""
    }
}

/// Connects, and waits for the answer to one request: `ask(options, async |channel| director(channel).get_status(…).await)`.
///
/// # Errors
/// When the director cannot be reached or does not grant it.
pub fn ask<T>(
    options: &Options,
    request: impl AsyncFnOnce(Channel) -> Result<tonic::Response<T>, tonic::Status>,
) -> Result<T, ConnectError> {
    run(options, async |channel| {
        let answer = request(channel).await;
        let answer = answer.map_err(|status| refused(options, status))?;
        Ok(answer.into_inner())
    })
}

/// What a status says: the director's word, or that it is gone.
pub(crate) fn answered(status: &tonic::Status) -> String {
    broken(status).unwrap_or_else(|| format!("the director answered: {}", status.message()))
}

/// Where a call broke off before the director had said all, how that came.
pub(crate) fn broken(status: &tonic::Status) -> Option<String> {
    let error = std::error::Error::source(status).map(innermost)?;
    Some(format!("the connection to the director broke: {error}"))
}

/// Why a call was not answered as hoped: by the director's word, or because it could not be reached any more. With TLS it is told
/// only then that it does not accept a certificate.
#[must_use]
pub fn refused(options: &Options, status: tonic::Status) -> ConnectError {
    let broken = std::error::Error::source(&status).map(innermost);
    match (broken, &options.address) {
        (None, _) => ConnectError::Refused(Box::new(status)),
        (Some(error), Some(address)) => ConnectError::Elsewhere {
            address: address.clone(),
            error,
        },
        (Some(error), None) => ConnectError::Unreachable {
            path: options.socket.clone(),
            error,
        },
    }
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
    let Some(address) = &options.address else {
        let unreachable = |error: tonic::transport::Error| ConnectError::Unreachable {
            path: options.socket.clone(),
            error: innermost(&error),
        };
        let endpoint = Endpoint::from_shared(format!("unix:{}", options.socket.display()))
            .map_err(unreachable)?;
        return patient(endpoint).connect().await.map_err(unreachable);
    };
    let failed = |error: String| ConnectError::Elsewhere {
        address: address.clone(),
        error,
    };
    if !address.starts_with("https://") {
        return Err(failed("is no https:// address".to_owned()));
    }
    let endpoint = Endpoint::from_shared(address.clone());
    let endpoint = endpoint.map_err(|error| failed(innermost(&error)))?;
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(pem("ca", options.ca.as_ref())?))
        .identity(Identity::from_pem(
            pem("certificate", options.certificate.as_ref())?,
            pem("key", options.key.as_ref())?,
        ));
    let endpoint = endpoint.tls_config(tls);
    let endpoint = endpoint.map_err(|error| failed(innermost(&error)))?;
    let channel = patient(endpoint).connect().await;
    channel.map_err(|error| failed(innermost(&error)))
}

fn patient(endpoint: Endpoint) -> Endpoint {
    endpoint
        .connect_timeout(PATIENCE)
        .http2_keep_alive_interval(PINGS)
        .keep_alive_timeout(PATIENCE)
        .timeout(WORK)
}

/// What asks a director of itself and of its services.
#[must_use]
pub fn director(channel: Channel) -> DirectorClient<Channel> {
    DirectorClient::new(channel).max_decoding_message_size(ANSWER_LEN)
}

/// What asks for its configuration.
pub(crate) fn configuration(channel: Channel) -> ConfigurationClient<Channel> {
    ConfigurationClient::new(channel).max_decoding_message_size(ANSWER_LEN)
}

/// What asks for its connections.
pub(crate) fn connections(channel: Channel) -> ConnectionsClient<Channel> {
    ConnectionsClient::new(channel).max_decoding_message_size(ANSWER_LEN)
}

fn pem(option: &'static str, path: Option<&PathBuf>) -> Result<Vec<u8>, ConnectError> {
    let path = path.expect("an address requires the option");
    std::fs::read(path).map_err(|error| ConnectError::File {
        option,
        path: path.clone(),
        error,
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
