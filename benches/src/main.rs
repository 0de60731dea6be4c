//! Measures the daemon from outside, as its clients meet it. `cargo xtask bench` builds and runs it;
//! docs/benchmarks.md tells how it is measured and how to read it.
//!
//! ```text
//!  this process                            processes of their own
//!  clients ── reads, writes, watches ──▶   device-api-server   (ours)
//!          ── the same ────────────────▶   bare                (tonic, ready bytes, no logic)
//!          ── the same, on demand ─────▶   any upstream server (peer)
//! ```

mod api;
mod bare;
mod beside;
mod dialect;
mod faults;
mod footprint;
mod lane;
mod load;
mod plan;
mod process;
mod raw;
mod reads;
mod watchers;
mod watches;
mod writes;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

/// Measures device-api-server from outside.
#[derive(Debug, Parser)]
#[command(name = "device-api-bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Api(api::Args),
    /// The server that the daemon is held against; started by the benchmark itself.
    #[command(hide = true)]
    Bare {
        socket: PathBuf,
    },
}

fn main() -> ExitCode {
    match run(&Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("device-api-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// On a runtime of the daemon's settings, for the bare server as for the clients.
fn run(command: &Command) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name("runtime")
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match command {
            // Dropped when asked to end, and with it the servers that were started.
            Command::Api(args) => tokio::select! {
                done = api::run(args) => done,
                asked = asked_to_end() => bail!("ended by {}", asked?),
            },
            Command::Bare { socket } => bare::serve(socket).await,
        }
    })
}

async fn asked_to_end() -> anyhow::Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    })
}
