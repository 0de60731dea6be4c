//! Compiles the protos without a protoc: protox parses them, tonic-prost-build generates.
//!
//! Twice: for clients as the protos say, and for the server with `Encoded` in place of `Gpu` in what it
//! answers, so that a GPU is encoded once and not once a reader.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::{env, fs};

use prost::Message as _;
use prost_types::field_descriptor_proto::Type;
use prost_types::{FileDescriptorProto, FileDescriptorSet};

const PROTOS: [&str; 6] = [
    "nvidia/device/v1alpha1/daemon.proto",
    "nvidia/device/v1alpha1/device.proto",
    "nvidia/device/v1alpha1/incident.proto",
    "nvidia/device/v1alpha1/nvml.proto",
    "nvidia/device/v1alpha1/policy.proto",
    "nvidia/nvsentinel/v1alpha1/gpu.proto",
];

/// Each package, and where its types are in this crate.
const PACKAGES: [(&str, &str); 2] = [
    ("nvidia.device.v1alpha1", "crate::native"),
    ("nvidia.nvsentinel.v1alpha1", "crate::upstream"),
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    for proto in PROTOS {
        println!("cargo::rerun-if-changed={}", root.join(proto).display());
    }
    let descriptors = protox::compile(PROTOS, [&root])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .build_server(false)
        .compile_fds(descriptors.clone())?;

    let server = out.join("server");
    fs::create_dir_all(&server)?;
    let mut builder = tonic_prost_build::configure()
        .build_client(false)
        .codec_path("crate::ServerCodec")
        .out_dir(server);
    for (proto, rust) in outside_types(&descriptors) {
        builder = builder.extern_path(proto, rust);
    }
    builder.compile_fds(descriptors)?;
    Ok(())
}

/// What the server takes from elsewhere: `Gpu` is `Encoded`, and all that holds no `Gpu`, or is only
/// ever received, is what clients have.
fn outside_types(descriptors: &FileDescriptorSet) -> Vec<(String, String)> {
    let mut outside = Vec::new();
    for file in &descriptors.file {
        let Some((package, rust)) = PACKAGES.iter().find(|(name, _)| *name == file.package())
        else {
            continue;
        };
        let gpu = format!(".{package}.Gpu");
        let answers = holders(file, &gpu);
        // Of a package's files one has it.
        if file
            .message_type
            .iter()
            .any(|message| message.name() == "Gpu")
        {
            outside.push((gpu, "crate::Encoded".to_owned()));
        }
        let messages = file.message_type.iter().map(|message| message.name());
        let enums = file.enum_type.iter().map(|message| message.name());
        for name in messages.chain(enums).filter(|name| *name != "Gpu") {
            let proto = format!(".{package}.{name}");
            if !answers.contains(&proto) {
                outside.push((proto, format!("{rust}::{name}")));
            }
        }
    }
    outside
}

/// The messages that hold `type_`, at whatever depth, requests left out.
fn holders(file: &FileDescriptorProto, type_: &str) -> BTreeSet<String> {
    let requests: BTreeSet<&str> = file
        .service
        .iter()
        .flat_map(|service| &service.method)
        .map(|method| method.input_type())
        .collect();
    let mut found = BTreeSet::from([type_.to_owned()]);
    loop {
        let before = found.len();
        for message in &file.message_type {
            let name = format!(".{}.{}", file.package(), message.name());
            let holds = message
                .field
                .iter()
                .any(|field| field.r#type() == Type::Message && found.contains(field.type_name()));
            if holds && !requests.contains(&*name) {
                found.insert(name);
            }
        }
        if found.len() == before {
            found.remove(type_);
            return found;
        }
    }
}
