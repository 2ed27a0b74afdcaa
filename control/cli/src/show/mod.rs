//! `uvs status` and `uvs list`: what a running director says of itself.

mod listing;
mod state;

use crate::connect::{ConnectError, Options, ask};
use proto::v1;
use proto::v1::director_client::DirectorClient;

/// The table of `uvs status`.
///
/// # Errors
/// When the director does not answer.
pub fn status(options: &Options) -> Result<String, ConnectError> {
    Ok(state::table(&fetch(options)?))
}

/// What the director says of itself.
pub(crate) fn fetch(options: &Options) -> Result<v1::GetStatusResponse, ConnectError> {
    ask(options, async |channel| {
        let mut client = DirectorClient::new(channel);
        client.get_status(v1::GetStatusRequest {}).await
    })
}

/// The table of `uvs list`.
///
/// # Errors
/// When the director does not answer.
pub fn list(options: &Options) -> Result<String, ConnectError> {
    let services = ask(options, async |channel| {
        let mut client = DirectorClient::new(channel);
        client.list_services(v1::ListServicesRequest {}).await
    })?;
    Ok(listing::table(&services.services))
}
