//! Workers between simulated hosts, without a NIC and without a clock.

mod bed;
mod config;
mod director;
mod errors;
mod fuzz;
mod life;
mod limits;
mod modes;
mod neighbours;
mod offload;
mod packets;
mod port;
mod reasons;
mod settings;
mod workers;
