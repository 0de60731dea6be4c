//! The house around a policy: the real pipeline over the real cache, in memory, and GPUs for it.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result};
use device_api_cache::Cache;
use device_api_core::action::Platform;
use device_api_core::clock::{BootTime, Clock, WallTime, system_wall_time};
use device_api_core::device::DeviceInfo;
use device_api_core::ids::DeviceUuid;
use device_api_core::limits::Bounds;
use device_api_core::ports::{Overdue, Policy, Seats, SignalSink};
use device_api_core::seating::Seating;
use device_api_core::signal::{
    Attr, Observation, Reading, Samples, SignalKind, Source, Target, Value,
};
use device_api_pipeline::{Config, Drills, Memories, Pipeline};

/// Since the benchmark began.
#[derive(Debug)]
struct Uptime(Instant);

impl Clock for Uptime {
    fn wall(&self) -> WallTime {
        system_wall_time()
    }

    fn boot(&self) -> BootTime {
        BootTime::default().after(self.0.elapsed())
    }
}

/// Put together as the daemon's runtime does, without store, sources and API.
#[derive(Debug)]
pub(crate) struct House {
    pub(crate) cache: Arc<Cache>,
    pub(crate) sink: Arc<dyn SignalSink>,
    pub(crate) seats: Arc<dyn Seats>,
    pipeline: Pipeline,
}

impl House {
    /// # Errors
    /// The system gives no thread, or the policy gets no seat.
    pub(crate) fn new(policy: &Arc<impl Policy + 'static>, gpus: usize) -> Result<Self> {
        let clock: Arc<dyn Clock> = Arc::new(Uptime(Instant::now()));
        let bounds = Arc::new(Bounds::default());
        let config = Config {
            drills: Drills::Report,
            platform: Platform::BareMetal,
            barrier_wait: bounds.barrier_wait,
            safe_mode: false,
        };
        let cache = Arc::new(Cache::in_memory(
            device_api_cache::Config {
                bounds,
                ..Default::default()
            },
            clock.clone(),
            Arc::new(device_api_cache::Unobserved),
        ));
        let told = Arc::new(device_api_pipeline::Unobserved);
        let pipeline = Pipeline::start(cache.clone(), clock, told, config, Memories::default())
            .context("cannot start the pipeline")?;
        cache.on_overdue(pipeline.overdue());
        let seating = Seating {
            policy: policy.clone(),
            rejudged: Vec::new(),
            insist: true,
        };
        let seats = pipeline.seats();
        let seated = seats.seat(seating);
        seated.with_context(|| policy.info().id.to_string())?;
        let sink = pipeline.sink();
        for index in 0..gpus {
            sink.device_found(h100(index), Arc::new(readings(IDLE_CELSIUS)));
        }
        Ok(Self {
            cache,
            sink,
            seats,
            pipeline,
        })
    }

    /// What a read asks for whose bound has passed.
    pub(crate) fn overdue(&self) -> Arc<dyn Overdue> {
        self.pipeline.overdue()
    }

    /// Ends the pipeline's thread; what is still with a policy finds nobody.
    pub(crate) fn close(self) {
        drop(self.pipeline);
    }
}

/// Of a GPU that has nothing to do.
pub(crate) const IDLE_CELSIUS: i64 = 41;

pub(crate) fn uuid(index: usize) -> DeviceUuid {
    DeviceUuid::new(&format!("GPU-be9c0000-0000-4000-8000-{index:012x}"))
}

/// An XID as the kernel log tells of it.
pub(crate) fn xid(gpu: &DeviceUuid, code: u64) -> Observation {
    Observation {
        code: Some(code),
        evidence: format!(
            "NVRM: Xid (PCI:0000:00:00): {code}, pid=1818990, name=python3, Ch 00000001, engmask 00000101, intr 00000000"
        ),
        attrs: attrs(1_818_990),
        ..Observation::new(SignalKind::Xid, Target::Uuid(gpu.clone()), Source::Kmsg)
    }
}

/// Of an XID.
pub(crate) fn attrs(pid: usize) -> Vec<Attr> {
    let pid = i64::try_from(pid).unwrap_or(i64::MAX);
    vec![Attr::int("pid", pid), Attr::text("process", "python3")]
}

/// As NVML tells of one.
fn h100(index: usize) -> DeviceInfo {
    let number = u32::try_from(index).ok();
    DeviceInfo {
        pci: format!("{:04x}:{:02x}:00.0", index / 256, index % 256)
            .parse()
            .ok(),
        index: number,
        minor: number,
        product: "NVIDIA H100 80GB HBM3".to_owned(),
        architecture: "Hopper".to_owned(),
        serial: format!("16532230{index:05}"),
        memory_bytes: Some(81_559 * 1024 * 1024),
        driver_version: "580.95.05".to_owned(),
        cuda_version: "13.0".to_owned(),
        ..DeviceInfo::bare(uuid(index))
    }
}

/// All that an H100 is sampled for (docs/readings.md), at that temperature.
pub(crate) fn readings(celsius: i64) -> Samples {
    let at = system_wall_time();
    let numbers = [
        ("temperature.gpu", celsius),
        ("temperature.slowdown", 89),
        ("temperature.shutdown", 95),
        ("power.draw", 118_000),
        ("power.limit", 700_000),
        ("clocks.throttle-reasons", 1),
        ("ecc.volatile.corrected", 0),
        ("ecc.volatile.uncorrected", 0),
        ("ecc.aggregate.corrected", 3),
        ("ecc.aggregate.uncorrected", 0),
        ("row-remap.correctable", 0),
        ("row-remap.uncorrectable", 0),
        ("pcie.link-width", 16),
        ("pcie.link-width-max", 16),
        ("pcie.link-generation", 5),
        ("pcie.link-generation-max", 5),
        ("pcie.replays", 0),
        ("memory.used", 77_309_411_328),
        ("memory.total", 85_520_809_984),
        ("utilization.gpu", 97),
        ("recovery.action", 0),
    ];
    let flags = [("row-remap.pending", false), ("row-remap.failure", false)];
    let numbers = numbers.map(|(key, number)| (key, Value::Int(number)));
    let flags = flags.map(|(key, flag)| (key, Value::Flag(flag)));
    let all = numbers.into_iter().chain(flags);
    all.map(|(key, value)| (key.to_owned(), Ok(Reading { value, at })))
        .collect()
}
