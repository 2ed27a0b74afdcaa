//! Who may do what.

use super::narrow;
use crate::config::access::{AccessSettings, CALLERS, Caller, TlsSettings};
use crate::config::keys;
use crate::config::reader::Section;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

pub(super) fn read_access(section: &Section<'_, '_>) -> AccessSettings {
    let default = AccessSettings::default();
    let callers = |name| {
        let list = section.get(name).map(|value| value.list(CALLERS));
        let list = list.unwrap_or_default();
        let callers = list.iter().filter_map(|value| value.parse(Caller::parse));
        callers.collect()
    };
    let tls = section.table("tls", &keys::ACCESS_TLS);
    AccessSettings {
        group: section.parsed("group", parse_group),
        viewers: callers("viewers"),
        operators: callers("operators"),
        admins: callers("admins"),
        captures: callers("captures"),
        audit: section.parsed("audit", parse_path),
        rate: narrow(section.number("rate")).unwrap_or(default.rate),
        tls: tls.as_ref().and_then(read_tls),
    }
}

fn read_tls(section: &Section<'_, '_>) -> Option<TlsSettings> {
    let path = |name| section.parsed(name, parse_path);
    let listen = section.parsed("listen", |text| {
        let address: SocketAddr = text.parse().ok()?;
        (address.port() != 0).then_some(address)
    });
    let (certificate, key, client_ca) = (path("certificate"), path("key"), path("client_ca"));
    Some(TlsSettings {
        listen: listen?,
        certificate: certificate?,
        key: key?,
        client_ca: client_ca?,
    })
}

fn parse_group(text: &str) -> Option<String> {
    match Caller::parse(&format!("group:{text}")) {
        Some(Caller::Group(name)) => Some(name),
        _ => None,
    }
}

/// The absolute path of a file.
pub(super) fn parse_path(text: &str) -> Option<PathBuf> {
    let path = Path::new(text);
    let is_one = path.is_absolute() && path.file_name().is_some() && text.len() <= 200;
    is_one.then(|| path.to_owned())
}
