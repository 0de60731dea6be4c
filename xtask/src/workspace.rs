//! The workspace as cargo sees it.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::process;

/// The checkout: where it is, where it builds to, and its crates.
#[derive(Debug)]
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    /// Absolute, whatever `CARGO_TARGET_DIR` or a configuration file says.
    pub(crate) target_dir: PathBuf,
    pub(crate) packages: Vec<Package>,
    cargo: OsString,
}

/// A crate of ours.
#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) manifest_path: PathBuf,
    pub(crate) targets: Vec<Target>,
    pub(crate) dependencies: Vec<Dependency>,
}

/// Something cargo compiles on its own: a library, binary, test, bench, example or build script.
#[derive(Debug, Deserialize)]
pub(crate) struct Target {
    pub(crate) src_path: PathBuf,
}

/// A direct dependency, as its Cargo.toml declares it.
#[derive(Debug, Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// `None`: an ordinary one; else "dev" or "build".
    pub(crate) kind: Option<String>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_root: PathBuf,
    target_directory: PathBuf,
}

impl Package {
    /// The folder of its Cargo.toml.
    pub(crate) fn dir(&self) -> &Path {
        self.manifest_path.parent().unwrap_or(&self.manifest_path)
    }
}

impl Workspace {
    /// Asks cargo about the workspace that xtask itself belongs to.
    ///
    /// # Errors
    /// cargo can't be started or finds the workspace unreadable.
    pub(crate) fn load() -> Result<Self> {
        // `cargo run` says where xtask's sources are now; what was compiled in says where they were.
        let manifest_dir = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        Self::load_from(&manifest_dir.join("Cargo.toml"))
    }

    /// As [`Self::load`], for any manifest. Reads manifests only: no lock file, no network.
    pub(crate) fn load_from(manifest: &Path) -> Result<Self> {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(&cargo);
        command
            .args([
                "metadata",
                "--no-deps",
                "--format-version",
                "1",
                "--manifest-path",
            ])
            .arg(manifest);
        let json = process::output(&mut command)?;
        let metadata: Metadata = serde_json::from_str(&json)
            .with_context(|| format!("cannot read what `{}` says", process::line(&command)))?;
        Ok(Self {
            root: metadata.workspace_root,
            target_dir: metadata.target_directory,
            packages: metadata.packages,
            cargo,
        })
    }

    /// A cargo to be run at the root, building to the same place as the cargo that runs us.
    pub(crate) fn cargo(&self) -> Command {
        self.at_root(&self.cargo)
    }

    /// A program to be run at the root. Where the target folder isn't the default one it is told,
    /// absolutely: tests run in other folders, and look for the binaries there.
    pub(crate) fn at_root(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root);
        if self.target_dir != self.root.join("target") {
            command.env("CARGO_TARGET_DIR", &self.target_dir);
        }
        command
    }

    /// `path` as seen from the root, for messages.
    pub(crate) fn relative<'a>(&self, path: &'a Path) -> &'a Path {
        path.strip_prefix(&self.root).unwrap_or(path)
    }
}
