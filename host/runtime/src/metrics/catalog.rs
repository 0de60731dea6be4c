//! Every metric the daemon exports: name, type, labels, help; docs/metrics.md is made of it. Names without the prefix
//! `device_api_server_` are those that dashboards of the gRPC ecosystem, and of any process, expect.

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

/// 50 µs (a read of the cache) to 30 s, the default of `--limit request-time`; half a second, which the alert on slow
/// calls asks for, is one.
pub(crate) const CALL: &[f64] = &[
    50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 0.5,
    1.0, 2.5, 10.0, 30.0,
];

/// The same, and of streams: five minutes, in which one that breaks off has no time to be of use, an hour and a day.
pub(crate) const CALL_OR_STREAM: &[f64] = &[
    50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 0.5,
    1.0, 2.5, 10.0, 30.0, 300.0, 3_600.0, 86_400.0,
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
    BUILD_INFO Gauge, "device_api_server_build_info", ["version", "revision", "rustc", "target"], "1, with what the daemon was built of, and for.";

    PROCESS_CPU Counter, "process_cpu_seconds_total", [], "Processor time of the daemon.";
    PROCESS_RESIDENT Gauge, "process_resident_memory_bytes", [], "Memory that the daemon has resident.";
    PROCESS_VIRTUAL Gauge, "process_virtual_memory_bytes", [], "Address space of the daemon; WebAssembly reserves much of it and uses little.";
    PROCESS_FDS Gauge, "process_open_fds", [], "Files and sockets that the daemon has open.";
    PROCESS_FDS_MAX Gauge, "process_max_fds", [], "Files and sockets that the daemon may have open.";
    PROCESS_THREADS Gauge, "process_threads", [], "Threads of the daemon.";
    PROCESS_START Gauge, "process_start_time_seconds", [], "Unix time in seconds at which the daemon was started.";

    GRPC_REQUESTS Counter, "device_api_server_grpc_requests_total", ["method", "code"], "gRPC calls and streams that ended, by method and code.";
    GRPC_DURATION Histogram(CALL), "device_api_server_grpc_request_duration_seconds", ["method"], "How long unary gRPC calls took.";
    GRPC_STARTED Counter, "grpc_server_started_total", ["grpc_service", "grpc_method"], "gRPC calls and streams that began.";
    GRPC_HANDLED Counter, "grpc_server_handled_total", ["grpc_service", "grpc_method", "grpc_code"], "gRPC calls and streams that ended; one that the client left is Canceled.";
    GRPC_HANDLING Histogram(CALL_OR_STREAM), "grpc_server_handling_seconds", ["grpc_service", "grpc_method"], "How long gRPC calls took; of a stream, its whole life.";

    CONNECTIONS Gauge, "device_api_server_connections", [], "Connections to the API, whose clients speak HTTP/2.";
    SOCKETS_LOST Gauge, "device_api_server_sockets_lost", [], "Unix sockets of the API that nobody reaches, as their file is gone or another's; /readyz names them.";
    SOCKETS_BOUND Counter, "device_api_server_sockets_bound_anew_total", [], "Times that a Unix socket of the API was bound anew, as its file was gone or another's.";
    TURNED_AWAY Counter, "device_api_server_connections_turned_away_total", ["reason"], "Connections turned away: too many in all, too many of one user, or no HTTP/2 in time (TLS handshakes that failed among them).";
    REFUSALS Counter, "device_api_server_refusals_total", ["reason"], "Writes that their callers were not allowed; the audit log has them one by one.";
    AUDIT_SUPPRESSED Counter, "device_api_server_audit_suppressed_total", [], "Refusals without a line in the audit log, as their identity had too many.";
    TLS_HANDSHAKES Counter, "device_api_server_tls_handshakes_failed_total", ["reason"], "TLS handshakes that failed; the audit log says of whom.";
    TLS_RELOADS Counter, "device_api_server_tls_reloads_total", ["result"], "Changes of the files of TLS: in use for new connections, or broken, so that the old ones stay.";
    TLS_BEGINS Gauge, "device_api_server_tls_certificate_begins", [], "Unix time in seconds from which on the certificate in use is good; 0 without TLS.";
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
    CACHE_UPDATES Counter, "device_api_server_cache_updates_total", ["operation", "provider"], "New versions of GPUs: created, changed or deleted, and on whose word: nvml (the inventory), pipeline (what was decided of signals), host (a lease that ran out), a provider by its name, or other.";
    CACHE_CONTENTION Counter, "device_api_server_cache_lock_contention_total", ["mode"], "Readers and writers that had to wait for the cache's lock.";
    CACHE_LOCK_WAIT Histogram(WAIT), "device_api_server_cache_lock_wait_seconds", ["mode"], "How long those that had to wait for the cache's lock waited.";

    PROVIDERS_LOST Counter, "device_api_server_providers_lost_total", [], "Times that a provider's lease ran out, or its last connection was gone for too long.";

    WATCH_ACTIVE Gauge, "device_api_server_watch_streams_active", [], "Watch streams that are open.";
    WATCH_EVENTS Counter, "device_api_server_watch_events_total", ["type"], "Events handed to watches.";
    WATCH_MERGED Counter, "device_api_server_watch_merged_total", [], "Changes that merged into a newer one because a watcher was slow.";

    NVML_ENABLED Gauge, "device_api_server_nvml_provider_enabled", [], "1 if the daemon is to watch GPUs through NVML.";
    NVML_GPUS Gauge, "device_api_server_nvml_gpu_count", [], "GPUs that NVML shows; 0 without NVML.";
    NVML_RELEASED Gauge, "device_api_server_nvml_released", [], "1 while NVML is let go of on request (devicectl nvml release).";
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

    GPU_INFO Gauge, "device_api_server_gpu_info", ["uuid", "product", "index", "pci", "driver", "simulated"], "1 for each GPU in the cache, with what else tells it apart.";
    GPU_HEALTH Gauge, "device_api_server_gpu_health", ["uuid", "product", "state"], "1 for the health of each GPU, 0 for those that it has not. The one metric of how a GPU is.";
    GPU_ACTION Gauge, "device_api_server_gpu_recommended_action", ["uuid", "product", "action"], "1 for the action that is recommended for each GPU; NONE where there is nothing to do.";
    MIG_HEALTH Gauge, "device_api_server_mig_instance_health", ["uuid", "gpu", "profile", "state"], "1 for the health of each MIG instance, 0 for those that it has not.";

    GPU_NVML Gauge, "device_api_server_gpu_nvml_state", ["uuid", "product"], "How NVML is with each GPU: 0 it answers, 1 a call hangs, 2 let go of, 3 driver gone, 4 errors only. Unless it is 0, there are no readings.";
    GPU_TEMPERATURE Gauge, "device_api_server_gpu_temperature_celsius", ["uuid", "product", "sensor"], "Temperature.";
    GPU_TEMPERATURE_MARGIN Gauge, "device_api_server_gpu_temperature_margin_celsius", ["uuid", "product"], "What is left until the hardware slows down; negative beyond.";
    GPU_TEMPERATURE_THRESHOLD Gauge, "device_api_server_gpu_temperature_threshold_celsius", ["uuid", "product", "threshold"], "Where hardware or software slows the GPU down, or shuts it down.";
    GPU_POWER Gauge, "device_api_server_gpu_power_watts", ["uuid", "product"], "Power draw of the board, averaged by the driver.";
    GPU_POWER_NOW Gauge, "device_api_server_gpu_power_instant_watts", ["uuid", "product"], "Power draw of the board at the moment of the reading.";
    GPU_POWER_LIMIT Gauge, "device_api_server_gpu_power_limit_watts", ["uuid", "product", "limit"], "Power limit: enforced, the default, and the lowest and highest that can be set.";
    GPU_CLOCK Gauge, "device_api_server_gpu_clock_hertz", ["uuid", "product", "clock"], "Clock frequency.";
    GPU_THROTTLED Gauge, "device_api_server_gpu_clock_throttle_reason", ["uuid", "product", "reason"], "1 for each reason for which clocks are low, 0 for the others.";
    GPU_PSTATE Gauge, "device_api_server_gpu_performance_state", ["uuid", "product"], "Performance state: 0 the fastest, 15 the slowest.";
    GPU_UTILIZATION Gauge, "device_api_server_gpu_utilization_ratio", ["uuid", "product"], "Share of the last period in which a kernel ran.";
    GPU_MEMORY_UTILIZATION Gauge, "device_api_server_gpu_memory_utilization_ratio", ["uuid", "product"], "Share of the last period in which memory was read or written.";
    GPU_MEMORY_USED Gauge, "device_api_server_gpu_memory_used_bytes", ["uuid", "product"], "Frame buffer in use.";
    GPU_MEMORY_SIZE Gauge, "device_api_server_gpu_memory_size_bytes", ["uuid", "product"], "Frame buffer.";
    GPU_ECC Gauge, "device_api_server_gpu_ecc_enabled", ["uuid", "product"], "1 where ECC is on.";
    GPU_ECC_PENDING Gauge, "device_api_server_gpu_ecc_enabled_pending", ["uuid", "product"], "1 where ECC will be on after the next reset.";
    GPU_ECC_VOLATILE Counter, "device_api_server_gpu_ecc_volatile_errors_total", ["uuid", "product", "error"], "ECC errors since the driver was loaded or the GPU reset.";
    GPU_ECC_AGGREGATE Counter, "device_api_server_gpu_ecc_aggregate_errors_total", ["uuid", "product", "error"], "ECC errors over the life of the board.";
    GPU_ECC_DRAM Counter, "device_api_server_gpu_ecc_dram_volatile_errors_total", ["uuid", "product", "error"], "ECC errors of the DRAM, since the driver was loaded or the GPU reset.";
    GPU_ECC_SRAM_VOLATILE Counter, "device_api_server_gpu_ecc_sram_volatile_errors_total", ["uuid", "product", "error"], "ECC errors of the SRAM, since the driver was loaded or the GPU reset.";
    GPU_ECC_SRAM_AGGREGATE Counter, "device_api_server_gpu_ecc_sram_aggregate_errors_total", ["uuid", "product", "error"], "ECC errors of the SRAM over the life of the board.";
    GPU_ECC_SRAM_EXCEEDED Gauge, "device_api_server_gpu_ecc_sram_threshold_exceeded", ["uuid", "product"], "1 where uncorrected SRAM errors passed the vendor's threshold: the board is to be replaced.";
    GPU_ROWS Gauge, "device_api_server_gpu_remapped_rows", ["uuid", "product", "error"], "Memory rows remapped, by what they were remapped after.";
    GPU_ROW_PENDING Gauge, "device_api_server_gpu_row_remap_pending", ["uuid", "product"], "1 while a row remap waits for a GPU reset.";
    GPU_ROW_FAILURE Gauge, "device_api_server_gpu_row_remap_failure", ["uuid", "product"], "1 where a row remap failed, as there are no spare rows.";
    GPU_ROW_BANKS Gauge, "device_api_server_gpu_row_remap_banks", ["uuid", "product", "spare"], "Memory banks by how many of their spare rows are left.";
    GPU_PAGES Gauge, "device_api_server_gpu_retired_pages", ["uuid", "product", "error"], "Memory pages retired, by what they were retired after.";
    GPU_PAGES_PENDING Gauge, "device_api_server_gpu_retired_pages_pending", ["uuid", "product"], "1 while pages wait for a reset to be retired.";
    GPU_PCIE_WIDTH Gauge, "device_api_server_gpu_pcie_link_width", ["uuid", "product"], "Lanes of the PCIe link, now.";
    GPU_PCIE_WIDTH_MAX Gauge, "device_api_server_gpu_pcie_link_width_max", ["uuid", "product"], "Lanes of the PCIe link that board and slot can do.";
    GPU_PCIE_GENERATION Gauge, "device_api_server_gpu_pcie_link_generation", ["uuid", "product"], "Generation of the PCIe link, now: lower when idle.";
    GPU_PCIE_GENERATION_MAX Gauge, "device_api_server_gpu_pcie_link_generation_max", ["uuid", "product"], "Generation of the PCIe link that board and slot can do.";
    GPU_PCIE_REPLAYS Counter, "device_api_server_gpu_pcie_replays_total", ["uuid", "product"], "PCIe replays since the driver was loaded.";
    GPU_PCIE_ROLLOVERS Counter, "device_api_server_gpu_pcie_replay_rollovers_total", ["uuid", "product"], "PCIe replays that ended in a new link training.";
    GPU_PCIE_ERRORS Counter, "device_api_server_gpu_pcie_errors_total", ["uuid", "product", "error"], "PCIe errors, as the GPU counts them.";
    GPU_PCIE_RECOVERIES Counter, "device_api_server_gpu_pcie_recoveries_total", ["uuid", "product"], "Times that the PCIe link went into recovery.";
    GPU_NVLINKS Gauge, "device_api_server_gpu_nvlink_links", ["uuid", "product"], "NVLinks that the GPU has.";
    GPU_NVLINKS_ACTIVE Gauge, "device_api_server_gpu_nvlink_links_active", ["uuid", "product"], "NVLinks that are up.";
    GPU_NVLINK_ERRORS Counter, "device_api_server_gpu_nvlink_errors_total", ["uuid", "product", "error"], "NVLink errors of all links together; which there are depends on the generation.";
    GPU_NVLINK_RECOVERIES Counter, "device_api_server_gpu_nvlink_link_recoveries_total", ["uuid", "product", "result"], "Recoveries of NVLinks that went well, or did not.";
    GPU_FABRIC_STATE Gauge, "device_api_server_gpu_fabric_state", ["uuid", "product"], "Registration with the NVLink fabric: 1 not started, 2 under way, 3 completed.";
    GPU_FABRIC_STATUS Gauge, "device_api_server_gpu_fabric_status", ["uuid", "product"], "What a completed registration came to: 0 well, else NVML's return code.";
    GPU_FABRIC_FAULT Gauge, "device_api_server_gpu_fabric_fault", ["uuid", "product", "fault"], "1 for each fault that the NVLink fabric tells of, 0 for those that it denies.";
    GPU_RECOVERY Gauge, "device_api_server_gpu_recovery_action", ["uuid", "product"], "What the driver asks for: 0 nothing, 1 GPU reset, 2 node reboot, 3 drain P2P, 4 drain and reset.";

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
