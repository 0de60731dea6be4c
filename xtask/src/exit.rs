//! The exit code of what we ran becomes ours.

use std::fmt;
use std::process::{ExitCode, ExitStatus};

/// A child ended with something other than 0.
#[derive(Debug)]
pub(crate) struct Failed {
    what: String,
    status: ExitStatus,
    is_said: bool,
}

impl Failed {
    pub(crate) fn new(what: impl Into<String>, status: ExitStatus) -> Self {
        Self {
            what: what.into(),
            status,
            is_said: false,
        }
    }

    /// Of a child whose own closing lines say it: they are to be the last.
    pub(crate) fn said(what: impl Into<String>, status: ExitStatus) -> Self {
        Self {
            is_said: true,
            ..Self::new(what, status)
        }
    }

    /// Whether `error` is such a one.
    pub(crate) fn is_said(error: &anyhow::Error) -> bool {
        let failed = error.downcast_ref::<Self>();
        failed.is_some_and(|failed| failed.is_said)
    }

    /// The child's code where `error` holds one (128 + n for signal n, as a shell says it), else 1.
    pub(crate) fn exit_code(error: &anyhow::Error) -> ExitCode {
        error
            .chain()
            .find_map(|cause| cause.downcast_ref::<Self>())
            .map_or(ExitCode::FAILURE, |failed| {
                ExitCode::from(code(failed.status))
            })
    }
}

fn code(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt;
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    // 0 can't be: a success is never a `Failed`.
    code.and_then(|code| u8::try_from(code).ok())
        .filter(|code| *code != 0)
        .unwrap_or(1)
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} failed ({})", self.what, self.status)
    }
}

impl std::error::Error for Failed {}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;
    use std::os::unix::process::ExitStatusExt as _;

    #[track_caller]
    fn check(wait_status: i32, expected: u8) {
        assert_eq!(code(ExitStatus::from_raw(wait_status)), expected);
    }

    #[test]
    fn codes_and_signals_propagate() {
        check(101 << 8, 101);
        check(1 << 8, 1);
        check(2, 130); // SIGINT
        check(15, 143); // SIGTERM
    }

    #[test]
    fn what_a_child_has_said_is_not_said_again() {
        let status = ExitStatus::from_raw(101 << 8);
        let said = anyhow::Error::from(Failed::said("cargo test", status));
        assert!(Failed::is_said(&said));
        assert_eq!(Failed::exit_code(&said), ExitCode::from(101));
        assert!(!Failed::is_said(&Failed::new("cargo", status).into()));
        assert!(!Failed::is_said(&anyhow::anyhow!("other")));
    }

    #[test]
    fn code_is_found_under_context() {
        let failed = Failed::new("cargo build", ExitStatus::from_raw(101 << 8));
        let error = Err::<(), _>(failed).context("building").unwrap_err();
        assert_eq!(Failed::exit_code(&error), ExitCode::from(101));
        assert_eq!(
            Failed::exit_code(&anyhow::anyhow!("other")),
            ExitCode::FAILURE
        );
    }
}
