use std::collections::BTreeSet;

use device_api_cache::{Author, CacheObserver};
use device_api_core::ids::DeviceUuid;
use device_api_core::ports::{NvmlObserver, NvmlStatus};
use device_api_core::signal::Target;
use device_api_grpc::RpcObserver;
use device_api_pipeline::Observer as PipelineObserver;

use super::catalog::Kind;
use super::policies::tests::busy;
use super::*;

const MS: Duration = Duration::from_millis(1);

pub(super) fn rendered(metrics: &Metrics) -> String {
    metrics.render().expect("rendered")
}

/// One of everything that can happen.
#[expect(clippy::too_many_lines, reason = "everything is much")]
fn exercised() -> Metrics {
    let metrics = Metrics::new().expect("metrics");
    metrics.known("s.GpuService", "GetGpu");
    metrics.known("s.GpuService", "ListGpus");
    metrics.started("s.GpuService", "GetGpu");
    metrics.handled("s.GpuService", "GetGpu", "OK", MS);
    metrics.handled("s.GpuService", "WatchGpus", "Canceled", 60_000 * MS);
    metrics.watch_event("ADDED");
    metrics.watch_active(1);
    metrics.refused("uid");
    metrics.audit_suppressed();
    metrics.connections(1);
    metrics.sockets(1, 2);
    metrics.turned_away("full");
    metrics.handshake_failed("expired");
    metrics.tls_reloaded(false);
    let epoch = std::time::UNIX_EPOCH;
    metrics.tls_good(epoch + 5_000 * MS, epoch + 7_000 * MS);
    metrics.store_committed(MS, 3);
    metrics.store_failed();
    metrics.store_recovered();
    metrics.store_size(4096);
    metrics.store_set_aside();
    metrics.gate_wait(false, MS);
    metrics.gate_wait(true, MS);
    metrics.barrier_wait(MS, false);
    metrics.barrier_wait(50 * MS, true);
    metrics.watch_merged(3);
    metrics.provider_lost();
    metrics.updated(EventType::Added, &Author::Nvml);
    super::gpus::tests::exercise(&metrics);
    metrics.written(
        ResourceVersion(42),
        &[
            (Health::Healthy, 5),
            (Health::Unhealthy, 2),
            (Health::Unknown, 1),
        ],
    );
    metrics.signal(&Source::Nvml, SignalKind::Xid, true);
    metrics.signal(&Source::Provider("anybody".into()), SignalKind::Xid, false);
    metrics.folded();
    metrics.unattributed(&Target::Uuid(DeviceUuid::new("GPU-x")));
    metrics.decided(MS);
    metrics.fallback("deadline");
    metrics.watch_policies(busy()).expect("the first time");
    metrics.incidents(1);
    let ready = NvmlStatus::Ready {
        library: "l".into(),
        driver: "d".into(),
        gpus: 8,
        simulated: false,
    };
    metrics.nvml_status(ready);
    metrics.nvml_hung(&[device_api_nvml::HungCall {
        call: "nvmlX",
        device: None,
        peer: None,
        index: None,
        age: 3_000 * MS,
    }]);
    metrics.nvml_counts(device_api_nvml::Counts {
        events: 1,
        ignored_xids: 1,
        unattributed_events: 1,
        failed_waits: 1,
        failed_calls: 1,
        polls: 1,
        sessions: 1,
        hung_calls: 1,
        recoveries: 1,
    });
    metrics.compile_counts(&device_api_policy::CompileCounters {
        compiled: 1,
        cache_hits: 2,
        cache_damaged: 3,
        cache_errors: 4,
        cache_evicted: 5,
        refused: [6, 0, 7, 0, 0, 0, 0],
        last_wall: 2_500 * MS,
        last_memory_peak_bytes: 1 << 28,
    });
    metrics.kmsg_counts(device_api_kmsg::Counts {
        lines: 7,
        unparsed: 1,
        overruns: 1,
        ..Default::default()
    });
    metrics
}

#[test]
fn every_metric_of_the_catalogue_is_exported_and_fed_and_no_other() {
    let text = rendered(&exercised());
    let exported: BTreeSet<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .collect();
    let listed: BTreeSet<String> = catalog::ALL
        .iter()
        .map(|spec| {
            let kind = match spec.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram(_) => "histogram",
            };
            format!("{} {kind}", spec.name)
        })
        .collect();
    assert_eq!(exported, listed.iter().map(String::as_str).collect());

    for spec in catalog::ALL {
        let count = format!("{}_count", spec.name);
        let name = if matches!(spec.kind, Kind::Histogram(_)) {
            &count
        } else {
            spec.name
        };
        let fed = text.lines().any(|line| {
            let series = line.split(['{', ' ']).next().unwrap_or_default();
            series == name && line.rsplit(' ').next() != Some("0")
        });
        // Nothing is Degraded above, and NVML answers and is held.
        let is_zero = ["_gpus_degraded", "_nvml_state", "_nvml_released"];
        assert!(
            fed || is_zero.iter().any(|end| spec.name.ends_with(end)),
            "{} is not fed",
            spec.name
        );
    }
}

#[test]
fn names_and_labels_follow_the_conventions() {
    for spec in catalog::ALL {
        let ours = ["device_api_server_", "grpc_server_", "process_"];
        assert!(
            ours.iter().any(|prefix| spec.name.starts_with(prefix)),
            "{}",
            spec.name
        );
        // The `total` of the GPUs is the name of the system that ours follows.
        let counts =
            spec.name.ends_with("_total") && spec.name != "device_api_server_cache_gpus_total";
        assert_eq!(counts, spec.kind == Kind::Counter, "{}", spec.name);
        // A gauge may be of seconds, too.
        let of_seconds = spec.name.ends_with("_seconds");
        let is_histogram = matches!(spec.kind, Kind::Histogram(_));
        assert!(of_seconds || !is_histogram, "{}", spec.name);
        assert!(spec.help.ends_with('.'), "{}", spec.name);
        if let Kind::Histogram(bounds) = spec.kind {
            assert!(bounds.is_sorted_by(|a, b| a < b), "{}", spec.name);
        }
    }
}

#[track_caller]
pub(super) fn check(text: &str, line: &str) {
    assert!(
        text.lines().any(|is| is == line),
        "no line {line:?} in\n{text}"
    );
}

#[test]
fn values_are_those_observed() {
    let text = rendered(&exercised());
    check(&text, "device_api_server_cache_gpus_total 8");
    check(&text, "device_api_server_cache_gpus_healthy 5");
    check(&text, "device_api_server_cache_gpus_degraded 0");
    check(&text, "device_api_server_cache_gpus_unhealthy 2");
    check(&text, "device_api_server_cache_gpus_unknown 1");
    check(&text, "device_api_server_cache_resource_version 42");
    check(&text, "device_api_server_barrier_waits_total 2");
    check(&text, "device_api_server_barrier_timeouts_total 1");
    check(&text, "device_api_server_watch_merged_total 3");
    check(&text, "device_api_server_providers_lost_total 1");
    check(
        &text,
        "device_api_server_signals_total{kind=\"xid\",source=\"provider\"} 1",
    );
    check(
        &text,
        "device_api_server_signal_drills_total{kind=\"xid\",source=\"nvml\"} 1",
    );
    check(
        &text,
        "device_api_server_signal_drills_total{kind=\"xid\",source=\"provider\"} 0",
    );
    check(
        &text,
        "device_api_server_watch_events_total{type=\"DELETED\"} 0",
    );
    check(&text, "device_api_server_refusals_total{reason=\"uid\"} 1");
    check(
        &text,
        "device_api_server_refusals_total{reason=\"plain-tcp\"} 0",
    );
    check(
        &text,
        "device_api_server_connections_turned_away_total{reason=\"full\"} 1",
    );
    check(&text, "device_api_server_sockets_lost 1");
    check(&text, "device_api_server_sockets_bound_anew_total 2");
    check(
        &text,
        "device_api_server_tls_handshakes_failed_total{reason=\"expired\"} 1",
    );
    check(
        &text,
        "device_api_server_tls_reloads_total{result=\"broken\"} 1",
    );
    check(&text, "device_api_server_tls_certificate_begins 5");
    check(&text, "device_api_server_tls_certificate_expires 7");
    check(
        &text,
        "device_api_server_policy_compile_refused_total{reason=\"memory\"} 7",
    );
    check(
        &text,
        "device_api_server_policy_compile_refused_total{reason=\"died\"} 0",
    );
    check(&text, "device_api_server_policy_compile_last_seconds 2.5");
    check(&text, "device_api_server_store_batches_total 3");
    check(&text, "device_api_server_store_writable 1");
}

#[test]
fn a_method_counts_from_zero_and_not_from_its_first_call() {
    let text = rendered(&exercised());
    for line in [
        "grpc_server_started_total{grpc_method=\"GetGpu\",grpc_service=\"s.GpuService\"} 1",
        "grpc_server_started_total{grpc_method=\"ListGpus\",grpc_service=\"s.GpuService\"} 0",
        "grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"ListGpus\",grpc_service=\"s.GpuService\"} 0",
        "device_api_server_grpc_requests_total{code=\"OK\",method=\"GetGpu\"} 1",
        "device_api_server_grpc_requests_total{code=\"OK\",method=\"ListGpus\"} 0",
    ] {
        check(&text, line);
    }
}

#[test]
fn buckets_reach_as_far_as_a_call_may_take_and_a_stream_lives() {
    let most = device_api_core::limits::Bounds::default().request_time;
    assert_eq!(catalog::CALL.last(), Some(&most.as_secs_f64()));
    assert!(catalog::CALL_OR_STREAM.starts_with(catalog::CALL));
}

#[test]
fn a_stream_does_not_count_among_the_calls_durations() {
    let text = rendered(&exercised());
    check(
        &text,
        "device_api_server_grpc_request_duration_seconds_count{method=\"GetGpu\"} 1",
    );
    assert!(
        !text.contains("grpc_request_duration_seconds_count{method=\"WatchGpus\"}"),
        "{text}"
    );
    check(
        &text,
        "grpc_server_handling_seconds_count{grpc_method=\"WatchGpus\",grpc_service=\"s.GpuService\"} 1",
    );
    check(
        &text,
        "grpc_server_handled_total{grpc_code=\"Canceled\",grpc_method=\"WatchGpus\",grpc_service=\"s.GpuService\"} 1",
    );
}

#[test]
fn the_store_is_not_writable_from_a_failure_to_the_next_success() {
    let metrics = Metrics::new().expect("metrics");
    check(&rendered(&metrics), "device_api_server_store_writable 1");
    metrics.store_failed();
    check(&rendered(&metrics), "device_api_server_store_writable 0");
    metrics.store_recovered();
    check(&rendered(&metrics), "device_api_server_store_writable 1");
}

#[test]
fn counts_of_a_room_are_read_at_each_scrape_and_only_rise() {
    let metrics = Metrics::new().expect("metrics");
    let lines = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(5));
    let counted = lines.clone();
    metrics.before_scrape(move |metrics| {
        let lines = counted.load(std::sync::atomic::Ordering::SeqCst);
        metrics.kmsg_counts(device_api_kmsg::Counts {
            lines,
            ..Default::default()
        });
    });
    check(&rendered(&metrics), "device_api_server_kmsg_lines_total 5");
    check(&rendered(&metrics), "device_api_server_kmsg_lines_total 5");
    lines.store(9, std::sync::atomic::Ordering::SeqCst);
    check(&rendered(&metrics), "device_api_server_kmsg_lines_total 9");
}
