//! What tells of itself: XIDs, ECC errors, lost GPUs, recovery actions, kernel lines.

use std::sync::PoisonError;

use nvml_wrapper_sys::bindings::{
    nvmlEventMigConfigChange, nvmlEventTypeDoubleBitEccError, nvmlEventTypeGpuRecoveryAction,
    nvmlEventTypeSingleBitEccError, nvmlEventTypeXidCriticalError,
};

use super::{Done, Outcome, Raised, change, done};
use crate::control::{EccKind, EccLocation, Only};
use crate::events::{Event, MigIds, QUEUE_MAX};
use crate::kmsg;
use crate::sim::Sim;

/// A line of the kernel log is less: the kernel cuts it there.
const KERNEL_LINE_MAX: usize = 992;

/// Raises events that nobody waits for yet.
fn raise(sim: &Sim, outcome: &mut Outcome, events: &[Event]) {
    let batch = sim.lock().events.raise(events);
    sim.notify();
    outcome.raised = Raised::Events(batch);
}

fn log(sim: &Sim, outcome: &mut Outcome, lines: impl IntoIterator<Item = String>) {
    let Some(kmsg) = &sim.kmsg else { return };
    let now = sim.lock().clock.now();
    let mut kmsg = kmsg.lock().unwrap_or_else(PoisonError::into_inner);
    let mut written = 0;
    for line in lines {
        if let Err(error) = kmsg.write(&line, now) {
            outcome.answer.kmsg_error = Some(kmsg.explain(&error));
            break;
        }
        written += 1;
    }
    outcome.answer.kmsg_lines = Some(written);
}

fn need_kernel_log(sim: &Sim) -> Result<(), String> {
    match sim.kmsg {
        Some(_) => Ok(()),
        None => {
            Err("no kernel log to write to: start the daemon with NVML_SIM_KMSG set".to_owned())
        }
    }
}

pub(super) fn xid(
    sim: &Sim,
    gpu: u32,
    instance: Option<MigIds>,
    codes: &[u64],
    count: u32,
    only: Option<Only>,
) -> Done {
    let total = codes
        .len()
        .saturating_mul(usize::try_from(count).unwrap_or(usize::MAX));
    if total == 0 || total > QUEUE_MAX {
        return Err(format!(
            "{total} XIDs at once: 1 to {QUEUE_MAX}, what an event set holds"
        ));
    }
    if only == Some(Only::Kmsg) {
        need_kernel_log(sim)?;
    }
    let (pci, action) = change(sim, gpu, |gpu| (gpu.identity.pci, gpu.recovery_action))?;
    let codes: Vec<u64> = codes.iter().copied().cycle().take(total).collect();
    let words: Vec<_> = codes.iter().take(8).map(u64::to_string).collect();
    let more = if total > words.len() {
        format!(", … ({total} in all)")
    } else {
        String::new()
    };
    let place = instance.map_or_else(String::new, |ids| {
        format!(", GPU instance {}", ids.gpu_instance)
    });
    let mut outcome = done(format!(
        "XID {}{more} on GPU {gpu}{place}",
        words.join(", ")
    ));

    if only != Some(Only::Kmsg) {
        let kind = u64::from(nvmlEventTypeXidCriticalError);
        let event = |&data| Event::Gpu {
            gpu,
            kind,
            data,
            instance,
        };
        raise(
            sim,
            &mut outcome,
            &codes.iter().map(event).collect::<Vec<_>>(),
        );
    }
    if only != Some(Only::Nvml) {
        let lines = codes
            .iter()
            .map(|&code| kmsg::xid_line(pci, instance, code, action));
        log(sim, &mut outcome, lines);
    }
    Ok(outcome)
}

/// The GPU was cut up anew.
pub(super) fn mig_changed(sim: &Sim, gpu: u32, words: String) -> Done {
    let mut outcome = done(words);
    let changed = Event::Gpu {
        gpu,
        kind: u64::from(nvmlEventMigConfigChange),
        data: 0,
        instance: None,
    };
    raise(sim, &mut outcome, &[changed]);
    Ok(outcome)
}

pub(super) fn mig_xid(
    sim: &Sim,
    gpu: u32,
    gpu_instance: u32,
    compute_instance: Option<u32>,
    codes: &[u64],
    only: Option<Only>,
) -> Done {
    let there: Vec<_> = change(sim, gpu, |gpu| {
        let ids = gpu.mig.iter().map(|instance| instance.gpu_instance);
        ids.collect()
    })?;
    if !there.contains(&gpu_instance) {
        return Err(format!(
            "no GPU instance {gpu_instance} on GPU {gpu}: it has {there:?}"
        ));
    }
    let ids = MigIds {
        gpu_instance,
        compute_instance,
    };
    xid(sim, gpu, Some(ids), codes, 1, only)
}

pub(super) fn kernel_lines(sim: &Sim, gpu: Option<u32>, lines: &[String]) -> Done {
    need_kernel_log(sim)?;
    let identity = gpu
        .map(|gpu| change(sim, gpu, |gpu| gpu.identity.clone()))
        .transpose()?;
    let fill = |line: &String| -> Result<String, String> {
        if line.len() > KERNEL_LINE_MAX || line.contains('\n') {
            return Err(format!(
                "a kernel line is one line of at most {KERNEL_LINE_MAX} bytes"
            ));
        }
        match &identity {
            Some(identity) => Ok(line
                .replace("{pci}", &identity.pci.kernel())
                .replace("{uuid}", &identity.uuid)),
            None if line.contains("{pci}") || line.contains("{uuid}") => {
                Err("whose {pci}? give a gpu".to_owned())
            }
            None => Ok(line.clone()),
        }
    };
    let lines: Vec<_> = lines.iter().map(fill).collect::<Result<_, _>>()?;
    let mut outcome = done(format!("{} kernel lines", lines.len()));
    log(sim, &mut outcome, lines);
    Ok(outcome)
}

pub(super) fn ecc(sim: &Sim, gpu: u32, kind: EccKind, location: EccLocation, count: u32) -> Done {
    let errors = u64::from(count);
    change(sim, gpu, |gpu| {
        for counts in [&mut gpu.ecc_volatile, &mut gpu.ecc_aggregate] {
            let memory = match location {
                EccLocation::Dram => &mut counts.dram,
                EccLocation::Sram => &mut counts.sram,
            };
            let counter = match kind {
                EccKind::Corrected => &mut memory.corrected,
                EccKind::Uncorrected => &mut memory.uncorrected,
            };
            *counter = counter.saturating_add(errors);
        }
    })?;
    let (event, word) = match kind {
        EccKind::Corrected => (nvmlEventTypeSingleBitEccError, "corrected"),
        EccKind::Uncorrected => (nvmlEventTypeDoubleBitEccError, "uncorrected"),
    };
    let mut outcome = done(format!("{count} {word} ECC errors on GPU {gpu}"));
    raise(sim, &mut outcome, &[plain(gpu, event)]);
    Ok(outcome)
}

/// An event without data.
fn plain(gpu: u32, kind: impl Into<u64>) -> Event {
    Event::Gpu {
        gpu,
        kind: kind.into(),
        data: 0,
        instance: None,
    }
}

pub(super) fn lost(sim: &Sim, gpu: u32) -> Done {
    change(sim, gpu, |gpu| gpu.lost = true)?;
    let mut outcome = done(format!("GPU {gpu} is lost"));
    raise(sim, &mut outcome, &[Event::Lost { gpu }]);
    Ok(outcome)
}

pub(super) fn recovery_action(sim: &Sim, gpu: u32, value: u32, only: Option<Only>) -> Done {
    let (pci, before) = change(sim, gpu, |gpu| {
        let before = gpu.recovery_action;
        if only != Some(Only::Kmsg) {
            gpu.recovery_action = value;
        }
        (gpu.identity.pci, before)
    })?;
    let mut outcome = done(format!("recovery action of GPU {gpu}: {before} to {value}"));
    if only != Some(Only::Kmsg) {
        raise(
            sim,
            &mut outcome,
            &[plain(gpu, nvmlEventTypeGpuRecoveryAction)],
        );
    }
    if only != Some(Only::Nvml) {
        log(sim, &mut outcome, [kmsg::recovery_line(pci, before, value)]);
    }
    Ok(outcome)
}
