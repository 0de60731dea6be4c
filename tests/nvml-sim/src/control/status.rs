//! The node, told.

use super::{GpuStatus, SetStatus, Status};
use crate::IDENTITY;
use crate::events::EventSet;
use crate::node::{Effect, Gpu, Node, Rule};
use crate::profile::DRIVER_VERSION;

pub(super) fn in_words(rule: &Rule) -> String {
    let call = rule.call.as_deref().unwrap_or("every call");
    let gpu = rule
        .gpu
        .map_or_else(|| "any GPU".to_owned(), |gpu| format!("GPU {gpu}"));
    match rule.effect {
        Effect::Slow { ms } => format!("{call} on {gpu} takes {ms} ms longer"),
        Effect::Hang => format!("{call} on {gpu} hangs"),
        Effect::Fail { code } => format!("{call} on {gpu} answers {code}"),
    }
}

pub(super) fn status(node: &Node) -> Status {
    let gpu = |gpu: &Gpu| GpuStatus {
        index: gpu.identity.index,
        uuid: gpu.identity.uuid.clone(),
        pci: gpu.identity.pci.to_string(),
        name: node.profile.name.to_owned(),
        lost: gpu.lost,
        temperature_c: gpu.temperature_c,
        recovery_action: gpu.recovery_action,
        throttle: gpu.throttle,
        ecc_corrected: gpu.ecc_volatile.dram.corrected + gpu.ecc_volatile.sram.corrected,
        ecc_uncorrected: gpu.ecc_volatile.dram.uncorrected + gpu.ecc_volatile.sram.uncorrected,
        remapped_correctable: gpu.rows.correctable,
        remapped_uncorrectable: gpu.rows.uncorrectable,
        remap_pending: gpu.rows.pending,
        remap_failure: gpu.rows.failure,
    };
    let backlogs = node.events.sets().map(EventSet::backlog);
    Status {
        identity: IDENTITY.to_owned(),
        profile: node.profile.key.to_owned(),
        driver_version: DRIVER_VERSION.to_owned(),
        loaded: node.loaded,
        users: node.users,
        gpus: node.gpus.iter().map(gpu).collect(),
        misbehaving: node.rules.iter().map(in_words).collect(),
        event_sets: backlogs
            .map(|(queued, dropped)| SetStatus { queued, dropped })
            .collect(),
    }
}
