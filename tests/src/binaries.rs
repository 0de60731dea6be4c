//! Where the built programs are.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

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
