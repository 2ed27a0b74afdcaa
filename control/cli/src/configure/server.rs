//! `uvs server`.

use super::service::{Method, Show, find};
use super::subject::{Key, endpoint};
use super::{Changing, ConfigureError};
use proto::v1;
use proto::v1::edit::Edit;

/// Real servers.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Add a server to a service.
    Add(Set),
    /// Change settings of a server; what is not said stays.
    #[command(alias = "edit")]
    Set(Set),
    /// Remove a server: its connections end, new ones go elsewhere.
    #[command(aliases = ["delete", "del", "rm"])]
    Remove {
        #[command(flatten)]
        key: Key,
        /// The server: ADDRESS:PORT, or the address alone for the service's port.
        #[arg(value_name = "SERVER")]
        server: String,
        #[command(flatten)]
        changing: Changing,
    },
    /// Show services with their servers, as they are configured.
    #[command(alias = "list")]
    Show(Show),
}

/// Settings of a server.
#[derive(Debug, clap::Args)]
pub struct Set {
    #[command(flatten)]
    key: Key,
    /// The server: ADDRESS:PORT, or the address alone for the service's port.
    #[arg(value_name = "SERVER")]
    server: String,
    /// Share of new flows, 0 to 65535; 0: none.
    #[arg(long)]
    weight: Option<u32>,
    /// How packets reach it; by default as the service says.
    #[arg(long, value_enum)]
    method: Option<Method>,
    /// At so many connections it gets no new ones; 0: no limit.
    #[arg(long, value_name = "CONNECTIONS")]
    upper: Option<u32>,
    /// Below so many connections it gets new ones again; 0: below three quarters of --upper.
    #[arg(long, value_name = "CONNECTIONS")]
    lower: Option<u32>,
    /// What packets are wrapped in; only with method tun.
    #[arg(long, value_enum)]
    tunnel: Option<Tunnel>,
    /// The UDP port of GUE.
    #[arg(long, value_name = "PORT")]
    tunnel_port: Option<u32>,
    /// The checksum of GRE and GUE.
    #[arg(long, value_enum)]
    tunnel_checksum: Option<Checksum>,
    #[command(flatten)]
    changing: Changing,
}

/// What packets are wrapped in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Tunnel {
    /// An IP header.
    Ipip,
    /// GRE.
    Gre,
    /// UDP and GUE.
    Gue,
}

/// The checksum of what packets are wrapped in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Checksum {
    /// None.
    None,
    /// Over the packet.
    Full,
    /// Of GUE: with remote checksum offload.
    Remote,
}

impl Set {
    /// Takes over what was said.
    fn put(&self, into: &mut v1::ServerSettings) {
        into.weight = self.weight.or(into.weight);
        into.upper = self.upper.unwrap_or(into.upper);
        into.lower = self.lower.unwrap_or(into.lower);
        if let Some(method) = self.method {
            into.set_method(method.into());
            if method != Method::Tun {
                into.tunnel = None;
            }
        }
        if self.tunnel.is_none() && self.tunnel_port.is_none() && self.tunnel_checksum.is_none() {
            return;
        }
        let tunnel = into.tunnel.get_or_insert_default();
        if let Some(kind) = self.tunnel {
            *tunnel = v1::Tunnel::default();
            tunnel.set_kind(match kind {
                Tunnel::Ipip => v1::TunnelKind::Ipip,
                Tunnel::Gre => v1::TunnelKind::Gre,
                Tunnel::Gue => v1::TunnelKind::Gue,
            });
        }
        tunnel.port = self.tunnel_port.unwrap_or(tunnel.port);
        if let Some(checksum) = self.tunnel_checksum {
            tunnel.set_checksum(match checksum {
                Checksum::None => v1::TunnelChecksum::None,
                Checksum::Full => v1::TunnelChecksum::Full,
                Checksum::Remote => v1::TunnelChecksum::Remote,
            });
        }
    }
}

impl Command {
    pub(super) fn run(&self) -> Result<(), ConfigureError> {
        match self {
            Command::Add(set) => {
                let key = set.key.message()?;
                let (address, port) = endpoint(&set.server, "a server's address")?;
                let mut server = v1::ServerSettings {
                    address: address.to_string(),
                    port: port.into(),
                    ..v1::ServerSettings::default()
                };
                set.put(&mut server);
                let edit = Edit::CreateServer(v1::ServiceServer {
                    service: Some(key),
                    server: Some(server),
                });
                set.changing.edit(vec![edit])
            }
            Command::Set(set) => {
                let key = set.key.message()?;
                let (address, port) = endpoint(&set.server, "a server's address")?;
                set.changing.edit_what_holds(|state| {
                    let (address, port) = (address.to_string(), or_services(port, &key));
                    let service = find(state, &key);
                    let mut servers = service.iter().flat_map(|service| &service.servers);
                    let known =
                        servers.find(|known| known.address == address && known.port == port);
                    // Where it is not there the director tells which ones are.
                    let mut server = known.cloned().unwrap_or(v1::ServerSettings {
                        address,
                        port,
                        ..v1::ServerSettings::default()
                    });
                    set.put(&mut server);
                    Ok(vec![Edit::UpdateServer(v1::ServiceServer {
                        service: Some(key.clone()),
                        server: Some(server),
                    })])
                })
            }
            Command::Remove {
                key,
                server,
                changing,
            } => {
                let key = key.message()?;
                let (address, port) = endpoint(server, "a server's address")?;
                let edit = Edit::DeleteServer(v1::ServerKey {
                    service: Some(key),
                    address: address.to_string(),
                    port: port.into(),
                });
                changing.edit(vec![edit])
            }
            Command::Show(asked) => asked.run(),
        }
    }
}

fn or_services(port: u16, key: &v1::ServiceKey) -> u32 {
    if port == 0 { key.port } else { port.into() }
}
