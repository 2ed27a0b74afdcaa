//! Workers between simulated hosts, without a NIC and without a clock.

mod bed;
mod config;
mod defence;
mod director;
mod edits;
mod errors;
mod flood;
mod fragments;
mod fuzz;
mod helped_flows;
mod helpers;
mod life;
mod limits;
mod modes;
mod neighbours;
mod offload;
mod packets;
mod path_mtu;
mod persistence;
mod port;
mod reasons;
mod recorded_fragments;
mod removal;
mod sctp;
mod settings;
mod workers;
