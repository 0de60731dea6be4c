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
use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::config::LogConfig;
use crate::values::LogFormat;

/// Variable with a filter in the syntax that Rust programs share; `-v` beats it.
const FILTER_VARIABLE: &str = "RUST_LOG";

/// The audit log is there whatever else is asked for; a filter that means it has to name it.
const AUDIT: &str = "audit=info";

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    #[error(
        "invalid filter {value:?} in {FILTER_VARIABLE}: {why}; expected as in info,device_api_nvml=debug"
    )]
    Filter { value: String, why: String },
    #[error("another log is already set up in this process")]
    Init(#[source] TryInitError),
}

/// Sets up the log of the process. Once.
///
/// # Errors
/// [`LogError::Filter`] is a mistake of the caller's environment.
pub(crate) fn init(
    config: LogConfig,
    environment: &dyn Fn(&str) -> Option<OsString>,
) -> Result<(), LogError> {
    let filter = filter(config.verbose, environment(FILTER_VARIABLE))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let started = match config.format {
        LogFormat::Text => log.finish().try_init(),
        LogFormat::Json => log
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .finish()
            .try_init(),
    };
    started.map_err(LogError::Init)?;
    log_panics();
    Ok(())
}

fn filter(verbose: u8, variable: Option<OsString>) -> Result<EnvFilter, LogError> {
    let from_environment = variable.filter(|value| verbose == 0 && !value.is_empty());
    let Some(value) = from_environment else {
        return Ok(EnvFilter::new(directives(verbose)));
    };
    let value = value.to_string_lossy().into_owned();
    let directives = if names_audit(&value) {
        value.clone()
    } else {
        format!("{value},{AUDIT}")
    };
    EnvFilter::try_new(directives).map_err(|error| LogError::Filter {
        value,
        why: error.to_string(),
    })
}

/// Whether a filter has a directive for the audit log, as in `audit=off`.
fn names_audit(filter: &str) -> bool {
    let mut targets = filter.split(',').map(|directive| {
        let end = directive.find(['=', '[']).unwrap_or(directive.len());
        directive.get(..end).unwrap_or_default()
    });
    targets.any(|target| target == "audit")
}

/// Our crates' names all begin with `device_api`; what policies write is under `policy`.
fn directives(verbose: u8) -> &'static str {
    match verbose {
        0 => "warn,audit=info,policy=info,device_api=info",
        1 => "warn,audit=info,policy=debug,device_api=debug",
        _ => "info,policy=debug,device_api=trace",
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbosity_beats_the_variable_and_a_wrong_variable_is_refused() {
        let text = |verbose, variable: Option<&str>| {
            filter(verbose, variable.map(OsString::from)).map(|f| f.to_string())
        };
        assert_eq!(
            text(0, None).expect("valid"),
            EnvFilter::new("warn,audit=info,policy=info,device_api=info").to_string()
        );
        assert_eq!(
            text(0, Some("")).expect("valid"),
            EnvFilter::new("warn,audit=info,policy=info,device_api=info").to_string()
        );
        assert_eq!(
            text(1, Some("error")).expect("valid"),
            EnvFilter::new("warn,audit=info,policy=debug,device_api=debug").to_string()
        );
        assert_eq!(
            text(9, None).expect("valid"),
            EnvFilter::new("info,policy=debug,device_api=trace").to_string()
        );
        let error = text(0, Some("device_api=loud"))
            .expect_err("refused")
            .to_string();
        assert!(
            error.contains("RUST_LOG") && error.contains("device_api=loud"),
            "{error}"
        );
    }
    #[test]
    fn the_audit_log_is_silenced_by_its_name_alone() {
        #[track_caller]
        fn check(variable: &str, expected: &str) {
            let filter = filter(0, Some(variable.into())).expect("valid");
            assert_eq!(
                filter.to_string(),
                EnvFilter::new(expected).to_string(),
                "{variable}"
            );
        }
        check("trace", "trace,audit=info");
        check("error", "error,audit=info");
        check("off", "off,audit=info");
        check("warn,auditor=error", "warn,auditor=error,audit=info");
        check("audit=off", "audit=off");
        check("error,audit=warn", "error,audit=warn");
        check(
            "error,audit[{identity}]=trace",
            "error,audit[{identity}]=trace",
        );
    }
}
