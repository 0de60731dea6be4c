//! The shadow's own thread: asks, compares, counts.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use device_api_core::action::{Action, Platform};
use device_api_core::clock::{BootTime, Clock};
use device_api_core::condition::{Condition, find_named, name_on};
use device_api_core::device::DeviceInfo;
use device_api_core::ids::{DeviceUuid, IncidentId, SignalSeq};
use device_api_core::limits::{
    NVML_DEVICES_MAX, POLICY_RECORDS_MAX, WAKE_MAX, WAKE_MIN, WAKES_PER_POLICY_MAX,
};
use device_api_core::policy_status::Disagreement;
use device_api_core::ports::Policy;
use device_api_core::seating::Committed;
use device_api_core::signal::{Attr, Signal, SignalKind, Source};
use device_api_core::verdict::{Judgement, Verdict, Wake};

use super::Record;
use super::budget::Budget;
use crate::judge::{View, batches, signal_words, summary, summary_of};
use crate::loaded::{LoadedPolicy, lock};

/// State of all devices together; a device past it begins anew. A sixteenth of what one policy in its seat
/// may have on a full node.
const STATE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The shadow as its thread has it.
pub(super) struct Eye {
    policy: Arc<LoadedPolicy>,
    clock: Arc<dyn Clock>,
    record: Arc<Record>,
    budget: Budget,
    /// The processor time of its policy that the budget knows of.
    paid: Duration,
    devices: HashMap<DeviceUuid, Device>,
    /// By device and name.
    wakes: BTreeMap<(DeviceUuid, String), BootTime>,
}

/// What it knows of one device.
#[derive(Default)]
struct Device {
    view: View,
    /// As it was committed last.
    seen: Option<(Arc<DeviceInfo>, Arc<[Condition]>)>,
}

impl From<View> for Device {
    fn from(view: View) -> Self {
        Self { view, seen: None }
    }
}

/// With no timer set: how long until it looks again all the same.
const IDLE_WAIT: Duration = Duration::from_secs(60);

impl Eye {
    /// `views`: what it made of the journals.
    pub(super) fn new(
        policy: Arc<LoadedPolicy>,
        views: Vec<(DeviceUuid, View)>,
        record: Arc<Record>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            budget: Budget::new(clock.boot()),
            devices: views
                .into_iter()
                .take(NVML_DEVICES_MAX)
                .map(|(uuid, view)| (uuid, Device::from(view)))
                .collect(),
            wakes: BTreeMap::new(),
            record,
            paid: policy.counters().busy_cpu,
            policy,
            clock,
        }
    }

    pub(super) fn run(&mut self, queue: &Receiver<Arc<Committed>>) {
        loop {
            let now = self.clock.boot();
            let due = self.wakes.values().min();
            let wait = due.map_or(IDLE_WAIT, |due| due.since(now).min(IDLE_WAIT));
            match queue.recv_timeout(wait) {
                Ok(batch) => self.see(&batch),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.wake();
        }
    }

    fn see(&mut self, batch: &Committed) {
        let uuid = &batch.device.uuid;
        let is_new = !self.devices.contains_key(uuid);
        if is_new && self.devices.len() >= NVML_DEVICES_MAX {
            self.drop_one();
            return;
        }
        let device = self.devices.entry(uuid.clone()).or_default();
        device.seen = Some((Arc::clone(&batch.device), Arc::clone(&batch.conditions)));
        for condition in batch.conditions.iter() {
            let name = condition.name();
            let stands = device.view.stands(&name);
            let cleared = condition.state == Judgement::Ok
                && stands.is_some_and(|stands| condition.transition > stands.since);
            if cleared {
                device.view.clear(&name);
            }
        }
        let info = self.policy.info();
        // Its own timers are delivered by itself, others' are not for it.
        let wanted = batch
            .signals
            .iter()
            .filter(|signal| signal.kind != SignalKind::Timer && info.wants(signal));
        let asked = batches(wanted);
        if asked.is_empty() {
            return;
        }
        let mut said = Vec::new();
        for signals in asked {
            let Some(more) = self.ask(uuid, signals) else {
                return;
            };
            said.extend(more);
        }
        self.compare(batch, &said);
    }

    /// Its verdicts; `None`: it was not asked, or failed.
    fn ask(&mut self, uuid: &DeviceUuid, signals: Arc<[Signal]>) -> Option<Vec<Verdict>> {
        // Starts of instances too, which come after the answer.
        self.pay();
        if !self.budget.may_spend(self.clock.boot()) {
            self.drop_one();
            return None;
        }
        let device = self.devices.get_mut(uuid)?;
        let (info, _) = device.seen.clone()?;
        let decision = device.view.ask(&self.policy, &info, signals);
        self.pay();
        // A failure is counted as such by the policy's own thread.
        let decision = decision.ok()?;
        self.set_wakes(uuid, decision.wakes);
        self.bound_state(uuid);
        Some(decision.verdicts)
    }

    fn pay(&mut self) {
        let busy = self.policy.counters().busy_cpu;
        // The count begins anew when it goes on duty.
        let spent = busy.checked_sub(self.paid).unwrap_or(busy);
        self.paid = busy;
        self.budget.spend(spent);
    }

    fn drop_one(&self) {
        self.record.dropped.fetch_add(1, Ordering::Relaxed);
    }

    fn set_wakes(&mut self, uuid: &DeviceUuid, wakes: Vec<Wake>) {
        let now = self.clock.boot();
        for wake in wakes {
            let key = (uuid.clone(), wake.name);
            let of_device = self.wakes.keys().filter(|(other, _)| other == uuid).count();
            if wake.after.is_zero() {
                self.wakes.remove(&key);
            } else if of_device < WAKES_PER_POLICY_MAX || self.wakes.contains_key(&key) {
                self.wakes
                    .insert(key, now.after(wake.after.clamp(WAKE_MIN, WAKE_MAX)));
            }
        }
    }

    /// Too much in all: this device begins anew.
    fn bound_state(&mut self, uuid: &DeviceUuid) {
        let bytes = |device: &Device| device.view.state_bytes();
        if self.devices.values().map(bytes).sum::<usize>() > STATE_BYTES_MAX {
            if let Some(device) = self.devices.get_mut(uuid) {
                device.view = View::default();
            }
            self.drop_one();
        }
    }

    /// Delivers the timers that are due.
    fn wake(&mut self) {
        let now = self.clock.boot();
        let due: Vec<(DeviceUuid, String)> = self
            .wakes
            .iter()
            .filter(|(_, due)| **due <= now)
            .map(|(key, _)| key.clone())
            .collect();
        for (uuid, name) in due {
            let signal = self.timer(&uuid, &name);
            self.wakes.remove(&(uuid.clone(), name));
            let Some(said) = self.ask(&uuid, Arc::from([signal.clone()])) else {
                continue;
            };
            let seen = self
                .devices
                .get(&uuid)
                .and_then(|device| device.seen.clone());
            if let Some((device, conditions)) = seen {
                let batch = Committed {
                    device,
                    signals: Arc::from([signal]),
                    said: Vec::new(),
                    conditions,
                };
                self.compare(&batch, &said);
            }
        }
    }

    fn timer(&self, uuid: &DeviceUuid, name: &str) -> Signal {
        Signal {
            seq: SignalSeq(0),
            device: uuid.clone(),
            kind: SignalKind::Timer,
            code: None,
            observed_at: self.clock.wall(),
            observed_boot: self.clock.boot(),
            repeats: 1,
            incident: IncidentId(0),
            root: None,
            drill: false,
            instance: None,
            sources: vec![Source::Host],
            evidence: String::new(),
            attrs: vec![Attr::text("name", name)],
            samples: None,
        }
    }

    /// Condition by condition: what it named, and what another named of the types that it owns too.
    fn compare(&self, batch: &Committed, said: &[Verdict]) {
        let info = self.policy.info();
        let theirs: Vec<&Verdict> = batch.said.iter().flat_map(|(_, said)| said).collect();
        let owned = |verdict: &&Verdict| info.owned(&verdict.condition).is_some();
        let mut names: Vec<Cow<'_, str>> = said
            .iter()
            .chain(theirs.iter().copied().filter(owned))
            .map(name_of)
            .collect();
        names.sort_unstable();
        names.dedup();
        let last = |verdicts: &[&Verdict], wanted: &str| {
            let mut verdicts = verdicts.iter().rev();
            let of_name = verdicts.find(|verdict| name_of(verdict) == wanted);
            of_name.map(|verdict| metal(verdict))
        };
        let ours: Vec<&Verdict> = said.iter().collect();
        let mut differs = false;
        for name in &names {
            let stands = find_named(&batch.conditions, name)
                .map(|c| summary(c.state, c.severity, on_metal(c.action)));
            let enforced = last(&theirs, name).or(stands);
            let shadow = last(&ours, name);
            // That nothing stands and that all is well is the same to everyone who reads.
            let is_well = |said: &Option<String>| said.as_deref().is_none_or(|said| said == "ok");
            if enforced == shadow || (is_well(&enforced) && is_well(&shadow)) {
                continue;
            }
            differs = true;
            self.keep(batch, name, enforced, shadow);
        }
        self.record.compared.fetch_add(1, Ordering::Relaxed);
        self.record
            .disagreements
            .fetch_add(u64::from(differs), Ordering::Relaxed);
    }

    fn keep(
        &self,
        batch: &Committed,
        name: &str,
        enforced: Option<String>,
        shadow: Option<String>,
    ) {
        let nothing = || "nothing".to_owned();
        let disagreement = Disagreement {
            at: self.clock.wall(),
            digest: Arc::clone(&self.policy.info().id.digest),
            device: batch.device.uuid.as_str().into(),
            condition: name.to_owned(),
            signal: batch.signals.last().map(signal_words).unwrap_or_default(),
            enforced: enforced.unwrap_or_else(nothing),
            shadow: shadow.unwrap_or_else(nothing),
        };
        let mut kept = lock(&self.record.kept);
        kept.truncate(POLICY_RECORDS_MAX - 1);
        kept.push_front(disagreement);
    }
}

/// The name of the condition that a verdict is on.
fn name_of(verdict: &Verdict) -> Cow<'_, str> {
    name_on(&verdict.condition, verdict.instance.as_deref())
}

/// A restart of the VM reads as one of the machine on bare metal: no disagreement.
fn on_metal(action: Action) -> Action {
    action.on(Platform::BareMetal)
}

fn metal(verdict: &Verdict) -> String {
    let action = on_metal(verdict.action);
    if action == verdict.action {
        summary_of(verdict)
    } else {
        summary(verdict.state, verdict.severity, action)
    }
}
