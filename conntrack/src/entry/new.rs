//! What a connection begins with.

use super::ConnectionId;
use crate::family::Family;
use crate::method::Method;
use crate::state::State;
use crate::time::Ticks;
use crate::tuple::Tuple;

/// What a connection begins with.
#[derive(Clone, Copy, Debug)]
pub struct NewConnection<F: Family> {
    /// IP protocol number.
    pub protocol: u8,
    /// Who asks: address and port, host byte order.
    pub client: (F::Address, u16),
    /// Whom it asks.
    pub virtual_server: (F::Address, u16),
    /// Who serves it. The unspecified address where a tunnel leads to the other family.
    pub real_server: (F::Address, u16),
    /// The local address and port that the real server sees; FULLNAT alone.
    pub local: Option<(F::Address, u16)>,
    /// How packets get there.
    pub method: Method,
    /// The id of the real server.
    pub server: u32,
    /// The persistence template, or other connection, that this one belongs to.
    pub control: Option<ConnectionId>,
    /// The state it begins in.
    pub state: State,
    /// How long it may stay silent.
    pub timeout: Ticks,
    /// What rewriting a request adds to the IP checksum (RFC 1624).
    pub ip_delta: u16,
    /// What rewriting a request adds to the L4 checksum.
    pub l4_delta: u16,
    /// The neighbour that replies go to.
    pub reply_neighbour: u32,
    /// The generation of the routes that `reply_neighbour` was resolved with.
    pub route_generation: u16,
    /// The caller's marks, and [`TEMPLATE`](super::TEMPLATE).
    pub flags: u16,
}

impl<F: Family> NewConnection<F> {
    /// The same with a number that [`Entry::template_record`](super::Entry::template_record) tells; of a template.
    #[must_use]
    pub fn template_record(self, record: u32) -> Self {
        let [a, b, c, d] = record.to_be_bytes();
        NewConnection {
            ip_delta: u16::from_be_bytes([a, b]),
            l4_delta: u16::from_be_bytes([c, d]),
            ..self
        }
    }

    /// The key of requests.
    #[must_use]
    pub fn request_tuple(&self) -> Tuple<F> {
        Tuple {
            source: self.client.0,
            destination: self.virtual_server.0,
            source_port: self.client.1,
            destination_port: self.virtual_server.1,
            protocol: self.protocol,
        }
    }
}
