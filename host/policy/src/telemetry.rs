//! What is counted for each policy, across its instances, and how much it may say.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use device_api_core::limits::POLICY_RECORDS_MAX;
use device_api_core::policy::FailureKind;
use device_api_core::policy_status::{
    FailureRecord, LATENCY_BUCKETS_MICROS, LimitHit, PolicyCounters,
};
use device_api_wasm::{CallStats, Limits};

/// Lines that a policy may log at once; then one more each interval ([`Limits::log_interval`]). A storm of
/// signals must not become a storm in the log; what is left out is counted.
const LOG_BURST: u32 = 50;

#[derive(Default)]
pub(crate) struct Telemetry {
    /// File name or `bundled`; stands for the name until the policy has said it.
    origin: String,
    name: OnceLock<String>,
    calls: AtomicU64,
    failures: [AtomicU64; FailureKind::ALL.len()],
    limits_hit: [AtomicU64; LimitHit::ALL.len()],
    instances: AtomicU64,
    memory_bytes_peak: AtomicU64,
    state_bytes_peak: AtomicU64,
    busy_ns: AtomicU64,
    busy_cpu_ns: AtomicU64,
    latency: [AtomicU64; LATENCY_BUCKETS_MICROS.len() + 1],
    log_lines_suppressed: AtomicU64,
    unknown_words: AtomicU64,
    lines: Mutex<LineBudget>,
    /// The latest failures, newest first.
    records: Mutex<VecDeque<FailureRecord>>,
}

impl Telemetry {
    pub(crate) fn new(origin: &str, limits: &Limits) -> Self {
        Self {
            origin: origin.to_owned(),
            lines: Mutex::new(LineBudget::new(limits.log_interval())),
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

    /// An instance was to be started: what that takes counts, or a guest would be free to live there.
    pub(crate) fn started(&self, stats: CallStats, is_ok: bool) {
        self.instances
            .fetch_add(u64::from(is_ok), Ordering::Relaxed);
        self.busy_ns.fetch_add(nanos(stats.wall), Ordering::Relaxed);
        self.busy_cpu_ns
            .fetch_add(nanos(stats.cpu), Ordering::Relaxed);
    }

    pub(crate) fn called(&self, stats: CallStats) {
        let add = |count: &AtomicU64, more: u64| count.fetch_add(more, Ordering::Relaxed);
        add(&self.calls, 1);
        add(&self.busy_ns, nanos(stats.wall));
        add(&self.busy_cpu_ns, nanos(stats.cpu));
        let wall_ns = nanos(stats.wall);
        let bucket = LATENCY_BUCKETS_MICROS
            .iter()
            .position(|micros| wall_ns <= micros * 1_000)
            .unwrap_or(LATENCY_BUCKETS_MICROS.len());
        if let Some(count) = self.latency.get(bucket) {
            add(count, 1);
        }
        raise(&self.memory_bytes_peak, stats.memory_bytes);
    }

    /// A call left this much state for its device.
    pub(crate) fn left_state(&self, bytes: usize) {
        raise(&self.state_bytes_peak, bytes);
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

    /// A limit was hit.
    pub(crate) fn hit(&self, limit: LimitHit) {
        let of_limit = LimitHit::ALL
            .iter()
            .zip(&self.limits_hit)
            .find(|(known, _)| **known == limit);
        if let Some((_, count)) = of_limit {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Keeps a failure to be shown, beside its count.
    pub(crate) fn keep_failure(&self, record: FailureRecord) {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.truncate(POLICY_RECORDS_MAX - 1);
        records.push_front(record);
    }

    /// The latest failures, newest first.
    pub(crate) fn failures(&self) -> Vec<FailureRecord> {
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.iter().cloned().collect()
    }

    /// Forgets what was counted while it was looked over: what it does from now on is for real.
    pub(crate) fn begin_anew(&self) {
        let counts = [&self.calls, &self.busy_ns, &self.busy_cpu_ns];
        for count in counts
            .into_iter()
            .chain(&self.failures)
            .chain(&self.limits_hit)
            .chain(&self.latency)
        {
            count.store(0, Ordering::Relaxed);
        }
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.clear();
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
            limits_hit: self.limits_hit.each_ref().map(read),
            instances: read(&self.instances),
            memory_bytes_peak: read(&self.memory_bytes_peak),
            state_bytes_peak: read(&self.state_bytes_peak),
            latency: self.latency.each_ref().map(read),
            busy: Duration::from_nanos(read(&self.busy_ns)),
            busy_cpu: Duration::from_nanos(read(&self.busy_cpu_ns)),
            log_lines_suppressed: read(&self.log_lines_suppressed),
            unknown_words: read(&self.unknown_words),
            ..PolicyCounters::default()
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn raise(peak: &AtomicU64, to: usize) {
    peak.fetch_max(u64::try_from(to).unwrap_or(u64::MAX), Ordering::Relaxed);
}

/// `sum` and what one more version did: counts add up, peaks are the higher.
pub(crate) fn add(sum: &mut PolicyCounters, more: &PolicyCounters) {
    sum.calls += more.calls;
    for (sum, more) in sum.failures.iter_mut().zip(more.failures) {
        *sum += more;
    }
    for (sum, more) in sum.limits_hit.iter_mut().zip(more.limits_hit) {
        *sum += more;
    }
    for (sum, more) in sum.latency.iter_mut().zip(more.latency) {
        *sum += more;
    }
    sum.busy += more.busy;
    sum.busy_cpu += more.busy_cpu;
    sum.instances += more.instances;
    sum.memory_bytes_peak = sum.memory_bytes_peak.max(more.memory_bytes_peak);
    sum.state_bytes_peak = sum.state_bytes_peak.max(more.state_bytes_peak);
    sum.log_lines_suppressed += more.log_lines_suppressed;
    sum.unknown_words += more.unknown_words;
    sum.swaps += more.swaps;
    sum.quarantines += more.quarantines;
    sum.shadow_compared += more.shadow_compared;
    sum.shadow_disagreements += more.shadow_disagreements;
    sum.shadow_dropped += more.shadow_dropped;
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
    interval: Duration,
    filled_at: Option<Instant>,
    suppressed: u64,
}

impl Default for LineBudget {
    fn default() -> Self {
        Self::new(Limits::default().log_interval())
    }
}

impl LineBudget {
    fn new(interval: Duration) -> Self {
        Self {
            left: LOG_BURST,
            interval,
            filled_at: None,
            suppressed: 0,
        }
    }

    fn take(&mut self, now: Instant) -> Option<u64> {
        let filled_at = *self.filled_at.get_or_insert(now);
        let intervals =
            now.saturating_duration_since(filled_at).as_nanos() / self.interval.as_nanos().max(1);
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
        let interval = Limits::default().log_interval();
        let begun = Instant::now();
        let admitted = (0..LOG_BURST + 7)
            .filter(|_| budget.take(begun).is_some())
            .count();
        assert_eq!(admitted, LOG_BURST as usize);
        assert_eq!(budget.take(begun + interval / 2), None);
        assert_eq!(budget.take(begun + interval), Some(8));
        assert_eq!(budget.take(begun + interval), None);
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
        let telemetry = Telemetry::new("x.wasm", &Limits::default());
        for (times, kind) in FailureKind::ALL.into_iter().enumerate() {
            (0..times).for_each(|_| telemetry.failed(kind));
        }
        assert_eq!(telemetry.snapshot().failures, [0, 1, 2, 3, 4]);
        assert_eq!(telemetry.name(), "x.wasm");
        telemetry.set_name("x");
        assert_eq!(telemetry.name(), "x");
    }

    #[test]
    fn h12_calls_are_counted_by_their_wall_time_and_versions_add_up() {
        let telemetry = Telemetry::new("x.wasm", &Limits::default());
        let call = |micros| CallStats {
            wall: Duration::from_micros(micros),
            cpu: Duration::from_micros(1),
            memory_bytes: 7,
        };
        [1, 2, 10, 11, 25_000, 25_001]
            .into_iter()
            .for_each(|micros| telemetry.called(call(micros)));
        let counters = telemetry.snapshot();
        assert_eq!(counters.latency, [1, 1, 0, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!(counters.busy_cpu, Duration::from_micros(6));
        let mut sum = counters.clone();
        add(&mut sum, &counters);
        assert_eq!((sum.calls, sum.memory_bytes_peak), (12, 7));
        telemetry.begin_anew();
        assert_eq!(telemetry.snapshot().calls, 0);
    }

    #[test]
    fn h12_the_latest_failures_are_kept_and_no_more() {
        let telemetry = Telemetry::new("x.wasm", &Limits::default());
        for at in 0..POLICY_RECORDS_MAX + 5 {
            telemetry.keep_failure(FailureRecord {
                at: Default::default(),
                kind: FailureKind::Trap,
                digest: "d".into(),
                detail: at.to_string(),
            });
        }
        let kept = telemetry.failures();
        assert_eq!(kept.len(), POLICY_RECORDS_MAX);
        assert_eq!(kept[0].detail, (POLICY_RECORDS_MAX + 4).to_string());
    }
}
