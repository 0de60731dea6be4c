//! Builds the guests with a nested cargo, makes components of them, and refuses one that would
//! import WASI: the bundled policies need nothing but the contract (design H1, H14).

use std::env;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use wit_component::{ComponentEncoder, DecodedWasm};

const TARGET: &str = "wasm32-unknown-unknown";

/// Crate name and the constant that carries it.
const GUESTS: [(&str, &str); 2] = [("xid-policy", "XID_POLICY"), ("nvml-health", "NVML_HEALTH")];

/// What a guest is made of, from this folder. Directories are watched whole.
const INPUTS: [&str; 10] = [
    "build.rs",
    "../xid-policy/src",
    "../xid-policy/build.rs",
    "../xid-policy/Cargo.toml",
    "../nvml-health/src",
    "../nvml-health/Cargo.toml",
    "../../sdk",
    "../../wit",
    "../../data",
    "../../Cargo.toml",
];

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

fn main() -> Result<()> {
    directive(&INPUTS.map(|input| format!("rerun-if-changed={input}")));
    let out = PathBuf::from(env::var_os("OUT_DIR").context("cargo sets OUT_DIR")?);
    let root = Path::new("../..")
        .canonicalize()
        .context("the workspace root is not there")?;
    let guests = out.join("guests");
    build(&root, &guests)?;
    let mut source = String::new();
    for (name, constant) in GUESTS {
        let module = guests
            .join(TARGET)
            .join("guest")
            .join(format!("{}.wasm", name.replace('-', "_")));
        let module =
            std::fs::read(&module).with_context(|| format!("cannot read {}", module.display()))?;
        let component =
            componentize(&module).with_context(|| format!("cannot make a component of {name}"))?;
        let file = out.join(format!("{name}.wasm"));
        std::fs::write(&file, &component)
            .with_context(|| format!("cannot write {}", file.display()))?;
        writeln!(
            source,
            "/// `{name}`, {} bytes.\npub const {constant}: Bundled = Bundled {{ name: {name:?}, bytes: include_bytes!({file:?}) }};",
            component.len(),
        )?;
    }
    std::fs::write(out.join("policies.rs"), source).context("cannot write policies.rs")
}

fn directive(lines: &[String]) {
    for line in lines {
        println!("cargo::{line}");
    }
}

/// One nested cargo for all guests, in a target directory of its own: the outer one is locked.
fn build(root: &Path, target_dir: &Path) -> Result<()> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| OsString::from("rustc"));
    ensure_target(&rustc)?;
    let mut command = Command::new(&cargo);
    command
        .current_dir(root)
        .args(["build", "--quiet", "--profile", "guest", "--target", TARGET]);
    for (name, _) in GUESTS {
        command.args(["--package", name]);
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

fn ensure_target(rustc: &OsString) -> Result<()> {
    let output = Command::new(rustc)
        .args(["--print", "target-libdir", "--target", TARGET])
        .output()
        .with_context(|| format!("cannot run {}", Path::new(rustc).display()))?;
    let libdir = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    ensure!(
        output.status.success() && libdir.is_dir(),
        "the {TARGET} target is not installed: run `rustup target add {TARGET}` \
         (`cargo xtask demo` and `cargo xtask test` do it)"
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
