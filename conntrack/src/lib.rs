//! Remembers flows.
//!
//! One [`Table`] for all workers, shared and lock-free: whoever gets a packet finds its connection. Each worker has
//! an [`Owner`], through which it makes connections, lets them time out, and says when it is between bursts.
//!
//! ```text
//!   Tuple ──hash──▶ Hash ──prefetch──▶ ──probe──▶ Probe ──find──▶ (ConnectionId, Direction)
//!                    │                   │                            │
//!                    ▼                   ▼                            ▼
//!             ┌─ index: buckets ─┐  tags of one bucket       ┌─ entries: one line each ─┐
//!             │ 7 slots │overflow│ ───────────────────────▶  │ key, rewrite facts, state│
//!             └──────────────────┘                           └──────────────────────────┘
//!   Owner of worker N:  timer wheel ─┬─ links: two words per entry
//!                       free entries ┤
//!                       limbo        ┘  freed entries wait here until every worker was quiescent
//! ```
//! Nothing here knows packets, schedulers or clocks: tuples, ids and [`Ticks`] come from the caller.

#[cfg(not(loom))]
mod adopt;
mod entry;
mod family;
#[cfg(not(loom))]
mod file;
mod index;
mod insert;
mod lines;
mod memory;
mod method;
mod owner;
mod ports;
mod reclaim;
mod refused;
mod sctp;
#[cfg(not(loom))]
mod shared;
mod sizing;
mod state;
mod statistics;
mod sync;
mod table;
mod tcp;
mod time;
mod tuple;
mod wheel;

#[cfg(all(test, loom))]
mod models;

#[cfg(not(loom))]
pub use adopt::{Adopted, Cause, Deltas, Refusals};
pub use entry::{ConnectionId, ConnectionView, Entry, NewConnection, TEMPLATE};
pub use family::{Family, V4, V6};
#[cfg(not(loom))]
pub use file::{FileConfig, FileError, Found, Mismatch, TableFile, Words};
pub use index::{Hash, Probe};
pub use insert::InsertError;
pub use lines::Lines;
pub use memory::{Pages, Placement};
pub use method::Method;
pub use owner::{Expiry, Owner};
pub use ports::PortPool;
pub use refused::{Print, Refused};
pub use sctp::{SctpEvent, sctp_next};
pub use state::{State, Timeouts};
pub use statistics::TableStatistics;
pub use table::{Busy, REQUEST_LIMIT, Table, TableConfig, TableError, random_seeds};
pub use tcp::{Path, TcpFlags, TcpRules, tcp_next};
pub use time::Ticks;
pub use tuple::{Direction, Tuple};
