//! The Go code of the protos is checked in, for whoever copies an example: it is what the protos make.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use prost::Message as _;
use prost_types::{FileDescriptorProto, FileDescriptorSet};

use crate::toolchains;

const REGENERATE: &str = "run `go -C examples/go/generate run .`";

/// Each proto, and what it is in the module.
const FILES: [(&str, &str); 6] = [
    ("nvidia/device/v1alpha1/device.proto", "gen/native/device"),
    (
        "nvidia/device/v1alpha1/incident.proto",
        "gen/native/incident",
    ),
    ("nvidia/device/v1alpha1/daemon.proto", "gen/native/daemon"),
    ("nvidia/device/v1alpha1/nvml.proto", "gen/native/nvml"),
    ("nvidia/device/v1alpha1/policy.proto", "gen/native/policy"),
    ("nvidia/nvsentinel/v1alpha1/gpu.proto", "gen/upstream/gpu"),
];

fn module() -> Result<std::path::PathBuf> {
    Ok(toolchains::root()?.join("examples/go"))
}

/// The file descriptor that generated Go code carries, as the bytes of a Go string.
fn descriptor(code: &str) -> Result<FileDescriptorProto> {
    let (_, code) = code
        .split_once("_rawDesc = \"\" +\n")
        .context("no rawDesc")?;
    let mut bytes = Vec::new();
    for line in code.lines() {
        let line = line.trim();
        let last = !line.ends_with('+');
        let text = line.trim_end_matches('+').trim_end();
        let text = text
            .strip_prefix('"')
            .and_then(|text| text.strip_suffix('"'));
        unquote(
            text.with_context(|| format!("no string: {line}"))?,
            &mut bytes,
        )?;
        if last {
            break;
        }
    }
    Ok(FileDescriptorProto::decode(&*bytes)?)
}

/// Go's escapes, of those that the generator writes.
fn unquote(text: &str, bytes: &mut Vec<u8>) -> Result<()> {
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            bytes.extend(c.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        bytes.push(match chars.next().context("ends in a backslash")? {
            'a' => 7,
            'b' => 8,
            't' => b'\t',
            'n' => b'\n',
            'v' => 11,
            'f' => 12,
            'r' => b'\r',
            c @ ('"' | '\\') => c as u8,
            'x' => {
                let digits: String = chars.by_ref().take(2).collect();
                u8::from_str_radix(&digits, 16)?
            }
            c => anyhow::bail!("an escape that is not known here: \\{c}"),
        });
    }
    Ok(())
}

#[test]
fn the_go_code_that_is_checked_in_has_the_descriptors_of_the_protos() -> Result<()> {
    let ours = FileDescriptorSet::decode(device_api_proto::FILE_DESCRIPTOR_SET)?;
    for (proto, go) in FILES {
        let code = fs::read_to_string(module()?.join(format!("{go}.pb.go")))?;
        let theirs = descriptor(&code).with_context(|| go.to_owned())?;
        let mut ours = ours
            .file
            .iter()
            .find(|file| file.name() == proto)
            .with_context(|| format!("no {proto}"))?
            .clone();
        ours.source_code_info = None;
        ensure!(ours == theirs, "{go}.pb.go is not of {proto}: {REGENERATE}");
    }
    Ok(())
}

/// Comments too, which the descriptor in the code leaves out.
#[test]
fn go_generates_exactly_what_is_checked_in() -> Result<()> {
    let Some(folder) = toolchains::go("examples/go/generate")? else {
        return Ok(());
    };
    let out = folder.join("out");
    toolchains::succeed(
        Command::new("go")
            .arg("-C")
            .arg(module()?.join("generate"))
            .args(["run", ".", "-out"])
            .arg(&out),
    )?;
    for (_, go) in FILES {
        for file in [format!("{go}.pb.go"), format!("{go}_grpc.pb.go")] {
            let read = |root: &Path| fs::read_to_string(root.join(&file)).context(file.clone());
            ensure!(
                read(&out)? == read(&module()?)?,
                "examples/go/{file} is old: {REGENERATE}"
            );
        }
    }
    Ok(())
}
