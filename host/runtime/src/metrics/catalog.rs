//! Every metric the daemon exports: name, type, labels, help. Names without the prefix
//! `device_api_server_` are those that the gRPC ecosystem's dashboards expect.

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    /// Upper bounds of the buckets, in seconds.
    Histogram(&'static [f64]),
}

/// One metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spec {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// Each from a closed set, or bounded by `core::limits` (policies).
    pub(crate) labels: &'static [&'static str],
    pub(crate) help: &'static str,
}

/// 50 µs (a read of the cache) to 2.5 s; half a second, which the alert on slow calls asks for, is one.
const CALL: &[f64] = &[
    50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 0.5,
    1.0, 2.5,
];

/// 1 µs (an uncontended lock) to 100 ms (twice the bound of a barrier wait).
const WAIT: &[f64] = &[
    1e-6, 2.5e-6, 5e-6, 10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3,
    25e-3, 50e-3, 100e-3,
];

/// 100 µs (a fast disk's cache) to 10 s (one that is about to fail).
const DISK: &[f64] = &[
    100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 0.5, 1.0, 2.5,
    10.0,
];

/// `core::policy_status::LATENCY_BUCKETS_MICROS`, in seconds.
pub(crate) const POLICY_CALL: &[f64] = &[
    1e-6, 2e-6, 5e-6, 10e-6, 20e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 5e-3, 25e-3,
];

macro_rules! catalog {
    ($($id:ident $kind:expr, $name:literal, $labels:expr, $help:literal;)*) => {
        $(pub(crate) static $id: Spec = Spec { name: $name, kind: $kind, labels: &$labels, help: $help };)*

        /// All of them.
        #[cfg(test)]
        pub(crate) static ALL: &[&Spec] = &[$(&$id),*];
    };
}

use Kind::{Counter, Gauge, Histogram};

catalog! {
    UP Gauge, "device_api_server_up", [], "1 while the daemon runs.";
    INFO Gauge, "device_api_server_info", ["version"], "1, with the daemon's version.";

    GRPC_REQUESTS Counter, "device_api_server_grpc_requests_total", ["method", "code"], "gRPC calls and streams that ended, by method and code.";
    GRPC_DURATION Histogram(CALL), "device_api_server_grpc_request_duration_seconds", ["method"], "How long unary gRPC calls took.";
    GRPC_STARTED Counter, "grpc_server_started_total", ["grpc_service", "grpc_method"], "gRPC calls and streams that began.";
    GRPC_HANDLED Counter, "grpc_server_handled_total", ["grpc_service", "grpc_method", "grpc_code"], "gRPC calls and streams that ended; one that the client left is Cancelled.";
    GRPC_HANDLING Histogram(CALL), "grpc_server_handling_seconds", ["grpc_service", "grpc_method"], "How long gRPC calls took; of a stream, its whole life.";

    CONNECTIONS Gauge, "device_api_server_connections", [], "Connections to the API, whose clients speak HTTP/2.";
    TURNED_AWAY Counter, "device_api_server_connections_turned_away_total", ["reason"], "Connections turned away: too many in all, too many of one user, or no HTTP/2 in time (TLS handshakes that failed among them).";
    REFUSALS Counter, "device_api_server_refusals_total", ["reason"], "Writes that their callers were not allowed; the audit log has them one by one.";
    AUDIT_SUPPRESSED Counter, "device_api_server_audit_suppressed_total", [], "Refusals without a line in the audit log, as their identity had too many.";
    TLS_HANDSHAKES Counter, "device_api_server_tls_handshakes_failed_total", ["reason"], "TLS handshakes that failed; the audit log says of whom.";
    TLS_RELOADS Counter, "device_api_server_tls_reloads_total", ["result"], "Changes of the files of TLS: in use for new connections, or broken, so that the old ones stay.";
    TLS_EXPIRES Gauge, "device_api_server_tls_certificate_expires", [], "Unix time in seconds at which the certificate in use runs out; 0 without TLS.";

    STORE_COMMIT Histogram(DISK), "device_api_server_store_commit_seconds", [], "How long commits to the state directory took.";
    STORE_BATCHES Counter, "device_api_server_store_batches_total", [], "Writes made durable; several share a commit.";
    STORE_FAILURES Counter, "device_api_server_store_failures_total", [], "Commits that failed.";
    STORE_BYTES Gauge, "device_api_server_store_file_bytes", [], "Size of the file in the state directory.";
    STORE_WRITABLE Gauge, "device_api_server_store_writable", [], "1 while what is written becomes durable, or need not.";
    STORE_SET_ASIDE Counter, "device_api_server_store_set_aside_total", [], "Files that could not be used and were set aside.";

    CACHE_GPUS Gauge, "device_api_server_cache_gpus_total", [], "GPUs in the cache.";
    CACHE_HEALTHY Gauge, "device_api_server_cache_gpus_healthy", [], "GPUs that are Healthy.";
    CACHE_DEGRADED Gauge, "device_api_server_cache_gpus_degraded", [], "GPUs that are Degraded: usable, but something is wrong.";
    CACHE_UNHEALTHY Gauge, "device_api_server_cache_gpus_unhealthy", [], "GPUs that are Unhealthy.";
    CACHE_UNKNOWN Gauge, "device_api_server_cache_gpus_unknown", [], "GPUs whose health is Unknown.";
    CACHE_VERSION Gauge, "device_api_server_cache_resource_version", [], "The newest resource version.";
    CACHE_CONTENTION Counter, "device_api_server_cache_lock_contention_total", ["mode"], "Readers and writers that had to wait for the cache's lock.";
    CACHE_LOCK_WAIT Histogram(WAIT), "device_api_server_cache_lock_wait_seconds", ["mode"], "How long those that had to wait for the cache's lock waited.";

    WATCH_ACTIVE Gauge, "device_api_server_watch_streams_active", [], "Watch streams that are open.";
    WATCH_EVENTS Counter, "device_api_server_watch_events_total", ["type"], "Events handed to watches.";
    WATCH_MERGED Counter, "device_api_server_watch_merged_total", [], "Changes that merged into a newer one because a watcher was slow.";

    NVML_ENABLED Gauge, "device_api_server_nvml_provider_enabled", [], "1 if the daemon is to watch GPUs through NVML.";
    NVML_GPUS Gauge, "device_api_server_nvml_gpu_count", [], "GPUs that NVML shows; 0 without NVML.";
    NVML_RUNNING Gauge, "device_api_server_nvml_health_monitor_running", [], "1 while NVML is in use and the events of all its GPUs that have any are waited for; /readyz names those whose are not.";
    NVML_EVENTS Counter, "device_api_server_nvml_events_total", [], "Events that NVML reported, of whatever type.";
    NVML_IGNORED Counter, "device_api_server_nvml_ignored_xids_total", [], "XIDs dropped because --nvml-ignored-xids names them.";
    NVML_UNATTRIBUTED Counter, "device_api_server_nvml_unattributed_events_total", [], "Events that NVML reported of a GPU that could not be named.";
    NVML_FAILED_WAITS Counter, "device_api_server_nvml_failed_waits_total", [], "Waits for NVML's events that failed otherwise than by timing out; a pause follows each.";
    NVML_FAILED_CALLS Counter, "device_api_server_nvml_failed_calls_total", [], "NVML calls that failed, other than for not being supported.";
    NVML_POLLS Counter, "device_api_server_nvml_polls_total", [], "Rounds of readings over all GPUs.";
    NVML_SESSIONS Counter, "device_api_server_nvml_sessions_total", [], "Times that the NVML library was opened.";
    NVML_HUNG Counter, "device_api_server_nvml_hung_calls_total", [], "NVML calls that took longer than the watchdog's bound.";
    NVML_HUNG_AGE Gauge, "device_api_server_nvml_hung_call_age_seconds", ["call", "gpu"], "How long the NVML calls that hang just now have hung; gpu is its UUID, those of two that a call is about, its index before it told its UUID, or empty.";
    NVML_RECOVERIES Counter, "device_api_server_nvml_recoveries_total", [], "GPU resets, driver rebinds and replacements that NVML's readings told of.";

    KMSG_LINES Counter, "device_api_server_kmsg_lines_total", [], "Lines read from the kernel log.";
    KMSG_UNPARSED Counter, "device_api_server_kmsg_unparsed_total", [], "Kernel log lines that speak of an XID in words the daemon does not know.";
    KMSG_OVERRUNS Counter, "device_api_server_kmsg_overruns_total", [], "Times that the kernel overwrote its log before the daemon had read it.";

    SIGNALS Counter, "device_api_server_signals_total", ["source", "kind"], "Signals observed, drills among them.";
    SIGNAL_DRILLS Counter, "device_api_server_signal_drills_total", ["source", "kind"], "Signals that were injected or simulated.";
    SIGNALS_UNATTRIBUTED Counter, "device_api_server_signals_unattributed_total", [], "Signals whose GPU was not known when they came.";
    SIGNALS_FOLDED Counter, "device_api_server_signals_folded_total", [], "Repeats folded into a signal that was waiting to be judged.";
    DECISION_SECONDS Histogram(WAIT), "device_api_server_decision_seconds", [], "From a signal observed to its decision in the cache.";
    FALLBACKS Counter, "device_api_server_fallbacks_total", ["reason"], "Signals for which the vendor's class was assumed: a policy failed (how), its answer is overdue, or the GPU's queue is full.";
    INCIDENTS Gauge, "device_api_server_incidents_open", [], "Incidents that are open.";

    BARRIER_WAITS Counter, "device_api_server_barrier_waits_total", [], "Reads that waited for a decision.";
    BARRIER_WAIT Histogram(WAIT), "device_api_server_barrier_wait_seconds", [], "How long reads that waited for a decision waited.";
    BARRIER_TIMEOUTS Counter, "device_api_server_barrier_timeouts_total", [], "Reads whose wait passed its bound, so that the fallback was written.";

    POLICY_INFO Gauge, "device_api_server_policy_info", ["policy", "version", "digest", "mode", "origin"], "1 for the version of each policy that is asked (or looks on).";
    POLICY_PHASE Gauge, "device_api_server_policy_phase", ["policy", "phase"], "1 for where each policy is in its life, 0 for where it is not.";
    POLICY_EVALUATIONS Counter, "device_api_server_policy_evaluations_total", ["policy", "outcome"], "Calls of policies: ok, or how they failed.";
    POLICY_CALL_SECONDS Histogram(POLICY_CALL), "device_api_server_policy_call_duration_seconds", ["policy"], "How long calls of policies took, of wall time.";
    POLICY_CPU Counter, "device_api_server_policy_cpu_seconds_total", ["policy"], "Processor time in calls of policies.";
    POLICY_DEADLINE_MISSES Counter, "device_api_server_policy_deadline_misses_total", ["policy"], "Calls of policies that ran past their deadline.";
    POLICY_TRAPS Counter, "device_api_server_policy_traps_total", ["policy"], "Calls of policies that trapped: a panic, their memory limit, their stack.";
    POLICY_LIMITS_HIT Counter, "device_api_server_policy_limits_hit_total", ["policy", "limit"], "Limits that policies ran into, by limit.";
    POLICY_INSTANCES Counter, "device_api_server_policy_instances_started_total", ["policy"], "Instances of policies that were started; after the first of a version, restarts.";
    POLICY_MEMORY_PEAK Gauge, "device_api_server_policy_memory_peak_bytes", ["policy"], "The most linear memory that an instance of a policy ever had.";
    POLICY_STATE_PEAK Gauge, "device_api_server_policy_state_peak_bytes", ["policy"], "The most state that a policy ever left for one GPU.";
    POLICY_LOG_DROPPED Counter, "device_api_server_policy_log_lines_dropped_total", ["policy"], "Log lines of policies that were dropped, being too many.";
    POLICY_UNKNOWN_WORDS Counter, "device_api_server_policy_unknown_words_total", ["policy"], "Words of policies that this daemon does not know, and read as the contract has it.";
    POLICY_SWAPS Counter, "device_api_server_policy_swaps_total", ["policy"], "Times that a version of a policy took another's place.";
    POLICY_QUARANTINES Counter, "device_api_server_policy_quarantines_total", ["policy"], "Times that a version of a policy was quarantined.";
    POLICY_QUARANTINED Gauge, "device_api_server_policy_quarantined_versions", ["policy"], "Versions of policies that are not tried again unless released.";
    POLICY_HELD Gauge, "device_api_server_policy_held_versions", ["policy"], "Versions of policies that wait for devicectl policy accept.";
    POLICY_SHADOW_COMPARED Counter, "device_api_server_policy_shadow_compared_total", ["policy"], "Batches of which a shadow policy was compared with what was decided.";
    POLICY_SHADOW_DISAGREEMENTS Counter, "device_api_server_policy_shadow_disagreements_total", ["policy"], "Batches of which a shadow policy says otherwise than what was decided.";
    POLICY_SHADOW_DROPPED Counter, "device_api_server_policy_shadow_dropped_total", ["policy"], "Batches that a shadow policy did not see, as it could not keep up.";

    POLICY_SET_REFUSED Gauge, "device_api_server_policy_set_refused", [], "1 while the set of policies as a whole is refused, and what ran before runs on.";
    POLICY_SETS_REFUSED Counter, "device_api_server_policy_sets_refused_total", [], "Sets of policies that were refused as a whole.";
    POLICY_LEDGER_WRITABLE Gauge, "device_api_server_policy_ledger_writable", [], "1 while what is decided of policies is saved, or need not be.";
    POLICY_LEDGER_SET_ASIDE Counter, "device_api_server_policy_ledger_set_aside_total", [], "Ledgers of policies that could not be read when the daemon started, so that quarantines and pauses are forgotten.";

    COMPILE_COMPILED Counter, "device_api_server_policy_compile_compiled_total", [], "Components that were compiled.";
    COMPILE_REFUSED Counter, "device_api_server_policy_compile_refused_total", ["reason"], "Components of which there came no code, and why.";
    COMPILE_SECONDS Gauge, "device_api_server_policy_compile_last_seconds", [], "How long the latest compilation took.";
    COMPILE_MEMORY Gauge, "device_api_server_policy_compile_last_memory_peak_bytes", [], "The most memory that the process of the latest compilation had resident.";
    COMPILE_CACHE_HITS Counter, "device_api_server_policy_compile_cache_hits_total", [], "Components whose code was in the cache.";
    COMPILE_CACHE_DAMAGED Counter, "device_api_server_policy_compile_cache_damaged_total", [], "Files of the cache that did not hold against their seal, and were deleted.";
    COMPILE_CACHE_ERRORS Counter, "device_api_server_policy_compile_cache_errors_total", [], "Reads and writes of the cache that failed; the components were loaded all the same.";
    COMPILE_CACHE_EVICTED Counter, "device_api_server_policy_compile_cache_evicted_total", [], "Files that were deleted to keep the cache within its bounds.";
}
