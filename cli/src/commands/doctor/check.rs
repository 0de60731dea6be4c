//! What a check found: in one line what is, in another what to do.

use serde::Serialize;

/// How it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    Ok,
    /// It works, and someone should look at it all the same.
    Warn,
    /// Something does not work until someone acts.
    Fail,
    /// It could not be looked at, or there is nothing to look at.
    Skipped,
}

impl State {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
            Self::Skipped => "skipped",
        }
    }
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Check {
    /// The same in every version; docs/devicectl.md has them all.
    pub(super) id: &'static str,
    pub(super) state: State,
    pub(super) why: String,
    /// Empty where there is nothing to do.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) fix: String,
}

impl Check {
    pub(super) fn ok(id: &'static str, why: impl Into<String>) -> Self {
        Self::new(id, State::Ok, why.into(), String::new())
    }

    pub(super) fn skipped(id: &'static str, why: impl Into<String>) -> Self {
        Self::new(id, State::Skipped, why.into(), String::new())
    }

    pub(super) fn warn(id: &'static str, why: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(id, State::Warn, why.into(), fix.into())
    }

    pub(super) fn fail(id: &'static str, why: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(id, State::Fail, why.into(), fix.into())
    }

    fn new(id: &'static str, state: State, why: String, fix: String) -> Self {
        Self {
            id,
            state,
            why,
            fix,
        }
    }
}
