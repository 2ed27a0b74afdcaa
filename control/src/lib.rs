//! Configuration, the gRPC service and the daemon.

pub mod config;
