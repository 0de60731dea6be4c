//! Errors of an NVSwitch (SXid): whose they are (design N4). The log names them by the address of the switch, and by a
//! port of it.
//!
//! ```text
//!  seen ─▶ the GPUs that may be at that port ─▶ each has its own incident
//!    │ none                                     ▲
//!    ├─ GPUs are found, links come up ──────────┤
//!    ├─ all is known: a port between switches ──┘ all GPUs behind the switch
//!    └─ no GPU is behind it ─▶ counted, logged, and let go of after a while
//! ```
//!
//! An error at a port is passed on to the GPU there, and to no other (vendor's fabric manager guide); which GPU that is
//! the inventory says, where the driver tells it. Where it does not, and of an error of the whole switch, every GPU is
//! meant that can't be ruled out.

use std::sync::Arc;
use std::time::Duration;

use device_api_core::clock::BootTime;
use device_api_core::condition::{GONE, find};
use device_api_core::device::DeviceInfo;
use device_api_core::ids::{DeviceUuid, PciAddress};
use device_api_core::limits;
use device_api_core::signal::{Attr, Observation, Value, printable, text_attr};
use device_api_core::verdict::Judgement;

use crate::alike::telling;
use crate::dispatch::{Call, joined};
use crate::pipeline::{Shared, State};

/// How long nothing new must have been learned of where NVLinks lead for all of it to be known: an inventory takes
/// seconds, and is read again each 10 s.
const SETTLED_AFTER: Duration = Duration::from_mins(1);

/// How long an error waits for a GPU behind its switch: NVML is looked for every few seconds, and a driver that was
/// just loaded takes minutes at most.
const HELD_MAX: Duration = Duration::from_mins(10);

/// An error that may be of GPUs that are not known yet.
#[derive(Debug)]
struct Held {
    switch: PciAddress,
    observation: Observation,
    repeats: u32,
    /// When the first of them was seen.
    since: BootTime,
    /// Whom it has reached. At most as many as there are GPUs.
    reached: Vec<DeviceUuid>,
    /// The log has been told that it is nobody's.
    is_told: bool,
}

impl Held {
    fn is_repeated_by(&self, new: &Observation) -> bool {
        let old = &self.observation;
        old.target == new.target
            && old.code == new.code
            && old.drill == new.drill
            && telling(&old.attrs).eq(telling(&new.attrs))
    }

    fn is_fatal(&self) -> bool {
        text_attr(&self.observation.attrs, "severity") == Some("fatal")
    }
}

/// What is kept of the node's NVSwitches.
#[derive(Debug, Default)]
pub(crate) struct Switches {
    /// In the order of their arrival.
    held: Vec<Held>,
    /// When something new was learned of where NVLinks lead; `None`: not in this run.
    learned: Option<BootTime>,
    dropped: u64,
}

impl Switches {
    /// A GPU was found. `before`: what was known of it.
    pub(crate) fn found(&mut self, before: Option<&DeviceInfo>, info: &DeviceInfo, now: BootTime) {
        let wiring = |info: &DeviceInfo| {
            let links = info.hardware.nvlinks.iter();
            let ends = links.map(|link| (link.link, link.remote_pci, link.remote_link));
            (info.pci, ends.collect::<Vec<_>>())
        };
        if before.is_none_or(|before| wiring(before) != wiring(info)) {
            self.learned = Some(now);
        }
    }

    fn is_settled(&self, now: BootTime) -> bool {
        self.learned
            .is_none_or(|learned| now.since(learned) >= SETTLED_AFTER)
    }

    /// Past the bound one that is not fatal makes room, then the oldest: gives it back.
    fn put(&mut self, held: Held) -> Option<Held> {
        self.held.push(held);
        if self.held.len() <= limits::SXIDS_HELD_MAX {
            return None;
        }
        let least = self.held.iter().position(|held| !held.is_fatal());
        self.dropped += 1;
        Some(self.held.remove(least.unwrap_or(0)))
    }
}

/// The port of the switch that an error names.
fn port(observation: &Observation) -> Option<u32> {
    let link = |attr: &Attr| match attr.value {
        Value::Int(link) if attr.key == "link" => u32::try_from(link).ok(),
        Value::Int(_) | Value::Flag(_) | Value::Real(_) | Value::Text(_) | Value::Bytes(_) => None,
    };
    observation.attrs.iter().find_map(link)
}

/// The GPUs that an error may be of, as far as is known: those at its port, else those that may be there.
fn meant(
    gpus: &[Arc<DeviceInfo>],
    switch: PciAddress,
    observation: &Observation,
) -> Vec<DeviceUuid> {
    let Some(port) = port(observation) else {
        return those(gpus, |gpu| gpu.is_behind(switch));
    };
    let there = those(gpus, |gpu| gpu.is_at(switch, port));
    if there.is_empty() {
        those(gpus, |gpu| gpu.may_be_at(switch, port))
    } else {
        there
    }
}

fn those(gpus: &[Arc<DeviceInfo>], are: impl Fn(&DeviceInfo) -> bool) -> Vec<DeviceUuid> {
    let gpus = gpus.iter().filter(|gpu| are(gpu));
    gpus.map(|gpu| gpu.uuid.clone()).collect()
}

/// A node is simulated as a whole.
fn is_drill(observation: &Observation, gpus: &[Arc<DeviceInfo>]) -> bool {
    observation.drill || gpus.iter().any(|gpu| gpu.simulated)
}

fn words(observation: &Observation) -> String {
    printable(&observation.evidence, limits::EVIDENCE_BYTES_MAX)
}

impl Shared {
    /// Takes in an error of a switch: for each GPU that it may be of.
    pub(crate) fn switch_erred(
        &self,
        state: &mut State,
        switch: PciAddress,
        observation: Observation,
    ) -> Vec<Call> {
        let (gpus, now) = (self.gpus_in_place(), self.clock.boot());
        let is_settled = state.switches.is_settled(now);
        let mut of = meant(&gpus, switch, &observation);
        if of.is_empty() && is_settled {
            of = those(&gpus, |gpu| gpu.is_behind(switch));
        }
        if of.is_empty() {
            self.observer.unattributed(&observation.target);
        }
        let mut calls = Vec::new();
        for uuid in &of {
            calls.extend(self.pass_on(state, uuid, observation.clone(), 1));
        }
        let is_held = !is_settled || of.is_empty();
        if is_held && self.hold(state, switch, observation, of) {
            calls.extend(self.settle_switches(state));
        }
        calls
    }

    /// Keeps an error for GPUs that are not known yet. Says whether it is a new one.
    fn hold(
        &self,
        state: &mut State,
        switch: PciAddress,
        observation: Observation,
        reached: Vec<DeviceUuid>,
    ) -> bool {
        let mut held = state.switches.held.iter_mut();
        if let Some(known) = held.find(|held| held.is_repeated_by(&observation)) {
            known.repeats = known.repeats.saturating_add(1);
            for uuid in reached {
                if !known.reached.contains(&uuid) {
                    known.reached.push(uuid);
                }
            }
            return false;
        }
        let dropped = state.switches.put(Held {
            switch,
            observation,
            repeats: 1,
            since: self.clock.boot(),
            reached,
            is_told: false,
        });
        let count = state.switches.dropped;
        if let Some(lost) = dropped.filter(|_| count.is_power_of_two())
            && lost.reached.is_empty()
        {
            let drill = is_drill(&lost.observation, &self.gpus_in_place());
            tracing::warn!(switch = %lost.switch, evidence = words(&lost.observation), drill, dropped = count, max = limits::SXIDS_HELD_MAX, "more different NVSwitch errors than are kept while nobody knows whose they are");
        }
        true
    }

    /// A GPU was found, or found anew: what waits for it reaches it.
    pub(crate) fn switch_errors_of(&self, state: &mut State, uuid: &DeviceUuid) -> Vec<Call> {
        if state.switches.held.is_empty() {
            return Vec::new();
        }
        let gpus = self.gpus_in_place();
        let mut its = Vec::new();
        for held in &mut state.switches.held {
            let is_new = !held.reached.contains(uuid);
            if is_new && meant(&gpus, held.switch, &held.observation).contains(uuid) {
                held.reached.push(uuid.clone());
                its.push((held.observation.clone(), held.repeats));
            }
        }
        let mut calls = Vec::new();
        for (observation, repeats) in its {
            calls.extend(self.pass_on(state, uuid, observation, repeats));
        }
        calls
    }

    /// Lets go of errors of which all is known, or that have waited long enough. Done now and then.
    pub(crate) fn settle_switches(&self, state: &mut State) -> Vec<Call> {
        if state.switches.held.is_empty() {
            return Vec::new();
        }
        let (gpus, now) = (self.gpus_in_place(), self.clock.boot());
        let is_settled = state.switches.is_settled(now);
        let (mut kept, mut calls) = (Vec::new(), Vec::new());
        for mut held in std::mem::take(&mut state.switches.held) {
            let of = those(&gpus, |gpu| gpu.is_behind(held.switch));
            if is_settled && !(held.reached.is_empty() && of.is_empty()) {
                for uuid in of.iter().filter(|_| held.reached.is_empty()) {
                    let (observation, repeats) = (held.observation.clone(), held.repeats);
                    calls.extend(self.pass_on(state, uuid, observation, repeats));
                }
                continue;
            }
            let is_over = now.since(held.since) >= HELD_MAX;
            let is_nobodys = held.reached.is_empty() && (is_over || is_settled && !gpus.is_empty());
            if is_nobodys && !std::mem::replace(&mut held.is_told, true) {
                let drill = is_drill(&held.observation, &gpus);
                tracing::warn!(switch = %held.switch, evidence = words(&held.observation), repeats = held.repeats, drill, "NVSwitch error, of no GPU: no NVLink that NVML tells of leads to that switch");
            }
            if !is_over {
                kept.push(held);
            }
        }
        state.switches.held = kept;
        calls
    }

    /// Whether the log must be read again for an error that has reached nobody, and may yet.
    pub(crate) fn switches_hold_log(&self, state: &State) -> bool {
        let switches = &state.switches;
        let now = self.clock.boot();
        if switches.is_settled(now) && !self.gpus_in_place().is_empty() {
            return false;
        }
        let mut held = switches.held.iter();
        held.any(|held| held.reached.is_empty() && now.since(held.since) < HELD_MAX)
    }

    fn pass_on(
        &self,
        state: &mut State,
        uuid: &DeviceUuid,
        observation: Observation,
        repeats: u32,
    ) -> Vec<Call> {
        let first = self.follow(state, uuid);
        joined(first, self.take_in(state, uuid, observation, repeats))
    }

    /// The GPUs that are in a slot as far as is known, in the order of their UUIDs.
    fn gpus_in_place(&self) -> Vec<Arc<DeviceInfo>> {
        let is_gone = |uuid: &DeviceUuid| {
            let conditions = self.cache.conditions(uuid);
            find(&conditions, GONE).is_some_and(|gone| gone.state != Judgement::Ok)
        };
        let mut gpus = self.cache.gpus();
        gpus.retain(|gpu| gpu.pci.is_some() && !is_gone(&gpu.uuid));
        gpus.sort_by(|a, b| a.uuid.cmp(&b.uuid));
        gpus
    }
}
