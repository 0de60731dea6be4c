//! `cargo xtask lint`

mod dead_files;
mod graph;
mod lexer;
mod modules;
mod sources;
mod tools;
mod words;

use anyhow::{Result, bail};

use crate::workspace::Workspace;

/// Checks formatting, lints, dependencies and the rules of the house; needs no network once set up.
///
/// All steps run even when one fails; the end says which did.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run these only.
    #[arg(value_enum, value_name = "STEP")]
    steps: Vec<Step>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Step {
    /// Sources are formatted (rustfmt).
    Fmt,
    /// No warnings from rustc or clippy, in any target.
    Clippy,
    /// Licenses, banned crates and sources of dependencies (cargo-deny; installed on first use).
    Deny,
    /// Crates depend on what xtask/src/edges.rs allows.
    Edges,
    /// Words that belong in one place stay there (unsafe, parking_lot).
    Words,
    /// Every source file is compiled by something.
    DeadFiles,
}

/// Cheap ones first: the first answer comes at once.
const ALL: [Step; 6] = [
    Step::Edges,
    Step::Words,
    Step::DeadFiles,
    Step::Fmt,
    Step::Deny,
    Step::Clippy,
];

impl Step {
    fn name(self) -> &'static str {
        match self {
            Self::Fmt => "fmt",
            Self::Clippy => "clippy",
            Self::Deny => "deny",
            Self::Edges => "edges",
            Self::Words => "words",
            Self::DeadFiles => "dead-files",
        }
    }

    fn run(self, workspace: &Workspace) -> Result<()> {
        match self {
            Self::Fmt => tools::fmt(workspace),
            Self::Clippy => tools::clippy(workspace),
            Self::Deny => tools::deny(workspace),
            Self::Edges => report(graph::check(workspace)),
            Self::Words => report(words::check(workspace)?),
            Self::DeadFiles => report(dead_files::check(workspace)?),
        }
    }
}

/// # Errors
/// A step failed; the message names all that did.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let steps = if args.steps.is_empty() {
        ALL.as_slice()
    } else {
        args.steps.as_slice()
    };
    let mut failed = Vec::new();
    for step in steps {
        eprintln!("==> {}", step.name());
        if let Err(error) = step.run(workspace) {
            eprintln!("{}: {error:#}", step.name());
            failed.push(step.name());
        }
    }

    eprintln!("\nlint:");
    for step in steps {
        let outcome = if failed.contains(&step.name()) {
            "FAILED"
        } else {
            "ok"
        };
        eprintln!("  {:<12}{outcome}", step.name());
    }
    if failed.is_empty() {
        return Ok(());
    }
    bail!("lint failed: {}", failed.join(", "))
}

/// Prints each finding; any makes the step fail.
fn report(findings: Vec<String>) -> Result<()> {
    for finding in &findings {
        eprintln!("error: {finding}");
    }
    match findings.len() {
        0 => Ok(()),
        1 => bail!("1 finding"),
        count => bail!("{count} findings"),
    }
}

#[cfg(test)]
mod fixture;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_is_run_by_default() {
        for step in <Step as clap::ValueEnum>::value_variants() {
            assert!(ALL.contains(step), "{step:?}");
        }
    }

    #[test]
    fn a_finding_fails_the_step() {
        assert!(report(vec![]).is_ok());
        assert!(report(vec!["x".to_owned()]).is_err());
    }
}
