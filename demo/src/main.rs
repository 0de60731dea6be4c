//! The main job, narrated: a daemon over a simulated 8 × H100 node, faults, and what consumers see.
//! `cargo xtask demo` sets everything up and runs it.

mod kernel_log;
mod narrator;
mod story;

use std::process::ExitCode;

use clap::Parser;

/// Shows the daemon at work over a simulated node, step by step.
#[derive(Debug, Parser)]
#[command(name = "demo", version)]
struct Args {
    /// Check every outcome and end: 0 if all were right, else 1, naming the one that failed.
    #[arg(long)]
    once: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    match story::tell(args.once).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            narrator::failed(&failure);
            ExitCode::FAILURE
        }
    }
}
