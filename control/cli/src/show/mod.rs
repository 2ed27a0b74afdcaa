//! `uvs status`, `uvs list` and `uvs zero`: what a running director says of itself.

mod json;
mod listing;
mod state;

use crate::connect::{self, ConnectError, ask};
use crate::endpoint;
use crate::output::{self, OutputError};
use proto::v1;
use std::io::Write;

/// How to tell of it.
#[derive(Clone, Debug, clap::Args)]
pub struct StatusOptions {
    /// Where the director listens.
    #[command(flatten)]
    pub connect: connect::Options,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

/// How to list services.
#[derive(Clone, Debug, clap::Args)]
pub struct ListOptions {
    /// Where the director listens.
    #[command(flatten)]
    pub connect: connect::Options,
    /// How much a second, estimated over the last seconds, in place of totals.
    #[arg(long, conflicts_with = "json")]
    pub rate: bool,
    /// As JSON: totals and rates.
    #[arg(long)]
    pub json: bool,
    /// Again and again, until interrupted; as JSON a line each time.
    #[arg(long)]
    pub watch: bool,
    /// With --watch: milliseconds between two times, 100 to 3600000.
    #[arg(long, value_name = "MS", default_value_t = 1000, requires = "watch", value_parser = clap::value_parser!(u32).range(100..=3_600_000))]
    pub interval: u32,
}

/// Whose counters begin anew.
#[derive(Clone, Debug, clap::Args)]
pub struct ZeroOptions {
    /// Where the director listens.
    #[command(flatten)]
    pub connect: connect::Options,
    /// The service, such as 10.0.0.100:80 (TCP), udp:10.0.0.100:53, mark:7.
    #[arg(value_name = "SERVICE", value_parser = endpoint::service, required_unless_present = "all")]
    pub service: Option<v1::ServiceKey>,
    /// In place of a service: all of them.
    #[arg(long, conflicts_with = "service")]
    pub all: bool,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

/// Why it is not shown any more.
#[derive(Debug, thiserror::Error)]
pub enum ShowError {
    /// The director.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// What cannot be written.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// The director went.
    #[error("the director tells no more: it has stopped, or starts anew")]
    Ended,
}

/// The text of `uvs status`.
///
/// # Errors
/// When the director does not answer.
pub fn status(options: &StatusOptions) -> Result<String, ConnectError> {
    let status = fetch(&options.connect)?;
    Ok(match options.json {
        true => format!("{:#}\n", json::status(&status)),
        false => state::table(&status),
    })
}

/// What the director says of itself.
pub(crate) fn fetch(options: &connect::Options) -> Result<v1::GetStatusResponse, ConnectError> {
    ask(options, async |channel| {
        let mut client = connect::director(channel);
        client.get_status(v1::GetStatusRequest {}).await
    })
}

/// Its services with their servers and counters.
pub(crate) fn fetch_services(options: &connect::Options) -> Result<Vec<v1::Service>, ConnectError> {
    let answer = ask(options, async |channel| {
        let mut client = connect::director(channel);
        client.list_services(v1::ListServicesRequest {}).await
    });
    Ok(answer?.services)
}

/// The text of `uvs list`.
///
/// # Errors
/// When the director does not answer.
pub fn list(options: &ListOptions) -> Result<String, ConnectError> {
    let services = &fetch_services(&options.connect)?;
    Ok(match options.json {
        true => format!("{:#}\n", json::services(services)),
        false => listed(options, services),
    })
}

fn listed(options: &ListOptions, services: &[v1::Service]) -> String {
    match options.rate {
        true => listing::rates(services),
        false => listing::table(services),
    }
}

/// `uvs list --watch`: until nobody reads any more.
///
/// # Errors
/// When the director does not answer, or goes.
pub fn watch(options: &ListOptions, out: &mut impl Write) -> Result<(), ShowError> {
    connect::run(&options.connect, async |channel| {
        let request = v1::WatchStatisticsRequest {
            interval_ms: options.interval,
        };
        let refused = |status| connect::refused(&options.connect, status);
        let answer = connect::director(channel).watch_statistics(request).await;
        let mut stream = answer.map_err(refused)?.into_inner();
        let broke = |status| ConnectError::Refused(Box::new(status));
        while let Some(told) = stream.message().await.map_err(broke)? {
            let text = match options.json {
                true => format!("{}\n", json::services(&told.services)),
                false => listed(options, &told.services) + "\n",
            };
            if !output::tell(out, &text)? {
                return Ok(());
            }
        }
        Err(ShowError::Ended)
    })
}

/// The text of `uvs zero`: counters of a service or of all are 0 from now on.
///
/// # Errors
/// When the director does not do it.
pub fn zero(options: &ZeroOptions) -> Result<String, ConnectError> {
    let service = options.service.clone();
    let named = service.as_ref().map(endpoint::named);
    ask(&options.connect, async |channel| {
        let request = v1::ZeroCountersRequest { service };
        connect::director(channel).zero_counters(request).await
    })?;
    Ok(match (options.json, named) {
        (true, named) => format!(
            "{}\n",
            serde_json::json!({ "zeroed": named.as_deref().unwrap_or("all") })
        ),
        (false, Some(named)) => format!("the counters of {named} are 0\n"),
        (false, None) => "all counters are 0\n".to_owned(),
    })
}
