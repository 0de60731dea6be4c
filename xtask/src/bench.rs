//! `cargo xtask bench`

use std::ffi::OsString;

use anyhow::{Result, bail};

use crate::workspace::Workspace;
use crate::{process, setup};

/// Builds the daemon in the release profile and measures it against the goals of its design.
///
/// docs/benchmarks.md tells how it is measured and how to read it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// The API, from outside: reads, watches, writes, memory, start; one interleaved run.
    Api {
        /// Passed on: --peer unix:PATH, --only SECTION, --json FILE, --quick; --help lists all.
        #[arg(
            value_name = "BENCH_ARGS",
            trailing_var_arg = true,
            allow_hyphen_values = true
        )]
        args: Vec<OsString>,
    },
}

impl Args {
    pub(crate) fn passed_on(&self) -> &[OsString] {
        let What::Api { args } = &self.what;
        args
    }
}

/// # Errors
/// Set-up or the build fails. Otherwise the benchmark takes our place.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    setup::toolchain(workspace)?;
    process::run(workspace.cargo().args([
        "build",
        "--release",
        "--bins",
        "--package",
        "device-api-server",
        "--package",
        "device-api-bench",
    ]))?;
    let release = workspace.target_dir.join("release");
    let bench = release.join("device-api-bench");
    if !bench.is_file() {
        bail!(
            "{} was not built: unset build.target (CARGO_BUILD_TARGET), which moves it",
            bench.display()
        );
    }
    let mut command = workspace.at_root(bench);
    command.arg("api").arg("--daemon");
    command.arg(release.join("device-api-server"));
    command.arg("--dir").arg(workspace.target_dir.join("bench"));
    process::become_it(command.args(args.passed_on()))
}
