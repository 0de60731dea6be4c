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

/// 1 µs (a call of a policy) to 100 ms (twice the bound of a barrier wait).
const WAIT: &[f64] = &[
    1e-6, 2.5e-6, 5e-6, 10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3,
    25e-3, 50e-3, 100e-3,
];

/// 100 µs (a fast disk's cache) to 10 s (one that is about to fail).
const DISK: &[f64] = &[
    100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 0.5, 1.0, 2.5,
    10.0,
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
    NVML_RUNNING Gauge, "device_api_server_nvml_health_monitor_running", [], "1 while NVML is in use and its events are waited for.";
    NVML_EVENTS Counter, "device_api_server_nvml_events_total", [], "Events that NVML reported, of whatever type.";
    NVML_IGNORED Counter, "device_api_server_nvml_ignored_xids_total", [], "XIDs dropped because --nvml-ignored-xids names them.";
    NVML_FAILED_CALLS Counter, "device_api_server_nvml_failed_calls_total", [], "NVML calls that failed, other than for not being supported.";
    NVML_POLLS Counter, "device_api_server_nvml_polls_total", [], "Rounds of readings over all GPUs.";
    NVML_SESSIONS Counter, "device_api_server_nvml_sessions_total", [], "Times that the NVML library was opened.";

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

    POLICY_INFO Gauge, "device_api_server_policy_info", ["policy", "version", "digest"], "1 for each loaded policy, with its version and digest.";
    POLICY_EVALUATIONS Counter, "device_api_server_policy_evaluations_total", ["policy", "outcome"], "Calls of policies, by what came of them.";
    POLICY_SECONDS Histogram(WAIT), "device_api_server_policy_evaluation_seconds", ["policy"], "How long calls of policies took.";
}
