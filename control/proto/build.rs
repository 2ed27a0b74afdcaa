//! Compiles the .proto files without protoc.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=uvs");
    let files = protox::compile(
        [
            "uvs/v1/director.proto",
            "uvs/v1/configuration.proto",
            "uvs/v1/connections.proto",
            "uvs/v1/capture.proto",
        ],
        ["."],
    )?;
    tonic_prost_build::configure().compile_fds(files)?;
    Ok(())
}
