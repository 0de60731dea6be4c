//! Each GPU, as cache and readings show it at the scrape: how it is, what to do about it, and what NVML read of it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use device_api_core::condition;
use device_api_core::gpu::Gpu;
use device_api_core::health::Health;
use device_api_core::ids::DeviceUuid;
use prometheus::core::{Collector, Desc};
use prometheus::proto;

use super::Metrics;
use super::catalog::{self, Spec};
use super::readings;
use super::sampled::LastRead;
use super::series::{self, Series};

/// Puts a GPU's series of one metric.
type Put = fn(&Gpu, &mut Series<'_>);

/// What is told of each GPU in the cache, read or not.
const READ: [(&Spec, Put); 4] = [
    (&catalog::GPU_INFO, info),
    // A state each, and not the number of one: what is 0 can be told from what is not there, a rule or a panel names
    // the state, and a change is a step in series that stay.
    (&catalog::GPU_HEALTH, |gpu, series| {
        if gpu.device.parent.is_none() {
            let product = &*gpu.device.product;
            health(gpu, &[gpu.uuid.as_str(), product], series);
        }
    }),
    // A metric of its own, or each change of the advice would be another series of the health. Only the one that is
    // recommended: a rule asks for `action!="NONE"`, and ends when the series does.
    (&catalog::GPU_ACTION, |gpu, series| {
        if gpu.device.parent.is_none() {
            let action = gpu.derived.action.as_str();
            series.put([gpu.uuid.as_str(), &*gpu.device.product, action], 1.0);
        }
    }),
    (&catalog::MIG_HEALTH, |gpu, series| {
        if let Some(parent) = &gpu.device.parent {
            let labels = [gpu.uuid.as_str(), parent.gpu.as_str(), &*parent.profile];
            health(gpu, &labels, series);
        }
    }),
];

fn info(gpu: &Gpu, series: &mut Series<'_>) {
    let device = &gpu.device;
    if device.parent.is_some() {
        return;
    }
    let index = device.index.map(|index| index.to_string());
    let pci = device.pci.map(|pci| pci.to_string());
    let labels = [
        gpu.uuid.as_str(),
        &*device.product,
        &*index.unwrap_or_default(),
        &*pci.unwrap_or_default(),
        &*device.driver_version,
        if device.simulated { "true" } else { "false" },
    ];
    series.put(labels, 1.0);
}

fn health(gpu: &Gpu, labels: &[&str], series: &mut Series<'_>) {
    for health in Health::ALL {
        let is_so = u8::from(health == gpu.derived.health);
        let labels = labels.iter().copied().chain([health.as_str()]);
        series.put(labels, f64::from(is_so));
    }
}

/// Tells the objects in the cache as they are just now.
type Objects = Box<dyn Fn() -> Arc<[Arc<Gpu>]> + Send + Sync>;

impl Metrics {
    /// Tells of these GPUs from now on, and of what was read of them, as both are at each scrape. To be called once.
    ///
    /// # Errors
    /// It was called before.
    pub(crate) fn watch_gpus(
        &self,
        objects: impl Fn() -> Arc<[Arc<Gpu>]> + Send + Sync + 'static,
        last_read: Arc<LastRead>,
    ) -> prometheus::Result<()> {
        let specs = READ.iter().map(|(spec, _)| spec);
        let descs = series::descs(specs.chain(readings::SPECS))?;
        self.registry.register(Box::new(Watched {
            objects: Box::new(objects),
            last_read,
            descs,
        }))
    }
}

struct Watched {
    objects: Objects,
    last_read: Arc<LastRead>,
    descs: Vec<Desc>,
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").finish_non_exhaustive()
    }
}

impl Collector for Watched {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        let objects = (self.objects)();
        // A client may show one GPU under several names: one series that is there twice costs the whole scrape.
        let gpus: BTreeMap<&DeviceUuid, &Gpu> =
            objects.iter().map(|gpu| (&gpu.uuid, &**gpu)).collect();
        let of_gpus = READ.iter().map(|(spec, read)| {
            let mut series = Series::new(spec);
            for gpu in gpus.values() {
                read(gpu, &mut series);
            }
            series.into_family()
        });
        // Of a board that is gone nothing is read any more.
        let there = gpus
            .values()
            .filter(|gpu| gpu.device.parent.is_none() && !condition::is_gone(&gpu.conditions));
        let sampled = self.last_read.of(there.map(|gpu| &gpu.uuid));
        let read: Vec<_> = sampled
            .iter()
            .filter_map(|(uuid, samples)| {
                let gpu = gpus.get(uuid)?;
                Some(([uuid.as_str(), &*gpu.device.product], &**samples))
            })
            .collect();
        of_gpus.chain(readings::families(&read)).collect()
    }
}

#[cfg(test)]
#[path = "gpus_tests.rs"]
pub(super) mod tests;
