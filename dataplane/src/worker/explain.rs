//! What a worker's decision about a packet rests on, looked up by somebody beside. Nothing is changed, and no worker asked.

use super::Tables;
use super::family::Ip;
use super::helped::EXPECTED;
use super::lookup::{Asked, FoundBy, find, marked_packet};
use super::new_flow::is_kernels_by;
use super::persistence::{real_port_of, template_key};
use crate::mark::mark_of;
use crate::packet::wire::TCP;
use crate::port::PortId;
use crate::snapshot::{Service, Snapshot};
use conntrack::{ConnectionId, Direction, Table, Tuple, V4, V6};
use std::net::SocketAddr;
use std::sync::Arc;

/// A packet that is asked about.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// The port that it comes in by.
    pub port: PortId,
    /// IP protocol number.
    pub protocol: u8,
    /// Who sends it.
    pub source: SocketAddr,
    /// To whom; of the same family.
    pub destination: SocketAddr,
}

/// What is there for it. Names of connections are those of its family's table.
#[derive(Clone, Debug, Default)]
pub struct Prospect {
    /// The connection that it belongs to, and which way it goes.
    pub connection: Option<(ConnectionId, Direction)>,
    /// The connection that a helper expects it to begin.
    pub expected: Option<ConnectionId>,
    /// The mark of the first rule that matches, whether or not there is a service of it.
    pub mark: Option<u32>,
    /// The service that it asks for.
    pub service: Option<(Arc<Service>, FoundBy)>,
    /// It is for a service, and the kernel's all the same: data of FTP that no helper expects.
    pub is_kernels: bool,
    /// What remembers its client's server. Of a service that looks into packets, nothing can be said without them.
    pub template: Option<ConnectionId>,
    /// The table has no room for a client that comes for the first time: half-open connections fill their share.
    pub is_flooded: bool,
}

/// What there is for a packet; `None` if its addresses are of two families.
#[must_use]
pub fn prospect(snapshot: &Snapshot, tables: &Tables, question: &Question) -> Option<Prospect> {
    let (source, destination) = (question.source, question.destination);
    match source.is_ipv4() {
        true => {
            let tuple = tuple::<V4>(
                question,
                V4::from_ip(source.ip())?,
                V4::from_ip(destination.ip())?,
            );
            Some(look::<V4>(
                snapshot,
                tables,
                &tables.ipv4,
                question.port,
                &tuple,
            ))
        }
        false => {
            let tuple = tuple::<V6>(
                question,
                V6::from_ip(source.ip())?,
                V6::from_ip(destination.ip())?,
            );
            Some(look::<V6>(
                snapshot,
                tables,
                &tables.ipv6,
                question.port,
                &tuple,
            ))
        }
    }
}

/// The port, host byte order, at which a server of `service` with `port` gets a flow to `virtual_port`.
#[must_use]
pub fn server_port(service: &Service, port: u16, virtual_port: u16) -> u16 {
    real_port_of(&Asked::of(service), port, virtual_port)
}

fn tuple<F: Ip>(question: &Question, source: F::Address, destination: F::Address) -> Tuple<F> {
    Tuple {
        source,
        source_port: question.source.port(),
        destination,
        destination_port: question.destination.port(),
        protocol: question.protocol,
    }
}

fn look<F: Ip>(
    snapshot: &Snapshot,
    tables: &Tables,
    table: &Table<F>,
    port: PortId,
    tuple: &Tuple<F>,
) -> Prospect {
    let found = |tuple: &Tuple<F>, template: bool| {
        let found = table.lookup(tuple);
        found.filter(|(id, _)| table.entry(*id).is_template() == template)
    };
    let service = find(snapshot, port, tuple);
    let asked = service.map(|(service, _)| Asked::of(service));
    let template = asked.and_then(|asked| {
        let persistence = asked.persistence.filter(|found| found.engine.is_none())?;
        found(&template_key(tuple, &asked, &persistence), true)
    });
    let ports = (tuple.source_port, tuple.destination_port);
    Prospect {
        connection: found(tuple, false),
        expected: expected(tables, table, tuple),
        mark: mark_of(&snapshot.marks, &marked_packet(port, tuple)),
        service: service.map(|(service, by)| (Arc::clone(service), by)),
        is_kernels: asked.is_some_and(|asked| is_kernels_by(ports, &asked)),
        template: template.map(|(id, _)| id),
        is_flooded: !table.has_room_for_newcomers(),
    }
}

/// The connection that waits for its client's port, as `Flows::expected` finds it.
fn expected<F: Ip>(tables: &Tables, table: &Table<F>, tuple: &Tuple<F>) -> Option<ConnectionId> {
    if tuple.protocol != TCP || !tables.helpers.expects() {
        return None;
    }
    let without_port = Tuple {
        source_port: 0,
        ..*tuple
    };
    let (id, direction) = table.lookup(&without_port)?;
    let is_expected = table.entry(id).flags() & EXPECTED != 0;
    (direction == Direction::Request && is_expected).then_some(id)
}
