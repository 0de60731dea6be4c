//! What NVML told of each GPU last, kept on its way to the pipeline: no scrape calls NVML.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use device_api_core::device::DeviceInfo;
use device_api_core::durable::LogPosition;
use device_api_core::ids::DeviceUuid;
use device_api_core::limits::NVML_DEVICES_MAX;
use device_api_core::ports::SignalSink;
use device_api_core::recovery::Recovery;
use device_api_core::signal::{Observation, Samples, SignalKind, Target};

type Newest = BTreeMap<DeviceUuid, Arc<Samples>>;

/// The newest readings of each GPU. Of its own, so that metrics hold these and not the pipeline.
#[derive(Debug, Default)]
pub(crate) struct LastRead(Mutex<Newest>);

impl LastRead {
    /// The newest readings of each of these GPUs. Those of others (a board that is not there any more) are dropped.
    pub(super) fn of<'a>(&self, gpus: impl Iterator<Item = &'a DeviceUuid>) -> Newest {
        let gpus: std::collections::BTreeSet<_> = gpus.collect();
        self.with(|newest| {
            newest.retain(|uuid, _| gpus.contains(uuid));
            newest.clone()
        })
    }

    fn with<R>(&self, f: impl FnOnce(&mut Newest) -> R) -> R {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn keep(&self, uuid: &DeviceUuid, samples: &Arc<Samples>) {
        self.with(|newest| {
            if newest.contains_key(uuid) || newest.len() < NVML_DEVICES_MAX {
                newest.insert(uuid.clone(), samples.clone());
            }
        });
    }
}

/// Hands on what NVML's source says, and keeps the readings.
#[derive(Debug)]
pub(crate) struct Sampled {
    to: Arc<dyn SignalSink>,
    last: Arc<LastRead>,
}

impl Sampled {
    pub(crate) fn new(to: Arc<dyn SignalSink>, last: Arc<LastRead>) -> Self {
        Self { to, last }
    }
}

impl SignalSink for Sampled {
    fn observe(&self, observation: Observation) {
        // What was read of it is not so any more.
        if observation.kind == SignalKind::GpuLost
            && let Target::Uuid(uuid) = &observation.target
        {
            self.last.with(|newest| newest.remove(uuid));
        }
        self.to.observe(observation);
    }

    fn device_found(&self, device: DeviceInfo, samples: Arc<Samples>) {
        self.last.keep(&device.uuid, &samples);
        self.to.device_found(device, samples);
    }

    fn sampled(&self, uuid: &DeviceUuid, samples: Arc<Samples>) {
        self.last.keep(uuid, &samples);
        self.to.sampled(uuid, samples);
    }

    fn probing(&self, candidates: &[DeviceUuid]) {
        self.to.probing(candidates);
    }

    fn probed(&self, uuid: &DeviceUuid) {
        self.to.probed(uuid);
    }

    fn recovered(&self, uuid: &DeviceUuid, recovery: Recovery, evidence: &str) {
        self.to.recovered(uuid, recovery, evidence);
    }

    fn log_read(&self, position: LogPosition) {
        self.to.log_read(position);
    }
}
