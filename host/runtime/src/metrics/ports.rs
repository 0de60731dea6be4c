//! How the rooms' observers feed the metrics. All are on hot paths: a few atomic additions each.

use std::time::Duration;

use device_api_cache::{Author, CacheObserver, Turn};
use device_api_core::durable::NotDurable;
use device_api_core::health::Health;
use device_api_core::ids::ResourceVersion;
use device_api_core::ports::{NvmlObserver, NvmlStatus};
use device_api_core::signal::{SignalKind, Source, Target};
use device_api_core::watch::EventType;
use device_api_grpc::RpcObserver;
use device_api_store::StoreObserver;

use super::{Metrics, advance, gauge, seconds, source_label};

/// The method of gRPC reflection, a stream.
const REFLECTION: &str = "ServerReflectionInfo";

/// How gRPC calls a call that went well.
const OK: &str = "OK";

impl RpcObserver for Metrics {
    /// The series that each daemon has sooner or later. Of codes there are 17 for each method, nearly all of them for
    /// ever at zero: those are born with their first call.
    fn known(&self, service: &'static str, method: &'static str) {
        self.rpc.started.with_label_values(&[service, method]);
        self.rpc.handled.with_label_values(&[service, method, OK]);
        self.rpc.requests.with_label_values(&[method, OK]);
    }

    fn started(&self, service: &'static str, method: &'static str) {
        self.rpc.started.with_label_values(&[service, method]).inc();
    }

    fn handled(
        &self,
        service: &'static str,
        method: &'static str,
        code: &'static str,
        elapsed: Duration,
    ) {
        self.rpc
            .handled
            .with_label_values(&[service, method, code])
            .inc();
        self.rpc
            .handling
            .with_label_values(&[service, method])
            .observe(seconds(elapsed));
        self.rpc.requests.with_label_values(&[method, code]).inc();
        // A stream lives as long as its client likes; it would drown the calls' quantiles.
        if !method.starts_with("Watch") && method != REFLECTION {
            self.rpc
                .duration
                .with_label_values(&[method])
                .observe(seconds(elapsed));
        }
    }

    fn watch_event(&self, type_: &'static str) {
        self.rpc.watch_events.with_label_values(&[type_]).inc();
    }

    fn watch_active(&self, delta: i64) {
        self.rpc.watch_active.add(delta);
    }

    fn refused(&self, reason: &'static str) {
        self.access.refused(reason);
    }

    fn audit_suppressed(&self) {
        self.access.suppressed();
    }

    fn connections(&self, delta: i64) {
        self.access.connections(delta);
    }

    fn turned_away(&self, why: &'static str) {
        self.access.turned_away(why);
    }

    fn handshake_failed(&self, why: &'static str) {
        self.access.handshake_failed(why);
    }

    fn tls_reloaded(&self, used: bool) {
        self.access.tls_reloaded(used);
    }
}

impl CacheObserver for Metrics {
    fn gate_wait(&self, write: bool, waited: Duration) {
        let mode = if write { "write" } else { "read" };
        self.cache.contention.with_label_values(&[mode]).inc();
        self.cache
            .lock_wait
            .with_label_values(&[mode])
            .observe(seconds(waited));
    }

    fn barrier_wait(&self, waited: Duration, timed_out: bool) {
        self.cache.barrier_waits.inc();
        self.cache.barrier_wait.observe(seconds(waited));
        if timed_out {
            self.cache.barrier_timeouts.inc();
        }
    }

    fn watch_merged(&self, changes: usize) {
        self.cache.merged.inc_by(changes as u64);
    }

    fn updated(&self, change: EventType, by: &Author) {
        self.updates.count(change, by);
    }

    fn written(&self, version: ResourceVersion, gpus: &[(Health, usize)]) {
        self.cached(version, gpus);
    }

    fn turned(&self, turn: &Turn) {
        let Turn {
            gpu,
            was,
            left_out: suppressed,
        } = turn;
        let derived = &gpu.derived;
        let decides = derived
            .health_from
            .as_ref()
            .or(derived.action_from.as_ref());
        let condition = gpu.conditions.iter().find(|it| Some(&it.type_) == decides);
        let reason = condition.map_or("", |condition| &condition.reason);
        tracing::info!(
            gpu = %gpu.key.name,
            %was,
            health = %derived.health,
            action = %derived.action,
            condition = decides.map(|type_| &**type_),
            reason,
            suppressed,
            "GPU is {}",
            derived.health
        );
    }

    fn uncounted_type(&self, type_: &str) {
        tracing::warn!(
            condition = %type_,
            "condition type of unknown polarity: it is shown and does not count; list it with --polarity"
        );
    }
}

impl StoreObserver for Metrics {
    fn committed(&self, elapsed: Duration, batches: u64, _: u64) {
        self.store_committed(elapsed, batches);
    }

    fn failed(&self, _: &NotDurable) {
        self.store_failed();
    }

    fn recovered(&self) {
        self.store_recovered();
    }

    fn size(&self, bytes: u64) {
        self.store_size(bytes);
    }

    fn set_aside(&self) {
        self.store_set_aside();
    }
}

impl device_api_pipeline::Observer for Metrics {
    fn signal(&self, source: &Source, kind: SignalKind, drill: bool) {
        let labels = [source_label(source), kind.as_str()];
        self.signals.observed.with_label_values(&labels).inc();
        if drill {
            self.signals.drills.with_label_values(&labels).inc();
        }
    }

    fn folded(&self) {
        self.signals.folded.inc();
    }

    fn unattributed(&self, _target: &Target) {
        self.signals.unattributed.inc();
    }

    fn decided(&self, elapsed: Duration) {
        self.signals.decision.observe(seconds(elapsed));
    }

    fn fallback(&self, why: &str) {
        self.signals.fallbacks.with_label_values(&[why]).inc();
    }

    fn incidents(&self, open: usize) {
        self.signals.incidents.set(gauge(open));
    }
}

impl NvmlObserver for Metrics {
    fn nvml_status(&self, status: NvmlStatus) {
        let (enabled, released, running, gpus) = match status {
            NvmlStatus::Disabled => (0, 0, 0, 0),
            NvmlStatus::Missing { .. } => (1, 0, 0, 0),
            NvmlStatus::Released { .. } => (1, 1, 0, 0),
            NvmlStatus::Ready { gpus, .. } => (1, 0, 1, gpus),
        };
        self.nvml.enabled.set(enabled);
        self.nvml.released.set(released);
        self.nvml.running.set(running);
        self.nvml.gpus.set(gauge(gpus));
    }
}

impl Metrics {
    /// What the NVML source counted since its start.
    pub(crate) fn nvml_counts(&self, counts: device_api_nvml::Counts) {
        advance(&self.nvml.events, counts.events);
        advance(&self.nvml.ignored, counts.ignored_xids);
        advance(&self.nvml.unattributed, counts.unattributed_events);
        advance(&self.nvml.failed_waits, counts.failed_waits);
        advance(&self.nvml.failed_calls, counts.failed_calls);
        advance(&self.nvml.polls, counts.polls);
        advance(&self.nvml.sessions, counts.sessions);
        advance(&self.nvml.hung, counts.hung_calls);
        advance(&self.nvml.recoveries, counts.recoveries);
    }

    /// Whether NVML is in use and the events of all its GPUs are waited for.
    pub(crate) fn nvml_hears(&self, hears: bool) {
        self.nvml.running.set(i64::from(hears));
    }

    /// The NVML calls that hang just now.
    pub(crate) fn nvml_hung(&self, hung: &[device_api_nvml::HungCall]) {
        // Those that came back are no series any more.
        self.nvml.hung_age.reset();
        for hung in hung {
            let gpu = hung.whom();
            let age = i64::try_from(hung.age.as_secs()).unwrap_or(i64::MAX);
            self.nvml
                .hung_age
                .with_label_values(&[hung.call, &*gpu])
                .set(age);
        }
    }

    /// What the kernel log source counted since its start.
    pub(crate) fn kmsg_counts(&self, counts: device_api_kmsg::Counts) {
        advance(&self.kmsg.lines, counts.lines);
        advance(&self.kmsg.unparsed, counts.unparsed);
        advance(&self.kmsg.overruns, counts.overruns);
    }
}
