//! A component of 60 MB: a valid one, with a custom section of that size.
//!
//! Must come of it: refused at load, naming the limit of 32 MiB; never read as a whole.

use std::path::Path;

use anyhow::Result;

const PADDING: u32 = 60_000_000;

pub(super) fn place(at: &Path) -> Result<()> {
    let mut bytes = b"\0asm\x0d\0\x01\0\0".to_vec();
    // A custom section: its length, then a name of no bytes, then zeros.
    bytes.extend(super::leb128(PADDING + 1));
    bytes.resize(bytes.len() + PADDING as usize + 1, 0);
    Ok(std::fs::write(at, bytes)?)
}
