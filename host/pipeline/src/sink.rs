//! Where sources put what they see.

use std::sync::Arc;

use device_api_core::condition::{self, Condition, PROBING, find};
use device_api_core::device::DeviceInfo;
use device_api_core::durable::LogPosition;
use device_api_core::ids::DeviceUuid;
use device_api_core::ports::SignalSink;
use device_api_core::recovery::Recovery;
use device_api_core::signal::{Observation, Samples, SignalKind, Source, Target};
use device_api_core::verdict::{Judgement, Severity};

use crate::dispatch::joined;
use crate::pipeline::Shared;

impl SignalSink for Shared {
    fn observe(&self, observation: Observation) {
        let calls = {
            let mut state = self.lock();
            match (observation.kind, &observation.target) {
                // The address is the switch's, never a GPU's.
                (SignalKind::Sxid, Target::Pci(switch)) => {
                    let switch = *switch;
                    self.switch_erred(&mut state, switch, observation)
                }
                (_, target) => match self.cache.resolve(target) {
                    Some(uuid) => {
                        let first = self.follow(&mut state, &uuid);
                        joined(first, self.take_in(&mut state, &uuid, observation, 1))
                    }
                    None => {
                        self.observer.unattributed(target);
                        state.shelf.put(observation, self.clock.boot());
                        Vec::new()
                    }
                },
            }
        };
        self.place(calls);
    }

    fn device_found(&self, mut device: DeviceInfo, samples: Arc<Samples>) {
        let (uuid, drill) = (device.uuid.clone(), device.simulated);
        let before = self.cache.device(&uuid);
        if let Some(before) = &before {
            device.keep_wiring(before);
        }
        if let Err(refused) = self.cache.upsert_device(device) {
            tracing::error!(gpu = %uuid, error = %refused, drill, "GPU not registered");
            return;
        }
        let calls = {
            let mut state = self.lock();
            let mut calls = self.follow(&mut state, &uuid);
            let known = self.cache.device(&uuid);
            if let Some((before, known)) = before.as_ref().zip(known.as_ref()) {
                self.end_instances(&mut state, &uuid, (before, known));
            }
            let (bench, now) = (state.bench.clone(), self.clock.boot());
            let lane = self.lane(&mut state, &uuid);
            lane.samples = samples.clone();
            // The cache may have forgotten it in between.
            lane.remembered = None;
            lane.told.prime(bench.infos(), &samples, now);
            calls.extend(self.action_at_first_sight(&mut state, &uuid, &samples));
            let found = Observation {
                evidence: "the device answers".to_owned(),
                samples: Some(samples.clone()),
                ..Observation::new(
                    SignalKind::GpuFound,
                    Target::Uuid(uuid.clone()),
                    Source::Nvml,
                )
            };
            calls.extend(self.take_in(&mut state, &uuid, found, 1));
            let is_its = |target: &_| self.cache.resolve(target).as_ref() == Some(&uuid);
            for (earlier, repeats) in state.shelf.take(is_its) {
                calls.extend(self.take_in(&mut state, &uuid, earlier, repeats));
            }
            if let Some(known) = known {
                let now = self.clock.boot();
                state.switches.found(before.as_deref(), &known, now);
                calls.extend(self.switch_errors_of(&mut state, &uuid));
            }
            let newest = state.newest;
            let looks = &mut self.lane(&mut state, &uuid).recoveries.looks;
            looks.sampled(&samples, newest);
            calls
        };
        self.end_probing(&uuid);
        self.place(calls);
    }

    fn sampled(&self, uuid: &DeviceUuid, samples: Arc<Samples>) {
        let calls = {
            let mut state = self.lock();
            let mut calls = self.follow(&mut state, uuid);
            let (bench, now) = (state.bench.clone(), self.clock.boot());
            let lane = self.lane(&mut state, uuid);
            lane.samples = samples.clone();
            calls.extend(self.action_at_first_sight(&mut state, uuid, &samples));
            calls.extend(self.looked(&mut state, uuid, &samples));
            let lane = self.lane(&mut state, uuid);
            let crossings = lane.told.crossings(bench.infos(), &samples, now);
            for crossing in crossings {
                let reading = Observation {
                    evidence: crossing.evidence,
                    attrs: crossing.attrs,
                    samples: Some(samples.clone()),
                    ..Observation::new(
                        SignalKind::Reading,
                        Target::Uuid(uuid.clone()),
                        Source::Nvml,
                    )
                };
                let signal = self
                    .number(&mut state, uuid, &reading, 1)
                    .signal(uuid, reading);
                calls.extend(self.admit(&mut state, uuid, signal, crossing.recipients));
            }
            let newest = state.newest;
            let looks = &mut self.lane(&mut state, uuid).recoveries.looks;
            looks.sampled(&samples, newest);
            calls
        };
        self.place(calls);
    }

    fn probing(&self, candidates: &[DeviceUuid]) {
        let now = self.clock.wall();
        for uuid in candidates {
            self.cache
                .change(uuid, &mut |conditions: &mut Vec<Condition>| {
                    let mut probing =
                        Condition::of_host(PROBING, Judgement::Unknown, "Probing", now);
                    probing.severity = Severity::Warning;
                    "NVML does not tell of this GPU just now; it is being asked."
                        .clone_into(&mut probing.message);
                    condition::upsert(conditions, probing);
                });
        }
    }

    fn probed(&self, uuid: &DeviceUuid) {
        self.end_probing(uuid);
    }

    fn recovered(&self, uuid: &DeviceUuid, recovery: Recovery, evidence: &str) {
        let calls = {
            let mut state = self.lock();
            let first = self.follow(&mut state, uuid);
            let calls = self.recover(&mut state, uuid, &recovery, evidence);
            self.log_decided(&mut state);
            joined(first, calls)
        };
        self.place(calls);
    }

    fn log_read(&self, position: LogPosition) {
        let mut state = self.lock();
        self.log_was_read(&mut state, position);
    }
}

impl Shared {
    /// Ends the probing of a device.
    fn end_probing(&self, uuid: &DeviceUuid) {
        let now = self.clock.wall();
        self.cache
            .change(uuid, &mut |conditions: &mut Vec<Condition>| {
                let is_asked = |probing: &Condition| {
                    probing.state != Judgement::Ok && !probing.is_unobserved()
                };
                if find(conditions, PROBING).is_some_and(is_asked) {
                    condition::upsert(
                        conditions,
                        Condition::of_host(PROBING, Judgement::Ok, "Probed", now),
                    );
                }
            });
    }
}
