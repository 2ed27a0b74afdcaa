//! The gRPC interface of uvs.
