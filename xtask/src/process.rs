//! Running other programs, their output untouched.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::exit::Failed;

/// What the command line reads like, for messages.
pub(crate) fn line(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str());
    std::iter::once(name)
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Runs `command` to its end, with our own standard streams.
///
/// # Errors
/// It can't be started, or it ends with something other than 0 ([`Failed`]).
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let what = line(command);
    eprintln!("+ {what}");
    let status = command
        .status()
        .with_context(|| format!("cannot start `{what}`"))?;
    if status.success() {
        Ok(())
    } else {
        Err(Failed::new(what, status).into())
    }
}

/// Runs `command` and returns what it wrote to stdout. Its stderr goes to ours.
///
/// # Errors
/// It can't be started, fails, or writes something other than UTF-8.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let what = line(command);
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start `{what}`"))?;
    if !output.status.success() {
        return Err(Failed::new(what, output.status).into());
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{what}` wrote other than UTF-8"))
}

/// Whether `command` can be started and ends with 0; its output is dropped.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Becomes `command`: signals reach it and its exit code is ours because it *is* us from here on.
/// A parent that waits would have to forward the one and copy the other.
///
/// # Errors
/// Returns only when it can't be started.
pub(crate) fn become_it(command: &mut Command) -> Result<()> {
    let what = line(command);
    eprintln!("+ {what}");
    let error = command.exec();
    bail!("cannot start `{what}`: {error}");
}

/// A script to be run. Another process writes it: a child that another test starts while we have it open to write would
/// keep it so, and it could not be run ("text file busy").
#[cfg(test)]
#[track_caller]
pub(crate) fn write_program(path: &std::path::Path, script: &str) {
    let write = "printf %s \"$1\" >\"$2\" && chmod +x \"$2\"";
    let mut shell = Command::new("sh");
    shell.args(["-c", write, "sh", script]).arg(path);
    assert!(succeeds(&mut shell), "writing {}", path.display());
}
