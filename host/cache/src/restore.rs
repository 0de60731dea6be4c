//! What a run begins with: what the run before left durable, and nothing healed (design C7).
//!
//! | what was durable | comes back as |
//! | --- | --- |
//! | a problem | the same problem |
//! | a problem that a reboot clears, after one | nothing: it is over |
//! | a provider's ok | Unknown, reason `Restarted`, until the provider writes it again |
//! | a policy's or the host's ok | nothing, until it is observed again |
//! | an object | itself, as a new version, since what it shows has changed |
//! | any device | with a `Probing` that is Unknown, until NVML finds it or a provider speaks of it |
//! | a MIG instance | itself, with what stands of it and of its GPU, until NVML tells which there are |
//! | a PCI address, after a reboot | nothing: who has it now is NVML's to say |
//! | a lease | itself, with its whole duration before it |
//!
//! So no GPU comes back Healthy before something has been observed of it.

use std::collections::HashMap;
use std::sync::Arc;

use device_api_core::clock::{BootId, Clock, WallTime};
use device_api_core::condition::{self, Condition, Owner, PROBING, RESTARTED};
use device_api_core::durable::{Change, DeviceRecord, ObjectRecord, Snapshot, Start};
use device_api_core::gpu::Gpu;
use device_api_core::health::Derived;
use device_api_core::ids::{DeviceUuid, ResourceVersion};
use device_api_core::message;
use device_api_core::recovery;
use device_api_core::verdict::{Judgement, Severity};
use device_api_core::watch::{Event, EventType};

use crate::cache::Config;
use crate::hub::Hub;
use crate::instances;
use crate::leases::Leases;
use crate::state::{Record, State, object_record};

#[derive(Debug)]
pub(crate) struct Restored {
    pub(crate) state: State,
    pub(crate) hub: Hub,
    pub(crate) leases: Leases,
    /// What is not as it was.
    pub(crate) changes: Vec<Change>,
}

/// Memories and incidents in `start` are on this boot's clock already ([`DeviceMemory::after_reboot`]); they are the
/// pipeline's, and pass through here to be durable with the rest.
///
/// [`DeviceMemory::after_reboot`]: device_api_core::durable::DeviceMemory::after_reboot
pub(crate) fn restore(start: Start, boot: &BootId, config: &Config, clock: &dyn Clock) -> Restored {
    // One version of its own for the start: what an earlier run may have shown under `base` and lost
    // is never taken for what is here.
    let first = ResourceVersion(start.base.0 + 1);
    let history_max = config.bounds.history_events;
    let Some(snapshot) = start.snapshot else {
        return Restored {
            state: State::new(first),
            hub: Hub::new(first, None, history_max),
            leases: Leases::restored(
                Vec::new(),
                &config.connection_leases,
                |_| false,
                clock.boot(),
            ),
            changes: Vec::new(),
        };
    };
    let Snapshot {
        version,
        boot: written_in,
        devices,
        mut objects,
        claims,
        leases,
        memories,
        incidents,
        ..
    } = snapshot;
    let rebooted = written_in != *boot;
    let now = clock.wall();
    let mut state = State::new(first);
    let mut changes = Vec::new();
    let mut before = HashMap::new();
    for old in devices {
        let record = device(&old, rebooted, now);
        changes.push(Change::Device(record.durable()));
        before.insert(old.info.uuid.clone(), old);
        state.insert_record(record);
    }
    for claim in claims {
        state.claims.insert(claim.type_.clone(), claim);
    }
    objects.sort_by_key(|object| object.version);
    let mut hub = Hub::new(first, Some(version), history_max);
    for object in objects {
        let Some(event) = revive(&mut state, &before, object, now) else {
            continue;
        };
        changes.push(Change::Object(object_record(&event.gpu)));
        hub.keep(vec![event]);
    }
    let owns = |identity: &str| {
        let owner = Owner::Provider(identity.into());
        state.claims.values().any(|claim| claim.owner.same(&owner))
    };
    let leases = Leases::restored(leases, &config.connection_leases, owns, clock.boot());
    if rebooted {
        // From the first write on, what is durable is of this boot: all that runs on boot time goes
        // with it.
        changes.extend(leases.held().cloned().map(Change::Lease));
        let adjusted = memories.into_iter();
        changes.extend(adjusted.map(|(uuid, memory)| Change::Memory(uuid, memory)));
        changes.extend(incidents.into_iter().map(Change::Incident));
    }
    Restored {
        state,
        hub,
        leases,
        changes,
    }
}

/// The record of a device, of which nothing was observed yet.
fn device(old: &DeviceRecord, rebooted: bool, now: WallTime) -> Record {
    let kept = old.conditions.iter();
    let mut conditions: Vec<Condition> = kept
        .filter_map(|condition| restored(condition, rebooted, now))
        .collect();
    // A MIG instance shows what its GPU does; and nobody is to be asked of a GPU that is gone.
    if old.info.parent.is_none() && !condition::is_gone(&conditions) {
        condition::upsert(&mut conditions, unobserved(now));
    }
    let mut info = old.info.clone();
    if rebooted {
        Arc::make_mut(&mut info).pci = None;
    }
    let mut record = Record::new(info, conditions.into());
    record.is_deleted = old.is_deleted;
    record.last_slot = old.last_slot;
    record
}

/// Whatever else stands, nothing was observed since the restart.
fn unobserved(now: WallTime) -> Condition {
    Condition {
        severity: Severity::Warning,
        message: "Nothing has been observed of it since the daemon started.".to_owned(),
        ..Condition::of_host(PROBING, Judgement::Unknown, RESTARTED, now)
    }
}

fn restored(old: &Condition, rebooted: bool, now: WallTime) -> Option<Condition> {
    let is_providers = matches!(old.owner, Owner::Provider(_));
    match old.state {
        Judgement::Problem => {
            let is_over = rebooted && recovery::is_over_after_reboot(old);
            (!is_over).then(|| old.clone())
        }
        Judgement::Unknown => Some(old.clone()),
        Judgement::Ok if is_providers => Some(Condition {
            state: Judgement::Unknown,
            reason: RESTARTED.to_owned(),
            message: message::last_said(old),
            transition: now,
            ..old.clone()
        }),
        Judgement::Ok => None,
    }
}

/// Puts an object into the state again, as a new version.
fn revive(
    state: &mut State,
    devices: &HashMap<DeviceUuid, DeviceRecord>,
    object: ObjectRecord,
    now: WallTime,
) -> Option<Event> {
    let old = devices.get(&object.uuid)?;
    let (info, conditions) = {
        let record = state.record(&object.uuid)?;
        (record.info.clone(), state.shown(&object.uuid))
    };
    let shown_before = instances::shown(
        |uuid| {
            let old = devices.get(uuid)?;
            Some((&*old.info, &old.conditions))
        },
        &object.uuid,
    );
    let mut gpu = Gpu {
        key: object.key,
        uid: object.uid,
        generation: object.generation,
        created: object.created,
        version: object.version,
        uuid: object.uuid,
        device: old.info.clone(),
        conditions: shown_before,
        derived: Derived::default(),
        ready_since: object.ready_since,
        encoded: Default::default(),
    };
    gpu.rederive(object.ready_since);
    gpu.ready_since = object.ready_since;
    let before = Arc::new(gpu.clone());
    gpu.device = info;
    gpu.conditions = conditions;
    gpu.rederive(now);
    gpu.version = state.next_version();
    let gpu = Arc::new(gpu);
    state.insert(gpu.clone());
    Some(Event {
        type_: EventType::Modified,
        gpu,
        before: Some(before),
    })
}
