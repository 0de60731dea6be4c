//! `nvml-sim`: breaks the GPUs of a running simulation.

use std::process::ExitCode;

mod cli;

fn main() -> ExitCode {
    cli::run()
}
