//! Compiles the protos without a protoc: protox parses them, tonic-prost-build generates.

use std::path::PathBuf;
use std::{env, fs};

use prost::Message as _;

const PROTOS: [&str; 2] = [
    "nvidia/device/v1alpha1/device.proto",
    "nvidia/nvsentinel/v1alpha1/gpu.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    for proto in PROTOS {
        println!("cargo::rerun-if-changed={}", root.join(proto).display());
    }
    let descriptors = protox::compile(PROTOS, [&root])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
