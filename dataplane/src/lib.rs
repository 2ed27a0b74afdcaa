//! Moves packets: frames, ports, services, rewriters and the worker that joins them.

pub mod calls;
pub mod capture;
pub mod frame;
pub mod helper;
pub mod mark;
pub mod neighbour;
pub mod packet;
pub mod path_mtu;
pub mod port;
pub mod reason;
pub mod rewrite;
pub mod route;
pub mod snapshot;
pub mod stats;
pub mod worker;

/// Hash maps keyed so that nobody outside can aim at one bucket (ahash, seeded per process).
pub type Map<K, V> = hashbrown::HashMap<K, V, ahash::RandomState>;
