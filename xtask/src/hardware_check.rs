//! `cargo xtask hardware-check`

use std::ffi::OsString;

use anyhow::{Result, bail};

use crate::workspace::Workspace;
use crate::{process, setup};

/// Checks the daemon against the real GPUs of this machine: inventory and readings beside nvidia-smi, and an
/// application's mistake from the driver to a consumer.
///
/// Needs an NVIDIA GPU, its driver and nvidia-smi; ends with 3 where there is none.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Passed on; `cargo xtask hardware-check -- --help` lists what is known, `--report FILE` first of all.
    #[arg(
        value_name = "CHECK_ARGS",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    check_args: Vec<OsString>,
}

/// # Errors
/// Set-up or the build fails. Otherwise the check takes our place, and its exit code is ours.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    setup::toolchain(workspace)?;
    setup::build(workspace)?;
    let check = workspace.target_dir.join("debug").join("hardware-check");
    if !check.is_file() {
        bail!(
            "{} was not built: unset build.target (CARGO_BUILD_TARGET), which moves it",
            check.display()
        );
    }
    process::become_it(workspace.at_root(check).args(&args.check_args))
}
