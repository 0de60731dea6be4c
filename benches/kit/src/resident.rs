//! What a process holds of memory.

use std::fs;

use anyhow::{Context as _, Result};

/// Resident memory of a process, in KiB.
///
/// # Errors
/// It has ended, or `/proc` is not as it should be.
pub fn resident_kib(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    let kib: u32 = number.context("no VmRSS")?.parse()?;
    Ok(f64::from(kib))
}
