//! What the source counts; the runtime makes metrics of it.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters since the start of the source, over all sessions.
#[derive(Debug, Default)]
pub struct Counters {
    pub(crate) events: AtomicU64,
    pub(crate) ignored_xids: AtomicU64,
    pub(crate) unattributed_events: AtomicU64,
    pub(crate) failed_waits: AtomicU64,
    pub(crate) failed_calls: AtomicU64,
    pub(crate) polls: AtomicU64,
    pub(crate) sessions: AtomicU64,
    pub(crate) hung_calls: AtomicU64,
    pub(crate) recoveries: AtomicU64,
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events that NVML handed over, of whatever type.
    pub events: u64,
    /// XIDs dropped because configuration ignores them.
    pub ignored_xids: u64,
    /// Events of a device that could not be named.
    pub unattributed_events: u64,
    /// Waits for events that failed otherwise than by timing out.
    pub failed_waits: u64,
    /// Readings that failed, other than for not being supported.
    pub failed_calls: u64,
    /// Rounds of readings over all GPUs.
    pub polls: u64,
    /// Times that the library was opened.
    pub sessions: u64,
    /// Calls that passed the watchdog's bound.
    pub hung_calls: u64,
    /// Resets, driver rebinds and replacements that were noticed.
    pub recoveries: u64,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub fn get(&self) -> Counts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            events: get(&self.events),
            ignored_xids: get(&self.ignored_xids),
            unattributed_events: get(&self.unattributed_events),
            failed_waits: get(&self.failed_waits),
            failed_calls: get(&self.failed_calls),
            polls: get(&self.polls),
            sessions: get(&self.sessions),
            hung_calls: get(&self.hung_calls),
            recoveries: get(&self.recoveries),
        }
    }
}
