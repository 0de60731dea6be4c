//! What a guest writes to its standard output and error is in the log, within its limit.

use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use device_api_core::ports::Policy as _;
use tracing_subscriber::fmt::MakeWriter;

use crate::guests;
use crate::house::{answered, ask, try_load, xid};

/// What makes the guest write 300 lines to standard error at once.
const FLOOD: u64 = 1004;

/// The log of this test program: policies have threads of their own, so it is one for all tests.
struct Log;

static WRITTEN: Mutex<Vec<u8>> = Mutex::new(Vec::new());

fn written() -> MutexGuard<'static, Vec<u8>> {
    WRITTEN.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        written().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        Self
    }
}

pub(crate) fn capture() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let subscriber = tracing_subscriber::fmt()
            .with_writer(Log)
            .with_ansi(false)
            .finish();
        tracing::subscriber::set_global_default(subscriber).unwrap();
    });
}

/// Lines of a policy so far.
pub(crate) fn lines_of(policy: &str) -> Vec<String> {
    let of_policy = format!("policy=\"{policy}\"");
    let text = String::from_utf8(written().clone()).unwrap();
    let lines = text.lines().filter(|line| line.contains(&of_policy));
    lines.map(str::to_owned).collect()
}

#[track_caller]
pub(crate) fn has_logged(policy: &str, level: &str, words: &str) {
    let lines = lines_of(policy);
    let is_it =
        |line: &String| line.contains(&format!(" {level} policy: ")) && line.contains(words);
    assert!(lines.iter().any(is_it), "{words:?} is not in {lines:#?}");
}

#[test]
fn h2_a_flood_on_standard_error_is_limited_and_counted() {
    let policy = try_load(&guests::source(&guests::wasip2())).unwrap();
    assert_eq!(&*policy.info().id.name, "wasi-p2");
    answered(ask(&policy, xid(FLOOD)));
    let suppressed = policy.counters().log_lines_suppressed;
    // 50 at once and 20 a second; unoptimised, the flood takes no more than some seconds.
    assert!((150..=250).contains(&suppressed), "{suppressed}");
    has_logged("wasi-p2", "WARN", "line 0 of a flood");
}
