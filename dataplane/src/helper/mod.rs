//! Helpers: what a service's protocol says inside its connections about connections to come.
//!
//! ```text
//!   Entry ── extension ──▶ Record: what the client asked, how far the server's bytes are shifted, data connections held
//!         ◀──── owner ────
//! ```
//! FTP is the one there is. Only NAT connections have a helper: by DR and TUN the director does not see what servers say,
//! and with FULLNAT they see another client than the one that PORT names.

pub mod ftp;
mod records;
pub mod shift;
mod tcp;

pub use records::{Left, RECORD_WORDS, RECORDS, Record, Records};
pub(crate) use tcp::{
    move_acknowledgement, move_sequence, payload, sequence, sums_up, write_checksum,
};

/// What looks into a service's connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Helper {
    /// FTP: data connections follow their control connection.
    Ftp,
}
