//! The lives of an entry: it is filled, born once all its keys stand in the index, changes its state, and ends.

use super::{Entry, NewConnection, TEMPLATE};
use crate::family::Family;
use crate::method::Method;
use crate::state::State;
use crate::sync::{Ordering, Ordering::Relaxed};
use crate::time::Ticks;

/// The bits of a generation; what a slot has room for.
pub(crate) const GENERATION: u16 = (1 << 14) - 1;
/// In an entry's generation: all its keys stand in the index.
pub(super) const LIVE: u16 = 1 << 15;
/// In the port of a witness: never that of a plain end.
const WITNESS: u16 = 0xa500;
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

impl<F: Family> Entry<F> {
    /// Fills an entry that is in no slot.
    pub(crate) fn fill(&self, new: &NewConnection<F>, owner: u16, expires_at: Ticks) {
        let local = if new.method.sees_replies() && new.flags & TEMPLATE == 0 {
            new.local.unwrap_or(new.client)
        } else {
            Self::witness(
                new.client,
                (new.server, new.real_server.1),
                new.method,
                new.flags,
            )
        };
        let ends = [new.client, new.virtual_server, new.real_server, local];
        for (place, (address, port)) in ends.into_iter().enumerate() {
            F::store(&self.addresses[place], address);
            self.ports[place].store(port, Relaxed);
        }
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

    /// What stands in the place of the local end where replies do not pass and no key has that: it holds the server, its
    /// port and the method against the client's end, so that damage to either shows (`adopt.rs`).
    #[inline]
    pub(super) fn witness(
        (address, port): (F::Address, u16),
        (server, real_port): (u32, u16),
        method: Method,
        flags: u16,
    ) -> (F::Address, u16) {
        let kind = WITNESS | u16::from(method as u8) << 1 | flags >> 15;
        let server = server ^ u32::from(real_port) << 16;
        (F::overlaid(address, server), port ^ kind)
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
