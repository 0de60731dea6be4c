//! What each command does.

mod signals;
mod state;

use super::status::{in_words, status};
use super::{Answer, Request};
use crate::abi;
use crate::node::{Effect, Gpu, Node, Rule};
use crate::scenario::play;
use crate::sim::Sim;

/// Longer is a hang.
const SLOW_MS_MAX: u64 = 600_000;

/// A command that was carried out.
#[derive(Debug)]
pub(crate) struct Outcome {
    answer: Answer,
    raised: Raised,
}

/// NVML events of a command.
#[derive(Debug)]
enum Raised {
    Nothing,
    /// The batch to ask for; none if no set listens.
    Events(Option<u64>),
}

type Done = Result<Outcome, String>;

fn done(what: impl Into<String>) -> Outcome {
    Outcome {
        answer: Answer {
            ok: true,
            done: what.into(),
            ..Answer::default()
        },
        raised: Raised::Nothing,
    }
}

/// A command that was not carried out.
pub(super) fn refusal(error: String) -> Answer {
    Answer {
        error: Some(error),
        ..Answer::default()
    }
}

/// Carries out a command; its events are handed over when this returns, or a second has passed.
pub(super) fn act(sim: &Sim, request: Request) -> Answer {
    match carry_out(sim, request) {
        Err(error) => refusal(error),
        Ok(outcome) => match outcome.raised {
            Raised::Nothing => outcome.answer,
            Raised::Events(batch) => await_delivery(sim, batch, outcome.answer),
        },
    }
}

/// Carries out a step of a scenario, which waits for nobody.
pub(crate) fn step(sim: &Sim, request: Request) -> Result<(), String> {
    let outcome = carry_out(sim, request)?;
    if let Raised::Events(Some(batch)) = outcome.raised {
        sim.lock().events.close(batch);
    }
    Ok(())
}

#[expect(
    clippy::too_many_lines,
    reason = "one arm for each command, and no wildcard"
)]
fn carry_out(sim: &Sim, request: Request) -> Done {
    match request {
        Request::Xid {
            gpu,
            codes,
            count,
            only,
        } => signals::xid(sim, gpu, None, &codes, count, only),
        Request::MigXid {
            gpu,
            gpu_instance,
            compute_instance,
            codes,
            only,
        } => signals::mig_xid(sim, gpu, gpu_instance, compute_instance, &codes, only),
        Request::Kmsg { gpu, lines } => signals::kernel_lines(sim, gpu, &lines),
        Request::Ecc {
            gpu,
            kind,
            location,
            count,
        } => signals::ecc(sim, gpu, kind, location, count),
        Request::Lost { gpu } => signals::lost(sim, gpu),
        Request::RecoveryAction { gpu, value, only } => {
            signals::recovery_action(sim, gpu, value, only)
        }
        Request::RowRemap {
            gpu,
            correctable,
            uncorrectable,
            pending,
            failure,
        } => {
            let figures = [
                ("correctable", correctable),
                ("uncorrectable", uncorrectable),
                ("pending", u32::from(pending)),
                ("failure", u32::from(failure)),
            ];
            let figures = figures.map(|(name, value)| (format!("row-remap.{name}"), value.into()));
            state::set(sim, gpu, figures)
        }
        Request::Set { gpu, readings } => state::set(sim, gpu, readings.0),
        Request::Temperature { gpu, celsius } => {
            state::set(sim, gpu, [("temperature.gpu".to_owned(), celsius.into())])
        }
        Request::Throttle { gpu, reasons } => state::throttle(sim, gpu, &reasons),
        Request::Found { gpu } => {
            change(sim, gpu, |gpu| gpu.lost = false)?;
            Ok(done(format!("GPU {gpu} answers again")))
        }
        Request::Replace { gpu } => state::replace(sim, gpu),
        Request::MigMode { gpu, on } => state::mig_mode(sim, gpu, on),
        Request::MigCreate { gpu, profiles } => state::mig_create(sim, gpu, &profiles),
        Request::MigDestroy { gpu, gpu_instance } => state::mig_destroy(sim, gpu, gpu_instance),
        Request::Unload => Ok(state::bind_driver(sim, false)),
        Request::Load => Ok(state::bind_driver(sim, true)),
        Request::Driver { version, library } => state::install_driver(sim, version, library),
        Request::GpuReset { gpu } => state::gpu_reset(sim, gpu),
        Request::Reset { gpu } => state::reset(sim, gpu),
        Request::Slow { gpu, call, ms } => slow(sim, gpu, call, ms),
        Request::Hang { gpu, call } => rule(sim, gpu, call, Effect::Hang),
        Request::Unhang { gpu, call } => Ok(unrule(sim, gpu, call.as_deref(), is_hang)),
        Request::Fail {
            gpu,
            call,
            code,
            times,
        } => fail(sim, gpu, call, code, times),
        Request::Unfail { gpu, call } => Ok(unrule(sim, gpu, call.as_deref(), is_failure)),
        Request::Play {
            scenario,
            speed,
            wait,
        } => play::command(sim, *scenario, speed, wait).map(done),
        Request::Advance { ms } => play::advance(sim, ms).map(done),
        Request::Stop => play::stop(sim).map(done),
        Request::Status => {
            let status = Some(status(&sim.lock()));
            let mut outcome = done("");
            outcome.answer.status = status;
            Ok(outcome)
        }
    }
}

fn is_slow(effect: &Effect) -> bool {
    matches!(effect, Effect::Slow { .. })
}

fn is_hang(effect: &Effect) -> bool {
    matches!(effect, Effect::Hang)
}

fn is_failure(effect: &Effect) -> bool {
    matches!(effect, Effect::Fail { .. })
}

fn slow(sim: &Sim, gpu: Option<u32>, call: Option<String>, ms: u64) -> Done {
    match ms {
        0 => Ok(unrule(sim, gpu, call.as_deref(), is_slow)),
        1..=SLOW_MS_MAX => rule(sim, gpu, call, Effect::Slow { ms }),
        _ => Err(format!(
            "{ms} ms is too slow: up to {SLOW_MS_MAX}, or use hang"
        )),
    }
}

fn fail(sim: &Sim, gpu: Option<u32>, call: Option<String>, code: u32, left: Option<u32>) -> Done {
    match (code, left) {
        (0, _) => Err("0 is success: use unfail".to_owned()),
        (_, Some(0)) => Err("0 times is never: use unfail".to_owned()),
        (code, left) => rule(sim, gpu, call, Effect::Fail { code, left }),
    }
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
    let words = in_words(&rule);
    node.rules.add(rule)?;
    Ok(done(words))
}

fn unrule(
    sim: &Sim,
    gpu: Option<u32>,
    call: Option<&str>,
    ends: impl Fn(&Effect) -> bool,
) -> Outcome {
    let ended = sim.lock().rules.end(|rule| {
        let named =
            (gpu.is_none() || rule.gpu == gpu) && (call.is_none() || rule.call.as_deref() == call);
        named && ends(&rule.effect)
    });
    sim.notify();
    done(format!("{ended} rules ended"))
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
