//! Programs of others that some tests need: used where they are, else the test says `SKIPPED`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// Set to 1 where every program is there, so that a skipped test is a failure.
const REQUIRE: &str = "DEVICE_API_REQUIRE_TOOLCHAINS";

/// The checkout's folder.
///
/// # Errors
/// The crate was moved.
pub fn root() -> Result<PathBuf> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(tests.parent().context("no parent")?.to_owned())
}

/// Runs it; where it fails, why, in one line of its own words.
///
/// # Errors
/// It is not there, or it failed.
pub fn works(command: &mut Command) -> std::result::Result<(), String> {
    match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let words = String::from_utf8_lossy(&output.stderr).into_owned();
            let last = words.lines().rfind(|line| !line.trim().is_empty());
            Err(format!("{command:?}: {}", last.unwrap_or("failed")))
        }
        Err(error) => Err(format!("{command:?}: {error}")),
    }
}

/// Says that a test can't run here, and why.
///
/// # Errors
/// Skipping is not allowed.
pub fn skip<T>(why: &str) -> Result<Option<T>> {
    if std::env::var(REQUIRE).is_ok_and(|value| value == "1") {
        bail!("{REQUIRE}=1, and {why}");
    }
    eprintln!("SKIPPED: {why}");
    Ok(None)
}
