//! Bindings of DPDK: its environment (`rte_eal_init`), threads, heaps, `rte_hash` and RCU.
//!
//! Raw C, for whoever makes something safe of it. The bindings are made by bindgen when the feature `dpdk` is on;
//! without it the crate is empty, so that the default build needs neither libdpdk nor libclang. What DPDK's headers
//! have inline only has a function in `shim/`, named `uvs_*`. To bind more: include the header in `shim/shim.h` and
//! name the functions in `build.rs`.

#[cfg(feature = "dpdk")]
#[allow(unsafe_code, reason = "foreign functions")]
#[allow(
    missing_docs,
    non_camel_case_types,
    non_upper_case_globals,
    clippy::all,
    clippy::pedantic,
    clippy::cast_possible_truncation,
    clippy::multiple_unsafe_ops_per_block,
    clippy::undocumented_unsafe_blocks,
    reason = "generated from C"
)]
mod bindings {
    include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
}

#[cfg(feature = "dpdk")]
pub use bindings::*;
