//! The composition root: reads the configuration, puts the rooms together, runs them and ends them.
//!
//! ```text
//!  configuration ─▶ log ─▶ runtime ─▶ admin ports bound ─▶ rooms started ─▶ ready ─▶ running
//!                                                                                      │ signal
//!                                       exit code ◀── admin ports closed ◀── drained ◀─┘
//! ```

mod admin;
mod args;
mod clock;
mod config;
mod config_api;
mod config_error;
mod file;
mod files;
mod layers;
mod limits;
mod log_filter;
mod logging;
mod metrics;
mod nvml_report;
mod operator;
mod policies;
mod readiness;
mod set_by;
mod shutdown;
mod socket_report;
mod state;
mod tls_report;
mod units;
mod values;
mod wiring;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use admin::Admin;
use config::{Config, ConfigError, Loaded};
use layers::LayerError;
use log_filter::LogControl;
use metrics::Metrics;
use readiness::Readiness;
use shutdown::{Drain, Hangups, Signals};

/// Failed while starting, running or draining.
const EXIT_FAILED: u8 = 1;
/// Wrong usage or configuration.
const EXIT_USAGE: u8 = 2;

/// Set by the chart: the node's name in its cluster.
const NODE_NAME: &str = "NODE_NAME";

/// How long threads that block (a hung NVML call) may hold up the end, after the drain.
const THREADS_END_MAX: Duration = Duration::from_secs(1);

/// Runs the daemon until it is told to stop. `--help` tells the exit codes.
pub fn main() -> ExitCode {
    let environment = |variable: &str| std::env::var_os(variable);
    let argv: Vec<_> = std::env::args_os().collect();
    if let Some(code) = policies::compiled(argv.get(1).map(AsRef::as_ref)) {
        return code;
    }
    let loaded = match config::load(&argv, &environment) {
        Ok(loaded) => loaded,
        Err(ConfigError::Layer(LayerError::Shown(text))) => return show(&text),
        Err(error) => return refuse(&error),
    };
    if loaded.check_only {
        return match logging::check(loaded.config.log, &environment) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => refuse(&error),
        };
    }
    let log = match logging::init(loaded.config.log, &environment) {
        Ok(log) => Arc::new(log),
        Err(error) => return refuse(&error),
    };
    match daemon(&loaded, &log) {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

/// `--help` or `--version`, for which nobody listening (a closed pipe) is no failure.
fn show(text: &clap::Error) -> ExitCode {
    let _closed = text.print();
    ExitCode::SUCCESS
}

/// One line: the log is not set up yet, and this is for whoever typed the command.
fn refuse(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("device-api-server: {error}");
    ExitCode::from(EXIT_USAGE)
}

fn daemon(loaded: &Loaded, log: &Arc<LogControl>) -> anyhow::Result<ExitCode> {
    let version = env!("CARGO_PKG_VERSION");
    // What collects logs from many nodes may not say of which a line is.
    let node = std::env::var(NODE_NAME).ok();
    tracing::info!(version, node, configuration = %loaded.effective, set_by = %loaded.origins, "starting");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name("runtime")
        .enable_all()
        .build()
        .context("cannot start the runtime; raise the limits of threads and open files")?;
    let result = runtime.block_on(serve(&loaded.config, log));
    runtime.shutdown_timeout(THREADS_END_MAX);
    result
}

async fn serve(config: &Config, log: &Arc<LogControl>) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::install().context("cannot handle SIGTERM and SIGINT")?;
    let mut hangups = Hangups::install().context("cannot handle SIGHUP")?;
    let metrics = Arc::new(Metrics::new().context("cannot set up metrics")?);
    let readiness = Readiness::default();
    let starting = readiness.latch("the daemon's start");

    let admin = Admin::bind(&config.admin).await?;
    tracing::info!(address = %admin.health_address, "serving /healthz and /readyz");
    tracing::info!(address = %admin.metrics_address, "serving /metrics");
    let _admin = admin.serve(readiness.clone(), metrics.clone());

    let mut running = tokio::select! {
        running = wiring::start(config, metrics, &readiness, log) => running?,
        asked = signals.next() => {
            tracing::info!(signal = %asked, "stopped before the start was over");
            return Ok(ExitCode::SUCCESS);
        }
    };
    drop(starting);
    tracing::info!("started");

    let failure = loop {
        tokio::select! {
            error = running.failed() => break Some(error),
            asked = signals.next() => {
                tracing::info!(signal = %asked, timeout = ?config.admin.shutdown_timeout, "draining");
                break None;
            }
            () = hangups.next() => running.reload(),
        }
    };
    readiness.drain();
    let drain = shutdown::drain(
        running.drain(),
        config.admin.shutdown_timeout,
        signals.next(),
    )
    .await;
    match failure {
        Some(error) => Err(error),
        None => Ok(end(drain)),
    }
}

fn end(drain: Drain) -> ExitCode {
    match drain {
        Drain::Drained => {
            tracing::info!("drained; good-bye");
            ExitCode::SUCCESS
        }
        Drain::TimedOut => {
            tracing::warn!(
                "calls under way did not end in time and were cut off; raise --shutdown-timeout if that matters"
            );
            ExitCode::from(EXIT_FAILED)
        }
        Drain::Aborted(asked) => {
            tracing::warn!(signal = %asked, "second signal: aborted without draining");
            ExitCode::from(EXIT_FAILED)
        }
    }
}
