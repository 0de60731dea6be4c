//! A program for this machine.
//!
//! Must come of it: refused at load, and never run.

use std::path::Path;

use anyhow::Result;

pub(super) fn place(at: &Path) -> Result<()> {
    std::fs::copy(std::env::current_exe()?, at)?;
    // Below the limit of a component's size, so that its kind is what is told.
    Ok(std::fs::OpenOptions::new()
        .write(true)
        .open(at)?
        .set_len(1 << 20)?)
}
