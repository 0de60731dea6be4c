//! What is counted for each policy, across its instances, and how much it may say.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use device_api_core::policy::FailureKind;

/// Lines a policy may log: this many at once, and one more each interval (20 a second). A storm of
/// signals must not become a storm in the log; what is left out is counted.
const LOG_BURST: u32 = 50;
const LOG_INTERVAL: Duration = Duration::from_millis(50);

/// What happened to one policy since it was loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PolicyCounters {
    pub calls: u64,
    /// In the order of [`FailureKind::ALL`].
    pub failures: [u64; FailureKind::ALL.len()],
    /// Instances started; the first at load.
    pub instances: u64,
    /// The most linear memory that an instance had after a call, in bytes.
    pub memory_bytes_peak: u64,
    /// Wall time of all calls together, in microseconds.
    pub busy_micros: u64,
    pub log_lines_suppressed: u64,
    /// Words of the guest that this host does not know: actions, clears, kinds.
    pub unknown_words: u64,
}

#[derive(Default)]
pub(crate) struct Telemetry {
    /// File name or `bundled`; stands for the name until the policy has said it.
    origin: String,
    name: OnceLock<String>,
    calls: AtomicU64,
    failures: [AtomicU64; FailureKind::ALL.len()],
    instances: AtomicU64,
    memory_bytes_peak: AtomicU64,
    busy_micros: AtomicU64,
    log_lines_suppressed: AtomicU64,
    unknown_words: AtomicU64,
    lines: Mutex<LineBudget>,
}

impl Telemetry {
    pub(crate) fn new(origin: &str) -> Self {
        Self {
            origin: origin.to_owned(),
            ..Self::default()
        }
    }

    pub(crate) fn set_name(&self, name: &str) {
        // Only the first instance's word counts; the others are held to say the same.
        let _ = self.name.set(name.to_owned());
    }

    pub(crate) fn name(&self) -> &str {
        self.name.get().unwrap_or(&self.origin)
    }

    pub(crate) fn started(&self) {
        self.instances.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn called(&self, wall: Duration, memory_bytes: usize) {
        let micros = u64::try_from(wall.as_micros()).unwrap_or(u64::MAX);
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.busy_micros.fetch_add(micros, Ordering::Relaxed);
        self.memory_bytes_peak.fetch_max(
            u64::try_from(memory_bytes).unwrap_or(u64::MAX),
            Ordering::Relaxed,
        );
    }

    pub(crate) fn failed(&self, kind: FailureKind) {
        let of_kind = FailureKind::ALL
            .iter()
            .zip(&self.failures)
            .find(|(known, _)| **known == kind);
        if let Some((_, count)) = of_kind {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a word (quoted already) that this host does not know, and says so within the limit.
    pub(crate) fn unknown_word(&self, what: &str, word: &str, read_as: &str) {
        self.unknown_words.fetch_add(1, Ordering::Relaxed);
        if let Some(suppressed) = self.admit_line() {
            tracing::warn!(
                policy = self.name(),
                suppressed,
                "unknown {what} {word} reads as {read_as}"
            );
        }
    }

    /// Whether one more line may be written: how many were left out before it, or `None`.
    pub(crate) fn admit_line(&self) -> Option<u64> {
        let admitted = self
            .lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take(Instant::now());
        if admitted.is_none() {
            self.log_lines_suppressed.fetch_add(1, Ordering::Relaxed);
        }
        admitted
    }

    pub(crate) fn snapshot(&self) -> PolicyCounters {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        PolicyCounters {
            calls: read(&self.calls),
            failures: self.failures.each_ref().map(read),
            instances: read(&self.instances),
            memory_bytes_peak: read(&self.memory_bytes_peak),
            busy_micros: read(&self.busy_micros),
            log_lines_suppressed: read(&self.log_lines_suppressed),
            unknown_words: read(&self.unknown_words),
        }
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry")
            .field("name", &self.name())
            .field("counters", &self.snapshot())
            .finish()
    }
}

/// A bucket of lines that fills with time.
#[derive(Debug)]
struct LineBudget {
    left: u32,
    filled_at: Option<Instant>,
    suppressed: u64,
}

impl Default for LineBudget {
    fn default() -> Self {
        Self {
            left: LOG_BURST,
            filled_at: None,
            suppressed: 0,
        }
    }
}

impl LineBudget {
    fn take(&mut self, now: Instant) -> Option<u64> {
        let filled_at = *self.filled_at.get_or_insert(now);
        let intervals =
            now.saturating_duration_since(filled_at).as_nanos() / LOG_INTERVAL.as_nanos();
        if intervals > 0 {
            let more = u32::try_from(intervals).unwrap_or(u32::MAX);
            self.left = self.left.saturating_add(more).min(LOG_BURST);
            self.filled_at = Some(now);
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                Some(std::mem::take(&mut self.suppressed))
            }
            None => {
                self.suppressed += 1;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_limited_and_what_was_left_out_is_told_with_the_next() {
        let mut budget = LineBudget::default();
        let begun = Instant::now();
        let admitted = (0..LOG_BURST + 7)
            .filter(|_| budget.take(begun).is_some())
            .count();
        assert_eq!(admitted, LOG_BURST as usize);
        assert_eq!(budget.take(begun + LOG_INTERVAL / 2), None);
        assert_eq!(budget.take(begun + LOG_INTERVAL), Some(8));
        assert_eq!(budget.take(begun + LOG_INTERVAL), None);
        let much_later = begun + Duration::from_secs(3600);
        assert_eq!(
            (0..1000)
                .filter(|_| budget.take(much_later).is_some())
                .count(),
            LOG_BURST as usize
        );
    }

    #[test]
    fn failures_are_counted_by_kind() {
        let telemetry = Telemetry::new("x.wasm");
        for (times, kind) in FailureKind::ALL.into_iter().enumerate() {
            (0..times).for_each(|_| telemetry.failed(kind));
        }
        assert_eq!(telemetry.snapshot().failures, [0, 1, 2, 3, 4]);
        assert_eq!(telemetry.name(), "x.wasm");
        telemetry.set_name("x");
        assert_eq!(telemetry.name(), "x");
    }
}
