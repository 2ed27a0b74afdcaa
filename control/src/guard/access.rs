//! Who has which roles: the lists of `[access]` with their names looked up.

use super::caller::Caller;
use super::role::{Role, Roles};
use crate::config::{self, AccessSettings};
use nix::unistd::{Group, User};

/// A list's entry, looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    Uid(u32),
    Gid(u32),
    San(String),
}

/// See the module's text.
#[derive(Clone, Debug)]
pub struct Access {
    /// uvsd's own user, who may do everything, as root may.
    own_uid: u32,
    entries: Vec<(Entry, Role)>,
    rate: u32,
}

impl Access {
    /// Looks the names up, and tells those that are unknown: they give nobody anything. No error, for where users come from
    /// the network a director must start also while that is away; a name that is unknown can only withhold.
    #[must_use]
    pub fn look_up(settings: &AccessSettings) -> (Access, Vec<String>) {
        let mut warnings = Vec::new();
        let mut entries = Vec::new();
        let lists = [
            (&settings.viewers, Role::Viewer),
            (&settings.operators, Role::Operator),
            (&settings.admins, Role::Admin),
            (&settings.captures, Role::Capture),
        ];
        for (callers, role) in lists {
            for (place, caller) in callers.iter().enumerate() {
                match look_up(caller) {
                    Ok(entry) => entries.push((entry, role)),
                    Err(why) => warnings.push(format!(
                        "access.{}[{place}]: {caller} {why}: nobody gets the role by it until it is there and uvsd reloads",
                        role.key()
                    )),
                }
            }
        }
        let access = Access {
            own_uid: nix::unistd::geteuid().as_raw(),
            entries,
            rate: settings.rate,
        };
        (access, warnings)
    }

    /// Calls of each caller in a second.
    #[must_use]
    pub fn rate(&self) -> u32 {
        self.rate
    }

    /// What somebody may do.
    #[must_use]
    pub fn roles(&self, caller: &Caller) -> Roles {
        let mut roles = Roles::default();
        if let Caller::Unix(unix) = caller
            && (unix.uid == 0 || unix.uid == self.own_uid)
        {
            roles = roles.with(Role::Admin);
        }
        for (entry, role) in &self.entries {
            let is_meant = match (entry, caller) {
                (Entry::Uid(uid), Caller::Unix(unix)) => unix.uid == *uid,
                (Entry::Gid(gid), Caller::Unix(unix)) => unix.groups.contains(gid),
                (Entry::San(name), Caller::Tls(tls)) => tls.names.contains(name),
                _ => false,
            };
            if is_meant {
                roles = roles.with(*role);
            }
        }
        roles
    }
}

fn look_up(caller: &config::Caller) -> Result<Entry, &'static str> {
    match caller {
        config::Caller::Uid(uid) => Ok(Entry::Uid(*uid)),
        config::Caller::Gid(gid) => Ok(Entry::Gid(*gid)),
        config::Caller::San(name) => Ok(Entry::San(name.clone())),
        config::Caller::User(name) => match User::from_name(name) {
            Ok(Some(user)) => Ok(Entry::Uid(user.uid.as_raw())),
            Ok(None) => Err("is no user of this machine"),
            Err(_) => Err("cannot be looked up now"),
        },
        config::Caller::Group(name) => match Group::from_name(name) {
            Ok(Some(group)) => Ok(Entry::Gid(group.gid.as_raw())),
            Ok(None) => Err("is no group of this machine"),
            Err(_) => Err("cannot be looked up now"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn callers(texts: &[&str]) -> Vec<config::Caller> {
        let callers = texts.iter().map(|text| config::Caller::parse(text));
        callers.collect::<Option<_>>().unwrap()
    }

    #[test]
    fn names_are_looked_up_and_unknown_ones_give_nothing() {
        let (access, warnings) = Access::look_up(&AccessSettings {
            viewers: callers(&["group:daemon", "user:nobody-of-that-name"]),
            operators: callers(&["user:nobody"]),
            captures: callers(&["uid:5", "gid:7"]),
            ..AccessSettings::default()
        });
        assert_eq!(
            warnings,
            [
                "access.viewers[1]: user:nobody-of-that-name is no user of this machine: nobody gets the role by it until it is there and uvsd reloads"
            ]
        );
        let daemon = Group::from_name("daemon").unwrap().unwrap().gid.as_raw();
        let nobody = User::from_name("nobody").unwrap().unwrap().uid.as_raw();
        let roles = |uid, gid| access.roles(&Caller::unix(uid, gid));
        assert_eq!(roles(4_000_000, 4_000_000), Roles::default());
        let viewer = Roles::default().with(Role::Viewer);
        assert_eq!(roles(4_000_000, daemon), viewer);
        let operator = Roles::default().with(Role::Operator);
        assert_eq!(roles(nobody, 4_000_000), operator);
        let capture = Roles::default().with(Role::Capture);
        assert_eq!(roles(4_000_000, 7), capture);
        assert!(roles(0, 0).has(Role::Admin));
    }
}
