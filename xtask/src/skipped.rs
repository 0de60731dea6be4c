//! What tests could not run here, told once they have ended: the harness keeps to itself what a test prints that passes.

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, ExitStatus};

use anyhow::{Context as _, Result, bail};

use crate::exit::Failed;
use crate::process;
use crate::workspace::Workspace;

/// Names the file that each test adds a line to which it skips: tests/src/tools.rs.
const FILE: &str = "DEVICE_API_SKIPPED";
/// 1 where every program is there, so that to skip is to fail: tests/src/tools.rs.
const REQUIRE: &str = "DEVICE_API_REQUIRE_TOOLCHAINS";

/// Who set the variable has a file, and tells of it: `.ci/run`, of all that it calls.
fn file_of_the_caller() -> Option<OsString> {
    env::var_os(FILE).filter(|file| !file.is_empty())
}

/// Runs tests to their end, their output untouched; then says what was skipped.
///
/// A signal to us alone does not reach them: one from a terminal, or to the group, does.
///
/// # Errors
/// They can't be started, or fail ([`Failed`], of which they have said all that there is to say).
pub(crate) fn run(workspace: &Workspace, tests: &mut Command) -> Result<()> {
    let what = process::line(tests);
    eprintln!("+ {what}");
    let status = if file_of_the_caller().is_some() {
        let status = tests.status();
        status.with_context(|| format!("cannot start `{what}`"))?
    } else {
        let name = format!("skipped-{}", std::process::id());
        let (status, skipped) = listened(tests, &workspace.target_dir.join(name))?;
        for why in skipped {
            eprintln!("SKIPPED: {why}");
        }
        status
    };
    if status.success() {
        Ok(())
    } else {
        Err(Failed::said(what, status).into())
    }
}

/// How they ended, and what they skipped, each thing once.
fn listened(tests: &mut Command, file: &Path) -> Result<(ExitStatus, BTreeSet<String>)> {
    let what = process::line(tests);
    let at = || file.display().to_string();
    // There from now on, so that one that is missing later is an error.
    fs::write(file, "").with_context(at)?;
    let status = tests.env(FILE, file).status();
    let told = fs::read_to_string(file).with_context(at)?;
    fs::remove_file(file).with_context(at)?;
    let status = status.with_context(|| format!("cannot start `{what}`"))?;
    Ok((status, told.lines().map(str::to_owned).collect()))
}

/// Skips something of our own.
///
/// # Errors
/// Nothing may be skipped, or the caller's file can't be written.
pub(crate) fn skip(why: &str) -> Result<()> {
    let require = env::var(REQUIRE).ok();
    skip_where(why, require.as_deref(), file_of_the_caller())
}

fn skip_where(why: &str, require: Option<&str>, file: Option<OsString>) -> Result<()> {
    if require == Some("1") {
        bail!("{REQUIRE}=1, and {why}");
    }
    let Some(file) = file else {
        eprintln!("SKIPPED: {why}");
        return Ok(());
    };
    let told = OpenOptions::new().append(true).create(true).open(&file);
    let mut told = told.with_context(|| format!("{FILE}={}", file.display()))?;
    Ok(told.write_all(format!("{why}\n").as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn each_thing_is_told_once_and_the_exit_status_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("skipped");
        let script = format!("for why in b a b; do echo no $why >>\"${FILE}\"; done; exit 7");
        let (status, skipped) = listened(&mut shell(&script), &file).unwrap();
        assert_eq!(status.code(), Some(7));
        assert!(skipped.iter().eq(["no a", "no b"]), "{skipped:?}");
        assert!(!file.exists());

        let (status, skipped) = listened(&mut shell("exit 0"), &file).unwrap();
        assert!(status.success() && skipped.is_empty(), "{skipped:?}");
        assert!(listened(&mut Command::new("/no/such/program"), &file).is_err());
    }

    #[test]
    fn what_is_skipped_is_forgiven_unless_it_is_required() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("skipped");
        let told = Some(file.clone().into_os_string());
        skip_where("no Go", None, told.clone()).unwrap();
        skip_where("no Helm", Some("0"), told.clone()).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "no Go\nno Helm\n");
        let error = skip_where("no Go", Some("1"), told).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains(REQUIRE) && error.contains("no Go"),
            "{error}"
        );
    }

    /// `.ci/run`, with a cargo that skips something in each command and fails in one of them, or in none.
    #[track_caller]
    fn check_ci(fails: &str, expected: (Option<i32>, &[&str])) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let dir = tempfile::tempdir().unwrap();
        let cargo = dir.path().join("cargo");
        let script = format!(
            "#!/bin/sh\necho \"cargo $*\" >&2\n[ \"$1\" = xtask ] || exit 0\n\
             echo \"no Helm\" >>\"${FILE}\"\necho \"in $2\" >>\"${FILE}\"\n[ \"$2\" != \"{fails}\" ] || exit 9\n"
        );
        process::write_program(&cargo, &script);
        let path = env::var("PATH").unwrap();
        let output = Command::new(root.join(".ci/run"))
            .env("PATH", format!("{}:{path}", dir.path().display()))
            .env("TMPDIR", dir.path())
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        let (code, lines) = expected;
        assert_eq!(output.status.code(), code, "{said}");
        let closing: Vec<_> = said
            .lines()
            .skip_while(|line| !line.starts_with("SKIPPED"))
            .collect();
        assert_eq!(closing, lines, "{said}");
        // Nothing is left but the cargo.
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn ci_says_at_its_end_what_it_skipped() {
        let all = [
            "SKIPPED: in e2e",
            "SKIPPED: in lint",
            "SKIPPED: in test",
            "SKIPPED: no Helm",
        ];
        check_ci("", (Some(0), &all));
        check_ci("test", (Some(9), &all[2..]));
    }
}
