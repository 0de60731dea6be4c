//! Becomes a program that the kernel kills once whoever started it has ended, however it ended.
//!
//! ```text
//!  test-leash PID PROGRAM ARGUMENT…
//! ```
//!
//! `PID` is the caller's own number. It is the caller's *thread* whose end counts.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

fn main() -> ExitCode {
    match run() {
        Ok(never) => match never {},
        Err(error) => {
            eprintln!("test-leash: {error:#}");
            ExitCode::from(127)
        }
    }
}

fn run() -> Result<std::convert::Infallible> {
    let mut words = std::env::args_os().skip(1);
    let caller = words.next().context("no PID")?;
    let caller: i32 = caller.to_str().context("no number")?.parse()?;
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // It may have ended before the kernel was told.
    let parent = getppid().map(Pid::as_raw_nonzero);
    ensure!(
        parent.is_some_and(|parent| parent.get() == caller),
        "{caller} has ended"
    );
    let program = words.next().context("no program")?;
    let error = Command::new(&program).args(words).exec();
    Err(error).with_context(|| format!("running {}", program.display()))
}
