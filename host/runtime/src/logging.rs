//! The log: text or JSON, to standard error.
//!
//! | level | means | who reads it |
//! | --- | --- | --- |
//! | error | something is broken and stays so until someone acts | whoever is on call |
//! | warn | degraded, but carrying on by itself | whoever looks after the node, next day |
//! | info | what changed: start, stop, a GPU's health, a policy loaded | the default |
//! | debug (`-v`) | each step: why something was done or left | whoever debugs |
//! | trace (`-vv`) | each signal, call and event | developers |
//!
//! What a policy writes has the level that it gives it. What libraries say is shown from warn on, from info on with `-vv`.

use std::ffi::OsString;
use std::io::{IsTerminal as _, Stderr};

use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields};
use tracing_subscriber::fmt::{Formatter, SubscriberBuilder};
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

use crate::config::LogConfig;
use crate::log_filter::{self, Directives, FILTER_VARIABLE, LogControl, Swap, WrongVariable};
use crate::values::LogFormat;

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    #[error(transparent)]
    Filter(WrongVariable),
    #[error("another log is already set up in this process")]
    Init(#[source] TryInitError),
}

/// Sets up the log of the process. Once. Gives what changes its filter.
///
/// # Errors
/// [`LogError::Filter`] is a mistake of the caller's environment.
pub(crate) fn init(
    config: LogConfig,
    environment: &dyn Fn(&str) -> Option<OsString>,
) -> Result<LogControl, LogError> {
    let Directives { text, filter } = directives(config, environment)?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr as fn() -> Stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let swap = match config.format {
        LogFormat::Text => start(log),
        LogFormat::Json => start(log.json().flatten_event(true).with_current_span(false)),
    }
    .map_err(LogError::Init)?;
    log_panics();
    Ok(LogControl::new(text, swap))
}

/// Whether there could be a log, without setting one up.
///
/// # Errors
/// [`LogError::Filter`]
pub(crate) fn check(
    config: LogConfig,
    environment: &dyn Fn(&str) -> Option<OsString>,
) -> Result<(), LogError> {
    directives(config, environment).map(drop)
}

fn directives(
    config: LogConfig,
    environment: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Directives, LogError> {
    log_filter::at_start(config.verbose, environment(FILTER_VARIABLE)).map_err(LogError::Filter)
}

fn start<N, E>(
    log: SubscriberBuilder<N, E, EnvFilter, fn() -> Stderr>,
) -> Result<Swap, TryInitError>
where
    N: for<'writer> FormatFields<'writer> + Send + Sync + 'static,
    E: FormatEvent<tracing_subscriber::Registry, N> + Send + Sync + 'static,
    Formatter<N, E, fn() -> Stderr>: Subscriber,
{
    let log = log.with_filter_reloading();
    let handle = log.reload_handle();
    log.finish().try_init()?;
    Ok(Box::new(move |filter| handle.reload(filter)))
}

/// A panic becomes a line of the log, so that a JSON log stays one.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let backtrace = std::backtrace::Backtrace::capture();
        let thread = std::thread::current()
            .name()
            .unwrap_or("unnamed")
            .to_owned();
        let message = panic.payload_as_str().unwrap_or("no message");
        let at = panic
            .location()
            .map(ToString::to_string)
            .unwrap_or_default();
        tracing::error!(thread, at, %backtrace, "panic: {message}; this is a bug, please report it");
    }));
}
