//! A link to itself.
//!
//! Must come of it: refused at load.

use std::path::Path;

use anyhow::Result;

pub(super) fn place(at: &Path) -> Result<()> {
    Ok(std::os::unix::fs::symlink(at, at)?)
}
