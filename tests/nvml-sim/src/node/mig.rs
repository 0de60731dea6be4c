//! MIG: how a GPU is cut up.

use crate::profile::{Identity, Mig, MigProfile, Profile};

/// Instances of any of these GPUs, and compute slices.
pub(crate) const INSTANCES_MAX: u32 = 7;
const MEMORY_SLICES: u32 = 8;

/// A GPU instance with its one compute instance: what NVML calls a MIG device.
#[derive(Clone, Debug)]
pub(crate) struct Instance {
    /// Part of its handle; never reused on a node.
    pub(crate) number: u32,
    /// Where `nvmlDeviceGetMigDeviceHandleByIndex` finds it.
    pub(crate) index: u32,
    pub(crate) uuid: String,
    pub(crate) gpu_instance: u32,
    pub(crate) compute_instance: u32,
    /// Position in the profile's list.
    pub(crate) profile: usize,
    /// First memory slice.
    start: u32,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Instances {
    pub(crate) enabled: bool,
    pub(crate) pending: bool,
    list: Vec<Instance>,
}

impl Instances {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Instance> {
        self.list.iter()
    }

    /// Sets the mode, at once or with the next reset; without the mode there are no instances.
    pub(crate) fn set_mode(&mut self, mig: &Mig, on: bool) {
        self.pending = on;
        if !mig.needs_reset {
            self.reset();
        }
    }

    pub(crate) fn reset(&mut self) {
        self.enabled = self.pending;
        self.list.clear();
    }

    /// Cuts out an instance of the profile of that name.
    ///
    /// # Errors
    /// Why not, and what would help.
    pub(crate) fn create(
        &mut self,
        gpu: &Identity,
        profile: &Profile,
        name: &str,
        number: u32,
    ) -> Result<&Instance, String> {
        let mig = profile.mig.as_ref().ok_or_else(|| unsupported(profile))?;
        if !self.enabled {
            return Err(
                "MIG mode is off: use mig-mode first (and gpu-reset, on an A100)".to_owned(),
            );
        }
        let known = || {
            mig.profiles
                .iter()
                .map(|known| known.name.as_str())
                .collect::<Vec<_>>()
        };
        let position = mig.profiles.iter().position(|known| known.name == name);
        let position =
            position.ok_or_else(|| format!("no profile {name}: {}", known().join(", ")))?;
        let wanted = mig.profiles.get(position).ok_or("no such profile")?;
        let start = self.room(mig, position, wanted);
        let start = start.ok_or_else(|| format!("no room for another {name}: use mig-destroy"))?;
        let taken = |index: &u32| self.list.iter().any(|instance| instance.index == *index);
        let index = (0..INSTANCES_MAX)
            .find(|index| !taken(index))
            .ok_or("no index is free")?;
        self.list.push(Instance {
            number,
            index,
            uuid: gpu.mig_uuid(number.into()),
            gpu_instance: self.gpu_instance_id(wanted),
            compute_instance: 0,
            profile: position,
            start,
        });
        self.list.last().ok_or_else(|| "no instance".to_owned())
    }

    /// Where the profile fits: memory slices are taken whole, at a multiple of their number.
    fn room(&self, mig: &Mig, position: usize, wanted: &MigProfile) -> Option<u32> {
        let of_profile = self
            .list
            .iter()
            .filter(|instance| instance.profile == position);
        if of_profile.count() >= usize::try_from(wanted.count).ok()? {
            return None;
        }
        let size = wanted.memory_slices;
        let free = |start: u32| {
            self.list.iter().all(|other| {
                let length = mig
                    .profiles
                    .get(other.profile)
                    .map_or(0, |profile| profile.memory_slices);
                start + size <= other.start || other.start + length <= start
            })
        };
        let fits = |start: &u32| {
            start + size <= MEMORY_SLICES && start + wanted.slices <= INSTANCES_MAX && free(*start)
        };
        let mut starts = (0..MEMORY_SLICES).step_by(usize::try_from(size).ok()?);
        // Three slices go to the upper half, as four fit the lower one alone.
        if wanted.slices == 3 {
            starts.rfind(fits)
        } else {
            starts.find(fits)
        }
    }

    /// As the driver numbers them: from a first one by size of memory, the lowest that is free.
    fn gpu_instance_id(&self, wanted: &MigProfile) -> u32 {
        let first = match wanted.memory_slices {
            1 => 7,
            2 => 3,
            4 => 1,
            _ => 0,
        };
        let taken = |id: &u32| {
            self.list
                .iter()
                .any(|instance| instance.gpu_instance == *id)
        };
        (first..).find(|id| !taken(id)).unwrap_or(first)
    }

    /// Ends one GPU instance, or all; how many there were.
    pub(crate) fn destroy(&mut self, gpu_instance: Option<u32>) -> usize {
        let before = self.list.len();
        let ends = |instance: &Instance| gpu_instance.is_none_or(|it| it == instance.gpu_instance);
        self.list.retain(|instance| !ends(instance));
        before - self.list.len()
    }

    /// How many more of the profile fit.
    pub(crate) fn remaining(&self, mig: &Mig, position: usize) -> u32 {
        let mut scratch = self.clone();
        let mut fit = 0;
        while let Some(wanted) = mig.profiles.get(position)
            && let Some(start) = scratch.room(mig, position, wanted)
        {
            fit += 1;
            scratch.list.push(Instance {
                number: 0,
                index: 0,
                uuid: String::new(),
                gpu_instance: 0,
                compute_instance: 0,
                profile: position,
                start,
            });
        }
        fit
    }
}

pub(crate) fn unsupported(profile: &Profile) -> String {
    format!("{} has no MIG: use a profile from a100 on", profile.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(key: &str, names: &[&str]) -> Result<Vec<u32>, String> {
        let profile = Profile::named(key).unwrap();
        let gpu = profile.gpu(0).unwrap();
        let mut instances = Instances {
            enabled: true,
            ..Instances::default()
        };
        for (number, name) in (0..).zip(names) {
            instances.create(&gpu, profile, name, number)?;
        }
        Ok(instances
            .iter()
            .map(|instance| instance.gpu_instance)
            .collect())
    }

    #[test]
    fn instances_fit_as_on_a_board() {
        assert_eq!(
            cut("a100", &["1g.10gb"; 7]),
            Ok(vec![7, 8, 9, 10, 11, 12, 13])
        );
        assert_eq!(cut("h100", &["3g.40gb", "4g.40gb"]), Ok(vec![1, 2]));
        assert_eq!(
            cut("h100", &["3g.40gb", "2g.20gb", "1g.10gb"]),
            Ok(vec![1, 3, 7])
        );
        let full = "no room for another 4g.40gb: use mig-destroy".to_owned();
        assert_eq!(cut("h100", &["3g.40gb", "3g.40gb", "4g.40gb"]), Err(full));
        assert_eq!(cut("h200", &["7g.141gb"]), Ok(vec![0]));
        assert!(cut("h200", &["7g.141gb", "1g.18gb"]).is_err());
        assert!(cut("h100", &["1g.10gb+me"; 2]).is_err());
        assert!(cut("b200", &["9g"]).unwrap_err().contains("1g.23gb"));
        assert!(cut("v100", &["1g.10gb"]).unwrap_err().contains("no MIG"));
    }
}
