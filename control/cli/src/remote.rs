//! A director that runs, asked call by call.

use crate::connect::{self, ANSWER_LEN, ConnectError};
use proto::v1;
use proto::v1::configuration_client::ConfigurationClient;
use proto::v1::connections_client::ConnectionsClient;
use proto::v1::director_client::DirectorClient;
use tokio::runtime::Runtime;
use tonic::transport::Channel;
use tonic::{Response, Status};

/// What a call brings.
pub(crate) type Answer<T> = Result<T, Box<Status>>;

/// What is to be changed.
pub(crate) type Wish = v1::change_request::Change;

/// On what terms a change is made.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Terms {
    /// The revision that must hold; 0: any.
    pub(crate) expected_revision: u64,
    /// Set where the change is taken back unless it is confirmed.
    pub(crate) confirm_within: Option<prost_types::Duration>,
}

/// See the module's text.
pub(crate) struct Remote {
    runtime: Runtime,
    channel: Channel,
}

impl Remote {
    /// Connects.
    pub(crate) fn connect(options: &connect::Options) -> Result<Remote, ConnectError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let channel = runtime.block_on(connect::connect(options))?;
        Ok(Remote { runtime, channel })
    }

    fn director(&self) -> DirectorClient<Channel> {
        connect::director(self.channel.clone())
    }

    fn configuration_client(&self) -> ConfigurationClient<Channel> {
        ConfigurationClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_LEN)
    }

    fn wait<T>(&self, call: impl Future<Output = Result<Response<T>, Status>>) -> Answer<T> {
        let answer = self.runtime.block_on(call).map_err(Box::new)?;
        Ok(answer.into_inner())
    }

    /// The services with their counters.
    pub(crate) fn services(&self) -> Answer<v1::ListServicesResponse> {
        let request = v1::ListServicesRequest::default();
        self.wait(async { self.director().list_services(request).await })
    }

    /// How the director does.
    pub(crate) fn status(&self) -> Answer<v1::GetStatusResponse> {
        let request = v1::GetStatusRequest::default();
        self.wait(async { self.director().get_status(request).await })
    }

    /// Counters begin anew.
    pub(crate) fn zero(&self, service: Option<v1::ServiceKey>) -> Answer<()> {
        let request = v1::ZeroCountersRequest { service };
        self.wait(async { self.director().zero_counters(request).await })?;
        Ok(())
    }

    /// What holds; with the file that uvsd could start with, if wanted.
    pub(crate) fn configuration(&self, with_file: bool) -> Answer<v1::GetConfigurationResponse> {
        let request = v1::GetConfigurationRequest { with_file };
        let mut client = self.configuration_client();
        self.wait(async { client.get_configuration(request).await })
    }

    /// What a change would do.
    pub(crate) fn plan(&self, wish: Wish, terms: Terms) -> Answer<v1::PlanChangeResponse> {
        use v1::plan_change_request::Change;
        let request = v1::PlanChangeRequest {
            change: Some(match wish {
                Wish::State(state) => Change::State(state),
                Wish::Edits(edits) => Change::Edits(edits),
            }),
            expected_revision: terms.expected_revision,
        };
        let mut client = self.configuration_client();
        self.wait(async { client.plan_change(request).await })
    }

    /// Makes a change.
    pub(crate) fn change(&self, wish: Wish, terms: Terms) -> Answer<v1::ChangeResponse> {
        let request = v1::ChangeRequest {
            change: Some(wish),
            expected_revision: terms.expected_revision,
            confirm_within: terms.confirm_within,
        };
        let mut client = self.configuration_client();
        self.wait(async { client.change(request).await })
    }

    /// A change may stay.
    pub(crate) fn confirm(&self, revision: u64) -> Answer<()> {
        let mut client = self.configuration_client();
        self.wait(async { client.confirm(v1::ConfirmRequest { revision }).await })?;
        Ok(())
    }

    /// A change goes that waits for its confirmation.
    pub(crate) fn roll_back(&self, revision: u64) -> Answer<v1::RollBackResponse> {
        let mut client = self.configuration_client();
        self.wait(async { client.roll_back(v1::RollBackRequest { revision }).await })
    }

    /// Hands over every change from now on, until `told` has had enough or the director says no more.
    pub(crate) fn watch(
        &self,
        mut told: impl FnMut(v1::WatchConfigurationResponse) -> bool,
    ) -> Answer<()> {
        let mut client = self.configuration_client();
        let request = v1::WatchConfigurationRequest::default();
        self.runtime.block_on(async {
            let mut news = client.watch_configuration(request).await?.into_inner();
            while let Some(message) = news.message().await? {
                if !told(message) {
                    break;
                }
            }
            Ok(())
        })
    }

    /// Hands over all connections, some at a time.
    pub(crate) fn connections(&self, mut told: impl FnMut(Vec<v1::Connection>)) -> Answer<()> {
        let mut client =
            ConnectionsClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_LEN);
        let request = v1::ListConnectionsRequest::default();
        self.runtime.block_on(async {
            let mut parts = client.list_connections(request).await?.into_inner();
            while let Some(part) = parts.message().await? {
                told(part.connections);
            }
            Ok(())
        })
    }
}

/// Edits as a change.
pub(crate) fn edits(edits: Vec<v1::edit::Edit>) -> Wish {
    let edits = edits.into_iter().map(|edit| v1::Edit { edit: Some(edit) });
    Wish::Edits(v1::Edits {
        edits: edits.collect(),
    })
}
