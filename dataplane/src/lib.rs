//! Moves packets.

pub mod frame;
pub mod port;
pub mod reason;
