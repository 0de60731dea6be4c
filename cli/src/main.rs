//! `devicectl`: what the GPUs of this node are, how they are, and why.

mod args;
mod client;
mod commands;
mod failure;
mod hardware;
mod output;
mod policy_view;
mod remedy;
mod table;
mod text;
mod view;
mod words;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use crate::args::Args;
use crate::failure::Failure;

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has seen enough (`devicectl watch | head -1`).
        Err(failure) if failure.is_broken_pipe() => ExitCode::SUCCESS,
        Err(failure) => {
            // Where even stderr is gone there is nobody to tell.
            let _ = writeln!(
                std::io::stderr(),
                "devicectl: {}",
                text::escape(&failure.to_string())
            );
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run(args: &Args) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::Runtime)?;
    runtime.block_on(commands::run(args))
}
