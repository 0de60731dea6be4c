//! `cargo xtask bench`

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::workspace::Workspace;
use crate::{process, setup};

/// Builds in the release profile and measures against the goals of the design.
///
/// docs/benchmarks.md tells how it is measured and how to read it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// The API, from outside: reads, watches, writes, faults, memory, start; one interleaved run.
    Api {
        /// Passed on: --peer unix:PATH, --only SECTION, --json FILE, --quick; --help lists all.
        #[arg(
            value_name = "BENCH_ARGS",
            trailing_var_arg = true,
            allow_hyphen_values = true
        )]
        args: Vec<OsString>,
    },
    /// Policies and the pipeline, from inside: calls, records, allocations, a storm, swaps.
    Policy {
        /// Passed on: --only SECTION, --json FILE, --quick; --help lists all.
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
        match &self.what {
            What::Api { args } | What::Policy { args } => args,
        }
    }
}

/// # Errors
/// Set-up or the build fails. Otherwise the benchmark takes our place.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    setup::toolchain(workspace)?;
    let packages: &[&str] = match args.what {
        What::Api { .. } => &["device-api-server", "device-api-bench"],
        What::Policy { .. } => &["device-api-policy-bench"],
    };
    let packages = packages.iter().flat_map(|package| ["--package", package]);
    let build = ["build", "--release", "--bins"].into_iter().chain(packages);
    process::run(workspace.cargo().args(build))?;
    let release = workspace.target_dir.join("release");
    let mut command = match args.what {
        What::Api { .. } => {
            let mut command = workspace.at_root(built(&release, "device-api-bench")?);
            command.arg("api").arg("--daemon");
            command.arg(release.join("device-api-server"));
            command.arg("--dir").arg(workspace.target_dir.join("bench"));
            command
        }
        What::Policy { .. } => workspace.at_root(built(&release, "device-api-policy-bench")?),
    };
    process::become_it(command.args(args.passed_on()))
}

fn built(release: &Path, bench: &str) -> Result<PathBuf> {
    let bench = release.join(bench);
    if !bench.is_file() {
        bail!(
            "{} was not built: unset build.target (CARGO_BUILD_TARGET), which moves it",
            bench.display()
        );
    }
    Ok(bench)
}
