//! `cargo xtask`: everything a developer or CI runs, with nothing to install first but git, rustup
//! and a C compiler. One file a subcommand; `setup` is what they share.
//!
//! All narration goes to stderr, where cargo's own goes, so that the two stay in order and stdout
//! belongs to what is run.

mod bench;
mod demo;
mod e2e;
mod edges;
mod exit;
mod hardware_check;
mod lint;
mod process;
mod setup;
mod skipped;
mod soak;
mod test;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::exit::Failed;
use crate::workspace::Workspace;

/// Builds, tests, checks and shows device-api-server.
///
/// Needs git, rustup and a C compiler; each command does the rest of its set-up itself and skips
/// what is already there.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Test(test::Args),
    E2e(e2e::Args),
    Demo(demo::Args),
    Lint(lint::Args),
    Bench(bench::Args),
    Soak(soak::Args),
    HardwareCheck(hardware_check::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !Failed::is_said(&error) {
                eprintln!("xtask: {error:#}");
            }
            Failed::exit_code(&error)
        }
    }
}

fn run(command: &Command) -> anyhow::Result<()> {
    let workspace = Workspace::load()?;
    match command {
        Command::Test(args) => test::run(&workspace, args),
        Command::E2e(args) => e2e::run(&workspace, args),
        Command::Demo(args) => demo::run(&workspace, args),
        Command::Lint(args) => lint::run(&workspace, args),
        Command::Bench(args) => bench::run(&workspace, args),
        Command::Soak(args) => soak::run(&workspace, args),
        Command::HardwareCheck(args) => hardware_check::run(&workspace, args),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    /// clap checks the definition only when asked; an ambiguous flag would otherwise show at run time.
    #[test]
    fn command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn arguments_for_others_pass_untouched() {
        let cli = Cli::try_parse_from(["x", "test", "--", "-p", "a", "--", "--nocapture"]).unwrap();
        let Command::Test(args) = cli.command else {
            panic!("not test")
        };
        assert_eq!(args.cargo_args, ["-p", "a", "--", "--nocapture"]);

        let cli = Cli::try_parse_from(["x", "test", "-p", "a", "--", "--nocapture"]).unwrap();
        let Command::Test(args) = cli.command else {
            panic!("not test")
        };
        assert_eq!(args.cargo_args, ["-p", "a", "--", "--nocapture"]);

        let cli = Cli::try_parse_from(["x", "e2e", "upgrade", "--nocapture"]).unwrap();
        let Command::E2e(args) = cli.command else {
            panic!("not e2e")
        };
        assert_eq!(args.test_args, ["upgrade", "--nocapture"]);

        let cli = Cli::try_parse_from(["x", "demo", "--once", "--keep"]).unwrap();
        let Command::Demo(args) = cli.command else {
            panic!("not demo")
        };
        assert!(args.once);
        assert_eq!(args.demo_args, ["--keep"]);

        let cli =
            Cli::try_parse_from(["x", "bench", "api", "--peer", "unix:/p", "--quick"]).unwrap();
        let Command::Bench(args) = cli.command else {
            panic!("not bench")
        };
        assert_eq!(args.passed_on(), ["--peer", "unix:/p", "--quick"]);

        let cli = Cli::try_parse_from(["x", "bench", "policy", "--only", "storm"]).unwrap();
        let Command::Bench(args) = cli.command else {
            panic!("not bench")
        };
        assert_eq!(args.passed_on(), ["--only", "storm"]);
    }
}
