//! `uvs status` and `uvs list`: what a running director says of itself.

mod json;
mod listing;
mod state;

use crate::connect::{self, ConnectError, ask};
use proto::v1;

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
    Ok(match (options.json, options.rate) {
        (true, _) => format!("{:#}\n", json::services(services)),
        (_, true) => listing::rates(services),
        _ => listing::table(services),
    })
}
