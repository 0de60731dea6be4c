//! What is merely changed: figures, boards, MIG, the driver.

use super::{Done, Outcome, change, done, gpu_of, signals};
use crate::control::Reasons;
use crate::figures;
use crate::node::mig::unsupported;
use crate::profile::cuda_of;
use crate::sim::Sim;

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

/// Sets figures of a GPU: all of them, or, where one is wrong, those before it.
pub(super) fn set(sim: &Sim, gpu: u32, figures: impl IntoIterator<Item = (String, u64)>) -> Done {
    let profile = sim.lock().profile;
    let set = change(sim, gpu, |gpu| {
        let set = figures.into_iter().map(|(name, value)| {
            figures::set(profile, gpu, &name, value)?;
            Ok(format!("{name}={value}"))
        });
        set.collect::<Result<Vec<_>, String>>()
    })??;
    Ok(done(format!("GPU {gpu}: {}", set.join(", "))))
}

pub(super) fn throttle(sim: &Sim, gpu: u32, reasons: &Reasons) -> Done {
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
    change(sim, gpu, |gpu| gpu.load.throttle = mask)?;
    Ok(done(format!("clock event reasons of GPU {gpu}: {mask:#x}")))
}

pub(super) fn replace(sim: &Sim, gpu: u32) -> Done {
    let mut node = sim.lock();
    gpu_of(&mut node, gpu)?;
    let uuid = node.replace(gpu).ok_or("no board to replace it with")?;
    drop(node);
    sim.notify();
    Ok(done(format!("GPU {gpu} is {uuid} now")))
}

pub(super) fn mig_mode(sim: &Sim, gpu: u32, on: bool) -> Done {
    let profile = sim.lock().profile;
    let mig = profile.mig.as_ref().ok_or_else(|| unsupported(profile))?;
    let current = change(sim, gpu, |gpu| {
        gpu.mig.set_mode(mig, on);
        gpu.mig.enabled
    })?;
    let when = if current == on {
        ""
    } else {
        ", after a gpu-reset"
    };
    let word = if on { "on" } else { "off" };
    signals::mig_changed(sim, gpu, format!("MIG mode of GPU {gpu} is {word}{when}"))
}

pub(super) fn mig_create(sim: &Sim, gpu: u32, profiles: &[String]) -> Done {
    let mut node = sim.lock();
    gpu_of(&mut node, gpu)?;
    let mut made = Vec::new();
    for profile in profiles {
        let (instance, uuid) = node.cut(gpu, profile)?;
        made.push(format!("{profile} as GPU instance {instance} ({uuid})"));
    }
    drop(node);
    signals::mig_changed(sim, gpu, format!("GPU {gpu}: {}", made.join(", ")))
}

pub(super) fn mig_destroy(sim: &Sim, gpu: u32, gpu_instance: Option<u32>) -> Done {
    let ended = change(sim, gpu, |gpu| gpu.mig.destroy(gpu_instance))?;
    match (ended, gpu_instance) {
        (0, Some(id)) => Err(format!("no GPU instance {id} on GPU {gpu}: see status")),
        (ended, _) => signals::mig_changed(
            sim,
            gpu,
            format!("{ended} MIG instances of GPU {gpu} ended"),
        ),
    }
}

pub(super) fn bind_driver(sim: &Sim, bound: bool) -> Outcome {
    sim.lock().bind(bound);
    sim.notify();
    done(if bound {
        "driver loaded"
    } else {
        "driver unloaded"
    })
}

pub(super) fn install_driver(sim: &Sim, version: Option<String>, library: Option<String>) -> Done {
    let mut node = sim.lock();
    for version in [&version, &library].into_iter().flatten() {
        if cuda_of(version).is_none() {
            return Err(format!(
                "{version} is no driver version: use one as 580.82.07, of branch 450 or later"
            ));
        }
    }
    if version.is_some() && node.loaded {
        return Err(
            "the driver is loaded: unload it before another version is installed".to_owned(),
        );
    }
    let versions = &mut node.versions;
    if let Some(version) = version {
        versions.driver = version;
    }
    if let Some(library) = library {
        versions.library = library;
    }
    let (driver, library) = (&versions.driver, &versions.library);
    Ok(done(format!("driver {driver}, library {library}")))
}

pub(super) fn gpu_reset(sim: &Sim, gpu: u32) -> Done {
    let profile = sim.lock().profile;
    change(sim, gpu, |gpu| gpu.reset(profile))?;
    Ok(done(format!(
        "GPU {gpu} was reset; what the board remembers stays"
    )))
}

pub(super) fn reset(sim: &Sim, gpu: Option<u32>) -> Done {
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
