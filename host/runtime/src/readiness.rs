//! Whether the daemon is ready, and how its parts are.
//!
//! Ready is when nothing holds it up any more: each part that must come first holds a [`Latch`] and
//! drops it when it is there. What may be missing (NVML) is no latch but a [`Component`], which is
//! told of and holds nothing up. Once draining began, the daemon is not ready again.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) use device_api_core::daemon::{Part, PartState};

/// The whole, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) ready: bool,
    pub(crate) draining: bool,
    /// What is still waited for, in the order it was announced.
    pub(crate) waiting: Vec<&'static str>,
    pub(crate) components: Vec<Part>,
}

/// Asks a component that does not report by itself.
type Ask = Box<dyn Fn() -> (PartState, String) + Send>;

#[derive(Default)]
struct State {
    draining: bool,
    next_latch: u64,
    latches: Vec<(u64, &'static str)>,
    components: Vec<Part>,
    asked: Vec<(&'static str, Ask)>,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("draining", &self.draining)
            .field("latches", &self.latches)
            .field("components", &self.components)
            .finish_non_exhaustive()
    }
}

/// Shared by those who hold things up, those who report and those who ask.
#[derive(Clone, Debug, Default)]
pub(crate) struct Readiness {
    state: Arc<Mutex<State>>,
}

/// Holds readiness up until it is dropped.
#[derive(Debug)]
#[must_use = "a latch that is dropped at once holds nothing up"]
pub(crate) struct Latch {
    id: u64,
    readiness: Readiness,
}

/// Reports of one part of the daemon.
#[derive(Clone, Debug)]
pub(crate) struct Component {
    name: &'static str,
    readiness: Readiness,
}

impl Readiness {
    /// Holds readiness up for `what`. Take the first before anyone can ask.
    pub(crate) fn latch(&self, what: &'static str) -> Latch {
        let mut state = self.lock();
        let id = state.next_latch;
        state.next_latch += 1;
        state.latches.push((id, what));
        Latch {
            id,
            readiness: self.clone(),
        }
    }

    /// A component by its name; it is told of once it has reported.
    pub(crate) fn component(&self, name: &'static str) -> Component {
        Component {
            name,
            readiness: self.clone(),
        }
    }

    /// A component that is asked whenever someone wants a report. `ask` must be quick, and must not
    /// ask the readiness itself.
    pub(crate) fn asked(
        &self,
        name: &'static str,
        ask: impl Fn() -> (PartState, String) + Send + 'static,
    ) {
        self.lock().asked.push((name, Box::new(ask)));
    }

    /// From now on the daemon is not ready, whatever else happens.
    pub(crate) fn drain(&self) {
        self.lock().draining = true;
    }

    pub(crate) fn report(&self) -> Report {
        let state = self.lock();
        let asked = state.asked.iter().map(|(name, ask)| {
            let (state, detail) = ask();
            Part {
                name,
                state,
                detail,
            }
        });
        Report {
            ready: state.latches.is_empty() && !state.draining,
            draining: state.draining,
            waiting: state.latches.iter().map(|(_, what)| *what).collect(),
            components: state.components.iter().cloned().chain(asked).collect(),
        }
    }

    /// Each critical section leaves the state whole, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Component {
    pub(crate) fn report(&self, state: PartState, detail: impl Into<String>) {
        let reported = Part {
            name: self.name,
            state,
            detail: detail.into(),
        };
        let components = &mut self.readiness.lock().components;
        match components
            .iter_mut()
            .find(|component| component.name == self.name)
        {
            Some(component) => *component = reported,
            None => components.push(reported),
        }
    }
}

impl Drop for Latch {
    fn drop(&mut self) {
        self.readiness
            .lock()
            .latches
            .retain(|(id, _)| *id != self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_all_latches_are_dropped_and_never_while_draining() {
        let readiness = Readiness::default();
        let first = readiness.latch("policies loaded");
        let second = readiness.latch("first look at the GPUs");
        assert_eq!(
            readiness.report().waiting,
            ["policies loaded", "first look at the GPUs"]
        );
        drop(first);
        assert!(!readiness.report().ready);
        drop(second);
        assert!(readiness.report().ready);
        readiness.drain();
        let report = readiness.report();
        assert!(!report.ready && report.draining && report.waiting.is_empty());
    }

    #[test]
    fn two_latches_of_one_name_are_two() {
        let readiness = Readiness::default();
        let (first, second) = (readiness.latch("a socket"), readiness.latch("a socket"));
        drop(second);
        assert!(!readiness.report().ready);
        drop(first);
        assert!(readiness.report().ready);
    }

    #[test]
    fn a_degraded_component_holds_nothing_up_and_its_last_word_counts() {
        let readiness = Readiness::default();
        let nvml = readiness.component("nvml");
        assert!(readiness.report().components.is_empty());
        nvml.report(PartState::Degraded, "no library");
        nvml.clone().report(PartState::Up, "8 GPUs");
        let report = readiness.report();
        assert!(report.ready);
        let expected = Part {
            name: "nvml",
            state: PartState::Up,
            detail: "8 GPUs".to_owned(),
        };
        assert_eq!(report.components, std::slice::from_ref(&expected));

        readiness.asked("kmsg", || (PartState::Degraded, "no such file".to_owned()));
        let kmsg = Part {
            name: "kmsg",
            state: PartState::Degraded,
            detail: "no such file".to_owned(),
        };
        assert_eq!(readiness.report().components, [expected, kmsg]);
    }
}
