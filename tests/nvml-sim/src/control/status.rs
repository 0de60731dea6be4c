//! The node, told.

use super::{GpuStatus, MigStatus, SetStatus, Status};
use crate::IDENTITY;
use crate::events::EventSet;
use crate::node::{Effect, Gpu, Instance, Node, Rule};
use crate::profile::Profile;
use crate::scenario::Timeline;

pub(super) fn in_words(rule: &Rule) -> String {
    let call = rule.call.as_deref().unwrap_or("every call");
    let gpu = rule
        .gpu
        .map_or_else(|| "any GPU".to_owned(), |gpu| format!("GPU {gpu}"));
    match rule.effect {
        Effect::Slow { ms } => format!("{call} on {gpu} takes {ms} ms longer"),
        Effect::Hang => format!("{call} on {gpu} hangs"),
        Effect::Fail { code, left: None } => format!("{call} on {gpu} answers {code}"),
        Effect::Fail {
            code,
            left: Some(left),
        } => {
            format!("{call} on {gpu} answers {code}, {left} times more")
        }
    }
}

fn mig(profile: &Profile, instance: &Instance) -> MigStatus {
    let mig = profile.mig.as_ref();
    let cut = mig.and_then(|mig| mig.profiles.get(instance.profile));
    MigStatus {
        uuid: instance.uuid.clone(),
        profile: cut.map_or_else(String::new, |cut| cut.name.clone()),
        gpu_instance: instance.gpu_instance,
        compute_instance: instance.compute_instance,
    }
}

fn gpu(profile: &Profile, gpu: &Gpu) -> GpuStatus {
    GpuStatus {
        index: gpu.identity.index,
        uuid: gpu.identity.uuid.clone(),
        serial: gpu.identity.serial.clone(),
        pci: gpu.identity.pci.to_string(),
        name: profile.name.clone(),
        lost: gpu.lost,
        temperature_c: gpu.load.temperature_c,
        recovery_action: gpu.recovery_action,
        throttle: gpu.load.throttle,
        ecc_corrected: gpu.ecc_volatile.corrected(),
        ecc_uncorrected: gpu.ecc_volatile.uncorrected(),
        remapped_correctable: gpu.rows.correctable,
        remapped_uncorrectable: gpu.rows.uncorrectable,
        remap_pending: gpu.rows.pending,
        remap_failure: gpu.rows.failure,
        nvlinks_down: gpu.links.iter().filter(|link| !link.up).count(),
        mig_enabled: gpu.mig.enabled,
        mig: gpu
            .mig
            .iter()
            .map(|instance| mig(profile, instance))
            .collect(),
    }
}

pub(super) fn status(node: &Node) -> Status {
    let backlogs = node.events.sets().map(EventSet::backlog);
    Status {
        identity: IDENTITY.to_owned(),
        profile: node.profile.key.clone(),
        driver_version: node.versions.driver.clone(),
        library_version: node.versions.library.clone(),
        loaded: node.loaded,
        users: node.users,
        gpus: node.gpus.iter().map(|it| gpu(node.profile, it)).collect(),
        misbehaving: node.rules.iter().map(in_words).collect(),
        event_sets: backlogs
            .map(|(queued, dropped)| SetStatus { queued, dropped })
            .collect(),
        clock_ms: u64::try_from(node.clock.now().as_millis()).unwrap_or(u64::MAX),
        scenario: node.timeline.as_ref().map(Timeline::status),
    }
}
