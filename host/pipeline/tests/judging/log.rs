//! The log as tests see it: what this thread wrote, and what any wrote about a policy.
//!
//! One for the whole process, there before the first pipeline is: `tracing` keeps by call site whether anybody
//! listens, and asks no more.

use std::cell::RefCell;
use std::fmt::Debug;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// What was said, and whether it is marked as a drill's.
type Lines = Vec<(String, Option<bool>)>;

thread_local! {
    static LINES: RefCell<Option<Lines>> = const { RefCell::new(None) };
}

/// A line about a policy.
#[derive(Clone, Debug)]
pub(crate) struct OfPolicy {
    policy: String,
    /// How many it says were left out.
    pub(crate) suppressed: u64,
}

static OF_POLICIES: Mutex<Vec<OfPolicy>> = Mutex::new(Vec::new());

fn of_policies() -> MutexGuard<'static, Vec<OfPolicy>> {
    OF_POLICIES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The lines about a policy so far, from all threads: timers have one of their own.
pub(crate) fn of_policy(name: &str) -> Vec<OfPolicy> {
    let lines = of_policies();
    let lines = lines.iter().filter(|line| line.policy == name);
    lines.cloned().collect()
}

/// Listens from now on.
pub(crate) fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        tracing::subscriber::set_global_default(Log).expect("nobody else listens");
    });
}

/// What is written while `f` runs, on this thread.
pub(crate) fn lines(f: impl FnOnce()) -> Lines {
    LINES.set(Some(Vec::new()));
    f();
    LINES.take().unwrap_or_default()
}

struct Log;

#[derive(Default)]
struct Line {
    message: String,
    drill: Option<bool>,
    policy: Option<String>,
    suppressed: u64,
}

impl Visit for Line {
    fn record_bool(&mut self, field: &Field, value: bool) {
        if field.name() == "drill" {
            self.drill = Some(value);
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "suppressed" {
            self.suppressed = value;
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            "policy" => self.policy = Some(format!("{value:?}")),
            _ => {}
        }
    }
}

impl Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        if let Some(policy) = line.policy {
            let suppressed = line.suppressed;
            of_policies().push(OfPolicy { policy, suppressed });
        }
        LINES.with_borrow_mut(|lines| {
            if let Some(lines) = lines {
                lines.push((line.message, line.drill));
            }
        });
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
