//! Configuration, the gRPC service and the daemon.
