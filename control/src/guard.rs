//! Who may call what. One guard stands before all services: whatever way a call comes, it is known who calls, which role the
//! call needs, and refusals are written down.
//!
//! ```text
//!   Unix socket ─ uid, gid, groups ─┐                 ┌─ roles of the caller (access)
//!                                   ├─▶ Caller ─▶ layer ─ role of the method (role)  ─▶ the service, with an Actor
//!   TLS ─ names of the certificate ─┘                 ├─ rate of the caller (bucket)
//!     (incoming, tls)                                 └─▶ audit
//! ```

mod access;
mod audit;
mod bucket;
mod caller;
mod incoming;
mod layer;
pub mod privileges;
mod role;
mod tls;

pub use access::Access;
pub use audit::{Audit, Record, Told};
pub use caller::Caller;
pub use incoming::{CONNECTIONS, CONNECTIONS_PER_CALLER, Incoming, Io, UNKNOWN_CONNECTIONS};
pub use layer::{GuardLayer, Guarded};
pub use role::{Role, Roles, WrittenBy, needed};
pub use tls::{Tls, TlsError};

use crate::manage::Actor;
use bucket::Buckets;
use parking_lot::{Mutex, RwLock};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// Refusals of one caller that are written down, in a second.
const REFUSALS_TOLD: u32 = 10;

/// See the module's text.
pub struct Guard {
    access: RwLock<Arc<Access>>,
    audit: Arc<Audit>,
    rate: Mutex<Buckets>,
    refusals: Mutex<Buckets>,
}

/// A call that may go on.
pub struct Admitted {
    /// Who calls.
    pub actor: Actor,
    /// Whether the guard writes down what becomes of it.
    pub(crate) is_written: bool,
}

impl Guard {
    /// With these rights, and a log for refusals.
    #[must_use]
    pub fn new(access: Access, audit: Arc<Audit>) -> Guard {
        let rate = access.rate();
        Guard {
            access: RwLock::new(Arc::new(access)),
            audit,
            rate: Mutex::new(Buckets::new(rate)),
            refusals: Mutex::new(Buckets::new(REFUSALS_TOLD)),
        }
    }

    /// Other rights from now on, also for those who are connected.
    pub fn adopt(&self, access: Access) {
        self.rate.lock().set_rate(access.rate());
        *self.access.write() = Arc::new(access);
    }

    /// What somebody may do, whichever way he comes.
    #[must_use]
    pub fn roles(&self, caller: &Caller) -> Roles {
        self.access.read().roles(caller)
    }

    /// The log.
    #[must_use]
    pub fn audit(&self) -> &Arc<Audit> {
        &self.audit
    }

    /// What stands before the services of a server.
    #[must_use]
    pub fn layer(self: &Arc<Guard>) -> GuardLayer {
        GuardLayer::new(Arc::clone(self))
    }

    /// Whether a caller may call a method, by its path.
    ///
    /// # Errors
    /// The status that tells why not.
    pub fn admit(&self, caller: Option<&Caller>, path: &str) -> Result<Admitted, Box<Status>> {
        let Some(caller) = caller else {
            let status = Status::unauthenticated("it is not known who calls");
            return Err(Box::new(status));
        };
        let actor = caller.actor();
        if let Err(wait) = self.count(&actor) {
            return Err(Box::new(too_fast(&actor, self.access.read().rate(), wait)));
        }
        let access = Arc::clone(&self.access.read());
        let roles = access.roles(caller);
        let refused = match needed(path) {
            Some((role, written)) if roles.has(role) => {
                return Ok(Admitted {
                    actor,
                    is_written: written == WrittenBy::Guard,
                });
            }
            Some((role, _)) => refusal(caller, roles, role, path),
            None => Status::permission_denied(format!(
                "no role allows {path}: there is no such method; accepted: those of uvs.v1, which the reflection service lists"
            )),
        };
        self.refuse(&actor, path, Told::failed(&refused));
        Err(Box::new(refused))
    }

    /// Counts a call of somebody's, or tells when he may call again.
    pub(crate) fn count(&self, actor: &Actor) -> Result<(), Duration> {
        self.rate.lock().take(&actor.name, Instant::now())
    }

    /// Writes down that somebody was refused, and why. Whoever is refused over and over does not fill the disk: how often is
    /// counted, and false returned.
    pub fn refuse(&self, actor: &Actor, path: &str, told: Told) -> bool {
        let is_seldom = self.refusals.lock().take(&actor.name, Instant::now());
        let is_written = is_seldom.is_ok();
        if is_written {
            self.audit.write(&Record::of(actor, path, told));
        } else {
            self.audit.skip();
        }
        is_written
    }
}

fn refusal(caller: &Caller, roles: Roles, role: Role, path: &str) -> Status {
    Status::permission_denied(format!(
        "you are {caller}, {roles}; {path} needs the role {role}: an administrator adds {} to access.{} in uvsd's configuration and reloads it",
        caller.entries(),
        role.key(),
    ))
}

fn too_fast(actor: &Actor, rate: u32, wait: Duration) -> Status {
    let message = format!(
        "{} calls more than {rate} times a second (access.rate in uvsd's configuration): again in {} ms",
        actor.name,
        wait.as_millis().max(1)
    );
    let details = ErrorDetails::with_retry_info(Some(wait));
    Status::with_error_details(Code::ResourceExhausted, message, details)
}
