//! Programs of others that some tests need: used where they are, else the test says `SKIPPED`.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// Set to 1 where every program is there, so that a skipped test is a failure.
const REQUIRE: &str = "DEVICE_API_REQUIRE_TOOLCHAINS";
/// Names a file that takes a line for each thing that was skipped; `cargo xtask` and `.ci/run` tell of it at their ends.
const SKIPPED: &str = "DEVICE_API_SKIPPED";

/// The checkout's folder.
///
/// # Errors
/// The crate was moved.
pub fn root() -> Result<PathBuf> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(tests.parent().context("no parent")?.to_owned())
}

/// Runs it; where it fails, what was run, and why, in one line of its own words.
///
/// # Errors
/// It is not there, or it failed.
pub fn works(command: &mut Command) -> std::result::Result<(), String> {
    succeeds(command).map_err(|why| format!("{command:?}: {why}"))
}

/// The same without the arguments, for those that name a temporary folder: what many tests are skipped for is told once, where it
/// is said in the same words.
///
/// # Errors
/// It is not there, or it failed.
pub fn succeeds(command: &mut Command) -> std::result::Result<(), String> {
    match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let words = String::from_utf8_lossy(&output.stderr);
            let last = words.lines().rfind(|line| !line.trim().is_empty());
            Err(last.map_or_else(|| output.status.to_string(), str::to_owned))
        }
        Err(error) => Err(format!("{}: {error}", command.get_program().display())),
    }
}

/// Whether root may start a program as that user here, and give files away: it may have few rights, and know no other users.
///
/// # Errors
/// Why not.
pub fn may_become(uid: u32, gid: u32) -> std::result::Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("not run as root".to_owned());
    }
    works(Command::new("true").uid(uid).gid(gid))?;
    let given = tempfile::NamedTempFile::new()
        .and_then(|file| std::os::unix::fs::chown(file.path(), Some(uid), Some(gid)));
    given.map_err(|error| format!("giving a file to {uid}:{gid}: {error}"))
}

/// Says that a test can't run here, and why.
///
/// # Errors
/// Skipping is not allowed.
pub fn skip<T>(why: &str) -> Result<Option<T>> {
    if std::env::var(REQUIRE).is_ok_and(|value| value == "1") {
        bail!("{REQUIRE}=1, and {why}");
    }
    tell(why, std::env::var_os(SKIPPED).as_deref())?;
    Ok(None)
}

/// To the file; where none is named, past the harness, which keeps to itself what a test prints that passes.
fn tell(why: &str, file: Option<&OsStr>) -> Result<()> {
    let why = why.lines().collect::<Vec<_>>().join(" ");
    let Some(file) = file.filter(|file| !file.is_empty()) else {
        // Nobody reads it, then.
        let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
        return Ok(());
    };
    // Tests are many processes: a line is written at once.
    let file_of_all = OpenOptions::new().append(true).create(true).open(file);
    let mut file_of_all = file_of_all.with_context(|| format!("{SKIPPED}={}", file.display()))?;
    Ok(file_of_all.write_all(format!("{why}\n").as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Output;

    /// What the tests below run, in a process with variables of its own.
    #[test]
    #[ignore = "run by the tests beside it"]
    fn something_is_missing() -> Result<()> {
        skip::<()>("no such\nprogram").map(drop)
    }

    /// Under a harness that keeps what is printed to itself.
    fn run_it(variables: &[(&str, &OsStr)]) -> Result<Output> {
        let mut harness = Command::new(std::env::current_exe()?);
        harness
            .args(["--ignored", "--exact", "tools::tests::something_is_missing"])
            .env_remove(REQUIRE)
            .env_remove(SKIPPED)
            .envs(variables.iter().copied());
        Ok(harness.output()?)
    }

    #[test]
    fn what_is_skipped_is_told_though_the_test_passes() -> Result<()> {
        let output = run_it(&[])?;
        assert!(output.status.success(), "{output:?}");
        let errors = String::from_utf8(output.stderr)?;
        assert_eq!(errors, "SKIPPED: no such program\n");

        let folder = tempfile::tempdir()?;
        let file = folder.path().join("skipped");
        for _ in 0..2 {
            let output = run_it(&[(SKIPPED, file.as_os_str())])?;
            assert!(output.status.success(), "{output:?}");
        }
        let told = std::fs::read_to_string(&file)?;
        assert_eq!(told, "no such program\nno such program\n");
        Ok(())
    }

    #[test]
    fn what_may_not_be_skipped_fails() -> Result<()> {
        let output = run_it(&[(REQUIRE, OsStr::new("1"))])?;
        assert!(!output.status.success(), "{output:?}");
        // As is a file that can't be written.
        let output = run_it(&[(SKIPPED, OsStr::new("/no/such/folder/skipped"))])?;
        assert!(!output.status.success(), "{output:?}");
        Ok(())
    }
}
