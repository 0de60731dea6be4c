//! The log as tests see it: what this thread wrote.
//!
//! One for the whole process, there before the first pipeline is: `tracing` keeps by call site whether anybody
//! listens, and asks no more.

use std::cell::RefCell;
use std::fmt::Debug;
use std::sync::Once;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// What was said, and whether it is marked as a drill's.
type Lines = Vec<(String, Option<bool>)>;

thread_local! {
    static LINES: RefCell<Option<Lines>> = const { RefCell::new(None) };
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
}

impl Visit for Line {
    fn record_bool(&mut self, field: &Field, value: bool) {
        if field.name() == "drill" {
            self.drill = Some(value);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
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
        LINES.with_borrow_mut(|lines| {
            if let Some(lines) = lines {
                lines.push((line.message, line.drill));
            }
        });
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
