//! The gRPC interface of uvs: messages, clients and servers, made of the .proto files beside this crate, which say what
//! each field means.

/// Version 1.
pub mod v1 {
    #![allow(
        missing_docs,
        unreachable_pub,
        clippy::all,
        clippy::cast_possible_truncation,
        reason = "generated"
    )]
    tonic::include_proto!("uvs.v1");
}
