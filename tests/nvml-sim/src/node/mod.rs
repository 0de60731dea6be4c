//! The simulated node: its GPUs, its driver, and the calls that were made to misbehave.

mod gpu;
pub(crate) mod mig;
mod rules;

use crate::clock::Clock;
use crate::events::Events;
use crate::profile::{DRIVER_VERSION, Profile, cuda_of};
use crate::scenario::Timeline;

pub(crate) use gpu::{Banks, EccCount, EccCounts, Gpu, Link, PcieLink, RowRemap};
pub(crate) use mig::Instance;
pub(crate) use rules::{Effect, Rule, Rules};

/// Which versions are about. They differ while an upgrade is under way.
#[derive(Clone, Debug)]
pub(crate) struct Versions {
    /// Of the kernel driver.
    pub(crate) driver: String,
    /// Of the library's file.
    pub(crate) library: String,
}

impl Versions {
    pub(crate) fn new(driver: Option<String>) -> Self {
        let driver = driver.unwrap_or_else(|| DRIVER_VERSION.to_owned());
        Self {
            library: driver.clone(),
            driver,
        }
    }

    pub(crate) fn match_up(&self) -> bool {
        self.driver == self.library
    }

    pub(crate) fn cuda(&self) -> i32 {
        cuda_of(&self.driver).unwrap_or_default()
    }

    /// As `nvmlSystemGetNVMLVersion` has it: CUDA's major version, then the library's own.
    pub(crate) fn nvml(&self) -> String {
        let cuda = cuda_of(&self.library).unwrap_or_default() / 1000;
        format!("{cuda}.{}", self.library)
    }
}

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) profile: &'static Profile,
    pub(crate) gpus: Vec<Gpu>,
    pub(crate) rules: Rules,
    pub(crate) events: Events,
    pub(crate) versions: Versions,
    /// Whether the kernel driver is bound.
    pub(crate) loaded: bool,
    /// `nvmlInit` calls not yet answered by an `nvmlShutdown`.
    pub(crate) users: u32,
    pub(crate) clock: Clock,
    /// The scenario that is played or was played last.
    pub(crate) timeline: Option<Timeline>,
    /// MIG instances that there ever were.
    mig_instances: u32,
}

impl Node {
    pub(crate) fn healthy(profile: &'static Profile, gpus: u32, versions: Versions) -> Self {
        let healthy = |identity| Gpu::healthy(profile, identity, 0);
        Self {
            profile,
            gpus: profile.gpus(gpus).into_iter().map(healthy).collect(),
            rules: Rules::default(),
            events: Events::new(),
            versions,
            loaded: true,
            users: 0,
            clock: Clock::running(1.0),
            timeline: None,
            mig_instances: 0,
        }
    }

    pub(crate) fn gpu(&self, index: u32) -> Option<&Gpu> {
        self.gpus.get(usize::try_from(index).ok()?)
    }

    pub(crate) fn gpu_mut(&mut self, index: u32) -> Option<&mut Gpu> {
        self.gpus.get_mut(usize::try_from(index).ok()?)
    }

    /// A MIG device and the GPU that it is cut out of.
    pub(crate) fn mig(&self, number: u32) -> Option<(&Gpu, &Instance)> {
        self.migs().find(|(_, instance)| instance.number == number)
    }

    pub(crate) fn migs(&self) -> impl Iterator<Item = (&Gpu, &Instance)> {
        self.gpus
            .iter()
            .flat_map(|gpu| gpu.mig.iter().map(move |instance| (gpu, instance)))
    }

    /// Cuts a MIG instance out of a GPU; its GPU instance and UUID.
    pub(crate) fn cut(&mut self, gpu: u32, profile: &str) -> Result<(u32, String), String> {
        let (kind, number) = (self.profile, self.mig_instances);
        let gpu = self.gpu_mut(gpu).ok_or("no such GPU")?;
        let Gpu { identity, mig, .. } = gpu;
        let instance = mig.create(identity, kind, profile, number)?;
        let made = (instance.gpu_instance, instance.uuid.clone());
        self.mig_instances += 1;
        Ok(made)
    }

    /// Another board in the slot: healthy, and no one that was registered for is.
    pub(crate) fn replace(&mut self, index: u32) -> Option<String> {
        let profile = self.profile;
        let gpu = self.gpu_mut(index)?;
        let generation = gpu.generation + 1;
        let identity = profile.replacement(index, generation)?;
        let uuid = identity.uuid.clone();
        *gpu = Gpu::healthy(profile, identity, generation);
        self.events.forget(index);
        Some(uuid)
    }

    pub(crate) fn initialised(&self) -> bool {
        self.loaded && self.users > 0
    }

    /// The last user went, or the driver did: event sets don't survive either.
    pub(crate) fn end_session(&mut self) {
        self.users = 0;
        self.events.free_all();
    }

    /// Binds or unbinds the driver; volatile counters count from there on.
    pub(crate) fn bind(&mut self, bound: bool) {
        if bound && !self.loaded {
            for gpu in &mut self.gpus {
                gpu.ecc_volatile = EccCounts::default();
            }
        }
        self.loaded = bound;
        if !bound {
            self.end_session();
        }
    }

    /// Makes the GPU (or all, rules for any GPU included) as new. Who it is stays.
    pub(crate) fn reset(&mut self, gpu: Option<u32>) {
        let profile = self.profile;
        let healed = |healed: &&mut Gpu| gpu.is_none_or(|it| it == healed.identity.index);
        for healed in self.gpus.iter_mut().filter(healed) {
            *healed = Gpu::healthy(profile, healed.identity.clone(), healed.generation);
        }
        self.rules.end(|rule| gpu.is_none() || rule.gpu == gpu);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(gpus: u32) -> Node {
        Node::healthy(Profile::standard(), gpus, Versions::new(None))
    }

    #[test]
    fn a_reset_of_one_gpu_leaves_the_others_broken() {
        let mut node = node(2);
        for gpu in &mut node.gpus {
            gpu.lost = true;
        }
        for gpu in [Some(0), None] {
            let effect = Effect::Hang;
            node.rules
                .add(Rule {
                    gpu,
                    call: None,
                    effect,
                })
                .unwrap();
        }
        node.reset(Some(0));
        let lost: Vec<_> = node.gpus.iter().map(|gpu| gpu.lost).collect();
        assert_eq!((lost, node.rules.iter().count()), (vec![false, true], 1));
        node.reset(None);
        assert!(node.rules.iter().count() == 0 && node.gpus.iter().all(|gpu| !gpu.lost));
    }

    #[test]
    fn the_board_remembers_what_a_gpu_reset_does_not_heal() {
        let mut node = node(1);
        let profile = node.profile;
        let gpu = node.gpu_mut(0).unwrap();
        gpu.ecc_volatile.dram.uncorrected = 3;
        gpu.ecc_aggregate.dram.uncorrected = 3;
        gpu.rows.uncorrectable = 2;
        gpu.rows.pending = true;
        gpu.rows.failure = true;
        gpu.recovery_action = 1;
        gpu.reset(profile);
        assert_eq!(
            (gpu.ecc_volatile.dram.uncorrected, gpu.recovery_action),
            (0, 0)
        );
        assert_eq!(gpu.ecc_aggregate.dram.uncorrected, 3);
        assert!(!gpu.rows.pending && gpu.rows.failure && gpu.rows.uncorrectable == 2);
    }
}
