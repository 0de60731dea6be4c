//! Where sources put what they see.

use std::sync::Arc;

use device_api_core::condition::{self, Condition, PROBING, find};
use device_api_core::device::DeviceInfo;
use device_api_core::durable::LogPosition;
use device_api_core::ids::DeviceUuid;
use device_api_core::limits;
use device_api_core::ports::SignalSink;
use device_api_core::recovery::Recovery;
use device_api_core::signal::{Observation, Samples, SignalKind, Source, Target, printable};
use device_api_core::verdict::{Judgement, Severity};

use crate::dispatch::joined;
use crate::pipeline::{Shared, State};

impl SignalSink for Shared {
    fn observe(&self, observation: Observation) {
        let calls = {
            let mut state = self.lock();
            match self.cache.resolve(&observation.target) {
                Some(uuid) => {
                    let first = self.follow(&mut state, &uuid);
                    joined(first, self.take_in(&mut state, &uuid, observation, 1))
                }
                None => {
                    self.shelve(&mut state, observation);
                    return;
                }
            }
        };
        self.place(calls);
    }

    fn device_found(&self, device: DeviceInfo, samples: Arc<Samples>) {
        let (uuid, drill) = (device.uuid.clone(), device.simulated);
        let before = self.cache.device(&uuid);
        if let Err(refused) = self.cache.upsert_device(device) {
            tracing::error!(gpu = %uuid, error = %refused, drill, "GPU not registered");
            return;
        }
        let calls = {
            let mut state = self.lock();
            let mut calls = self.follow(&mut state, &uuid);
            if let Some((before, now)) = before.zip(self.cache.device(&uuid)) {
                self.end_instances(&mut state, &uuid, (&before, &now));
            }
            let (bench, now) = (state.bench.clone(), self.clock.boot());
            let lane = self.lane(&mut state, &uuid);
            lane.samples = samples.clone();
            // The cache may have forgotten it in between.
            lane.remembered = None;
            lane.told.prime(bench.infos(), &samples, now);
            let found = Observation {
                evidence: "the device answers".to_owned(),
                samples: Some(samples),
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
            calls.extend(self.looked(&mut state, uuid, &samples));
            let lane = self.lane(&mut state, uuid);
            let crossings = lane.told.crossings(bench.infos(), &samples, now);
            for crossing in crossings {
                let reading = Observation {
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
    /// Keeps what can't be attributed until its device is known. An NVSwitch's address never becomes a
    /// GPU's: that is for the log alone.
    fn shelve(&self, state: &mut State, observation: Observation) {
        self.observer.unattributed(&observation.target);
        if observation.kind == SignalKind::Sxid {
            let evidence = printable(&observation.evidence, limits::EVIDENCE_BYTES_MAX);
            tracing::warn!(switch = %observation.target, evidence, drill = observation.drill, "NVSwitch error, of no GPU");
            return;
        }
        state.shelf.put(observation, self.clock.boot());
    }

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
