//! What the forwarding methods do to a packet: NAT and FULLNAT translate, TUN encapsulates, DR only sets MACs; and
//! cutting what is larger than a link takes.

mod encapsulation;
pub mod fragment;
pub(crate) mod plain;
pub mod related;
pub mod segment;
pub mod translate;
pub mod tunnel;

pub use fragment::{fragment, fragment_ipv4, fragment_ipv6};
pub use related::translate_error;
pub use segment::{tcp_segments, udp_segments};
pub(crate) use translate::write_macs;
pub use translate::{
    Endpoint, Expired, Translation, decrement_ttl, restore_ttl, set_macs, translate,
};
pub use tunnel::{Encapsulation, Outer, Tunnel, encapsulate};

#[cfg(test)]
mod tests;
