//! `uvs connections`: those of a running director, listed, counted, ended.

mod listing;

use crate::connect::{self, ConnectError};
use crate::endpoint::{self, End};
use crate::output::{self, OutputError};
use proto::v1;
use std::io::Write;

/// What to do with which connections.
#[derive(Clone, Debug, clap::Args)]
// Two groups of one name would clash: that of where the director listens is the other.
#[group(skip)]
pub struct Options {
    /// Where the director listens.
    #[command(flatten)]
    pub connect: connect::Options,
    /// What to do with the connections that all the filters let through.
    #[arg(value_enum, default_value_t = Action::List)]
    pub action: Action,
    /// Which.
    #[command(flatten)]
    pub filter: Filter,
    /// With `list`: no more than so many.
    #[arg(
        long,
        value_name = "COUNT",
        default_value_t = 0,
        hide_default_value = true
    )]
    pub limit: u64,
    /// With `kill`, in place of any filter: all of them.
    #[arg(long)]
    pub all: bool,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Action {
    /// Show them.
    List,
    /// Say how many there are.
    Count,
    /// End them: nobody is told, their next packets find no connection.
    Kill,
}

/// Which connections.
#[derive(Clone, Debug, Default, clap::Args)]
#[allow(clippy::struct_excessive_bools, reason = "switches as they are typed")]
pub struct Filter {
    /// Over TCP.
    #[arg(long, group = "protocol")]
    pub tcp: bool,
    /// Over UDP.
    #[arg(long, group = "protocol")]
    pub udp: bool,
    /// Over SCTP.
    #[arg(long, group = "protocol")]
    pub sctp: bool,
    /// Of these clients: a network, an address, a port, or address and port (10.0.0.0/8, 10.0.0.1:4000, :4000).
    #[arg(long, value_name = "END", value_parser = endpoint::end)]
    pub client: Option<End>,
    /// To this virtual address or port.
    #[arg(long = "virtual", value_name = "END", value_parser = endpoint::end)]
    pub virtual_end: Option<End>,
    /// To this real server.
    #[arg(long, value_name = "END", value_parser = endpoint::end)]
    pub server: Option<End>,
    /// In this state, such as ESTABLISHED.
    #[arg(
        long,
        value_name = "STATE",
        default_value = "",
        hide_default_value = true
    )]
    pub state: String,
    /// By this forwarding method.
    #[arg(long, value_enum)]
    pub method: Option<Method>,
    /// Made by this worker, from 0.
    #[arg(long, value_name = "NUMBER")]
    pub worker: Option<u16>,
    /// Persistence templates only: entries that remember where a client belongs.
    #[arg(long, conflicts_with = "no_templates")]
    pub templates: bool,
    /// No persistence templates.
    #[arg(long)]
    pub no_templates: bool,
}

/// How packets reach real servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Method {
    /// Masquerading.
    Nat,
    /// Direct routing.
    Dr,
    /// Tunnels.
    Tun,
    /// Both addresses are rewritten.
    Fullnat,
}

impl Filter {
    /// As a message.
    #[must_use]
    pub fn message(&self) -> v1::ConnectionFilter {
        let protocol = match (self.tcp, self.udp, self.sctp) {
            (true, ..) => v1::Protocol::Tcp,
            (_, true, _) => v1::Protocol::Udp,
            (.., true) => v1::Protocol::Sctp,
            _ => v1::Protocol::Unspecified,
        };
        let method = match self.method {
            None => v1::Method::Unspecified,
            Some(Method::Nat) => v1::Method::Nat,
            Some(Method::Dr) => v1::Method::Dr,
            Some(Method::Tun) => v1::Method::Tun,
            Some(Method::Fullnat) => v1::Method::Fullnat,
        };
        let templates = match (self.templates, self.no_templates) {
            (true, _) => v1::Templates::Only,
            (_, true) => v1::Templates::Without,
            _ => v1::Templates::Unspecified,
        };
        let end = |end: &Option<End>| end.clone().unwrap_or_default();
        let (client, virtual_end, server) =
            (end(&self.client), end(&self.virtual_end), end(&self.server));
        v1::ConnectionFilter {
            protocol: protocol.into(),
            client: client.network,
            client_port: client.port.into(),
            r#virtual: virtual_end.network,
            virtual_port: virtual_end.port.into(),
            server: server.network,
            server_port: server.port.into(),
            state: self.state.clone(),
            method: method.into(),
            worker_from_one: self.worker.map_or(0, |worker| u32::from(worker) + 1),
            templates: templates.into(),
        }
    }
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionsError {
    /// The director.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// `kill` of everything, without a word that it is meant.
    #[error("kill: which connections? accepted: a filter, such as --client 10.0.0.0/8, or --all")]
    Which,
    /// What cannot be written.
    #[error(transparent)]
    Output(#[from] OutputError),
}

impl From<tonic::Status> for ConnectionsError {
    fn from(status: tonic::Status) -> ConnectionsError {
        ConnectError::from(Box::new(status)).into()
    }
}

/// Does it, and writes what there is to tell.
///
/// # Errors
/// When it could not be done.
pub fn run(options: &Options, out: &mut impl Write) -> Result<(), ConnectionsError> {
    let filter = options.filter.message();
    if options.action == Action::Kill && !options.all && filter == v1::ConnectionFilter::default() {
        return Err(ConnectionsError::Which);
    }
    let filter = Some(filter);
    connect::run(&options.connect, async |channel| {
        let mut client = connect::connections(channel);
        let (word, count) = match options.action {
            Action::List => {
                let limit = options.limit;
                let request = v1::ListConnectionsRequest { filter, limit };
                let stream = client.list_connections(request).await?;
                return list(stream.into_inner(), options.json, out).await;
            }
            Action::Count => {
                let request = v1::CountConnectionsRequest { filter };
                let counted = client.count_connections(request).await?;
                ("connections", counted.into_inner().connections)
            }
            Action::Kill => {
                let filter = filter.filter(|filter| *filter != v1::ConnectionFilter::default());
                let message = v1::KillConnectionsRequest {
                    filter,
                    all: options.all,
                };
                let killed = client.kill_connections(message).await?;
                ("killed", killed.into_inner().killed)
            }
        };
        let text = match options.json {
            true => format!("{{\"{word}\":{count}}}\n"),
            false => format!("{count}\n"),
        };
        output::tell(out, &text)?;
        Ok(())
    })
}

async fn list(
    mut stream: tonic::Streaming<v1::ListConnectionsResponse>,
    json: bool,
    out: &mut impl Write,
) -> Result<(), ConnectionsError> {
    let mut listing = listing::Listing::new(json);
    while let Some(message) = stream.message().await? {
        if !output::tell(out, &listing.part(&message.connections))? {
            return Ok(());
        }
    }
    output::tell(out, &listing.end())?;
    Ok(())
}
