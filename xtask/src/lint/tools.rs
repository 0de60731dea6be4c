//! The steps that are other programs.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::workspace::Workspace;
use crate::{process, setup};

/// The newest at the time of writing; needs Rust 1.88. Pinned, so that a check doesn't change its
/// mind overnight.
const CARGO_DENY_VERSION: &str = "0.20.2";

/// # Errors
/// A file is not formatted, or rustfmt is missing.
pub(crate) fn fmt(workspace: &Workspace) -> Result<()> {
    setup::component(workspace, "fmt", "rustfmt")?;
    process::run(workspace.cargo().args(["fmt", "--all", "--check"]))
        .context("`cargo fmt --all` puts it right")
}

/// # Errors
/// There is a warning, or clippy or the wasm target (the build embeds the policies) is missing.
pub(crate) fn clippy(workspace: &Workspace) -> Result<()> {
    setup::component(workspace, "clippy", "clippy")?;
    setup::toolchain(workspace)?;
    let mut clippy = workspace.cargo();
    clippy.args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--all-features",
        "--",
        "-D",
        "warnings",
    ]);
    process::run(&mut clippy)
}

/// Not `advisories`: a check of a database that changes by itself needs the network, and fails
/// without anyone having changed a thing.
///
/// # Errors
/// A dependency breaks deny.toml, or cargo-deny is missing and can't be installed.
pub(crate) fn deny(workspace: &Workspace) -> Result<()> {
    let program = cargo_deny(workspace)?;
    let mut deny = workspace.at_root(program);
    // A crate named in deny.toml may not need what it is allowed to use just now.
    let checks = [
        "check",
        "--allow",
        "unused-wrapper",
        "bans",
        "licenses",
        "sources",
    ];
    deny.args(["--all-features", "--locked"]).args(checks);
    process::run(&mut deny)
}

/// A cargo-deny of the pinned version: one on the path, else our own in the target folder, which is
/// installed there if need be (three quarters of a minute on two cores, once; optimised it took two to three
/// minutes).
fn cargo_deny(workspace: &Workspace) -> Result<PathBuf> {
    let tools = workspace.target_dir.join("tools");
    let own = tools.join("bin").join("cargo-deny");
    for candidate in [PathBuf::from("cargo-deny"), own.clone()] {
        if is_pinned(&candidate) {
            return Ok(candidate);
        }
    }
    eprintln!(
        "installing cargo-deny {CARGO_DENY_VERSION} into {}, once",
        tools.display()
    );
    let package = format!("cargo-deny@{CARGO_DENY_VERSION}");
    let build = tools.join("build");
    let mut install = workspace.cargo();
    install
        .args([
            "install", "--locked", "--quiet", "--debug", &package, "--root",
        ])
        .arg(&tools)
        .env("CARGO_PROFILE_DEV_DEBUG", "false");
    // What an interrupted install compiled is used by the next.
    install.arg("--target-dir").arg(&build);
    process::run(&mut install).with_context(|| {
        format!(
            "cannot install cargo-deny; put version {CARGO_DENY_VERSION} on the path by other means"
        )
    })?;
    // Some 300 MB that nothing needs any more; if they stay, that is no failure.
    let _ = std::fs::remove_dir_all(&build);
    Ok(own)
}

fn is_pinned(program: &PathBuf) -> bool {
    let output = Command::new(program).arg("--version").output();
    output.is_ok_and(|output| is_pinned_version(&String::from_utf8_lossy(&output.stdout)))
}

fn is_pinned_version(says: &str) -> bool {
    says.split_whitespace()
        .eq(["cargo-deny", CARGO_DENY_VERSION])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_pinned_version_will_do() {
        assert!(is_pinned_version(&format!(
            "cargo-deny {CARGO_DENY_VERSION}\n"
        )));
        assert!(!is_pinned_version(&format!(
            "cargo-deny {CARGO_DENY_VERSION}1\n"
        )));
        assert!(!is_pinned_version(""));
        assert!(!is_pinned(&PathBuf::from("/nowhere/cargo-deny")));
    }
}
