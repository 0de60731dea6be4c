//! Whether NVML's events are waited for, and of whom they are not: for who asks, and so that each change is said once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use device_api_core::ids::DeviceUuid;

/// Waits that fail every now and then are one trouble: it has passed when none failed for so long.
const PASSED_AFTER: Duration = Duration::from_mins(1);

/// Different errors of one trouble that are said: more than NVML has for a wait.
const SAID_MAX: usize = 8;

#[derive(Debug, Default)]
struct State {
    /// Why there is nobody who waits.
    nobody: Option<String>,
    gpus: BTreeMap<DeviceUuid, Silence>,
}

/// Why there are no events of a GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Silence {
    /// It has none to wait for.
    HasNone,
    /// They can't be registered for just now.
    Failed(String),
}

/// Of the session that there is.
#[derive(Debug, Default)]
pub(crate) struct Hearing(Mutex<State>);

impl Hearing {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session begins, or ends: nothing is said of its events.
    pub(crate) fn forget(&self) {
        *self.lock() = State::default();
    }

    /// Nobody waits; whether that, or why, is news.
    pub(crate) fn nobody(&self, why: &str) -> bool {
        let before = self.lock().nobody.replace(why.to_owned());
        before.is_none_or(|before| before != why)
    }

    /// Somebody waits; whether that is news, as nobody did.
    pub(crate) fn somebody(&self) -> bool {
        self.lock().nobody.take().is_some()
    }

    /// There are no events of a GPU; whether that, or why, is news.
    pub(crate) fn silent(&self, uuid: &DeviceUuid, why: &Silence) -> bool {
        let before = self.lock().gpus.insert(uuid.clone(), why.clone());
        before.is_none_or(|before| before != *why)
    }

    /// Events of a GPU are registered for; whether that is news, as they were not.
    pub(crate) fn heard(&self, uuid: &DeviceUuid) -> bool {
        self.lock().gpus.remove(uuid).is_some()
    }

    /// Of a GPU that does not answer there are none either, and that is told elsewhere.
    pub(crate) fn keep(&self, is_live: impl Fn(&DeviceUuid) -> bool) {
        self.lock().gpus.retain(|uuid, _| is_live(uuid));
    }

    /// Whose events are not waited for though there may be some, and why; `None`: nobody's.
    pub(crate) fn missing(&self) -> Option<String> {
        let state = self.lock();
        if let Some(why) = &state.nobody {
            return Some(format!("no events: {why}"));
        }
        let failed = |(uuid, silence): (&DeviceUuid, &Silence)| match silence {
            Silence::HasNone => None,
            Silence::Failed(why) => Some(format!("no events of {uuid}: {why}")),
        };
        let failed: Vec<String> = state.gpus.iter().filter_map(failed).collect();
        (!failed.is_empty()).then(|| failed.join(", "))
    }
}

/// Waits that fail: what was said of them.
#[derive(Debug, Default)]
pub(crate) struct Failing {
    said: BTreeSet<String>,
    waits: u64,
    last: Option<Instant>,
}

impl Failing {
    /// A wait failed; whether that is to be said.
    pub(crate) fn failed(&mut self, why: &str, now: Instant) -> bool {
        self.waits += 1;
        self.last = Some(now);
        self.said.len() < SAID_MAX && self.said.insert(why.to_owned())
    }

    /// A wait did not fail; with how many that did the trouble is over, where it is.
    pub(crate) fn passed(&mut self, now: Instant) -> Option<u64> {
        let last = self.last?;
        let is_over = now.saturating_duration_since(last) >= PASSED_AFTER;
        is_over.then(|| std::mem::take(self).waits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_events_are_not_waited_for_is_told_and_changes_are_news() {
        let hearing = Hearing::default();
        let (one, other) = (DeviceUuid::new("GPU-1"), DeviceUuid::new("GPU-2"));
        assert_eq!(hearing.missing(), None);
        let failed = Silence::Failed("nvmlX answered UNKNOWN".to_owned());
        assert!(hearing.silent(&one, &failed) && !hearing.silent(&one, &failed));
        assert!(hearing.silent(&other, &Silence::HasNone));
        assert_eq!(
            hearing.missing().as_deref(),
            Some("no events of GPU-1: nvmlX answered UNKNOWN")
        );
        assert!(hearing.nobody("nvmlY answered UNKNOWN"));
        assert!(!hearing.nobody("nvmlY answered UNKNOWN"));
        assert_eq!(
            hearing.missing().as_deref(),
            Some("no events: nvmlY answered UNKNOWN")
        );
        assert!(hearing.somebody() && !hearing.somebody());
        assert!(hearing.heard(&one) && !hearing.heard(&one));
        assert_eq!(hearing.missing(), None, "who has none is not missed");
        assert!(hearing.silent(&one, &failed));
        hearing.keep(|uuid| *uuid != one);
        assert_eq!(hearing.missing(), None);
    }

    #[test]
    fn waits_that_fail_every_now_and_then_are_said_once() {
        let (mut failing, start) = (Failing::default(), Instant::now());
        assert_eq!(failing.passed(start), None);
        assert!(failing.failed("UNKNOWN", start));
        let mut now = start;
        for _ in 0..1_000 {
            now += Duration::from_secs(5);
            assert_eq!(failing.passed(now), None);
            assert!(!failing.failed("UNKNOWN", now));
        }
        assert!(failing.failed("GPU_IS_LOST", now));
        assert_eq!(failing.passed(now + PASSED_AFTER), Some(1_002));
        assert!(failing.failed("UNKNOWN", now + PASSED_AFTER));
        let others = (0..100).filter(|code| failing.failed(&code.to_string(), now));
        assert_eq!(others.count(), SAID_MAX - 1);
    }
}
