//! Which service a packet of no connection asks for.

use super::family::Ip;
use crate::mark::{Marked, mark_of};
use crate::packet::Tuple;
use crate::packet::wire::TCP;
use crate::port::PortId;
use crate::snapshot::{Persistence, Service, ServiceId, ServiceKey, Snapshot};
use std::sync::Arc;

pub(super) use crate::snapshot::FTP_PORT as FTP;

/// FTP's port for data of active transfers. Source: RFC 959.
pub(super) const FTP_DATA: u16 = 20;
/// From here on a server may offer ports for passive transfers.
const FIRST_PASSIVE: u16 = 1024;

/// What the packet path wants of a service that is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) id: ServiceId,
    pub(super) key: ServiceKey,
    pub(super) one_packet: bool,
    pub(super) persistence: Option<Persistence>,
}

impl Asked {
    pub(super) fn of(service: &Service) -> Asked {
        Asked {
            id: service.id,
            key: service.key,
            one_packet: service.one_packet,
            persistence: service.persistence,
        }
    }

    /// Whether it is a service of FTP commands and the packet is not one of those: a passive transfer, or anything else.
    pub(super) fn is_beside_ftp(&self, port: u16) -> bool {
        self.key.port == FTP && port != FTP
    }
}

/// By what a service was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FoundBy {
    /// Its mark.
    Mark(u32),
    /// The very port that is asked.
    Port,
    /// It is FTP's, and the port may be one of a transfer.
    Ftp,
    /// It is one of all ports that no other has.
    AllPorts,
}

/// The service of a flow.
#[inline]
pub(super) fn asked<F: Ip>(snapshot: &Snapshot, port: PortId, tuple: &Tuple<F>) -> Option<Asked> {
    find(snapshot, port, tuple).map(|(service, _)| Asked::of(service))
}

/// The service of a flow: by its mark, by its very port, for FTP by the port that announces transfers, by its address.
///
/// Source: Linux net/netfilter/ipvs/ip_vs_ctl.c (`ip_vs_service_find`).
#[inline]
pub(super) fn find<'s, F: Ip>(
    snapshot: &'s Snapshot,
    port: PortId,
    tuple: &Tuple<F>,
) -> Option<(&'s Arc<Service>, FoundBy)> {
    let key = ServiceKey {
        protocol: tuple.protocol,
        address: tuple.destination.into(),
        port: tuple.destination_port,
    };
    let at = |port, by| {
        let found = snapshot.services.get(&ServiceKey { port, ..key });
        found.map(|service| (service, by))
    };
    let may_be_ftp = key.protocol == TCP && (key.port == FTP_DATA || key.port >= FIRST_PASSIVE);
    marked(snapshot, port, tuple)
        .or_else(|| at(key.port, FoundBy::Port))
        .or_else(|| at(FTP, FoundBy::Ftp).filter(|_| may_be_ftp))
        .or_else(|| at(0, FoundBy::AllPorts))
}

/// The service of a flow's mark. As in the kernel, whose hooks only see what goes to its own addresses, those that are
/// nobody's here are not asked for.
fn marked<'s, F: Ip>(
    snapshot: &'s Snapshot,
    port: PortId,
    tuple: &Tuple<F>,
) -> Option<(&'s Arc<Service>, FoundBy)> {
    if snapshot.marks.is_empty() {
        return None;
    }
    let packet = marked_packet(port, tuple);
    let mark = mark_of(&snapshot.marks, &packet)?;
    let key = ServiceKey::of_mark(mark, packet.destination.is_ipv6());
    let service = snapshot.services.get(&key)?;
    let is_ours = snapshot.owned.contains_key(&packet.destination);
    is_ours.then_some((service, FoundBy::Mark(mark)))
}

/// What rules of marks look at.
#[inline]
pub(super) fn marked_packet<F: Ip>(port: PortId, tuple: &Tuple<F>) -> Marked {
    Marked {
        port,
        source: tuple.source.into(),
        destination: tuple.destination.into(),
        protocol: tuple.protocol,
        source_port: tuple.source_port,
        destination_port: tuple.destination_port,
    }
}
