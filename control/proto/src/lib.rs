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

/// The .proto files as a `google.protobuf.FileDescriptorSet`, for the reflection service.
pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("uvs.v1");
