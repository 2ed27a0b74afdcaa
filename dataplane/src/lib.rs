//! Moves packets.

pub mod frame;
pub mod packet;
pub mod port;
pub mod reason;
pub mod rewrite;
