//! A folder, with a component in it.
//!
//! Must come of it: refused at load, naming what it is.

use std::path::Path;

use anyhow::Result;

pub(super) fn place(at: &Path) -> Result<()> {
    std::fs::create_dir(at)?;
    Ok(std::fs::write(
        at.join("policy.wasm"),
        crate::guests::SLOW_GUEST,
    )?)
}
