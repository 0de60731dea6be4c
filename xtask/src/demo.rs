//! `cargo xtask demo`

use std::ffi::OsString;

use anyhow::{Result, bail};

use crate::workspace::Workspace;
use crate::{process, setup};

/// Sets up, builds, and shows the daemon at work over a simulated 8 × H100 node, narrated.
///
/// Stays up until Ctrl-C, so that you can look around with `devicectl`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Check every outcome and end: 0 if all were right, else non-zero, naming the one that failed.
    #[arg(long)]
    pub(crate) once: bool,

    /// Passed on to the demo; `cargo xtask demo -- --help` lists what it knows.
    #[arg(
        value_name = "DEMO_ARGS",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    pub(crate) demo_args: Vec<OsString>,
}

/// # Errors
/// Set-up or the build fails. Otherwise the demo takes our place: Ctrl-C is its to handle, and its
/// exit code is ours.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    setup::toolchain(workspace)?;
    setup::build(workspace)?;

    let demo = workspace.target_dir.join("debug").join("demo");
    if !demo.is_file() {
        bail!(
            "{} was not built: unset build.target (CARGO_BUILD_TARGET), which moves it",
            demo.display()
        );
    }
    let mut command = workspace.at_root(demo);
    if args.once {
        command.arg("--once");
    }
    process::become_it(command.args(&args.demo_args))
}
