//! One connection: what an established packet needs, in one cache line (IPv4) or two (IPv6).
//!
//! ```text
//!  bytes  IPv4                                      IPv6
//!  0      client, virtual address                   0    client, virtual address
//!  8      client, virtual, real, local port         32   client, virtual, real, local port
//!  16     state, protocol, method, spare            40   state, protocol, method, spare
//!  20     expires_at                                44   expires_at
//!  24     server                                    48   server
//!  28     reply_neighbour                           52   reply_neighbour
//!  32     ip_delta, l4_delta                        56   ip_delta, l4_delta
//!  36     flags, route_generation                   60   flags, route_generation
//!  40     generation, owner                    ── second line ──
//!  44     control index                             64   generation, owner
//!  48     control generation, packets               68   control index
//!  52     extension                                 72   control generation, packets
//!  56     real, local address                       76   extension
//!  64     end                                       80   real, local address
//!                                                   112  16 bytes unused
//! ```
//! All fields are atomics, read and written `Relaxed`: a confirmed slot of the index publishes them (Release), and
//! whoever found the entry there has acquired that slot. Keys and rewrite facts then stay as they are until the entry
//! is reclaimed, which waits until every worker has passed a quiescent state.

use crate::family::Family;
use crate::method::Method;
use crate::state::State;
use crate::sync::{AtomicU8, AtomicU16, AtomicU32, Ordering, Ordering::Relaxed};
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

/// The bits of a generation; what a slot has room for.
pub(crate) const GENERATION: u16 = (1 << 14) - 1;
/// In an entry's generation: all its keys stand in the index.
const LIVE: u16 = 1 << 15;
const DEAD: u8 = State::Dead as u8;
/// In an entry's state: its keys are still on their way into the index, and may have to be taken back.
const UNBORN: u8 = DEAD + 1;

/// Whether an entry whose key was found is a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vitality {
    /// It has some of its keys, or all, and is not known yet.
    Unborn,
    /// It is one.
    Alive,
    /// It was one, or almost.
    Dead,
}

/// `touch` does not write for less, so that workers that share a flow do not fight for its line.
const TOUCH_GRAIN: Ticks = Ticks::from_millis(500);

/// Flag of [`NewConnection::flags`]: a persistence template, which stands under its request key alone, whatever its
/// method. All other bits are the caller's.
pub const TEMPLATE: u16 = 1 << 15;
/// The ports of a template that leads nowhere.
const VOID_PORT: u16 = 0xffff;

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
    /// The caller's marks, and [`TEMPLATE`].
    pub flags: u16,
}

impl<F: Family> NewConnection<F> {
    /// The same with a number that [`Entry::template_record`] tells; of a template.
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

/// A connection in the table.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Entry<F: Family> {
    client: F::Cell,
    virtual_address: F::Cell,
    client_port: AtomicU16,
    virtual_port: AtomicU16,
    real_port: AtomicU16,
    local_port: AtomicU16,
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
    real: F::Cell,
    local: F::Cell,
}

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
        F::load(&self.client)
    }

    /// The client's port, host byte order.
    #[inline]
    pub fn client_port(&self) -> u16 {
        self.client_port.load(Relaxed)
    }

    /// The virtual server's address.
    #[inline]
    pub fn virtual_address(&self) -> F::Address {
        F::load(&self.virtual_address)
    }

    /// The virtual server's port, host byte order.
    #[inline]
    pub fn virtual_port(&self) -> u16 {
        self.virtual_port.load(Relaxed)
    }

    /// The real server's address; unspecified where a tunnel leads to the other family.
    #[inline]
    pub fn real_address(&self) -> F::Address {
        F::load(&self.real)
    }

    /// The real server's port, host byte order.
    #[inline]
    pub fn real_port(&self) -> u16 {
        self.real_port.load(Relaxed)
    }

    /// What the real server sees as its peer: the local address and port of FULLNAT, the client's otherwise.
    #[inline]
    pub fn local_end(&self) -> (F::Address, u16) {
        (F::load(&self.local), self.local_port.load(Relaxed))
    }

    /// The local address and port, host byte order; FULLNAT alone has them.
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
        self.client_port.store(0, Relaxed);
        self.virtual_port.store(VOID_PORT, Relaxed);
        self.real_port.store(VOID_PORT, Relaxed);
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

    /// The connection as it is now. Fields may come from different moments of its life, and of another connection
    /// where the caller has no hold on it; see [`Table::for_each`](crate::Table::for_each).
    pub fn view(&self) -> ConnectionView<F> {
        // The port of a template's key is none of the client's.
        let client_port = if self.is_template() {
            0
        } else {
            self.client_port()
        };
        ConnectionView {
            client: (self.client(), client_port),
            virtual_server: (self.virtual_address(), self.virtual_port()),
            real_server: (self.real_address(), self.real_port()),
            local: self.local(),
            protocol: self.protocol(),
            method: self.method(),
            state: self.state(),
            server: self.server(),
            control: self.control(),
            expires_at: self.expires_at(),
            flags: self.flags(),
            owner: self.owner(),
            packets: self.packets(),
            template_record: if self.is_template() {
                self.template_record()
            } else {
                0
            },
        }
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
        let (source, destination, source_port, destination_port) = match direction {
            Direction::Request => (
                &self.client,
                &self.virtual_address,
                &self.client_port,
                &self.virtual_port,
            ),
            Direction::Reply => (&self.real, &self.local, &self.real_port, &self.local_port),
        };
        F::load(source) == tuple.source
            && F::load(destination) == tuple.destination
            && source_port.load(Relaxed) == tuple.source_port
            && destination_port.load(Relaxed) == tuple.destination_port
            && self.protocol() == tuple.protocol
    }

    /// Fills an entry that is in no slot.
    pub(crate) fn fill(&self, new: &NewConnection<F>, owner: u16, expires_at: Ticks) {
        let (local, local_port) = new.local.unwrap_or(new.client);
        F::store(&self.client, new.client.0);
        F::store(&self.virtual_address, new.virtual_server.0);
        F::store(&self.real, new.real_server.0);
        F::store(&self.local, local);
        self.client_port.store(new.client.1, Relaxed);
        self.virtual_port.store(new.virtual_server.1, Relaxed);
        self.real_port.store(new.real_server.1, Relaxed);
        self.local_port.store(local_port, Relaxed);
        self.protocol.store(new.protocol, Relaxed);
        self.method.store(new.method as u8, Relaxed);
        self.expires_at.store(expires_at.0, Relaxed);
        self.server.store(new.server, Relaxed);
        self.control
            .store(new.control.map_or(0, |id| id.index), Relaxed);
        self.control_generation
            .store(new.control.map_or(0, |id| id.generation), Relaxed);
        self.reply_neighbour.store(new.reply_neighbour, Relaxed);
        self.route_generation.store(new.route_generation, Relaxed);
        self.ip_delta.store(new.ip_delta, Relaxed);
        self.l4_delta.store(new.l4_delta, Relaxed);
        self.flags.store(new.flags, Relaxed);
        self.owner.store(owner, Relaxed);
        self.packets.store(0, Relaxed);
        self.extension.store(0, Relaxed);
        self.state.store(UNBORN, Relaxed);
    }

    pub(crate) fn set_expires_at(&self, deadline: Ticks) {
        self.expires_at.store(deadline.0, Relaxed);
    }

    /// What a slot with one of its keys is worth.
    #[inline]
    pub(crate) fn vitality(&self) -> Vitality {
        // Acquire, with the Release of `give_birth`: whoever sees it alive sees all its keys in the index.
        match self.state.load(Ordering::Acquire) {
            UNBORN => Vitality::Unborn,
            DEAD => Vitality::Dead,
            _ => Vitality::Alive,
        }
    }

    /// All keys stand in the index: from now on it can be found.
    pub(crate) fn give_birth(&self, state: State) {
        // Release, with the Acquire of `vitality`.
        self.state.store(state as u8, Ordering::Release);
        // Release, with the Acquire in `Table::copy`: whoever sees this life sees what `fill` wrote for it.
        self.generation
            .store(self.generation() | LIVE, Ordering::Release);
    }

    /// It will not be born.
    pub(crate) fn give_up(&self) {
        self.state.store(DEAD, Relaxed);
    }

    /// Moves the state; true for the one who did. The dead stay dead.
    #[inline]
    pub(crate) fn exchange_state(&self, from: State, to: State) -> bool {
        from != State::Dead
            && self
                .state
                .compare_exchange(from as u8, to as u8, Relaxed, Relaxed)
                .is_ok()
    }

    /// Ends the connection; what it was doing, for the one who ended it.
    pub(crate) fn end(&self) -> Option<State> {
        let state = State::from_byte(self.state.swap(DEAD, Relaxed));
        (state != State::Dead).then_some(state)
    }

    /// Which life of the entry this is.
    #[inline]
    pub(crate) fn generation(&self) -> u16 {
        self.generation.load(Relaxed) & GENERATION
    }

    /// Generation and whether the keys stand in the index, in one word for a reader without a hold.
    pub(crate) fn life(&self, ordering: Ordering) -> (u16, bool) {
        let word = self.generation.load(ordering);
        (word & GENERATION, word & LIVE != 0)
    }

    /// Begins the next life. The owner alone calls it.
    pub(crate) fn next_life(&self) {
        let next = (self.generation() + 1) & GENERATION;
        self.generation.store(next, Relaxed);
    }
}

/// A connection as a listing shows it: a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionView<F: Family> {
    /// Client address and port, host byte order.
    pub client: (F::Address, u16),
    /// Virtual address and port.
    pub virtual_server: (F::Address, u16),
    /// Real server's address and port.
    pub real_server: (F::Address, u16),
    /// Local address and port (FULLNAT).
    pub local: Option<(F::Address, u16)>,
    /// IP protocol number.
    pub protocol: u8,
    /// How packets reach the real server.
    pub method: Method,
    /// What the connection is doing.
    pub state: State,
    /// The id of the real server.
    pub server: u32,
    /// The connection it belongs to.
    pub control: Option<ConnectionId>,
    /// When it ends, unless something happens before.
    pub expires_at: Ticks,
    /// The caller's marks, and [`TEMPLATE`].
    pub flags: u16,
    /// The worker whose timers watch it.
    pub owner: u16,
    /// Packets counted.
    pub packets: u16,
    /// Of a template: [`Entry::template_record`]; otherwise 0.
    pub template_record: u32,
}
