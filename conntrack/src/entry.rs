//! One connection: what an established packet needs, in one cache line (IPv4) or two (IPv6).
//!
//! ```text
//!  bytes  IPv4                                      IPv6
//!  0      client, virtual, real, local address      0    client, virtual, real, local address
//!  16     client, virtual, real, local port          ── second line ──
//!  24     state, protocol, method, spare            64   client, virtual, real, local port
//!  28     expires_at                                72   state, protocol, method, spare
//!  32     server                                    76   expires_at
//!  36     reply_neighbour                           80   server
//!  40     ip_delta, l4_delta                        84   reply_neighbour
//!  44     flags, route_generation                   88   ip_delta, l4_delta
//!  48     generation, owner                         92   flags, route_generation
//!  52     control index                             96   generation, owner
//!  56     control generation, packets               100  control index
//!  60     extension                                 104  control generation, packets
//!  64     end                                       108  extension
//!                                                   112  16 bytes unused
//! ```
//! Where replies do not pass the director, the local address and port hold the server and the method against the client's
//! end (`Entry::witness`).
//!
//! All fields are atomics, read and written `Relaxed`: a confirmed slot of the index publishes them (Release), and
//! whoever found the entry there has acquired that slot. Keys and rewrite facts then stay as they are until the entry
//! is reclaimed, which waits until every worker has passed a quiescent state.

mod life;
mod new;
#[cfg(not(loom))]
mod sound;
mod view;

pub(crate) use life::{GENERATION, Vitality};
pub use new::NewConnection;
pub use view::ConnectionView;

use crate::family::Family;
use crate::method::Method;
use crate::state::State;
use crate::sync::{AtomicU8, AtomicU16, AtomicU32, Ordering::Relaxed};
use crate::time::Ticks;
use crate::tuple::{Direction, Tuple};

/// Names a connection: the entry and which of its lives. An id kept past a quiescent state may be stale;
/// [`Table::get`](crate::Table::get) tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId {
    pub(crate) index: u32,
    pub(crate) generation: u16,
}

impl ConnectionId {
    /// The id in one word.
    #[must_use]
    pub fn to_u64(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    /// The id that [`to_u64`](Self::to_u64) made the word of. Any other word names no connection, or an old one.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "the fields are cut out")]
    pub fn from_u64(word: u64) -> ConnectionId {
        ConnectionId {
            index: word as u32,
            generation: (word >> 32) as u16 & GENERATION,
        }
    }
}

/// `touch` does not write for less, so that workers that share a flow do not fight for its line.
const TOUCH_GRAIN: Ticks = Ticks::from_millis(500);

/// Flag of [`NewConnection::flags`]: a persistence template, which stands under its request key alone, whatever its
/// method. All other bits are the caller's.
pub const TEMPLATE: u16 = 1 << 15;
/// The ports of a template that leads nowhere.
const VOID_PORT: u16 = 0xffff;

/// A connection in the table.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Entry<F: Family> {
    /// By [`CLIENT`] to [`LOCAL`]: a request's source and destination, then a reply's.
    addresses: [F::Cell; 4],
    ports: [AtomicU16; 4],
    state: AtomicU8,
    protocol: AtomicU8,
    method: AtomicU8,
    spare: AtomicU8,
    expires_at: AtomicU32,
    server: AtomicU32,
    reply_neighbour: AtomicU32,
    ip_delta: AtomicU16,
    l4_delta: AtomicU16,
    flags: AtomicU16,
    route_generation: AtomicU16,
    generation: AtomicU16,
    owner: AtomicU16,
    control: AtomicU32,
    control_generation: AtomicU16,
    packets: AtomicU16,
    extension: AtomicU32,
}

/// Places of the ends.
const CLIENT: usize = 0;
const VIRTUAL: usize = 1;
const REAL: usize = 2;
const LOCAL: usize = 3;

#[cfg(not(loom))]
const _: () = {
    use crate::family::{V4, V6};
    assert!(size_of::<Entry<V4>>() == 64 && align_of::<Entry<V4>>() == 64);
    assert!(size_of::<Entry<V6>>() == 128 && align_of::<Entry<V6>>() == 64);
};

impl<F: Family> Entry<F> {
    /// The client's address.
    #[inline]
    pub fn client(&self) -> F::Address {
        F::load(&self.addresses[CLIENT])
    }

    /// The client's port, host byte order.
    #[inline]
    pub fn client_port(&self) -> u16 {
        self.ports[CLIENT].load(Relaxed)
    }

    /// The virtual server's address.
    #[inline]
    pub fn virtual_address(&self) -> F::Address {
        F::load(&self.addresses[VIRTUAL])
    }

    /// The virtual server's port, host byte order.
    #[inline]
    pub fn virtual_port(&self) -> u16 {
        self.ports[VIRTUAL].load(Relaxed)
    }

    /// The real server's address; unspecified where a tunnel leads to the other family.
    #[inline]
    pub fn real_address(&self) -> F::Address {
        F::load(&self.addresses[REAL])
    }

    /// The real server's port, host byte order.
    #[inline]
    pub fn real_port(&self) -> u16 {
        self.ports[REAL].load(Relaxed)
    }

    /// What the real server sees as its peer: the local address and port of FULLNAT, the client's otherwise.
    #[inline]
    pub fn local_end(&self) -> (F::Address, u16) {
        (
            F::load(&self.addresses[LOCAL]),
            self.ports[LOCAL].load(Relaxed),
        )
    }

    /// The local address and port, host byte order; connections by FULLNAT alone have them.
    #[inline]
    pub fn local(&self) -> Option<(F::Address, u16)> {
        (self.method() == Method::FullNat).then(|| self.local_end())
    }

    /// IP protocol number.
    #[inline]
    pub fn protocol(&self) -> u8 {
        self.protocol.load(Relaxed)
    }

    /// How packets reach the real server.
    #[inline]
    pub fn method(&self) -> Method {
        Method::from_byte(self.method.load(Relaxed))
    }

    /// What the connection is doing. [`Table::advance`](crate::Table::advance) changes it.
    #[inline]
    pub fn state(&self) -> State {
        State::from_byte(self.state.load(Relaxed))
    }

    /// The id of the real server.
    #[inline]
    pub fn server(&self) -> u32 {
        self.server.load(Relaxed)
    }

    /// The connection that this one belongs to. It may be stale.
    #[inline]
    pub fn control(&self) -> Option<ConnectionId> {
        let index = self.control.load(Relaxed);
        (index != 0).then(|| ConnectionId {
            index,
            generation: self.control_generation.load(Relaxed),
        })
    }

    /// When it ends, unless something happens before.
    #[inline]
    pub fn expires_at(&self) -> Ticks {
        Ticks(self.expires_at.load(Relaxed))
    }

    /// Moves the end to `deadline`. Moves of less than half a second are not written. The armed timer stays: where the
    /// deadline came closer, [`Owner::shorten`](crate::Owner::shorten) is the call.
    #[inline]
    pub fn touch(&self, deadline: Ticks) {
        if deadline.distance(self.expires_at()).0 >= TOUCH_GRAIN.0 {
            self.expires_at.store(deadline.0, Relaxed);
        }
    }

    /// What rewriting a request adds to the IP checksum (RFC 1624).
    #[inline]
    pub fn ip_delta(&self) -> u16 {
        self.ip_delta.load(Relaxed)
    }

    /// What rewriting a request adds to the L4 checksum.
    #[inline]
    pub fn l4_delta(&self) -> u16 {
        self.l4_delta.load(Relaxed)
    }

    /// The neighbour that replies go to, and the generation of the routes it was resolved with.
    ///
    /// The two are read one after the other: where another worker resolves anew in between, they may not belong
    /// together for one packet, whose next hop is then an old one.
    #[inline]
    pub fn reply_neighbour(&self) -> (u32, u16) {
        let generation = self.route_generation.load(Relaxed);
        (self.reply_neighbour.load(Relaxed), generation)
    }

    /// Notes where replies go from now on.
    #[inline]
    pub fn set_reply_neighbour(&self, neighbour: u32, route_generation: u16) {
        self.reply_neighbour.store(neighbour, Relaxed);
        self.route_generation.store(route_generation, Relaxed);
    }

    /// The caller's marks, and [`TEMPLATE`].
    #[inline]
    pub fn flags(&self) -> u16 {
        self.flags.load(Relaxed)
    }

    /// Sets marks, of any worker at any time. [`TEMPLATE`] cannot be set after the fact.
    pub fn set_flags(&self, flags: u16) {
        self.flags.fetch_or(flags & !TEMPLATE, Relaxed);
    }

    /// Clears marks. [`TEMPLATE`] stays.
    pub fn clear_flags(&self, flags: u16) {
        self.flags.fetch_and(!(flags & !TEMPLATE), Relaxed);
    }

    /// Whether this is a persistence template.
    #[inline]
    pub fn is_template(&self) -> bool {
        self.flags() & TEMPLATE != 0
    }

    /// The worker whose timers watch the connection.
    #[inline]
    pub fn owner(&self) -> u16 {
        self.owner.load(Relaxed)
    }

    /// Counts a packet of the client, up to 65535, and returns the count so far. Each call before that writes the
    /// line; packets that two workers count at once may count as one.
    #[inline]
    pub fn count_packet(&self) -> u16 {
        let count = self.packets.load(Relaxed);
        if count < u16::MAX {
            self.packets.store(count + 1, Relaxed);
        }
        count.saturating_add(1)
    }

    /// How many packets were counted.
    #[inline]
    pub fn packets(&self) -> u16 {
        self.packets.load(Relaxed)
    }

    /// Of a template: how long it lasts after each use. Kept where a connection has its reply neighbour, as what
    /// [`NewConnection::reply_neighbour`] says.
    #[inline]
    pub fn template_timeout(&self) -> Ticks {
        Ticks(self.reply_neighbour.load(Relaxed))
    }

    /// Sets how long a template lasts after each use.
    pub fn set_template_timeout(&self, timeout: Ticks) {
        self.reply_neighbour.store(timeout.0, Relaxed);
    }

    /// Of a template: the number of whatever else tells it from others of its client, 0 where nothing does. Kept where
    /// a connection has its checksum deltas: see [`NewConnection::template_record`].
    #[inline]
    pub fn template_record(&self) -> u32 {
        u32::from(self.ip_delta()) << 16 | u32::from(self.l4_delta())
    }

    /// Makes a template show what the kernel shows of one that leads nowhere: port 65535 on both sides.
    pub(crate) fn set_void(&self) {
        self.ports[CLIENT].store(0, Relaxed);
        self.ports[VIRTUAL].store(VOID_PORT, Relaxed);
        self.ports[REAL].store(VOID_PORT, Relaxed);
    }

    /// A word for whatever hangs on the connection: a helper's record, or for a template the count of
    /// [`hold`](Self::hold)s. 0 at the beginning.
    #[inline]
    pub fn extension(&self) -> u32 {
        self.extension.load(Relaxed)
    }

    /// Sets the word.
    #[inline]
    pub fn set_extension(&self, extension: u32) {
        self.extension.store(extension, Relaxed);
    }

    /// Counts a connection that this template controls.
    pub fn hold(&self) {
        self.extension.fetch_add(1, Relaxed);
    }

    /// Uncounts it. Returns how many are left.
    pub fn release(&self) -> u32 {
        self.extension.fetch_sub(1, Relaxed).wrapping_sub(1)
    }

    /// The source and the destination, each with its port, of a packet that NAT or FULLNAT has translated.
    #[inline]
    pub fn translated_ends(&self, direction: Direction) -> [(F::Address, u16); 2] {
        // A request then has a reply's ends, turned around, and a reply a request's.
        let source = LOCAL - source_place(direction);
        [source, source - 1]
            .map(|end| (F::load(&self.addresses[end]), self.ports[end].load(Relaxed)))
    }

    /// The key of requests.
    pub fn request_tuple(&self) -> Tuple<F> {
        Tuple {
            source: self.client(),
            destination: self.virtual_address(),
            source_port: self.client_port(),
            destination_port: self.virtual_port(),
            protocol: self.protocol(),
        }
    }

    /// The key of replies, where they pass the director.
    pub fn reply_tuple(&self) -> Option<Tuple<F>> {
        if !self.method().sees_replies() || self.is_template() {
            return None;
        }
        let (destination, destination_port) = self.local_end();
        Some(Tuple {
            source: self.real_address(),
            destination,
            source_port: self.real_port(),
            destination_port,
            protocol: self.protocol(),
        })
    }

    /// Whether a packet with `tuple` belongs to this connection in that direction.
    #[inline]
    pub(crate) fn matches(&self, direction: Direction, tuple: &Tuple<F>) -> bool {
        // Without a branch: of NAT's packets every other one is a reply, and which is next nobody can foresee.
        let source = source_place(direction);
        F::load(&self.addresses[source]) == tuple.source
            && F::load(&self.addresses[source + 1]) == tuple.destination
            && self.ports[source].load(Relaxed) == tuple.source_port
            && self.ports[source + 1].load(Relaxed) == tuple.destination_port
            && self.protocol() == tuple.protocol
    }

    pub(crate) fn set_expires_at(&self, deadline: Ticks) {
        self.expires_at.store(deadline.0, Relaxed);
    }
}

/// Where the source of a direction's packets is; their destination is the next.
#[inline]
fn source_place(direction: Direction) -> usize {
    REAL * usize::from(direction == Direction::Reply)
}
