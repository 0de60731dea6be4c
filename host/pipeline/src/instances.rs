//! Faults of MIG instances (design N9): whose they are, and what becomes of them when the GPU is cut up anew.
//!
//! An instance is judged with its GPU, in the GPU's lane: the contract with policies has it so, and a reader of
//! either waits at one barrier. What is attributed to a GPU instance reaches all its compute instances. What is
//! attributed to an instance that is not there is the GPU's: nobody else could say that it is well.

use device_api_core::condition::{Condition, name_on};
use device_api_core::device::DeviceInfo;
use device_api_core::floor;
use device_api_core::ids::DeviceUuid;
use device_api_core::signal::{Observation, Target};

use crate::pipeline::{Shared, State};
use crate::timers::Key;

impl Shared {
    /// Puts the UUID of the instance in place of the source's words for it; without one it is the GPU's. Answers
    /// with the others that have it too.
    pub(crate) fn attribute(
        &self,
        uuid: &DeviceUuid,
        observation: &mut Observation,
    ) -> Vec<String> {
        if let Target::Uuid(named) = &observation.target
            && named != uuid
        {
            observation.instance = Some(named.to_string());
        }
        let Some(words) = observation.instance.take() else {
            return Vec::new();
        };
        if floor::is_of_whole_gpu(observation.kind, observation.code) {
            return Vec::new();
        }
        let device = self.cache.device(uuid);
        let named = device.iter().flat_map(|gpu| gpu.instances_named(&words));
        let mut named = named.map(|mig| mig.uuid.to_string());
        observation.instance = named.next();
        named.collect()
    }

    /// Ends what there was of instances that are not there any more: their conditions have gone with them.
    pub(crate) fn end_instances(
        &self,
        state: &mut State,
        uuid: &DeviceUuid,
        (before, now): (&DeviceInfo, &DeviceInfo),
    ) {
        let gone = before.mig.iter().map(|mig| mig.uuid.as_str());
        let gone: Vec<&str> = gone.filter(|mig| !now.has_instance(mig)).collect();
        if gone.is_empty() {
            return;
        }
        tracing::info!(gpu = %uuid, gone = gone.join(", "), drill = now.simulated, "MIG instances gone, with all that stood against them");
        let is_gone = |instance: &str| gone.contains(&instance);
        let lane = self.lane(state, uuid);
        lane.leave_instances(is_gone);
        let timers = state.timers.of(uuid).map(|(key, _)| key);
        let quiet = timers.filter(|key| match key {
            Key::Quiet { condition, .. } => gone
                .iter()
                .any(|instance| condition.ends_with(&*name_on("", Some(instance)))),
            Key::Overdue(_) | Key::Containment { .. } | Key::Wake { .. } | Key::Retry { .. } => {
                false
            }
        });
        let quiet: Vec<Key> = quiet.cloned().collect();
        for key in quiet {
            state.timers.cancel(&key);
        }
        let over = self.moment(state.newest);
        state.incidents.leave_instances(uuid, is_gone, over);
        self.observer.incidents(state.incidents.len());
    }
}

/// The instance that a verdict is about, of those that a GPU has: `Err`, where it has not that one.
pub(crate) fn instance_of(
    device: &DeviceInfo,
    said: Option<&str>,
) -> Result<Option<DeviceUuid>, NotThere> {
    match said.filter(|said| *said != device.uuid.as_str()) {
        None => Ok(None),
        Some(said) if device.has_instance(said) => Ok(Some(DeviceUuid::new(said))),
        Some(_) => Err(NotThere),
    }
}

/// The GPU has no such instance, or not any more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NotThere;

/// The instances that a host's condition of that type stands on.
pub(crate) fn with(conditions: &[Condition], type_: &str) -> Vec<DeviceUuid> {
    let own = conditions.iter().filter(|c| *c.type_ == *type_);
    own.filter_map(|c| c.instance.clone()).collect()
}
