//! Daemons of synchronisation that clients want: remembered and told, so that who starts and stops them goes on.

use super::numbers::daemon;
use super::refusal::Refusal;
use super::top;
use super::wire::Attributes;
use std::net::{IpAddr, Ipv4Addr};

/// Bytes of an interface's name, at most.
const INTERFACE: usize = 15;
/// Where the kernel multicasts by default.
const GROUP: IpAddr = IpAddr::V4(Ipv4Addr::new(224, 0, 0, 81));
const PORT: u16 = 8848;
const TTL: u8 = 1;
/// What the kernel takes on Ethernet: its MTU without the headers.
const LARGEST: u16 = 1472;

/// A daemon of synchronisation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Daemon {
    pub(super) interface: String,
    pub(super) id: u32,
    pub(super) largest: u16,
    pub(super) group: IpAddr,
    pub(super) port: u16,
    pub(super) ttl: u8,
}

/// One of each kind, at most.
#[derive(Debug, Default)]
pub(super) struct Daemons {
    master: Option<Daemon>,
    backup: Option<Daemon>,
}

impl Daemons {
    pub(super) fn running(&self) -> impl Iterator<Item = (u32, &Daemon)> {
        let master = self.master.iter().map(|of| (daemon::MASTER, of));
        master.chain(self.backup.iter().map(|of| (daemon::BACKUP, of)))
    }

    pub(super) fn start(&mut self, attributes: Attributes<'_>) -> Result<(), Refusal> {
        let of = attributes.nested(top::DAEMON)?;
        let of = of.ok_or(Refusal::Missing("daemon"))?;
        let interface = of.name(daemon::INTERFACE, INTERFACE)?;
        let interface = interface.ok_or(Refusal::Missing("multicast interface"))?;
        let id = of.u32(daemon::ID)?;
        let group = match (of.address::<4>(daemon::GROUP)?, of.address(daemon::GROUP6)?) {
            (Some(v4), _) => IpAddr::from(v4),
            (None, Some::<[u8; 16]>(v6)) => IpAddr::from(v6),
            (None, None) => GROUP,
        };
        let or = |value: Option<u16>, default| value.filter(|value| *value != 0).unwrap_or(default);
        let wanted = Daemon {
            interface: interface.to_owned(),
            id: id.ok_or(Refusal::Missing("syncid"))?,
            largest: or(of.u16(daemon::LARGEST)?, LARGEST),
            group: Some(group)
                .filter(|group| !group.is_unspecified())
                .unwrap_or(GROUP),
            port: or(of.u16(daemon::PORT)?, PORT),
            ttl: of.u8(daemon::TTL)?.filter(|ttl| *ttl != 0).unwrap_or(TTL),
        };
        let place = self.of_state(of)?;
        if place.is_some() {
            return Err(Refusal::DaemonRuns);
        }
        tracing::warn!(
            "a daemon of synchronisation is wanted on {interface}: uvs remembers that, and synchronises nothing yet"
        );
        *place = Some(wanted);
        Ok(())
    }

    pub(super) fn stop(&mut self, attributes: Attributes<'_>) -> Result<(), Refusal> {
        let of = attributes.nested(top::DAEMON)?;
        let place = self.of_state(of.ok_or(Refusal::Missing("daemon"))?)?;
        place.take().map(|_| ()).ok_or(Refusal::NoDaemon)
    }

    fn of_state(&mut self, of: Attributes<'_>) -> Result<&mut Option<Daemon>, Refusal> {
        match of.u32(daemon::STATE)?.ok_or(Refusal::Missing("state"))? {
            daemon::MASTER => Ok(&mut self.master),
            daemon::BACKUP => Ok(&mut self.backup),
            other => Err(Refusal::Value {
                what: "state of a daemon",
                value: other.to_string(),
                accepted: "1 (master) or 2 (backup)",
            }),
        }
    }
}
