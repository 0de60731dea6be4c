//! A link to a good component outside of the policy directory.
//!
//! Must come of it: refused at load, naming where it points to.

use std::path::Path;

use anyhow::{Context as _, Result};

pub(super) fn place(at: &Path) -> Result<()> {
    let outside = at
        .parent()
        .and_then(Path::parent)
        .context("no folder around it")?;
    let target = outside.join("elsewhere.wasm");
    std::fs::write(&target, crate::guests::SLOW_GUEST)?;
    Ok(std::os::unix::fs::symlink(target, at)?)
}
