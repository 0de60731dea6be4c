//! Where the built programs are.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::tools::works;

/// A program of the workspace, from the build that the running executable is of.
///
/// # Errors
/// It was not built; says how.
pub fn binary(name: &str) -> Result<PathBuf> {
    let executable = std::env::current_exe()?;
    executable
        .ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
        .with_context(|| {
            format!("{name} was not built: run `cargo build --workspace` or `cargo xtask test`")
        })
}

/// Copies a program of the workspace to where other users may run it.
///
/// Another process writes it: what this one has open for writing, a child that a test beside forks has as well until it is
/// another program, and as long as anybody has it so, the kernel runs it for nobody (`ETXTBSY`).
///
/// # Errors
/// It was not built, or can't be written there.
pub fn copy_binary(name: &str, to: &Path) -> Result<()> {
    let mut copy = Command::new("cp");
    copy.arg("-p").arg(binary(name)?).arg(to);
    works(&mut copy).map_err(anyhow::Error::msg)
}
