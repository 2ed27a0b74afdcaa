//! A connection for people to look at.

use super::{ConnectionId, Entry};
use crate::family::Family;
use crate::method::Method;
use crate::state::State;
use crate::time::Ticks;

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
    /// The caller's marks, and [`TEMPLATE`](super::TEMPLATE).
    pub flags: u16,
    /// The worker whose timers watch it.
    pub owner: u16,
    /// Packets counted.
    pub packets: u16,
    /// Of a template: [`Entry::template_record`](super::Entry::template_record); otherwise 0.
    pub template_record: u32,
}

impl<F: Family> Entry<F> {
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
            local: self.local().filter(|_| !self.is_template()),
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
}
