//! Compiles the .proto files without protoc.

use prost::Message;
use std::error::Error;
use std::path::PathBuf;

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
    // What the reflection service tells.
    let told = PathBuf::from(std::env::var("OUT_DIR")?).join("uvs.v1.bin");
    std::fs::write(told, files.encode_to_vec())?;
    tonic_prost_build::configure().compile_fds(files)?;
    Ok(())
}
