//! Puts the rooms together: the one place that sees them all, and the list of every task and thread.
//!
//! | task or thread | of | ends |
//! | --- | --- | --- |
//! | `grpc` task | the API | when drained |
//! | tasks of connections, and of their streams | the API | with their connections; when drained |
//! | tasks that look at the files of TLS, and end health | the API | with the `grpc` task |
//! | tasks that tell what the audit log left out | the API | a minute or two after the last refusal |
//! | `leases` task | the cache | with the runtime |
//! | the task that ends a log filter | an operator | when its time is over, or another is set |
//! | `store` thread | the store | when stopped, what is pending written |
//! | `signal-timer` thread | the pipeline | when it is dropped |
//! | `policy-supervisor`, `policy-compiler` threads | the policies | when stopped or dropped |
//! | `policy-…` threads | one for each policy | with the last use of the policy |
//! | `shadow-…` threads | one for each shadow policy | when it is unloaded, or the supervisor dropped |
//! | `nvml`, `nvml-watch`, `nvml-events`, `nvml-poll` threads | the NVML source | when stopped; one that hangs is left behind, and another takes its place |
//! | `kmsg` thread | the kernel log | when dropped |
//! | `wasm-epoch` thread | the Wasm engine | with the last policy |

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use device_api_cache::Cache;
use device_api_core::clock::BootId;
use device_api_core::durable::{LogPosition, SeenBefore};
use device_api_core::limits::Bounds;
use device_api_core::ports::{NvmlObserver, NvmlStatus, SignalSink};
use device_api_grpc::{Bound, GrpcConfig, Operated, PlainTcp, ServeError, TlsFiles};
use device_api_kmsg::{KernelLog, LogStatus};
use device_api_nvml::TurnedOff;
use device_api_pipeline::{Drills, Pipeline};
use device_api_policy::{Shadows, Supervisor};
use device_api_store::Store;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::clock::SystemClock;
use crate::config::{ApiConfig, Config, KmsgConfig, NvmlConfig};
use crate::files;
use crate::log_filter::LogControl;
use crate::metrics::{LastRead, Metrics, Sampled};
use crate::nvml_report::{self, NvmlReport};
use crate::operator::Operator;
use crate::policies;
use crate::readiness::{PartState, Readiness};
use crate::socket_report;
use crate::state::{self, Opened};
use crate::tls_report;
use crate::values;

/// How often it is looked for leases that have run out: a fraction of the shortest there are.
const LEASE_CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// How long NVML's source waits for the kernel log, so that what it tells of the time in which the
/// daemon was down is known before a GPU that answers is called healthy (design C7). A full kernel
/// buffer is read in milliseconds; a node whose log is slower, or hangs, must be served all the same.
const LOG_WAIT: Duration = Duration::from_secs(2);

/// The daemon at work, admin ports apart.
#[derive(Debug)]
pub(crate) struct Running {
    cache: Arc<Cache>,
    store: Option<Arc<Store>>,
    shutdown: watch::Sender<bool>,
    api: JoinHandle<Result<(), ServeError>>,
    leases: JoinHandle<()>,
    nvml: Option<device_api_nvml::Handle>,
    kmsg: Option<Arc<KernelLog>>,
    policies: Arc<Supervisor>,
    /// Last: what the others hand in goes through it.
    pipeline: Pipeline,
}

/// Starts all rooms: the API's addresses first, since another daemon may have them; then the store, the
/// cache, the pipeline and the policies; then the sources, the kernel log first; and last the API
/// answers.
///
/// # Errors
/// What the daemon can't be without can't be had (a socket in use); not what it serves without
/// (NVML, a policy of the directory).
pub(crate) async fn start(
    config: &Config,
    metrics: Arc<Metrics>,
    readiness: &Readiness,
    log_control: &Arc<LogControl>,
) -> anyhow::Result<Running> {
    let bound = bind(&config.api, &config.limits, &metrics, readiness).await?;
    let tls = bound.tls();
    let clock = Arc::new(SystemClock);
    let Opened {
        cache,
        store,
        boot,
        memories,
        log,
    } = tokio::task::block_in_place(|| {
        state::open(config, clock.clone(), metrics.clone(), readiness)
    })?;
    let (judged, told) = (cache.clone(), metrics.clone());
    let daemon = Operator::new(config, boot.clone(), tls, readiness, log_control);
    let pipeline = Pipeline::start(judged, clock.clone(), told, judging(config), memories)
        .context("cannot start the pipeline; raise the limit of threads")?;
    cache.on_overdue(pipeline.overdue());
    let shadows = Shadows::new();
    pipeline.on_committed(shadows.clone());
    // Before the sources: nothing is judged without them.
    let policies = tokio::task::block_in_place(|| {
        policies::start(
            config,
            pipeline.seats(),
            shadows,
            clock,
            &metrics,
            readiness,
        )
    })?;
    policies::await_seated(&policies).await?;

    let kmsg = config
        .kmsg
        .as_ref()
        .map(|kmsg| start_kmsg(kmsg, (boot, log), pipeline.sink(), &metrics, readiness))
        .transpose()?;
    if let Some(kmsg) = &kmsg {
        tokio::task::block_in_place(|| await_log(kmsg));
    }
    let seen = cache.seen_before();
    let sampled = tell_of_gpus(&cache, &pipeline, &metrics)?;
    let nvml = start_nvml(config.nvml.as_ref(), (sampled, seen), &metrics, readiness)?;
    let (shutdown, shut_down) = watch::channel(false);
    let operated = operated(&policies, &pipeline, nvml.as_ref(), daemon);
    let api = tokio::spawn(device_api_grpc::serve(
        bound,
        cache.clone(),
        operated,
        metrics.clone(),
        shut_down,
    ));
    let leases = tokio::spawn(expire_leases(cache.clone(), metrics));
    Ok(Running {
        cache,
        store,
        shutdown,
        api,
        leases,
        nvml,
        kmsg,
        policies,
        pipeline,
    })
}

/// Has the metrics tell of each GPU. What NVML's source says is to go through what is returned: that is the way of
/// readings to the metrics.
fn tell_of_gpus(
    cache: &Arc<Cache>,
    pipeline: &Pipeline,
    metrics: &Metrics,
) -> anyhow::Result<Arc<Sampled>> {
    let last_read = Arc::new(LastRead::default());
    // Weak: the cache has the metrics as its observer.
    let told = Arc::downgrade(cache);
    let objects = move || told.upgrade().map(|cache| cache.all_now());
    metrics
        .watch_gpus(move || objects().unwrap_or_default(), last_read.clone())
        .context("cannot set up the metrics of GPUs")?;
    Ok(Arc::new(Sampled::new(pipeline.sink(), last_read)))
}

fn judging(config: &Config) -> device_api_pipeline::Config {
    device_api_pipeline::Config {
        drills: drills(config.drills),
        platform: config.platform,
        barrier_wait: config.limits.barrier_wait,
        safe_mode: config.policies.safe_mode,
    }
}

/// Who answers the API's calls on what is operated.
fn operated(
    policies: &Arc<Supervisor>,
    pipeline: &Pipeline,
    nvml: Option<&device_api_nvml::Handle>,
    daemon: Operator,
) -> Operated {
    Operated {
        policies: policies.policies(),
        incidents: pipeline.incidents(),
        nvml: match nvml {
            Some(nvml) => Arc::new(nvml.operator()),
            None => Arc::new(TurnedOff),
        },
        daemon: Arc::new(daemon),
    }
}

impl Running {
    /// Has the policies looked at again (`SIGHUP`).
    pub(crate) fn reload(&self) {
        self.policies.reload();
    }

    /// Resolves when a task has ended that must not, with the reason; while all is well, never.
    pub(crate) async fn failed(&mut self) -> anyhow::Error {
        match (&mut self.api).await {
            Ok(Ok(())) => anyhow::anyhow!("the API stopped by itself"),
            Ok(Err(error)) => error.into(),
            Err(error) => anyhow::Error::from(error).context("the API's task broke off"),
        }
    }

    /// Ends the rooms in order: no new calls, watches end with `Unavailable`, calls under way finish,
    /// sources stop. The caller sets the limit by dropping the future.
    pub(crate) async fn drain(self) {
        let Self {
            cache,
            store,
            shutdown,
            api,
            leases,
            nvml,
            kmsg,
            policies,
            pipeline,
        } = self;
        let _nobody_serves = shutdown.send(true);
        // Before the API ends: a call may wait for a compile.
        policies.stop();
        cache.close();
        if !api.is_finished()
            && let Ok(Err(error)) = api.await
        {
            tracing::warn!(%error, "the API did not end well");
        }
        leases.abort();
        let sources = tokio::task::spawn_blocking(move || {
            drop(kmsg);
            nvml.map(device_api_nvml::Handle::stop);
            drop(policies);
            drop(pipeline);
            // Last: what the others decided goes to the disk.
            if let Some(store) = store {
                store.stop();
            }
        });
        if let Err(error) = sources.await {
            tracing::warn!(%error, "the sources did not end well");
        }
    }
}

async fn bind(
    api: &ApiConfig,
    limits: &Bounds,
    metrics: &Metrics,
    readiness: &Readiness,
) -> anyhow::Result<Bound> {
    let bounds = Bounds {
        connections: files::connections(limits.connections),
        ..limits.clone()
    };
    let config = GrpcConfig {
        unix_sockets: api.unix_sockets.clone(),
        tcp: api.tcp,
        tls: api.tls.as_ref().map(|tls| TlsFiles {
            cert: tls.cert.clone(),
            key: tls.key.clone(),
            client_ca: tls.client_ca.clone(),
        }),
        plain_tcp: match api.insecure_tcp {
            values::InsecureTcp::Off => PlainTcp::Loopback,
            values::InsecureTcp::Read => PlainTcp::Read,
            values::InsecureTcp::Write => PlainTcp::Write,
        },
        writers_uid: api.writers_uid.clone(),
        writers_gid: api.writers_gid.clone(),
        writers_tcp: api
            .writers_tcp
            .iter()
            .map(|name| name.as_str().into())
            .collect(),
        bounds: Arc::new(bounds),
    };
    let bound = device_api_grpc::bind(&config).await?;
    for socket in bound.unix_sockets() {
        tracing::info!(socket = %socket.display(), "API: Unix socket");
    }
    if !config.unix_sockets.is_empty() {
        socket_report::watch(bound.sockets(), metrics, readiness);
    }
    if let Some(address) = bound.tcp_addr() {
        let tls = match &config.tls {
            None => "none",
            Some(TlsFiles {
                client_ca: None, ..
            }) => "server",
            Some(TlsFiles {
                client_ca: Some(_), ..
            }) => "mutual",
        };
        tracing::info!(%address, tls, "API: TCP");
    }
    if let Some(tls) = bound.tls() {
        tls_report::watch(tls, metrics, readiness);
    }
    Ok(bound)
}

fn drills(drills: values::Drills) -> Drills {
    match drills {
        values::Drills::Report => Drills::Report,
        values::Drills::Enforce => Drills::Enforce,
    }
}

fn start_nvml(
    config: Option<&NvmlConfig>,
    (sink, seen_before): (Arc<Sampled>, Vec<SeenBefore>),
    metrics: &Arc<Metrics>,
    readiness: &Readiness,
) -> anyhow::Result<Option<device_api_nvml::Handle>> {
    let report = Arc::new(NvmlReport::new(metrics.clone(), readiness));
    let Some(config) = config else {
        report.nvml_status(NvmlStatus::Disabled);
        return Ok(None);
    };
    let source = nvml_source(config, seen_before);
    let handle = device_api_nvml::Nvml::start(source, sink, report)
        .context("cannot start the NVML source; raise the limit of threads")?;
    let monitor = handle.monitor();
    nvml_report::watch_calls(&monitor, readiness);
    metrics.before_scrape(move |metrics| {
        metrics.nvml_counts(monitor.counts());
        metrics.nvml_hears(monitor.hears());
        metrics.nvml_hung(&monitor.hung());
    });
    Ok(Some(handle))
}

/// What the NVML source makes of the flags.
pub(crate) fn nvml_source(
    config: &NvmlConfig,
    seen_before: Vec<SeenBefore>,
) -> device_api_nvml::Config {
    device_api_nvml::Config {
        library: config.library.clone(),
        driver_root: Some(config.driver_root.clone()),
        ignored_xids: config.ignored_xids.clone(),
        poll_interval: config.intervals.sensors,
        fault_interval: config.intervals.faults,
        counter_interval: config.intervals.counters,
        limit_interval: config.intervals.limits,
        inventory_interval: config.intervals.inventory,
        stale_after: config.intervals.stale_after,
        seen_before,
        ..device_api_nvml::Config::default()
    }
}

fn start_kmsg(
    config: &KmsgConfig,
    (boot, from): (BootId, Option<LogPosition>),
    sink: Arc<dyn SignalSink>,
    metrics: &Metrics,
    readiness: &Readiness,
) -> anyhow::Result<Arc<KernelLog>> {
    let log = Arc::new(KernelLog::start(
        &config.path,
        sink,
        config.drill,
        boot,
        from,
    )?);
    let counted = Arc::downgrade(&log);
    metrics.before_scrape(move |metrics| {
        if let Some(log) = counted.upgrade() {
            metrics.kmsg_counts(log.counts());
        }
    });
    let (asked, path) = (Arc::downgrade(&log), config.path.clone());
    readiness.asked("kernel-log", move || {
        match asked.upgrade().map(|log| log.status()) {
            None => (PartState::Off, "stopped".to_owned()),
            Some(LogStatus::Waiting { why }) => (
                PartState::Degraded,
                format!("{}: {why}; tried again", path.display()),
            ),
            Some(LogStatus::Following { caught_up: true }) => {
                (PartState::Up, format!("following {}", path.display()))
            }
            Some(LogStatus::Following { caught_up: false }) => {
                (PartState::Up, format!("reading {}", path.display()))
            }
        }
    });
    Ok(log)
}

/// Waits until the kernel log has caught up, or can't be read, for [`LOG_WAIT`] at most.
fn await_log(log: &KernelLog) {
    if !log.wait_caught_up(LOG_WAIT) {
        let status = match log.status() {
            LogStatus::Waiting { why } => why,
            LogStatus::Following { .. } => "still reading".to_owned(),
        };
        tracing::warn!(
            status,
            "GPUs are looked for before the kernel log was read: until then a fault of the time in which the daemon was down is not known"
        );
    }
}

async fn expire_leases(cache: Arc<Cache>, metrics: Arc<Metrics>) {
    let mut interval = tokio::time::interval(LEASE_CHECK_INTERVAL);
    loop {
        interval.tick().await;
        for provider in cache.expire_leases() {
            metrics.provider_lost();
            tracing::warn!(%provider, "provider lost: its lease was not renewed; what it called healthy is Unknown now");
        }
    }
}
