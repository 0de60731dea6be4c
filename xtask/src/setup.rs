//! What has to be there before anything of ours can be built, and the one build all commands share.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::process;
use crate::workspace::Workspace;

/// What policies are compiled to. The host's standard library does not serve it.
pub(crate) const WASM_TARGET: &str = "wasm32-unknown-unknown";

/// What the tests compile a policy to besides, as authors do who want a standard library.
pub(crate) const WASI_TARGET: &str = "wasm32-wasip2";

/// Toolchain and wasm target; skips what is there.
///
/// # Errors
/// Something is missing and can't be installed; the message says how to.
pub(crate) fn toolchain(workspace: &Workspace) -> Result<()> {
    note_other_toolchain(workspace)?;
    target(workspace, WASM_TARGET)
}

/// Builds every library and binary of the workspace in the dev profile: the daemon with its
/// policies, `devicectl`, the simulated NVML and its command, the demo.
///
/// Whole workspace, always: features are unified over what is built together, so building a part
/// would compile wasmtime, tokio and others a second time with other features. `--examples` makes
/// cargo count dev-dependencies in for the same reason: what `cargo test` then needs is the same.
///
/// # Errors
/// cargo fails; its exit code is kept.
pub(crate) fn build(workspace: &Workspace) -> Result<()> {
    process::run(workspace.cargo().args([
        "build",
        "--workspace",
        "--all-features",
        "--lib",
        "--bins",
        "--examples",
    ]))
}

/// Makes sure that a part of the toolchain that is also a cargo subcommand (`fmt`, `clippy`) works.
///
/// # Errors
/// It is missing and rustup is absent or refuses.
pub(crate) fn component(workspace: &Workspace, subcommand: &str, component: &str) -> Result<()> {
    let works = || process::succeeds(workspace.cargo().args([subcommand, "--version"]));
    if works() {
        return Ok(());
    }
    let why = match rustup(workspace, &["component", "add", component]) {
        Ok(()) if works() => return Ok(()),
        Ok(()) => "rustup installed it, but not for the cargo in use".to_owned(),
        Err(error) => format!("{error:#}"),
    };
    bail!(
        "`cargo {subcommand}` is missing: {why}\n\
         Install it, then run this again:\n  \
           rustup:                rustup component add {component}\n  \
           a distribution's Rust: its package of {component} (Debian: rust-{subcommand}, Fedora: {component})"
    )
}

/// rustup picks the toolchain of rust-toolchain.toml by itself. Something else (a distribution's
/// Rust, `cargo +other`) is the caller's choice: said, not refused; cargo refuses one that is too old.
fn note_other_toolchain(workspace: &Workspace) -> Result<()> {
    let path = workspace.root.join("rust-toolchain.toml");
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let wanted = channel(&text).with_context(|| format!("{} names no channel", path.display()))?;
    let version = process::output(workspace.at_root("rustc").arg("--version"))?;
    if version.split_whitespace().nth(1) != Some(wanted) {
        eprintln!(
            "note: rust-toolchain.toml asks for {wanted}; going on with {}",
            version.trim()
        );
    }
    Ok(())
}

fn channel(rust_toolchain: &str) -> Option<&str> {
    rust_toolchain.lines().find_map(|line| {
        let (key, value) = line.split_once('=')?;
        (key.trim() == "channel").then(|| value.trim().trim_matches('"'))
    })
}

/// `targets` in rust-toolchain.toml is not enough: rustup reads it only when it installs the
/// toolchain, and not at all with `RUSTUP_AUTO_INSTALL=0`.
///
/// # Errors
/// It is missing and can't be installed; the message says how to.
pub(crate) fn target(workspace: &Workspace, target: &str) -> Result<()> {
    let libraries = target_libraries(workspace, target)?;
    if holds_core(&libraries) {
        return Ok(());
    }
    let why = match rustup(workspace, &["target", "add", target]) {
        Ok(()) if holds_core(&libraries) => return Ok(()),
        Ok(()) => "rustup installed it, but not for the rustc in use".to_owned(),
        Err(error) => format!("{error:#}"),
    };
    bail!("{}", missing_target(target, &libraries, &why))
}

fn missing_target(target: &str, libraries: &Path, why: &str) -> String {
    format!(
        "Rust's target {target} is missing ({} holds no libcore): {why}\n\
         Policies are compiled to it. Install it of the same version as rustc, then run this again:\n  \
           rustup:         rustup target add {target}\n  \
           Debian, Ubuntu: apt-get install libstd-rust-dev-wasm32 lld\n  \
           Fedora:         dnf install rust-std-static-{target} lld\n  \
           Arch:           pacman -S rust-wasm lld\n  \
           Alpine:         apk add rust-wasm lld",
        libraries.display()
    )
}

/// Where the rustc in use looks for the target's libraries, whether or not it was rustup's.
fn target_libraries(workspace: &Workspace, target: &str) -> Result<PathBuf> {
    let mut rustc = workspace.at_root("rustc");
    let dir = process::output(rustc.args(["--print", "target-libdir", "--target", target]))?;
    Ok(PathBuf::from(dir.trim_end()))
}

fn holds_core(libraries: &Path) -> bool {
    fs::read_dir(libraries).is_ok_and(|entries| {
        entries.flatten().any(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.starts_with("libcore-") && name.ends_with(".rlib")
        })
    })
}

fn rustup(workspace: &Workspace, args: &[&str]) -> Result<()> {
    if !process::succeeds(Command::new("rustup").arg("--version")) {
        bail!("there is no rustup to install it with");
    }
    process::run(workspace.at_root("rustup").args(args))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channel_is_read() {
        assert_eq!(
            channel("[toolchain]\nchannel = \"1.95.0\"\n"),
            Some("1.95.0")
        );
        assert_eq!(channel("[toolchain]\ncomponents = []\n"), None);
    }

    #[test]
    fn a_folder_without_libcore_is_a_missing_target() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!holds_core(&dir.path().join("absent")));
        fs::write(dir.path().join("libcore-1.rmeta"), "").unwrap();
        assert!(!holds_core(dir.path()));
        fs::write(dir.path().join("libcore-1.rlib"), "").unwrap();
        assert!(holds_core(dir.path()));
    }

    #[test]
    fn the_message_says_every_way_to_install() {
        let message = missing_target(
            WASI_TARGET,
            Path::new("/x"),
            "there is no rustup to install it with",
        );
        for part in [
            "rustup target add wasm32-wasip2",
            "apt-get install",
            "dnf install",
            "/x",
            "no rustup",
        ] {
            assert!(message.contains(part), "{part:?} is not in {message:?}");
        }
    }
}
