//! `cargo xtask test`

use std::ffi::OsString;

use anyhow::Result;

use crate::workspace::Workspace;
use crate::{setup, skipped};

/// Sets up, builds what the black-box tests drive, and runs all tests, doc tests included.
///
/// Installs the wasm targets if they are missing, builds the workspace in the dev profile, then runs
/// `cargo test --workspace --all-features`. The last lines say what was skipped for want of a program.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Passed on to `cargo test`; naming packages (-p) takes the place of --workspace.
    ///
    /// Examples: `cargo xtask test -p device-api-core`,
    /// `cargo xtask test -- some_name -- --nocapture`.
    #[arg(
        value_name = "CARGO_TEST_ARGS",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    pub(crate) cargo_args: Vec<OsString>,
}

/// # Errors
/// Set-up, the build or a test fails. Of tests, cargo's closing lines say which, and its exit code is kept.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    setup::toolchain(workspace)?;
    setup::target(workspace, setup::WASI_TARGET)?;
    // The tests find the binaries in the target folder; cargo builds those of other crates for no test.
    setup::build(workspace)?;

    let mut cargo = workspace.cargo();
    cargo.arg("test");
    if !names_packages(&args.cargo_args) {
        cargo.arg("--workspace");
    }
    skipped::run(
        workspace,
        cargo.arg("--all-features").args(&args.cargo_args),
    )
}

/// Whether cargo's own part of the arguments (before `--`) says which packages.
fn names_packages(args: &[OsString]) -> bool {
    args.iter().take_while(|arg| *arg != "--").any(|arg| {
        let arg = arg.to_string_lossy();
        arg == "--package" || arg.starts_with("--package=") || is_short_p(&arg)
    })
}

/// `-p` or `-pNAME`.
fn is_short_p(arg: &str) -> bool {
    arg.starts_with("-p") && !arg.starts_with("--")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(args: &[&str], expected: bool) {
        let args: Vec<OsString> = args.iter().map(OsString::from).collect();
        assert_eq!(names_packages(&args), expected, "{args:?}");
    }

    #[test]
    fn packages_take_the_place_of_the_workspace() {
        check(&[], false);
        check(&["name_of_a_test", "--", "-p"], false);
        check(&["-p", "a"], true);
        check(&["-pa"], true);
        check(&["--package=a"], true);
        check(&["--profile", "release"], false);
    }
}
