//! `cargo xtask soak`

use std::time::{Duration, SystemTime};

use anyhow::{Result, bail};

use crate::workspace::Workspace;
use crate::{process, setup};

/// Runs the long tests at full length: interleavings, the model of the cache, linearizability, kills and
/// the store's own.
///
/// The ordinary test run holds short forms of all of them. Each prints a seed; DEVICE_API_SEED repeats
/// what it chose. Goes on after a failure, and names all at the end.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Start over, with other seeds, until so many minutes have passed; once, if it is not given.
    #[arg(long, value_name = "N")]
    minutes: Option<u64>,
}

/// A long test: package, test target, and how many times as much as the ordinary run it does.
struct Long {
    package: &'static str,
    target: &'static str,
    factor: u32,
    what: &'static str,
}

const LONG: [Long; 5] = [
    Long {
        package: "device-api-cache",
        target: "interleaving",
        factor: 50,
        what: "250,000 interleavings of each scenario of gate and barrier, with each scheduler",
    },
    Long {
        package: "device-api-cache",
        target: "model",
        factor: 20,
        what: "40,000 random sequences of calls, the cache against its model",
    },
    Long {
        package: "device-api-store",
        target: "store",
        factor: 1,
        what: "the store alone: kills, power cuts and damaged files, the long forms too",
    },
    Long {
        package: "device-api-tests",
        target: "linearizability",
        factor: 5,
        what: "500,000 concurrent operations on a socket, with faults between",
    },
    Long {
        package: "device-api-tests",
        target: "kill",
        factor: 7,
        what: "210 times kill -9 at random moments",
    },
];

/// # Errors
/// Set-up or the build fails, or one of the tests does.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    setup::toolchain(workspace)?;
    setup::build(workspace)?;
    let began = SystemTime::now();
    let limit = Duration::from_secs(args.minutes.unwrap_or(0).saturating_mul(60));
    let mut done = Vec::new();
    let mut rounds = 0_u32;
    while rounds == 0 || began.elapsed().unwrap_or(limit) < limit {
        rounds += 1;
        for long in &LONG {
            eprintln!("==> round {rounds}: {}", long.what);
            let started = SystemTime::now();
            let outcome = process::run(&mut long.command(workspace));
            let took = started.elapsed().unwrap_or_default();
            if let Err(error) = &outcome {
                eprintln!("{}: {error:#}", long.target);
            }
            done.push((long, took, outcome.is_ok()));
        }
    }
    report(&done, rounds)
}

impl Long {
    fn command(&self, workspace: &Workspace) -> std::process::Command {
        let mut cargo = workspace.cargo();
        cargo
            .args(["test", "--package", self.package, "--test", self.target])
            .args(["--", "--include-ignored", "--nocapture"])
            .env("DEVICE_API_SOAK", self.factor.to_string());
        cargo
    }
}

/// Says what was done.
///
/// # Errors
/// Something failed.
fn report(done: &[(&Long, Duration, bool)], rounds: u32) -> Result<()> {
    eprintln!("\nsoak, {rounds} round(s):");
    for (long, took, ok) in done {
        let outcome = if *ok { "ok" } else { "FAILED" };
        eprintln!("  {outcome:<7}{:>6} s  {}", took.as_secs(), long.what);
    }
    match done.iter().filter(|(.., ok)| !ok).count() {
        0 => Ok(()),
        failed => bail!("{failed} of {} failed", done.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failure_fails_the_soak() {
        let [first, second, ..] = &LONG;
        let took = Duration::from_secs(1);
        assert!(report(&[(first, took, true), (second, took, true)], 1).is_ok());
        assert!(report(&[(first, took, true), (second, took, false)], 1).is_err());
    }
}
