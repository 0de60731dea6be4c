//! Builds guests: a nested cargo for `wasm32-unknown-unknown`, then a component of each. For build
//! scripts, so that a plain `cargo build` is all that anyone runs.
//!
//! [`wasi`] builds those of WASI toolchains. For tests, when they run: a daemon is built without them.

pub mod wasi;

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use wit_component::{ComponentEncoder, DecodedWasm};

const TARGET: &str = "wasm32-unknown-unknown";

/// What every guest is made of, from the workspace's root. Directories are watched whole.
const SHARED_INPUTS: [&str; 5] = ["sdk", "wit", "data", "Cargo.toml", "plugins/guest-build"];

/// Variables by which the outer build would change the guests: their bytes depend on the sources
/// and the toolchain alone. `CARGO_HOME`, `CARGO_NET_*` and the jobserver stay.
const FOREIGN: [&str; 10] = [
    "RUSTFLAGS",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_LINKER",
    "CLIPPY_ARGS",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_INCREMENTAL",
    "CARGO_MANIFEST_DIR",
    "CARGO_MANIFEST_PATH",
    "CARGO_TARGET_DIR",
];
const FOREIGN_PREFIXES: [&str; 6] = [
    "CARGO_BUILD_",
    "CARGO_CFG_",
    "CARGO_FEATURE_",
    "CARGO_PKG_",
    "CARGO_PROFILE_",
    "CARGO_TARGET_",
];

/// A guest crate of the workspace, and its folder from the workspace's root.
#[derive(Clone, Copy, Debug)]
pub struct Guest {
    pub package: &'static str,
    pub folder: &'static str,
}

/// A component that was built.
#[derive(Clone, Debug)]
pub struct Component {
    pub package: &'static str,
    /// In the calling build script's `OUT_DIR`.
    pub file: PathBuf,
    pub bytes: u64,
}

/// Builds the guests, makes components of them, and refuses one that imports anything but the
/// contract (design H1, H14). To be called by a build script; tells cargo what to watch.
///
/// # Errors
/// The wasm target is missing (says how to add it), a guest does not build, or it imports more.
pub fn components(guests: &[Guest]) -> Result<Vec<Component>> {
    let out =
        PathBuf::from(env::var_os("OUT_DIR").context("cargo sets OUT_DIR for build scripts")?);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .context("the workspace root is not there")?;
    let folders = guests.iter().map(|guest| guest.folder);
    for input in SHARED_INPUTS.into_iter().chain(folders) {
        watch(&root.join(input));
    }
    let target_dir = out.join("guests");
    let packages: Vec<&str> = guests.iter().map(|guest| guest.package).collect();
    build(&root, &target_dir, TARGET, &packages)?;
    guests
        .iter()
        .map(|guest| component(guest.package, &target_dir, &out))
        .collect()
}

/// A directive to cargo, which reads a build script's standard output.
#[expect(clippy::print_stdout, reason = "how a build script speaks to cargo")]
fn watch(path: &Path) {
    println!("cargo::rerun-if-changed={}", path.display());
}

fn component(package: &'static str, target_dir: &Path, out: &Path) -> Result<Component> {
    let module = target_dir
        .join(TARGET)
        .join("guest")
        .join(format!("{}.wasm", package.replace('-', "_")));
    let module =
        std::fs::read(&module).with_context(|| format!("cannot read {}", module.display()))?;
    let bytes =
        componentize(&module).with_context(|| format!("cannot make a component of {package}"))?;
    let file = out.join(format!("{package}.wasm"));
    std::fs::write(&file, &bytes).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(Component {
        package,
        file,
        bytes: bytes.len() as u64,
    })
}

/// One nested cargo for all guests, in a target directory of its own: the outer one is locked.
fn build(root: &Path, target_dir: &Path, target: &str, packages: &[&str]) -> Result<()> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| OsString::from("rustc"));
    ensure_target(&rustc, target)?;
    let mut command = Command::new(&cargo);
    command
        .current_dir(root)
        .args(["build", "--quiet", "--profile", "guest", "--target", target]);
    for package in packages {
        command.args(["--package", package]);
    }
    command.arg("--target-dir").arg(target_dir);
    for (key, _) in env::vars_os() {
        let text = key.to_string_lossy();
        if FOREIGN.contains(&&*text)
            || FOREIGN_PREFIXES
                .iter()
                .any(|prefix| text.starts_with(prefix))
        {
            command.env_remove(&key);
        }
    }
    command.env("RUSTC", &rustc);
    // Debug names and panic messages carry paths; of this machine's none may get into the bytes.
    command.env("CARGO_ENCODED_RUSTFLAGS", remapped(root));
    let output = command
        .output()
        .with_context(|| format!("cannot run {}", Path::new(&cargo).display()))?;
    if !output.status.success() {
        bail!(
            "the guests do not build ({}):\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

/// Flags, separated as `CARGO_ENCODED_RUSTFLAGS` wants them.
fn remapped(root: &Path) -> OsString {
    let home = env::var_os("CARGO_HOME").or_else(|| {
        env::var_os("HOME").map(|home| Path::new(&home).join(".cargo").into_os_string())
    });
    let mut flags = OsString::from("--remap-path-prefix=");
    flags.push(root);
    flags.push("=/build");
    if let Some(home) = home {
        flags.push("\u{1f}--remap-path-prefix=");
        flags.push(home);
        flags.push("=/cargo");
    }
    flags
}

fn ensure_target(rustc: &OsString, target: &str) -> Result<()> {
    let output = Command::new(rustc)
        .args(["--print", "target-libdir", "--target", target])
        .output()
        .with_context(|| format!("cannot run {}", Path::new(rustc).display()))?;
    let libdir = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    ensure!(
        output.status.success() && libdir.is_dir(),
        "the {target} target is not installed: run `rustup target add {target}` (`cargo xtask test` does it)"
    );
    Ok(())
}

fn componentize(module: &[u8]) -> Result<Vec<u8>> {
    let component = ComponentEncoder::default()
        .validate(true)
        .module(module)?
        .encode()?;
    let DecodedWasm::Component(resolve, world) = wit_component::decode(&component)? else {
        bail!("it is a WIT package and no component");
    };
    let world = resolve
        .worlds
        .get(world)
        .context("the component has no world")?;
    for key in world.imports.keys() {
        let name = resolve.name_world_key(key);
        ensure!(
            name.starts_with("gpu:device-policy/"),
            "it imports {name}; a bundled policy imports the contract only"
        );
    }
    Ok(component)
}
