//! `uvs service`.

use super::subject::{Key, key_text};
use super::{Asking, Changing, ConfigureError, print, table};
use crate::json;
use proto::v1;
use proto::v1::edit::Edit;

/// Virtual services.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Add a service without servers.
    Add(Set),
    /// Change settings of a service; what is not said stays, and so do its servers.
    #[command(alias = "edit")]
    Set(Set),
    /// Remove a service with its servers.
    #[command(aliases = ["delete", "del", "rm"])]
    Remove {
        #[command(flatten)]
        key: Key,
        #[command(flatten)]
        changing: Changing,
    },
    /// Show services as they are configured.
    #[command(alias = "list")]
    Show(Show),
}

/// Services with their servers, as they are configured.
#[derive(Debug, clap::Args)]
pub struct Show {
    /// What kind of service; without it, all are shown.
    #[arg(value_enum, value_name = "KIND", requires = "end")]
    kind: Option<super::subject::Kind>,
    /// Its address and port, or its mark.
    #[arg(value_name = "ADDRESS:PORT|MARK")]
    end: Option<String>,
    #[command(flatten)]
    asking: Asking,
}

/// Settings of a service.
#[derive(Debug, clap::Args)]
pub struct Set {
    #[command(flatten)]
    key: Key,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    changing: Changing,
}

#[derive(Debug, clap::Args)]
struct Settings {
    /// How servers are picked, such as wlc, rr, sh, mh or maglev.
    #[arg(long, value_name = "NAME")]
    scheduler: Option<String>,
    /// Variations of the scheduler, such as sh-port,sh-fallback; "none" for none.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    flags: Option<Vec<String>>,
    /// How packets reach servers that do not say it themselves.
    #[arg(long, value_enum)]
    method: Option<Method>,
    /// The pool that FULLNAT takes local addresses from; "none" for none.
    #[arg(long, value_name = "NAME")]
    lip_pool: Option<String>,
    /// Whether each UDP packet is scheduled alone.
    #[arg(long, value_name = "YES")]
    one_packet: Option<bool>,
    /// How long clients stay with their server, in seconds; 0: they do not.
    #[arg(long, value_name = "SECONDS")]
    persistence_timeout: Option<u32>,
    /// Which clients are one: a netmask, or the length of an IPv6 prefix; "none": each is its own.
    #[arg(long, value_name = "MASK")]
    persistence_granularity: Option<String>,
    /// What looks into packets, such as sip; "none" for nothing.
    #[arg(long, value_name = "NAME")]
    persistence_engine: Option<String>,
    /// What looks into connections for others to come, such as ftp; "none" for nothing.
    #[arg(long, value_name = "NAME")]
    helper: Option<String>,
    /// How long servers that join take to get their full share, in seconds.
    #[arg(long, value_name = "SECONDS")]
    slow_start: Option<u32>,
    /// Of a mark's service: the addresses that the director answers for; "none" for none.
    #[arg(long, value_name = "ADDRESSES", value_delimiter = ',')]
    addresses: Option<Vec<String>>,
}

/// How packets reach a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Method {
    /// Addresses are rewritten; replies come back this way.
    Nat,
    /// By the server's hardware address; it answers clients itself.
    Dr,
    /// In a tunnel; the server answers clients itself.
    Tun,
    /// As by NAT, and the server sees an address of the director.
    Fullnat,
}

impl From<Method> for v1::Method {
    fn from(method: Method) -> v1::Method {
        match method {
            Method::Nat => v1::Method::Nat,
            Method::Dr => v1::Method::Dr,
            Method::Tun => v1::Method::Tun,
            Method::Fullnat => v1::Method::Fullnat,
        }
    }
}

/// "none" says that there is nothing.
fn unless_none(text: &str) -> String {
    if text == "none" {
        String::new()
    } else {
        text.to_owned()
    }
}

fn list_unless_none(texts: &[String]) -> Vec<String> {
    let texts = texts.iter().map(|text| unless_none(text));
    texts.filter(|text| !text.is_empty()).collect()
}

impl Settings {
    /// Takes over what was said.
    fn put(&self, into: &mut v1::ServiceSettings) -> Result<(), ConfigureError> {
        let texts = [
            (&self.lip_pool, &mut into.lip_pool),
            (&self.helper, &mut into.helper),
            (&self.scheduler, &mut into.scheduler),
        ];
        for (said, field) in texts {
            if let Some(text) = said {
                *field = unless_none(text);
            }
        }
        for (said, field) in [
            (&self.flags, &mut into.flags),
            (&self.addresses, &mut into.addresses),
        ] {
            if let Some(texts) = said {
                *field = list_unless_none(texts);
            }
        }
        if let Some(method) = self.method {
            into.set_method(method.into());
        }
        into.one_packet = self.one_packet.unwrap_or(into.one_packet);
        into.slow_start_s = self.slow_start.unwrap_or(into.slow_start_s);
        self.put_persistence(into)
    }

    fn put_persistence(&self, into: &mut v1::ServiceSettings) -> Result<(), ConfigureError> {
        match self.persistence_timeout {
            Some(0) => into.persistence = None,
            Some(timeout_s) => {
                into.persistence.get_or_insert_default().timeout_s = timeout_s;
            }
            None => {}
        }
        let fine = [&self.persistence_granularity, &self.persistence_engine];
        let Some(persistence) = &mut into.persistence else {
            if let Some(text) = fine.into_iter().flatten().find(|text| *text != "none") {
                let accepted = "with --persistence-timeout SECONDS beside it";
                let what = "anything to a service without persistence";
                return Err(super::subject::not_a(text, what, accepted));
            }
            return Ok(());
        };
        if let Some(granularity) = fine[0] {
            persistence.granularity = unless_none(granularity);
        }
        if let Some(engine) = fine[1] {
            persistence.engine = unless_none(engine);
        }
        Ok(())
    }
}

impl Command {
    pub(super) fn run(&self) -> Result<(), ConfigureError> {
        match self {
            Command::Add(set) => {
                if set.settings.method.is_none() {
                    return Err(ConfigureError::NoMethod);
                }
                let mut service = v1::ServiceSettings {
                    key: Some(set.key.message()?),
                    ..v1::ServiceSettings::default()
                };
                set.settings.put(&mut service)?;
                set.changing.edit(vec![Edit::CreateService(service)])
            }
            Command::Set(set) => {
                let key = set.key.message()?;
                set.changing.edit_what_holds(|state| {
                    let mut service = find(state, &key).cloned().unwrap_or_default();
                    service.key = Some(key.clone());
                    service.servers.clear();
                    if service.method == 0 {
                        // It is not there, which the director tells with the nearest one that is.
                        service.set_method(v1::Method::Nat);
                    }
                    set.settings.put(&mut service)?;
                    Ok(vec![Edit::UpdateService(service)])
                })
            }
            Command::Remove { key, changing } => {
                changing.edit(vec![Edit::DeleteService(key.message()?)])
            }
            Command::Show(asked) => asked.run(),
        }
    }
}

impl Show {
    pub(super) fn run(&self) -> Result<(), ConfigureError> {
        let only = match (&self.kind, &self.end) {
            (Some(kind), Some(end)) => Some(Key::new(*kind, end.clone()).message()?),
            _ => None,
        };
        show(&self.asking, only.as_ref())
    }
}

fn show(asking: &Asking, only: Option<&v1::ServiceKey>) -> Result<(), ConfigureError> {
    let answer = asking.remote()?.configuration(false)?;
    let mut state = answer.state.unwrap_or_default();
    if let Some(only) = only {
        state
            .services
            .retain(|service| service.key.as_ref() == Some(only));
        if state.services.is_empty() {
            let accepted = "one that `uvs service show` tells";
            return Err(super::subject::not_a(
                &key_text(only),
                "a service",
                accepted,
            ));
        }
    }
    if asking.json {
        let services = state.services.iter();
        let services = services.map(|service| json::of("ServiceSettings", service));
        print(&format!(
            "{:#}\n",
            serde_json::Value::Array(services.collect())
        ))
    } else {
        print(&table::services(&state.services))
    }
}

/// A service of a state.
pub(super) fn find<'s>(
    state: &'s v1::State,
    key: &v1::ServiceKey,
) -> Option<&'s v1::ServiceSettings> {
    let mut services = state.services.iter();
    services.find(|service| service.key.as_ref() == Some(key))
}
