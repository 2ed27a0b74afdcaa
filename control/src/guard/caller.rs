//! Who calls.

use crate::manage::Actor;
use nix::unistd::{Gid, Uid, User, getgrouplist};
use std::ffi::CString;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

/// Names of a certificate that are looked at, at most.
const NAMES: usize = 32;

/// Who calls, as the transport knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Over the control socket.
    Unix(Arc<UnixCaller>),
    /// Over TLS: the names of the certificate.
    Tls(Arc<TlsCaller>),
}

/// A process of this machine.
#[derive(Debug, PartialEq, Eq)]
pub struct UnixCaller {
    /// Its user, as the kernel tells.
    pub uid: u32,
    /// The user's name, if there is one.
    pub user: Option<String>,
    /// Its group as the kernel tells, and those that the user is a member of.
    pub groups: Vec<u32>,
}

/// The owner of a certificate.
#[derive(Debug, PartialEq, Eq)]
pub struct TlsCaller {
    /// Its names of a URI, then those of the DNS.
    pub names: Vec<String>,
    /// Where the connection comes from.
    pub from: SocketAddr,
}

impl Caller {
    /// The process at the other end of a socket. Asks the system's databases of users and groups: which groups a user is in
    /// is told by those as they are now, not by what the process was given when it began.
    #[must_use]
    pub fn unix(uid: u32, gid: u32) -> Caller {
        let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
        let mut groups = vec![gid];
        if let Some(user) = &user
            && let Ok(name) = CString::new(user.name.as_str())
        {
            let all = getgrouplist(&name, user.gid).unwrap_or_default();
            groups.extend(all.into_iter().map(Gid::as_raw));
        }
        let user = user.map(|user| user.name);
        Caller::Unix(Arc::new(UnixCaller { uid, user, groups }))
    }

    /// The owner of a certificate that was verified.
    ///
    /// # Errors
    /// When it cannot be read, or has no name.
    pub(super) fn tls(
        certificate: &rustls::pki_types::CertificateDer<'_>,
        from: SocketAddr,
    ) -> Result<Caller, &'static str> {
        let Ok(certificate) = webpki::EndEntityCert::try_from(certificate) else {
            return Err("its certificate cannot be read");
        };
        let names = certificate
            .valid_uri_names()
            .chain(certificate.valid_dns_names())
            .take(NAMES)
            .map(str::to_owned);
        let names: Vec<_> = names.collect();
        if names.is_empty() {
            return Err("its certificate has no subject alternative name of a URI or of the DNS");
        }
        Ok(Caller::Tls(Arc::new(TlsCaller { names, from })))
    }

    /// What it is told by.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Caller::Unix(unix) => match &unix.user {
                Some(user) => format!("uid {} ({user})", unix.uid),
                None => format!("uid {}", unix.uid),
            },
            Caller::Tls(tls) => format!("san {}", tls.names[0]),
        }
    }

    /// As who makes changes.
    #[must_use]
    pub fn actor(&self) -> Actor {
        Actor {
            name: self.name(),
            way: match self {
                Caller::Unix(_) => "grpc, unix".to_owned(),
                Caller::Tls(tls) => format!("grpc, tls from {}", tls.from),
            },
        }
    }

    /// What a list of `[access]` could name it by.
    #[must_use]
    pub fn entries(&self) -> String {
        match self {
            Caller::Unix(unix) => match &unix.user {
                Some(user) => format!("\"user:{user}\" or \"uid:{}\"", unix.uid),
                None => format!("\"uid:{}\"", unix.uid),
            },
            Caller::Tls(tls) => format!("\"san:{}\"", tls.names[0]),
        }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_known_by_name_and_a_stranger_by_number() {
        assert_eq!(Caller::unix(0, 0).name(), "uid 0 (root)");
        let stranger = Caller::unix(4_000_000_000, 4_000_000_001);
        assert_eq!(stranger.name(), "uid 4000000000");
        assert_eq!(stranger.entries(), "\"uid:4000000000\"");
        let Caller::Unix(unix) = stranger else {
            unreachable!()
        };
        assert_eq!(unix.groups, [4_000_000_001]);
    }
}
