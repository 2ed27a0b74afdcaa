//! An entry that the process before left: whether it can be believed, and what of it was that process's own.

use super::life::LIVE;
use super::{Entry, GENERATION, TEMPLATE, VOID_PORT, Vitality};
use crate::family::Family;
use crate::method::Method;
use crate::state::State;
use crate::sync::Ordering::Relaxed;
use crate::time::Ticks;

impl<F: Family> Entry<F> {
    /// Whether it says that it is a connection.
    pub(crate) fn claims_to_live(&self) -> bool {
        self.life(Relaxed).1 && self.state() != State::Dead
    }

    /// Whether its fields fit each other, as far as that can be told from it alone.
    pub(crate) fn is_sound(&self) -> bool {
        let is_template = self.is_template();
        if !Method::is_byte(self.method.load(Relaxed))
            || !self.state().fits(self.protocol(), is_template)
            || self.generation.load(Relaxed) & !LIVE > GENERATION
        {
            return false;
        }
        let client = (self.client(), self.client_port());
        let (method, local) = (self.method(), self.local_end());
        match method {
            _ if is_template || !method.sees_replies() => {
                let server = (self.server(), self.real_port());
                local == Self::witness(client, server, method, self.flags())
            }
            Method::FullNat => local.0 != client.0,
            _ => local == client,
        }
    }

    /// Whether it is a template that leads nowhere, which stands under no key.
    pub(crate) fn is_void(&self) -> bool {
        self.is_template() && self.virtual_port() == VOID_PORT
    }

    /// Makes it an entry that is free, in its next life.
    pub(crate) fn clear(&self) {
        let generation = self.generation.load(Relaxed);
        let is_free = self.state() == State::Dead && generation <= GENERATION;
        let is_untouched = self.state.load(Relaxed) == 0 && generation == 0;
        // An unborn one reads as dead, too.
        if !(is_free || is_untouched) || self.vitality() == Vitality::Unborn {
            self.give_up();
            self.next_life();
        }
    }

    /// Gives it to another worker.
    pub(crate) fn set_owner(&self, owner: u16) {
        self.owner.store(owner, Relaxed);
    }

    /// Lets it belong to no other connection.
    pub(crate) fn forget_control(&self) {
        self.control.store(0, Relaxed);
        self.control_generation.store(0, Relaxed);
    }

    /// Sets right what can be: the end, which is no later than `latest`; what its kind keeps beside.
    pub(crate) fn set_right(&self, now: Ticks, longest: Ticks) {
        if self.expires_at().until(now).0 > longest.0 {
            self.set_expires_at(now.after(longest));
        }
        if self.flags() & TEMPLATE == 0 {
            self.reply_neighbour.store(u32::MAX, Relaxed);
            self.route_generation.store(0, Relaxed);
        } else {
            // Connections that it controls count themselves.
            self.set_extension(0);
            if self.template_timeout().0 > longest.0 {
                self.set_template_timeout(longest);
            }
        }
    }

    /// Sets what rewriting a request adds to the IP and the L4 checksum.
    pub(crate) fn set_deltas(&self, ip_delta: u16, l4_delta: u16) {
        self.ip_delta.store(ip_delta, Relaxed);
        self.l4_delta.store(l4_delta, Relaxed);
    }
}
