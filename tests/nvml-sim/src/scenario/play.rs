//! Plays a scenario on the running node: one thread, which sleeps until a step's turn comes.

use std::sync::MutexGuard;
use std::thread;
use std::time::Duration;

use crate::clock::{Clock, check_speed};
use crate::control::{Request, act};
use crate::node::Node;
use crate::sim::Sim;

use super::{Scenario, Step, Timeline, When};

/// Longer than any scenario.
const ADVANCE_MS_MAX: u64 = 24 * 60 * 60 * 1000;

/// Plays it from a thread of its own.
///
/// # Errors
/// It does not fit the node, or there is no thread.
pub(crate) fn spawn(sim: &'static Sim, scenario: Scenario, speed: f64) -> Result<(), String> {
    let start = begin(sim, &scenario, speed)?;
    let thread = thread::Builder::new().name("nvml-sim-scenario".to_owned());
    let spawned = thread.spawn(move || run(sim, scenario, start));
    spawned.map(drop).map_err(|error| {
        let reason = format!("no thread to play it ({error}): see the limit on threads");
        end(sim, Some(reason.clone()));
        reason
    })
}

/// The command `play`.
pub(crate) fn command(
    sim: &Sim,
    scenario: Scenario,
    speed: f64,
    wait: bool,
) -> Result<String, String> {
    if wait {
        let start = begin(sim, &scenario, speed)?;
        run(sim, scenario, start);
    } else {
        // Commands come to the one simulation of this process.
        let sim = crate::sim::started().ok_or("the simulation has not started")?;
        spawn(sim, scenario, speed)?;
    }
    outcome(sim)
}

fn outcome(sim: &Sim) -> Result<String, String> {
    let node = sim.lock();
    let timeline = node.timeline.as_ref().ok_or("no scenario was played")?;
    timeline.outcome()
}

/// Whether a node has what the scenario needs.
///
/// # Errors
/// What it lacks.
pub(crate) fn check(node: &Node, has_kmsg: bool, scenario: &Scenario) -> Result<(), String> {
    let gpus = u32::try_from(node.gpus.len()).unwrap_or(u32::MAX);
    scenario.fits(node.profile, gpus)?;
    let writes = |step: &&Step| step.commands.iter().any(Request::needs_kernel_log);
    match scenario.steps.iter().find(writes) {
        Some(step) if !has_kmsg => Err(format!(
            "{}, line {}: it writes to the kernel log: start the daemon with NVML_SIM_KMSG set",
            scenario.name, step.line
        )),
        Some(_) | None => Ok(()),
    }
}

/// When its steps are counted from: now, whenever its thread comes to run.
fn begin(sim: &Sim, scenario: &Scenario, speed: f64) -> Result<Duration, String> {
    let speed = check_speed(speed)?;
    let mut node = sim.lock();
    check(&node, sim.kmsg.is_some(), scenario)?;
    if let Some(timeline) = node.timeline.as_ref().filter(|timeline| timeline.playing()) {
        return Err(format!(
            "{} is being played: use stop first",
            timeline.status().name
        ));
    }
    node.clock.set_speed(speed);
    node.timeline = Some(Timeline::new(scenario));
    Ok(node.clock.now())
}

fn run(sim: &Sim, scenario: Scenario, start: Duration) {
    let mut last = start;
    for step in scenario.steps {
        let Some(now) = await_turn(sim, &step, start, last) else {
            break;
        };
        last = now;
        let Step { line, commands, .. } = step;
        for command in commands {
            let name = command.name();
            let refused = if command.is_scripted() {
                act::step(sim, command).err()
            } else {
                Some("not in a scenario".to_owned())
            };
            if let Some(reason) = refused {
                return end(sim, Some(format!("line {line}: {name}: {reason}")));
            }
        }
        if let Some(timeline) = &mut sim.lock().timeline {
            timeline.done += 1;
        }
    }
    end(sim, None);
}

fn end(sim: &Sim, failure: Option<String>) {
    let mut node = sim.lock();
    node.clock.set_speed(1.0);
    if let Some(timeline) = &mut node.timeline {
        timeline.end(failure);
    }
    drop(node);
    sim.notify();
}

/// Waits until it is the step's turn; when that was, or nothing if the scenario was stopped.
fn await_turn(sim: &Sim, step: &Step, start: Duration, last: Duration) -> Option<Duration> {
    let then = match &step.when {
        When::At(ms) => Some(start + Duration::from_millis(*ms)),
        When::After(ms) => Some(last + Duration::from_millis(*ms)),
        When::Initialised | When::Released | When::Listening | When::Call { .. } => None,
    };
    let mut node = sim.lock();
    if let (When::Call { call, gpu }, Some(timeline)) = (&step.when, &mut node.timeline) {
        timeline.await_call(call, *gpu);
    }
    loop {
        let clock: Clock = node.clock;
        let due = match &step.when {
            When::At(_) | When::After(_) => then.is_some_and(|then| clock.now() >= then),
            When::Initialised => node.users > 0,
            When::Released => node.users == 0,
            When::Listening => node.events.listening(),
            When::Call { .. } => node
                .timeline
                .as_ref()
                .is_some_and(|timeline| timeline.called),
        };
        let timeline = node.timeline.as_mut()?;
        timeline.idle = false;
        if timeline.stop {
            return None;
        }
        if due {
            return Some(then.unwrap_or_else(|| clock.now()));
        }
        timeline.idle = true;
        sim.notify();
        node = sim.wait(node, then.and_then(|then| clock.until(then)));
    }
}

/// The command `advance`: returns when the scenario waits again, or is over. What was to happen
/// before it happens by the clock as it was.
pub(crate) fn advance(sim: &Sim, ms: u64) -> Result<String, String> {
    if ms > ADVANCE_MS_MAX {
        return Err(format!(
            "{ms} ms is more than a day: up to {ADVANCE_MS_MAX}"
        ));
    }
    let mut node = settled(sim, sim.lock());
    node.clock.advance(Duration::from_millis(ms));
    let node = settled(sim, node);
    Ok(format!(
        "the clock shows {} ms",
        node.clock.now().as_millis()
    ))
}

/// Once the scenario, if one is played, has looked at the node as it is and waits.
fn settled<'sim>(sim: &'sim Sim, mut node: MutexGuard<'sim, Node>) -> MutexGuard<'sim, Node> {
    if let Some(timeline) = &mut node.timeline {
        timeline.idle = false;
    }
    sim.notify();
    while node
        .timeline
        .as_ref()
        .is_some_and(|timeline| timeline.playing() && !timeline.idle)
    {
        node = sim.wait(node, None);
    }
    node
}

/// The command `stop`: returns when nothing is played.
pub(crate) fn stop(sim: &Sim) -> Result<String, String> {
    let mut node = sim.lock();
    match &mut node.timeline {
        Some(timeline) if timeline.playing() => timeline.stop = true,
        Some(_) | None => return Err("no scenario is being played".to_owned()),
    }
    sim.notify();
    while node.timeline.as_ref().is_some_and(Timeline::playing) {
        node = sim.wait(node, None);
    }
    drop(node);
    outcome(sim)
}
