//! What each command does.

use std::sync::PoisonError;

use nvml_wrapper_sys::bindings::{
    nvmlEventTypeDoubleBitEccError, nvmlEventTypeGpuRecoveryAction, nvmlEventTypeSingleBitEccError,
    nvmlEventTypeXidCriticalError,
};

use super::status::{in_words, status};
use super::{Answer, EccKind, EccLocation, Only, Reasons, Request};
use crate::abi;
use crate::events::{Event, QUEUE_MAX};
use crate::kmsg;
use crate::node::{Effect, Gpu, Node, RULES_MAX, RowRemap, Rule};
use crate::sim::Sim;

/// Above what any sensor reads before the board is off.
const CELSIUS_MAX: u32 = 150;
/// Longer is a hang.
const SLOW_MS_MAX: u64 = 600_000;

/// NVML's clock event reasons.
const REASONS: [(&str, u64); 9] = [
    ("gpu-idle", 0x1),
    ("applications-clocks-setting", 0x2),
    ("sw-power-cap", 0x4),
    ("hw-slowdown", 0x8),
    ("sync-boost", 0x10),
    ("sw-thermal-slowdown", 0x20),
    ("hw-thermal-slowdown", 0x40),
    ("hw-power-brake-slowdown", 0x80),
    ("display-clock-setting", 0x100),
];

type Done = Result<Answer, String>;

/// A command that was not carried out.
pub(super) fn refusal(error: String) -> Answer {
    Answer {
        error: Some(error),
        ..Answer::default()
    }
}

pub(super) fn act(sim: &Sim, request: Request) -> Answer {
    carry_out(sim, request).unwrap_or_else(refusal)
}

fn done(what: String) -> Answer {
    Answer {
        ok: true,
        done: what,
        ..Answer::default()
    }
}

fn carry_out(sim: &Sim, request: Request) -> Done {
    match request {
        Request::Xid {
            gpu,
            codes,
            count,
            only,
        } => xid(sim, gpu, &codes, count, only),
        Request::Ecc {
            gpu,
            kind,
            location,
            count,
        } => ecc(sim, gpu, kind, location, count),
        Request::RowRemap {
            gpu,
            correctable,
            uncorrectable,
            pending,
            failure,
        } => {
            let rows = RowRemap {
                correctable,
                uncorrectable,
                pending,
                failure,
            };
            change(sim, gpu, |gpu| gpu.rows = rows)?;
            Ok(done(format!("row remapper of GPU {gpu} set")))
        }
        Request::Temperature { gpu, celsius } => temperature(sim, gpu, celsius),
        Request::Throttle { gpu, reasons } => throttle(sim, gpu, &reasons),
        Request::Lost { gpu } => lost(sim, gpu),
        Request::Found { gpu } => {
            change(sim, gpu, |gpu| gpu.lost = false)?;
            Ok(done(format!("GPU {gpu} answers again")))
        }
        Request::RecoveryAction { gpu, value, only } => recovery_action(sim, gpu, value, only),
        Request::Slow { ms, .. } if ms > SLOW_MS_MAX => Err(format!(
            "{ms} ms is too slow: up to {SLOW_MS_MAX}, or use hang"
        )),
        Request::Slow { gpu, call, ms: 0 } => Ok(unrule(sim, gpu, call.as_deref(), |effect| {
            matches!(effect, Effect::Slow { .. })
        })),
        Request::Slow { gpu, call, ms } => rule(sim, gpu, call, Effect::Slow { ms }),
        Request::Hang { gpu, call } => rule(sim, gpu, call, Effect::Hang),
        Request::Unhang { gpu, call } => Ok(unrule(sim, gpu, call.as_deref(), |effect| {
            matches!(effect, Effect::Hang)
        })),
        Request::Fail { code: 0, .. } => Err("0 is success: use unfail".to_owned()),
        Request::Fail { gpu, call, code } => rule(sim, gpu, call, Effect::Fail { code }),
        Request::Unfail { gpu, call } => Ok(unrule(sim, gpu, call.as_deref(), |effect| {
            matches!(effect, Effect::Fail { .. })
        })),
        Request::Unload => Ok(bind_driver(sim, false)),
        Request::Load => Ok(bind_driver(sim, true)),
        Request::Reset { gpu } => reset(sim, gpu),
        Request::Status => {
            let status = status(&sim.lock());
            Ok(Answer {
                status: Some(status),
                ..done(String::new())
            })
        }
    }
}

/// Changes one GPU and wakes those who wait.
fn change<T>(sim: &Sim, gpu: u32, change: impl FnOnce(&mut Gpu) -> T) -> Result<T, String> {
    let mut node = sim.lock();
    let changed = gpu_of(&mut node, gpu).map(change)?;
    drop(node);
    sim.notify();
    Ok(changed)
}

fn gpu_of(node: &mut Node, gpu: u32) -> Result<&mut Gpu, String> {
    let count = node.gpus.len();
    node.gpu_mut(gpu)
        .ok_or_else(|| format!("no GPU {gpu}: this node has 0 to {}", count - 1))
}

/// Raises events; the answer to be completed by [`await_delivery`].
fn raise(sim: &Sim, events: &[Event]) -> Option<u64> {
    let batch = sim.lock().events.raise(events);
    sim.notify();
    batch
}

fn await_delivery(sim: &Sim, batch: Option<u64>, answer: Answer) -> Answer {
    let delivery = batch.and_then(|batch| sim.wait_for_delivery(batch));
    let delivered = delivery.filter(|delivery| delivery.complete());
    Answer {
        delivered: Some(delivered.is_some()),
        delivered_unix_ns: delivered.map(|delivery| delivery.last_unix_ns),
        events_delivered: Some(delivery.map_or(0, |delivery| delivery.handed_over)),
        ..answer
    }
}

fn log(sim: &Sim, answer: &mut Answer, lines: impl IntoIterator<Item = String>) {
    let Some(kmsg) = &sim.kmsg else { return };
    let mut kmsg = kmsg.lock().unwrap_or_else(PoisonError::into_inner);
    let mut written = 0;
    for line in lines {
        if let Err(error) = kmsg.write(&line) {
            answer.kmsg_error = Some(kmsg.explain(&error));
            break;
        }
        written += 1;
    }
    answer.kmsg_lines = Some(written);
}

fn xid(sim: &Sim, gpu: u32, codes: &[u64], count: u32, only: Option<Only>) -> Done {
    let total = codes
        .len()
        .saturating_mul(usize::try_from(count).unwrap_or(usize::MAX));
    if total == 0 || total > QUEUE_MAX {
        return Err(format!(
            "{total} XIDs at once: 1 to {QUEUE_MAX}, what an event set holds"
        ));
    }
    if only == Some(Only::Kmsg) && sim.kmsg.is_none() {
        return Err(
            "no kernel log to write to: start the daemon with NVML_SIM_KMSG set".to_owned(),
        );
    }
    let (pci, action) = change(sim, gpu, |gpu| (gpu.identity.pci, gpu.recovery_action))?;
    let codes: Vec<u64> = codes.iter().copied().cycle().take(total).collect();
    let kind = u64::from(nvmlEventTypeXidCriticalError);
    let events: Vec<_> = codes
        .iter()
        .map(|&data| Event::Gpu { gpu, kind, data })
        .collect();
    let words: Vec<_> = codes.iter().take(8).map(u64::to_string).collect();
    let more = if total > words.len() {
        format!(", … ({total} in all)")
    } else {
        String::new()
    };
    let mut answer = done(format!("XID {}{more} on GPU {gpu}", words.join(", ")));

    let batch = if only == Some(Only::Kmsg) {
        None
    } else {
        raise(sim, &events)
    };
    if only != Some(Only::Nvml) {
        log(
            sim,
            &mut answer,
            codes.iter().map(|&code| kmsg::xid_line(pci, code, action)),
        );
    }
    if only == Some(Only::Kmsg) {
        return Ok(answer);
    }
    Ok(await_delivery(sim, batch, answer))
}

fn ecc(sim: &Sim, gpu: u32, kind: EccKind, location: EccLocation, count: u32) -> Done {
    let errors = u64::from(count);
    change(sim, gpu, |gpu| {
        for counts in [&mut gpu.ecc_volatile, &mut gpu.ecc_aggregate] {
            let memory = match location {
                EccLocation::Dram => &mut counts.dram,
                EccLocation::Sram => &mut counts.sram,
            };
            match kind {
                EccKind::Corrected => memory.corrected += errors,
                EccKind::Uncorrected => memory.uncorrected += errors,
            }
        }
    })?;
    let (event, word) = match kind {
        EccKind::Corrected => (nvmlEventTypeSingleBitEccError, "corrected"),
        EccKind::Uncorrected => (nvmlEventTypeDoubleBitEccError, "uncorrected"),
    };
    let batch = raise(
        sim,
        &[Event::Gpu {
            gpu,
            kind: event.into(),
            data: 0,
        }],
    );
    let answer = done(format!("{count} {word} ECC errors on GPU {gpu}"));
    Ok(await_delivery(sim, batch, answer))
}

fn temperature(sim: &Sim, gpu: u32, celsius: u32) -> Done {
    if celsius > CELSIUS_MAX {
        return Err(format!(
            "{celsius} °C is no GPU's temperature: 0 to {CELSIUS_MAX}"
        ));
    }
    change(sim, gpu, |gpu| gpu.temperature_c = celsius)?;
    Ok(done(format!("GPU {gpu} is at {celsius} °C")))
}

fn throttle(sim: &Sim, gpu: u32, reasons: &Reasons) -> Done {
    let mask = match reasons {
        Reasons::Mask(mask) => *mask,
        Reasons::Names(names) => names.iter().try_fold(0, |mask, name| {
            let reason = REASONS.iter().find(|(known, _)| known == name);
            let known = || REASONS.map(|(known, _)| known).join(", ");
            reason
                .map(|(_, bit)| mask | bit)
                .ok_or_else(|| format!("no reason {name}: {}", known()))
        })?,
    };
    change(sim, gpu, |gpu| gpu.throttle = mask)?;
    Ok(done(format!("clock event reasons of GPU {gpu}: {mask:#x}")))
}

fn lost(sim: &Sim, gpu: u32) -> Done {
    change(sim, gpu, |gpu| gpu.lost = true)?;
    let batch = raise(sim, &[Event::Lost { gpu }]);
    Ok(await_delivery(
        sim,
        batch,
        done(format!("GPU {gpu} is lost")),
    ))
}

fn recovery_action(sim: &Sim, gpu: u32, value: u32, only: Option<Only>) -> Done {
    let (pci, before) = change(sim, gpu, |gpu| {
        let before = gpu.recovery_action;
        if only != Some(Only::Kmsg) {
            gpu.recovery_action = value;
        }
        (gpu.identity.pci, before)
    })?;
    let mut answer = done(format!("recovery action of GPU {gpu}: {before} to {value}"));
    let kind = u64::from(nvmlEventTypeGpuRecoveryAction);
    let event = Event::Gpu { gpu, kind, data: 0 };
    let batch = if only == Some(Only::Kmsg) {
        None
    } else {
        raise(sim, &[event])
    };
    if only != Some(Only::Nvml) {
        log(sim, &mut answer, [kmsg::recovery_line(pci, before, value)]);
    }
    if only == Some(Only::Kmsg) {
        return Ok(answer);
    }
    Ok(await_delivery(sim, batch, answer))
}

fn rule(sim: &Sim, gpu: Option<u32>, call: Option<String>, effect: Effect) -> Done {
    let mut node = sim.lock();
    if let Some(gpu) = gpu {
        gpu_of(&mut node, gpu)?;
    }
    if let Some(call) = &call {
        if !abi::exports(call) {
            return Err(format!(
                "no call {call}: name a symbol, such as nvmlDeviceGetTemperature"
            ));
        }
        if gpu.is_some() && !call.starts_with("nvmlDevice") {
            return Err(format!("{call} is not about one GPU: leave the GPU out"));
        }
    }
    let rule = Rule { gpu, call, effect };
    let kind = std::mem::discriminant(&effect);
    let replaced = |old: &Rule| {
        old.gpu == rule.gpu && old.call == rule.call && std::mem::discriminant(&old.effect) == kind
    };
    node.rules.retain(|old| !replaced(old));
    if node.rules.len() == RULES_MAX {
        return Err(format!("{RULES_MAX} calls misbehave already: use reset"));
    }
    let words = in_words(&rule);
    node.rules.push(rule);
    Ok(done(words))
}

fn unrule(
    sim: &Sim,
    gpu: Option<u32>,
    call: Option<&str>,
    ends: impl Fn(&Effect) -> bool,
) -> Answer {
    let mut node = sim.lock();
    let before = node.rules.len();
    node.rules.retain(|rule| {
        let named =
            (gpu.is_none() || rule.gpu == gpu) && (call.is_none() || rule.call.as_deref() == call);
        !(named && ends(&rule.effect))
    });
    let ended = before - node.rules.len();
    drop(node);
    sim.notify();
    done(format!("{ended} rules ended"))
}

fn bind_driver(sim: &Sim, bound: bool) -> Answer {
    let mut node = sim.lock();
    node.loaded = bound;
    if !bound {
        node.end_session();
    }
    drop(node);
    sim.notify();
    done(
        if bound {
            "driver loaded"
        } else {
            "driver unloaded"
        }
        .to_owned(),
    )
}

fn reset(sim: &Sim, gpu: Option<u32>) -> Done {
    let mut node = sim.lock();
    if let Some(gpu) = gpu {
        gpu_of(&mut node, gpu)?;
    }
    node.reset(gpu);
    drop(node);
    sim.notify();
    Ok(done(gpu.map_or_else(
        || "all GPUs reset".to_owned(),
        |gpu| format!("GPU {gpu} reset"),
    )))
}
