//! Our NVML source, run as the daemon runs it, and what it tells.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use device_api_core::device::DeviceInfo;
use device_api_core::durable::LogPosition;
use device_api_core::ids::DeviceUuid;
use device_api_core::ports::{NvmlObserver, NvmlStatus, SignalSink};
use device_api_core::recovery::Recovery;
use device_api_core::signal::{Observation, Samples};
use device_api_nvml::{Config, Counts, Handle, Nvml, Stopped};

/// A driver that has to wake eight GPUs answers within some ten seconds.
const READY_WITHIN: Duration = Duration::from_secs(90);

/// What was told so far.
#[derive(Debug, Default)]
struct Told {
    devices: BTreeMap<String, DeviceInfo>,
    samples: BTreeMap<String, Arc<Samples>>,
    status: Option<NvmlStatus>,
}

#[derive(Debug, Default)]
struct Collector {
    told: Mutex<Told>,
    changed: Condvar,
}

impl Collector {
    fn lock(&self) -> MutexGuard<'_, Told> {
        // Each critical section leaves it whole.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, take: impl FnOnce(&mut Told)) {
        take(&mut self.lock());
        self.changed.notify_all();
    }

    /// The first answer of `find`; `None`: not in time.
    fn wait<T>(&self, within: Duration, find: impl Fn(&Told) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + within;
        let mut told = self.lock();
        loop {
            if let Some(found) = find(&told) {
                return Some(found);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            let waited = self.changed.wait_timeout(told, left);
            told = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl SignalSink for Collector {
    fn observe(&self, _: Observation) {}

    fn device_found(&self, device: DeviceInfo, samples: Arc<Samples>) {
        self.take(|told| {
            let uuid = device.uuid.as_str().to_owned();
            told.samples.insert(uuid.clone(), samples);
            told.devices.insert(uuid, device);
        });
    }

    fn sampled(&self, uuid: &DeviceUuid, samples: Arc<Samples>) {
        self.take(|told| {
            told.samples.insert(uuid.as_str().to_owned(), samples);
        });
    }

    fn probing(&self, _: &[DeviceUuid]) {}
    fn probed(&self, _: &DeviceUuid) {}
    fn recovered(&self, _: &DeviceUuid, _: Recovery, _: &str) {}
    fn log_read(&self, _: LogPosition) {}
}

impl NvmlObserver for Collector {
    fn nvml_status(&self, status: NvmlStatus) {
        self.take(|told| told.status = Some(status));
    }
}

/// A source that is ready.
#[derive(Debug)]
pub(crate) struct Source {
    handle: Handle,
    collector: Arc<Collector>,
    pub(crate) library: String,
    pub(crate) driver: String,
}

/// What a source has told by now.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) devices: BTreeMap<String, DeviceInfo>,
    pub(crate) samples: BTreeMap<String, Arc<Samples>>,
    pub(crate) counts: Counts,
}

impl Source {
    /// Starts it, and waits until it is ready and has told of each GPU.
    ///
    /// # Errors
    /// There is no usable NVML, and why; or it is not ready in time.
    pub(crate) fn start(library: Option<PathBuf>) -> Result<Self> {
        let config = Config {
            library,
            ..Config::default()
        };
        let collector = Arc::new(Collector::default());
        let sink: Arc<dyn SignalSink> = Arc::<Collector>::clone(&collector);
        let observer: Arc<dyn NvmlObserver> = Arc::<Collector>::clone(&collector);
        let handle = Nvml::start(config, sink, observer).context("starting the NVML source")?;
        let found = collector.wait(READY_WITHIN, |told| match told.status.as_ref()? {
            NvmlStatus::Ready {
                library,
                driver,
                gpus,
                ..
            } => {
                let are_there = told.devices.len() >= *gpus;
                are_there.then(|| Ok((library.clone(), driver.clone())))
            }
            NvmlStatus::Missing { why } => Some(Err(why.clone())),
            NvmlStatus::Disabled | NvmlStatus::Released { .. } => None,
        });
        match found {
            Some(Ok((library, driver))) => Ok(Self {
                handle,
                collector,
                library,
                driver,
            }),
            Some(Err(why)) => bail!("no usable NVML: {why}"),
            None => bail!("NVML did not become ready within {READY_WITHIN:?}"),
        }
    }

    /// Waits until all of `rounds` more rounds of readings are done.
    ///
    /// # Errors
    /// They are not, in time.
    pub(crate) fn polled(&self, rounds: u64) -> Result<()> {
        let until = self.handle.counts().polls + rounds;
        let is_done = |_: &Told| (self.handle.counts().polls >= until).then_some(());
        let done = self.collector.wait(READY_WITHIN, is_done);
        done.with_context(|| format!("no {rounds} rounds of readings within {READY_WITHIN:?}"))
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let told = self.collector.lock();
        Snapshot {
            devices: told.devices.clone(),
            samples: told.samples.clone(),
            counts: self.handle.counts(),
        }
    }

    /// Whether it ended cleanly.
    pub(crate) fn stop(self) -> bool {
        self.handle.stop() == Stopped::Cleanly
    }
}
