//! `uvs pool`, `uvs route`, `uvs mark`, `uvs address`, `uvs timeout`, `uvs ipvs`.

use super::subject::{not_a, ports};
use super::{Asking, Changing, ConfigureError, print, table};
use crate::json;
use proto::v1;
use proto::v1::edit::Edit;
use serde_json::Value;

/// Pools of local addresses.
#[derive(Debug, clap::Subcommand)]
pub enum Pool {
    /// Add a pool.
    Add(PoolSet),
    /// Give a pool other addresses or ports; what is not said stays.
    #[command(alias = "edit")]
    Set(PoolSet),
    /// Remove a pool.
    #[command(aliases = ["delete", "del", "rm"])]
    Remove {
        /// Its name.
        name: String,
        #[command(flatten)]
        changing: Changing,
    },
    /// Show the pools.
    #[command(alias = "list")]
    Show(Asking),
}

/// A pool of local addresses.
#[derive(Debug, clap::Args)]
pub struct PoolSet {
    /// Its name: 1 to 32 letters, digits, '-' or '_'.
    name: String,
    /// Its addresses (LIP).
    addresses: Vec<String>,
    /// The local ports; 1024-65535 by default.
    #[arg(long, value_name = "LOW-HIGH")]
    ports: Option<String>,
    #[command(flatten)]
    changing: Changing,
}

impl PoolSet {
    fn put(&self, into: &mut v1::LipPool) -> Result<(), ConfigureError> {
        into.name.clone_from(&self.name);
        if !self.addresses.is_empty() {
            into.addresses.clone_from(&self.addresses);
        }
        if let Some(range) = &self.ports {
            (into.first_port, into.last_port) = ports(range)?;
        }
        Ok(())
    }
}

impl Pool {
    pub(super) fn run(&self) -> Result<(), ConfigureError> {
        match self {
            Pool::Add(set) => {
                let mut pool = v1::LipPool::default();
                set.put(&mut pool)?;
                set.changing.edit(vec![Edit::CreateLipPool(pool)])
            }
            Pool::Set(set) => set.changing.edit_what_holds(|state| {
                let known = state.lip_pools.iter().find(|pool| pool.name == set.name);
                let mut pool = known.cloned().unwrap_or_default();
                set.put(&mut pool)?;
                Ok(vec![Edit::UpdateLipPool(pool)])
            }),
            Pool::Remove { name, changing } => {
                changing.edit(vec![Edit::DeleteLipPool(name.clone())])
            }
            Pool::Show(asking) => show(asking, "lip_pools", |state| table::pools(&state.lip_pools)),
        }
    }
}

/// Static routes.
#[derive(Debug, clap::Subcommand)]
pub enum Route {
    /// Add a route.
    Add(RouteSet),
    /// Give a destination another way.
    #[command(alias = "edit")]
    Set(RouteSet),
    /// Remove a route.
    #[command(aliases = ["delete", "del", "rm"])]
    Remove {
        /// Its destination, such as 10.9.0.0/16.
        to: String,
        #[command(flatten)]
        changing: Changing,
    },
    /// Show the routes.
    #[command(alias = "list")]
    Show(Asking),
}

/// A route.
#[derive(Debug, clap::Args)]
pub struct RouteSet {
    /// The destinations: a network without host bits, such as 10.9.0.0/16.
    to: String,
    /// The next hop; without it, the destinations are on the link of --port.
    #[arg(long, value_name = "ADDRESS")]
    via: Option<String>,
    /// The port to leave by; without it, the one in whose subnet --via lies.
    #[arg(long, value_name = "NAME")]
    port: Option<String>,
    #[command(flatten)]
    changing: Changing,
}

impl RouteSet {
    fn message(&self) -> v1::Route {
        v1::Route {
            to: self.to.clone(),
            via: self.via.clone().unwrap_or_default(),
            port: self.port.clone().unwrap_or_default(),
        }
    }
}

impl Route {
    pub(super) fn run(&self) -> Result<(), ConfigureError> {
        match self {
            Route::Add(set) => set.changing.edit(vec![Edit::CreateRoute(set.message())]),
            Route::Set(set) => set.changing.edit(vec![Edit::UpdateRoute(set.message())]),
            Route::Remove { to, changing } => changing.edit(vec![Edit::DeleteRoute(to.clone())]),
            Route::Show(asking) => show(asking, "routes", |state| table::routes(&state.routes)),
        }
    }
}

/// Rules that mark packets.
#[derive(Debug, clap::Subcommand)]
pub enum Mark {
    /// Add a rule behind the others.
    Add(Box<MarkSet>),
    /// Remove a rule.
    #[command(aliases = ["delete", "del", "rm"])]
    Remove {
        /// Its number, as `uvs mark show` tells.
        number: usize,
        #[command(flatten)]
        changing: Changing,
    },
    /// Show the rules with their numbers.
    #[command(alias = "list")]
    Show(Asking),
}

/// A rule that marks packets: those that are all of this.
#[derive(Debug, clap::Args)]
pub struct MarkSet {
    /// The mark, never 0.
    mark: u32,
    /// The port that they come in by.
    #[arg(long, value_name = "NAME")]
    port: Option<String>,
    /// Whose they are, such as 10.1.0.0/16.
    #[arg(long, value_name = "NETWORK")]
    source: Option<String>,
    /// Whom they ask.
    #[arg(long, value_name = "NETWORK")]
    destination: Option<String>,
    /// Of which protocol.
    #[arg(long, value_enum)]
    protocol: Option<MarkProtocol>,
    /// The clients' ports.
    #[arg(long, value_name = "LOW-HIGH")]
    source_ports: Option<String>,
    /// The ports that are asked.
    #[arg(long, value_name = "LOW-HIGH")]
    destination_ports: Option<String>,
    #[command(flatten)]
    changing: Changing,
}

/// Protocols that have ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum MarkProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl MarkSet {
    fn message(&self) -> Result<v1::Mark, ConfigureError> {
        let range = |text: &Option<String>| match text {
            None => Ok(None),
            Some(text) => ports(text).map(|(first, last)| Some(v1::PortRange { first, last })),
        };
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        Ok(v1::Mark {
            mark: self.mark,
            port: text(&self.port),
            source: text(&self.source),
            destination: text(&self.destination),
            protocol: match self.protocol {
                None => v1::Protocol::Unspecified,
                Some(MarkProtocol::Tcp) => v1::Protocol::Tcp,
                Some(MarkProtocol::Udp) => v1::Protocol::Udp,
            }
            .into(),
            source_ports: range(&self.source_ports)?,
            destination_ports: range(&self.destination_ports)?,
        })
    }
}

impl Mark {
    pub(super) fn run(&self) -> Result<(), ConfigureError> {
        match self {
            Mark::Add(set) => {
                let mark = set.message()?;
                set.changing.edit_what_holds(|state| {
                    let mut marks = state.marks.clone();
                    marks.push(mark.clone());
                    Ok(vec![Edit::SetMarks(v1::Marks { marks })])
                })
            }
            Mark::Remove { number, changing } => changing.edit_what_holds(|state| {
                let mut marks = state.marks.clone();
                if !(1..=marks.len()).contains(number) {
                    let accepted = format!("1 to {}, as `uvs mark show` tells", marks.len());
                    return Err(not_a(
                        &number.to_string(),
                        "the number of a rule",
                        &accepted,
                    ));
                }
                marks.remove(number - 1);
                Ok(vec![Edit::SetMarks(v1::Marks { marks })])
            }),
            Mark::Show(asking) => show(asking, "marks", |state| table::marks(&state.marks)),
        }
    }
}

/// The director's own addresses.
#[derive(Debug, clap::Subcommand)]
pub enum Address {
    /// Add addresses to a port.
    Add(AddressSet),
    /// Remove addresses from a port.
    #[command(aliases = ["delete", "del", "rm"])]
    Remove(AddressSet),
    /// Show the addresses of the ports.
    #[command(alias = "list")]
    Show(Asking),
}

/// Addresses of a port.
#[derive(Debug, clap::Args)]
pub struct AddressSet {
    /// The port's name.
    port: String,
    /// Addresses with the lengths of their subnets' prefixes, such as 10.1.0.1/24.
    #[arg(required = true)]
    addresses: Vec<String>,
    #[command(flatten)]
    changing: Changing,
}

impl AddressSet {
    fn edit(
        &self,
        change: impl Fn(&mut Vec<String>) -> Result<(), ConfigureError>,
    ) -> Result<(), ConfigureError> {
        self.changing.edit_what_holds(|state| {
            let known = state.ports.iter().find(|port| port.port == self.port);
            // Where there is no such port the director tells which ones are there.
            let mut addresses = known.map(|port| port.addresses.clone()).unwrap_or_default();
            change(&mut addresses)?;
            Ok(vec![Edit::SetAddresses(v1::PortAddresses {
                port: self.port.clone(),
                addresses,
            })])
        })
    }
}

impl Address {
    pub(super) fn run(&self) -> Result<(), ConfigureError> {
        match self {
            Address::Add(set) => set.edit(|addresses| {
                addresses.extend(set.addresses.iter().cloned());
                Ok(())
            }),
            Address::Remove(set) => set.edit(|addresses| {
                for gone in &set.addresses {
                    let Some(place) = addresses.iter().position(|known| known == gone) else {
                        let accepted = if addresses.is_empty() {
                            "none: it has no addresses".to_owned()
                        } else {
                            addresses.join(", ")
                        };
                        return Err(not_a(gone, "an address of the port", &accepted));
                    };
                    addresses.remove(place);
                }
                Ok(())
            }),
            Address::Show(asking) => show(asking, "ports", |state| table::addresses(&state.ports)),
        }
    }
}

/// Timeouts.
#[derive(Debug, clap::Subcommand)]
pub enum Timeout {
    /// Set timeouts; what is not said stays.
    Set {
        /// Of established TCP connections.
        #[arg(long, value_name = "SECONDS")]
        tcp: Option<u32>,
        /// Of TCP connections after a FIN.
        #[arg(long, value_name = "SECONDS")]
        tcp_fin: Option<u32>,
        /// Of UDP flows.
        #[arg(long, value_name = "SECONDS")]
        udp: Option<u32>,
        #[command(flatten)]
        changing: Changing,
    },
    /// Show the timeouts.
    #[command(alias = "list")]
    Show(Asking),
}

impl Timeout {
    pub(super) fn run(&self) -> Result<(), ConfigureError> {
        match self {
            Timeout::Set {
                tcp,
                tcp_fin,
                udp,
                changing,
            } => changing.edit(vec![Edit::SetTimeouts(v1::Timeouts {
                tcp_s: *tcp,
                tcp_fin_s: *tcp_fin,
                udp_s: *udp,
            })]),
            Timeout::Show(asking) => show(asking, "timeouts", |state| {
                table::timeouts(&state.timeouts.unwrap_or_default())
            }),
        }
    }
}

/// Behaviour by the kernel's names.
#[derive(Debug, clap::Subcommand)]
pub enum Ipvs {
    /// Set values; what is not said stays.
    Set {
        /// Such as sloppy_tcp=true or conn_reuse_mode=0; `uvs ipvs show` tells the names.
        #[arg(value_name = "NAME=VALUE", required = true)]
        settings: Vec<String>,
        #[command(flatten)]
        changing: Changing,
    },
    /// Show the values.
    #[command(alias = "list")]
    Show(Asking),
}

impl Ipvs {
    pub(super) fn run(&self) -> Result<(), ConfigureError> {
        match self {
            Ipvs::Set { settings, changing } => changing.edit(vec![Edit::SetIpvs(ipvs(settings)?)]),
            Ipvs::Show(asking) => show(asking, "ipvs", |state| {
                let ipvs = json::of("Ipvs", &state.ipvs.unwrap_or_default());
                let values = ipvs.as_object().into_iter().flatten();
                values
                    .map(|(name, value)| format!("{name}={value}\n"))
                    .collect()
            }),
        }
    }
}

fn ipvs(settings: &[String]) -> Result<v1::Ipvs, ConfigureError> {
    let mut values = serde_json::Map::new();
    for setting in settings {
        let parsed = setting.split_once('=').and_then(|(name, value)| {
            let value = serde_json::from_str::<Value>(value).ok()?;
            Some((name.to_owned(), value))
        });
        let accepted = "NAME=NUMBER, NAME=true or NAME=false";
        let (name, value) = parsed.ok_or_else(|| not_a(setting, "a setting", accepted))?;
        values.insert(name, value);
    }
    json::read("Ipvs", Value::Object(values)).map_err(|why| {
        let accepted = format!("{why}; names and kinds of values are those of `uvs ipvs show`");
        not_a(&settings.join(" "), "settings", &accepted)
    })
}

/// Shows a part of what holds: as JSON the field of that name.
fn show(
    asking: &Asking,
    field: &str,
    text: impl Fn(&v1::State) -> String,
) -> Result<(), ConfigureError> {
    let answer = asking.remote()?.configuration(false)?;
    let state = answer.state.unwrap_or_default();
    if asking.json {
        print(&format!("{:#}\n", json::of("State", &state)[field]))
    } else {
        print(&text(&state))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_by_their_names() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let set = ipvs(&words("sloppy_tcp=true conn_reuse_mode=0")).unwrap();
        assert_eq!((set.sloppy_tcp, set.conn_reuse_mode), (Some(true), Some(0)));
        assert_eq!(set.drop_entry, None);
        for wrong in ["sloppy_tcp", "nosuch=1", "sloppy_tcp=7", "drop_entry=x"] {
            let error = ipvs(&words(wrong)).unwrap_err();
            assert!(error.to_string().contains("accepted: "), "{error}");
        }
    }
}
