//! A good component of which half is missing, as after a copy that broke off.
//!
//! Must come of it: refused at load, with what to do.

use std::path::Path;

use anyhow::Result;

pub(super) fn place(at: &Path) -> Result<()> {
    let whole = crate::guests::SLOW_GUEST;
    let half = whole.get(..whole.len() / 2).unwrap_or_default();
    Ok(std::fs::write(at, half)?)
}
