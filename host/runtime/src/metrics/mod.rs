//! What the daemon measures of itself. [`catalog`] is the list of what is exported; [`Metrics`] has a
//! typed handle for each, or reads it off its room ([`policies`], [`gpus`]); `ports` says how the rooms' observers
//! feed them.

mod access;
mod catalog;
mod compile;
mod gpus;
mod make;
#[cfg(test)]
mod page_tests;
mod policies;
mod ports;
mod process;
mod readings;
mod sampled;
mod series;
mod store;
mod updates;

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use device_api_core::health::Health;
use device_api_core::ids::ResourceVersion;
use device_api_core::policy::FailureKind;
use device_api_core::signal::{SignalKind, Source};
use device_api_core::watch::EventType;
use prometheus::{
    Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry,
    TextEncoder,
};

use make::Maker;
pub(crate) use sampled::{LastRead, Sampled};

/// Readers and writers of the cache's lock.
const LOCK_MODES: [&str; 2] = ["read", "write"];

/// Brings counters up to date that a room counts by itself.
type Refresh = Box<dyn Fn(&Metrics) + Send + Sync>;

/// One handle for each metric of [`catalog`], but for those of policies, GPUs and the process.
///
/// Where the values of the labels are known beforehand, the series exist from the start at zero:
/// a rate over a series that appears with its first event misses that event.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    refresh: Mutex<Refreshes>,
    rpc: Rpc,
    access: access::Access,
    store: store::Store,
    cache: Cache,
    updates: updates::Updates,
    nvml: Nvml,
    kmsg: Kmsg,
    signals: Signals,
    compile: compile::Compile,
}

#[derive(Debug)]
struct Rpc {
    requests: IntCounterVec,
    duration: HistogramVec,
    started: IntCounterVec,
    handled: IntCounterVec,
    handling: HistogramVec,
    watch_active: IntGauge,
    watch_events: IntCounterVec,
}

#[derive(Debug)]
struct Cache {
    gpus: IntGauge,
    healthy: IntGauge,
    degraded: IntGauge,
    unhealthy: IntGauge,
    unknown: IntGauge,
    version: IntGauge,
    contention: IntCounterVec,
    lock_wait: HistogramVec,
    merged: IntCounter,
    barrier_waits: IntCounter,
    barrier_wait: Histogram,
    barrier_timeouts: IntCounter,
    providers_lost: IntCounter,
}

#[derive(Debug)]
struct Nvml {
    enabled: IntGauge,
    gpus: IntGauge,
    released: IntGauge,
    running: IntGauge,
    events: IntCounter,
    ignored: IntCounter,
    unattributed: IntCounter,
    failed_waits: IntCounter,
    failed_calls: IntCounter,
    polls: IntCounter,
    sessions: IntCounter,
    hung: IntCounter,
    hung_age: IntGaugeVec,
    recoveries: IntCounter,
}

#[derive(Debug)]
struct Kmsg {
    lines: IntCounter,
    unparsed: IntCounter,
    overruns: IntCounter,
}

#[derive(Debug)]
struct Signals {
    observed: IntCounterVec,
    drills: IntCounterVec,
    unattributed: IntCounter,
    folded: IntCounter,
    decision: Histogram,
    fallbacks: IntCounterVec,
    incidents: IntGauge,
}

#[derive(Default)]
struct Refreshes(Vec<Refresh>);

impl fmt::Debug for Refreshes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Refreshes({})", self.0.len())
    }
}

impl Metrics {
    /// All metrics, at zero.
    ///
    /// # Errors
    /// Two of the catalogue have one name, or a name is none: a bug that each start would show.
    pub(crate) fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let make = Maker(&registry);
        make.gauge(&catalog::UP)?.set(1);
        make.gauges(&catalog::INFO)?
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1);
        make.gauges(&catalog::BUILD_INFO)?
            .with_label_values(&[
                env!("CARGO_PKG_VERSION"),
                env!("BUILD_REVISION"),
                env!("BUILD_RUSTC"),
                env!("BUILD_TARGET"),
            ])
            .set(1);
        process::register(&registry)?;
        let metrics = Self {
            rpc: Rpc::new(&make)?,
            access: access::Access::new(&make)?,
            store: store::Store::new(&make)?,
            cache: Cache::new(&make)?,
            updates: updates::Updates::new(&make)?,
            nvml: Nvml::new(&make)?,
            kmsg: Kmsg::new(&make)?,
            signals: Signals::new(&make)?,
            compile: compile::Compile::new(&make)?,
            refresh: Mutex::default(),
            registry,
        };
        metrics.begin_closed_sets();
        Ok(metrics)
    }

    fn begin_closed_sets(&self) {
        self.access.begin_closed_sets();
        self.compile.begin_closed_sets();
        let failures = FailureKind::ALL.map(FailureKind::as_str);
        for reason in failures.into_iter().chain(["overdue", "queue-full"]) {
            self.signals.fallbacks.with_label_values(&[reason]);
        }
        for type_ in EventType::ALL {
            self.rpc.watch_events.with_label_values(&[type_.as_str()]);
        }
        for mode in LOCK_MODES {
            self.cache.contention.with_label_values(&[mode]);
            self.cache.lock_wait.with_label_values(&[mode]);
        }
        for source in [
            Source::Nvml,
            Source::Kmsg,
            Source::Field230,
            Source::Host,
            Source::Provider("".into()),
        ] {
            for kind in SignalKind::ALL {
                let labels = [source_label(&source), kind.as_str()];
                self.signals.observed.with_label_values(&labels);
                self.signals.drills.with_label_values(&labels);
            }
        }
    }

    /// Registers what is to be run before each scrape, for a room that counts by itself.
    pub(crate) fn before_scrape(&self, refresh: impl Fn(&Self) + Send + Sync + 'static) {
        self.refresh
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .0
            .push(Box::new(refresh));
    }

    /// All metrics in the Prometheus text format.
    ///
    /// # Errors
    /// The encoder's; none is known with the metrics above.
    pub(crate) fn render(&self) -> prometheus::Result<String> {
        {
            // Held during the refresh: two scrapes at a time would both add what is new.
            let refresh = self.refresh.lock().unwrap_or_else(PoisonError::into_inner);
            for refresh in &refresh.0 {
                refresh(self);
            }
        }
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }

    /// A provider is gone, and what it called healthy is Unknown.
    pub(crate) fn provider_lost(&self) {
        self.cache.providers_lost.inc();
    }

    fn cached(&self, version: ResourceVersion, gpus: &[(Health, usize)]) {
        let count = |health| {
            gpus.iter()
                .filter(|(of, _)| *of == health)
                .map(|(_, count)| count)
                .sum()
        };
        self.cache
            .gpus
            .set(gauge(gpus.iter().map(|(_, count)| count).sum()));
        self.cache.healthy.set(gauge(count(Health::Healthy)));
        self.cache.degraded.set(gauge(count(Health::Degraded)));
        self.cache.unhealthy.set(gauge(count(Health::Unhealthy)));
        self.cache.unknown.set(gauge(count(Health::Unknown)));
        self.cache
            .version
            .set(i64::try_from(version.0).unwrap_or(i64::MAX));
    }
}

impl Rpc {
    fn new(make: &Maker<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            requests: make.counters(&catalog::GRPC_REQUESTS)?,
            duration: make.histograms(&catalog::GRPC_DURATION)?,
            started: make.counters(&catalog::GRPC_STARTED)?,
            handled: make.counters(&catalog::GRPC_HANDLED)?,
            handling: make.histograms(&catalog::GRPC_HANDLING)?,
            watch_active: make.gauge(&catalog::WATCH_ACTIVE)?,
            watch_events: make.counters(&catalog::WATCH_EVENTS)?,
        })
    }
}

impl Cache {
    fn new(make: &Maker<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            gpus: make.gauge(&catalog::CACHE_GPUS)?,
            healthy: make.gauge(&catalog::CACHE_HEALTHY)?,
            degraded: make.gauge(&catalog::CACHE_DEGRADED)?,
            unhealthy: make.gauge(&catalog::CACHE_UNHEALTHY)?,
            unknown: make.gauge(&catalog::CACHE_UNKNOWN)?,
            version: make.gauge(&catalog::CACHE_VERSION)?,
            contention: make.counters(&catalog::CACHE_CONTENTION)?,
            lock_wait: make.histograms(&catalog::CACHE_LOCK_WAIT)?,
            merged: make.counter(&catalog::WATCH_MERGED)?,
            barrier_waits: make.counter(&catalog::BARRIER_WAITS)?,
            barrier_wait: make.histogram(&catalog::BARRIER_WAIT)?,
            barrier_timeouts: make.counter(&catalog::BARRIER_TIMEOUTS)?,
            providers_lost: make.counter(&catalog::PROVIDERS_LOST)?,
        })
    }
}

impl Nvml {
    fn new(make: &Maker<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            enabled: make.gauge(&catalog::NVML_ENABLED)?,
            gpus: make.gauge(&catalog::NVML_GPUS)?,
            released: make.gauge(&catalog::NVML_RELEASED)?,
            running: make.gauge(&catalog::NVML_RUNNING)?,
            events: make.counter(&catalog::NVML_EVENTS)?,
            ignored: make.counter(&catalog::NVML_IGNORED)?,
            unattributed: make.counter(&catalog::NVML_UNATTRIBUTED)?,
            failed_waits: make.counter(&catalog::NVML_FAILED_WAITS)?,
            failed_calls: make.counter(&catalog::NVML_FAILED_CALLS)?,
            polls: make.counter(&catalog::NVML_POLLS)?,
            sessions: make.counter(&catalog::NVML_SESSIONS)?,
            hung: make.counter(&catalog::NVML_HUNG)?,
            hung_age: make.gauges(&catalog::NVML_HUNG_AGE)?,
            recoveries: make.counter(&catalog::NVML_RECOVERIES)?,
        })
    }
}

impl Kmsg {
    fn new(make: &Maker<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            lines: make.counter(&catalog::KMSG_LINES)?,
            unparsed: make.counter(&catalog::KMSG_UNPARSED)?,
            overruns: make.counter(&catalog::KMSG_OVERRUNS)?,
        })
    }
}

impl Signals {
    fn new(make: &Maker<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            observed: make.counters(&catalog::SIGNALS)?,
            drills: make.counters(&catalog::SIGNAL_DRILLS)?,
            unattributed: make.counter(&catalog::SIGNALS_UNATTRIBUTED)?,
            folded: make.counter(&catalog::SIGNALS_FOLDED)?,
            decision: make.histogram(&catalog::DECISION_SECONDS)?,
            fallbacks: make.counters(&catalog::FALLBACKS)?,
            incidents: make.gauge(&catalog::INCIDENTS)?,
        })
    }
}

/// The label of a source: a provider's name is its own choice, so providers are one.
fn source_label(source: &Source) -> &'static str {
    match source {
        Source::Nvml => "nvml",
        Source::Kmsg => "kmsg",
        Source::Field230 => "field-230",
        Source::Provider(_) => "provider",
        Source::Host => "host",
    }
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Brings a counter to a total that only rises.
fn advance(counter: &IntCounter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}

fn seconds(elapsed: Duration) -> f64 {
    elapsed.as_secs_f64()
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
