//! Workers between simulated hosts, without a NIC and without a clock.

mod bed;
mod config;
mod modes;
mod packets;
