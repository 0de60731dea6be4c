//! Which lines the log takes: what a filter means, and another one while the daemon runs.
//!
//! ```text
//!  at start ──set──▶ set ──reset, or its time is over──▶ at start
//!             ◀─set─┘
//! ```
//!
//! **Invariant:** nobody turns the audit log off over the API. What the daemon was started with says what is in
//! it, always by a directive that names it, which each filter keeps; a filter that names it is refused.

use std::ffi::OsString;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use device_api_core::clock::{WallTime, system_wall_time};
use device_api_core::daemon::{LogChange, LogFilter};
use device_api_core::error::ApiError;
use tokio::task::AbortHandle;
use tracing_subscriber::EnvFilter;

/// Variable with a filter in the syntax that Rust programs share; `-v` beats it.
pub(crate) const FILTER_VARIABLE: &str = "RUST_LOG";

/// Target of the audit log.
const AUDIT: &str = "audit";

/// It is there whatever else is asked for; only a filter that the daemon is started with may say otherwise.
const AUDIT_KEPT: &str = "audit=info";

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
/// The same, as the library takes them besides.
const LEVELS_BY_NUMBER: [&str; 6] = ["0", "1", "2", "3", "4", "5"];

/// What the daemon was started with can't be read.
#[derive(Debug, thiserror::Error)]
#[error(
    "invalid filter {value:?} in {FILTER_VARIABLE}: {why}; expected as in info,device_api_nvml=debug"
)]
pub(crate) struct WrongVariable {
    value: String,
    why: String,
}

/// Directives that were read: what they are, and as the log takes them.
#[derive(Debug)]
pub(crate) struct Directives {
    pub(crate) text: String,
    pub(crate) filter: EnvFilter,
}

/// Of the command line and the environment.
///
/// # Errors
/// The variable is none.
pub(crate) fn at_start(
    verbose: u8,
    variable: Option<OsString>,
) -> Result<Directives, WrongVariable> {
    let value = variable.filter(|_| verbose == 0).unwrap_or_default();
    let value = value.to_string_lossy().into_owned();
    let mut directives: Vec<&str> = directives_of(&value).filter(|it| !it.is_empty()).collect();
    if directives.is_empty() {
        let text = of_verbosity(verbose).to_owned();
        let filter = EnvFilter::new(&text);
        return Ok(Directives { text, filter });
    }
    let checked = directives.iter().try_for_each(|it| check_words(it));
    if !directives.iter().any(|it| is_of_audit(it)) {
        directives.push(AUDIT_KEPT);
    }
    let text = directives.join(",");
    let parsed =
        checked.and_then(|()| EnvFilter::try_new(&text).map_err(|error| error.to_string()));
    match parsed {
        Ok(filter) => Ok(Directives { text, filter }),
        Err(why) => Err(WrongVariable { value, why }),
    }
}

/// Our crates' names all begin with `device_api`; what policies write is under `policy`.
fn of_verbosity(verbose: u8) -> &'static str {
    match verbose {
        0 => "warn,audit=info,policy=info,device_api=info",
        1 => "warn,audit=info,policy=debug,device_api=debug",
        _ => "info,audit=info,policy=debug,device_api=trace",
    }
}

/// Whether a directive says of the whole audit log what is in it. One for a span or a field
/// (`audit[{identity}]=trace`) says nothing of the lines without.
fn is_of_audit(directive: &str) -> bool {
    names_audit(directive) && !directive.contains('[')
}

/// Whether a directive has to do with the audit log, as `audit=off` has.
fn names_audit(directive: &str) -> bool {
    let end = directive.find(['=', '[']).unwrap_or(directive.len());
    directive
        .get(..end)
        .is_some_and(|target| target.trim() == AUDIT)
}

/// What an operator asked for; `audit`: the directives of the audit log, which stay.
///
/// # Errors
/// Why it is no filter, and what is one.
fn asked(text: &str, audit: &str) -> Result<Directives, String> {
    const EXPECTED: &str = "expected a level (off, error, warn, info, debug, trace), or a filter as in info,device_api_nvml=debug";
    let level = LEVELS
        .iter()
        .find(|level| text.trim().eq_ignore_ascii_case(level));
    let text = match level {
        Some(level) => of_level(level),
        None => {
            directives_of(text).try_for_each(check)?;
            directives_of(text).collect::<Vec<_>>().join(",")
        }
    };
    let text = [&*text, audit].join(",").trim_end_matches(',').to_owned();
    // What a field's value is matched with is no regular expression: that may cost what it likes.
    let parsed = EnvFilter::builder().with_regex(false).parse(&text);
    match parsed {
        Ok(filter) => Ok(Directives { text, filter }),
        Err(error) => Err(format!("{error}; {EXPECTED}")),
    }
}

/// A level alone is for the daemon and its policies. Of libraries no more is told than their warnings, but for
/// `trace`, with which they tell what `-vv` has them tell.
fn of_level(level: &str) -> String {
    let libraries = match level {
        "info" | "debug" => "warn",
        "trace" => "info",
        quieter => quieter,
    };
    format!("{libraries},policy={level},device_api={level}")
}

fn check(directive: &str) -> Result<(), String> {
    if directive.is_empty() {
        return Err("an empty directive; is there a comma too many?".to_owned());
    }
    if names_audit(directive) {
        return Err(format!(
            "{directive:?}: the audit log is not turned on or off here; {FILTER_VARIABLE} of the daemon's start says what is in it"
        ));
    }
    check_words(directive)
}

/// To the library white space is part of a name.
fn directives_of(filter: &str) -> impl Iterator<Item = &str> {
    filter.split(',').map(str::trim)
}

/// To the library a word alone is a target that is to tell everything, which of a mistyped level is the opposite: of
/// `dbug`, which nothing is called, there would be no line at all. So it is a level, or a target of ours.
fn check_words(directive: &str) -> Result<(), String> {
    let end = directive.find('[').unwrap_or(directive.len());
    if directive
        .get(..end)
        .is_some_and(|it| it.contains(char::is_whitespace))
    {
        return Err(format!("{directive:?}: white space within a directive"));
    }
    let is_word = !directive.contains(['=', '[']);
    let levels = LEVELS.into_iter().chain(LEVELS_BY_NUMBER);
    let is_level = levels
        .into_iter()
        .any(|level| directive.eq_ignore_ascii_case(level));
    let is_ours = directive == "policy" || directive.starts_with("device_api");
    if is_word && !is_level && !is_ours {
        return Err(format!(
            "{directive:?} is no level; expected one of {}, or TARGET=LEVEL, as in info,device_api_nvml=debug",
            LEVELS.join(", ")
        ));
    }
    Ok(())
}

/// Puts another filter in the place of the one in force.
pub(crate) type Swap =
    Box<dyn Fn(EnvFilter) -> Result<(), tracing_subscriber::reload::Error> + Send + Sync>;

/// The filter in force.
pub(crate) struct LogControl {
    swap: Swap,
    at_start: String,
    /// The directives of the audit log, as they were at the start.
    audit: String,
    now: Mutex<Now>,
}

#[derive(Debug, Default)]
struct Now {
    /// `None`: as at the start.
    set: Option<Set>,
    /// How often it was set: what is to end one ends no later one.
    times: u64,
}

/// What was set.
#[derive(Debug)]
struct Set {
    text: String,
    until: Option<WallTime>,
    /// What ends it.
    end: Option<AbortHandle>,
}

impl Drop for Set {
    fn drop(&mut self) {
        if let Some(end) = &self.end {
            end.abort();
        }
    }
}

impl fmt::Debug for LogControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogControl")
            .field("at_start", &self.at_start)
            .field("now", &self.now)
            .finish_non_exhaustive()
    }
}

impl LogControl {
    pub(crate) fn new(at_start: String, swap: Swap) -> Self {
        let audit = at_start.split(',').filter(|part| names_audit(part));
        let audit = audit.collect::<Vec<_>>().join(",");
        Self {
            swap,
            at_start,
            audit,
            now: Mutex::default(),
        }
    }

    pub(crate) fn shown(&self) -> LogFilter {
        self.show(&self.lock())
    }

    /// To be called on the runtime: the end of the time is a task of it.
    pub(crate) fn set(self: &Arc<Self>, change: &LogChange) -> Result<LogFilter, ApiError> {
        let Directives { text, filter } =
            asked(&change.filter, &self.audit).map_err(|why| ApiError::Invalid {
                field: "filter",
                why,
            })?;
        let mut now = self.lock();
        self.put(filter)?;
        now.times += 1;
        let times = now.times;
        // The one before it is dropped, and its end with it.
        now.set = Some(Set {
            until: change.ttl.map(|ttl| after(system_wall_time(), ttl)),
            end: change.ttl.map(|ttl| self.end_after(ttl, times)),
            text,
        });
        Ok(self.show(&now))
    }

    pub(crate) fn reset(&self) -> Result<LogFilter, ApiError> {
        let mut now = self.lock();
        self.put(EnvFilter::new(&self.at_start))?;
        now.set = None;
        Ok(self.show(&now))
    }

    fn end_after(self: &Arc<Self>, ttl: Duration, times: u64) -> AbortHandle {
        let control = Arc::downgrade(self);
        let end = tokio::spawn(async move {
            tokio::time::sleep(ttl).await;
            if let Some(control) = control.upgrade() {
                control.end(times);
            }
        });
        end.abort_handle()
    }

    /// The time is over. Where another filter was set in this moment, that one is left alone.
    fn end(&self, times: u64) {
        let mut now = self.lock();
        if now.set.is_none() || now.times != times {
            return;
        }
        match self.put(EnvFilter::new(&self.at_start)) {
            Ok(()) => {
                now.set = None;
                tracing::info!(filter = self.at_start, "the log is as at the start again");
            }
            Err(error) => tracing::error!(%error, "the log can't be set back; restart the daemon"),
        }
    }

    fn put(&self, filter: EnvFilter) -> Result<(), ApiError> {
        (self.swap)(filter).map_err(|error| ApiError::Unavailable {
            why: format!("the log can't be set: {error}"),
        })
    }

    fn show(&self, now: &Now) -> LogFilter {
        let set = now.set.as_ref();
        LogFilter {
            filter: set.map_or(&self.at_start, |set| &set.text).clone(),
            at_start: self.at_start.clone(),
            is_set: set.is_some(),
            until: set.and_then(|set| set.until),
        }
    }

    /// Each critical section leaves it whole, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn after(at: WallTime, ttl: Duration) -> WallTime {
    let ns = u64::try_from(ttl.as_nanos()).unwrap_or(u64::MAX);
    WallTime {
        unix_ns: at.unix_ns.saturating_add(ns),
    }
}

#[cfg(test)]
#[path = "log_filter_tests.rs"]
mod tests;
