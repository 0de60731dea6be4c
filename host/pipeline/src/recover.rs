//! What ends faults, besides a policy's word: a reset, a driver that is bound again, another GPU in the slot, an
//! operator (design N7).

use std::sync::Arc;

use device_api_core::condition::{Condition, FALLBACK, FAULT_FLOOR, Owner, READY, find, find_on};
use device_api_core::error::ApiError;
use device_api_core::floor;
use device_api_core::ids::{DeviceUuid, ObjectKey, SignalSeq};
use device_api_core::incident::{Incidents as Listed, Wanted};
use device_api_core::limits;
use device_api_core::ports::Incidents;
use device_api_core::recovery::{self, ClearRequest, Recovery, ResetReport};
use device_api_core::signal::{Signal, Target, printable};
use device_api_core::verdict::{Clear, ClearOn};

use crate::admission::last_seen;
use crate::dispatch::Call;
use crate::floors::FALLBACK_CLEARS;
use crate::ownerless;
use crate::pipeline::{Shared, State};
use crate::timers::Key;
use crate::verdicts::cleared;
use crate::write::Write;

pub(crate) mod recovery_none;
mod replaced;
mod reported;
pub(crate) mod returned;

/// What ended what stands no more.
#[derive(Clone, Debug)]
pub(crate) struct Ending {
    pub(crate) event: ClearOn,
    /// The reason of what it ended.
    pub(crate) reason: &'static str,
    /// One sentence.
    pub(crate) message: String,
    /// It ends faults as such that were seen last by then, also those of which nothing stood; `None`: only what
    /// is cleared by it.
    pub(crate) through: Option<SignalSeq>,
}

impl Shared {
    /// Something happened to a GPU that ends faults from before it.
    pub(crate) fn recover(
        &self,
        state: &mut State,
        uuid: &DeviceUuid,
        recovery: &Recovery,
        evidence: &str,
    ) -> Vec<Call> {
        let evidence = printable(evidence, limits::EVIDENCE_BYTES_MAX);
        let drill = self.is_simulated(uuid);
        tracing::info!(gpu = %uuid, event = recovery.clears().as_str(), evidence, drill, "GPU recovered");
        let (reason, what) = match recovery {
            Recovery::Replaced { by } => {
                self.replaced(state, uuid, by, &evidence);
                return Vec::new();
            }
            Recovery::GpuReset => ("GpuReset", "the GPU was reset"),
            Recovery::DriverRebind => ("DriverRebind", "the driver was bound anew"),
        };
        let event = recovery.clears();
        let through = self.lane(state, uuid).recoveries.note(event);
        let ending = Ending {
            event,
            reason,
            message: format!("Cleared: {what} ({evidence})."),
            through: Some(through),
        };
        self.end_waiting(state, uuid, ending.event, through);
        self.end_floors(state, uuid, ending.event, through);
        let is_over = |state: &State, old: &Condition| {
            recovery::ends(ending.event, &old.clears) && last_told(state, uuid, old) <= through
        };
        self.end_conditions(state, uuid, &ending, is_over);
        self.await_action(state, uuid);
        self.ask_anew(state, uuid)
    }

    /// Double-bit errors that wait for what contains them.
    fn end_waiting(
        &self,
        state: &mut State,
        uuid: &DeviceUuid,
        event: ClearOn,
        through: SignalSeq,
    ) {
        let clears = clears_of(floor::UNCONTAINED_DOUBLE_BIT.clears);
        if !recovery::ends(event, &clears) {
            return;
        }
        for drill in [false, true] {
            let State {
                lanes, incidents, ..
            } = &mut *state;
            let Some(lane) = lanes.get_mut(uuid) else {
                return;
            };
            let waiting = &mut lane.containment(drill).double_bit;
            if waiting
                .take_if(|waiting| last_seen(incidents, waiting) <= through)
                .is_some()
            {
                let uuid = uuid.clone();
                state.timers.cancel(&Key::Containment { uuid, drill });
            }
        }
    }

    /// Floors that stand or are lowered, and what is assumed.
    fn end_floors(&self, state: &mut State, uuid: &DeviceUuid, event: ClearOn, through: SignalSeq) {
        let State {
            lanes, incidents, ..
        } = &mut *state;
        if let Some(lane) = lanes.get_mut(uuid) {
            let is_over = |signal: &Signal| last_seen(incidents, signal) <= through;
            lane.floors.end(event, is_over);
        }
    }

    /// Clears those problems of policies that are over, and writes whatever else has ended: one write.
    fn end_conditions(
        &self,
        state: &mut State,
        uuid: &DeviceUuid,
        ending: &Ending,
        is_over: impl Fn(&State, &Condition) -> bool,
    ) {
        let conditions = self.cache.conditions(uuid);
        let over = conditions.iter().filter(|old| {
            old.is_problem() && matches!(old.owner, Owner::Policy(_)) && is_over(state, old)
        });
        let mut owners = Vec::new();
        let over = over.map(|old| {
            owners.extend(policy_of(old));
            old.name()
        });
        let over: Vec<Arc<str>> = over.collect();
        self.judge_anew(state, uuid, &owners, ending.event);
        for name in &over {
            let (uuid, condition) = (uuid.clone(), name.to_string());
            state.timers.cancel(&Key::Quiet {
                uuid: uuid.clone(),
                condition,
            });
            self.lane(state, &uuid).flaps.forget(name);
        }
        let (bench, now) = (state.bench.clone(), self.clock.wall());
        let amend = |conditions: &mut Vec<Condition>| {
            for condition in conditions
                .iter_mut()
                .filter(|old| over.contains(&old.name()))
            {
                *condition = cleared(condition, ending.reason, &ending.message, now);
                // Without an owner nobody says that it is well.
                ownerless::mark(std::slice::from_mut(condition), &bench, now);
            }
        };
        let write = Write {
            amend: Some(&amend),
            ending: Some(ending),
            ..Write::default()
        };
        self.write(state, uuid, &write);
    }

    /// What is with the policies is asked anew: what they were told of what stands is not so any more.
    fn ask_anew(&self, state: &mut State, uuid: &DeviceUuid) -> Vec<Call> {
        let id = state.next_flight;
        let Some(flight) = &mut self.lane(state, uuid).flight else {
            return Vec::new();
        };
        flight.id = id;
        flight.outstanding = 0;
        flight.outcomes.clear();
        state.next_flight += 1;
        let mut calls = self.ask(state, uuid, u32::MAX);
        if calls.is_empty() {
            calls = self.land(state, uuid);
        }
        calls
    }

    /// Whatever ended since a signal's fault was last seen, of what a floor or an assumption names.
    pub(crate) fn ended(&self, state: &mut State, uuid: &DeviceUuid, signal: &Signal) -> Over {
        self.lane(state, uuid);
        let Some(lane) = state.lanes.get(uuid) else {
            return Over::default();
        };
        if self.is_loss_of_gone(signal) {
            return Over {
                floor: true,
                assumed: true,
            };
        }
        if lane.recoveries.is_empty() {
            return Over::default();
        }
        let last = last_seen(&state.incidents, signal);
        let is_over = |clears: &[ClearOn]| lane.recoveries.ended(&clears_of(clears), last);
        Over {
            floor: floor::of(signal).is_some_and(|floor| is_over(floor.clears)),
            assumed: is_over(&FALLBACK_CLEARS)
                || lane
                    .recoveries
                    .assumption_cleared_by_hand(signal.incident, last),
        }
    }

    pub(crate) fn is_simulated(&self, uuid: &DeviceUuid) -> bool {
        let device = self.cache.device(uuid);
        device.is_some_and(|device| device.simulated)
    }

    fn clear_by_hand(
        &self,
        state: &mut State,
        request: &ClearRequest,
    ) -> Result<Vec<Call>, ApiError> {
        let named = &request.device;
        let Some(uuid) = &self.cache.resolve(&Target::Uuid(named.clone())) else {
            let key = ObjectKey::new("", named.as_str());
            return Err(ApiError::NotFound { key });
        };
        let conditions = self.cache.conditions(uuid);
        let old = clearable(&conditions, (uuid, named), &request.condition)?;
        let reason = printable(&request.reason, limits::POLICY_REASON_BYTES_MAX);
        let ending = Ending {
            event: ClearOn::Operator,
            reason: "Operator",
            message: format!("Cleared by an operator: {reason}."),
            through: None,
        };
        tracing::info!(gpu = %uuid, condition = %old.name(), reason, drill = old.drill, "cleared by an operator");
        if old.owner == Owner::Host {
            let floors = &mut self.lane(state, uuid).floors;
            let assumed = match &*old.type_ {
                FAULT_FLOOR => {
                    floors.end_floor(old.cause);
                    Vec::new()
                }
                _ => floors.end_assumed(old.cause),
            };
            for signal in assumed {
                let last = last_seen(&state.incidents, &signal);
                let recoveries = &mut self.lane(state, uuid).recoveries;
                recoveries.note_assumed_by_hand(signal.incident, last);
            }
        } else {
            let last = last_told(state, uuid, old);
            let lane = self.lane(state, uuid);
            lane.recoveries.note_by_hand(&old.name(), last);
        }
        let is_of_action = |clear: &Clear| clear.on == ClearOn::RecoveryNone;
        if old.clears.iter().any(is_of_action) {
            self.await_action(state, uuid);
        }
        self.end_conditions(state, uuid, &ending, |_, other| {
            other.type_ == old.type_ && other.instance == old.instance
        });
        Ok(self.ask_anew(state, uuid))
    }
}

/// What of a signal came to nothing, since it ended after its fault was last seen.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Over {
    pub(crate) floor: bool,
    pub(crate) assumed: bool,
}

impl Incidents for Shared {
    fn incidents(&self, wanted: &Wanted) -> Listed {
        let selected = self.lock().incidents.select(wanted);
        selected.list()
    }

    fn clear(&self, request: &ClearRequest) -> Result<(), ApiError> {
        if request.reason.trim().is_empty() {
            return Err(ApiError::Invalid {
                field: "reason",
                why: "say why it is over: it stands in the condition, and in the audit log"
                    .to_owned(),
            });
        }
        let (first, cleared) = {
            let mut state = self.lock();
            let first = self.follow(&mut state, &request.device);
            (first, self.clear_by_hand(&mut state, request))
        };
        self.place(first);
        self.place(cleared?);
        Ok(())
    }

    fn report_reset(&self, report: &ResetReport) -> Result<(), ApiError> {
        self.reset_reported(report)
    }
}

/// The problem that an operator names, where it is one that may be cleared by hand.
fn clearable<'a>(
    conditions: &'a [Condition],
    (gpu, uuid): (&DeviceUuid, &DeviceUuid),
    type_: &str,
) -> Result<&'a Condition, ApiError> {
    let refused = |why: String| Err(ApiError::Precondition { why });
    let instance = Some(uuid.as_str()).filter(|_| uuid != gpu);
    let Some(old) = find_on(conditions, type_, instance) else {
        return refused(match find(conditions, type_) {
            Some(_) => format!("{type_} of {uuid} is its GPU's, and is cleared there: {gpu}"),
            None if type_ == READY => format!(
                "{READY} of {uuid} is made of its other conditions, and ends as a problem when they do"
            ),
            None => format!("{uuid} has no condition {type_:?}"),
        });
    };
    if !old.is_problem() {
        return refused(format!(
            "{type_} of {uuid} is no problem, but {}",
            old.state
        ));
    }
    match &old.owner {
        Owner::Policy(_) => Ok(old),
        Owner::Host if [FAULT_FLOOR, FALLBACK].contains(&&*old.type_) => Ok(old),
        Owner::Host => refused(format!(
            "{type_} tells of policies, not of {uuid}: it ends when they work again"
        )),
        Owner::Provider(name) => refused(format!(
            "{type_} of {uuid} belongs to provider {name:?}, who clears it; `devicectl provider forget` if it is gone"
        )),
    }
}

/// When what a condition tells of was last seen.
fn last_told(state: &State, uuid: &DeviceUuid, condition: &Condition) -> SignalSeq {
    // A condition names one cause, and may stand for several: those that said the same are in no version of it.
    let behind = state.incidents.last_behind(uuid, &condition.name());
    behind.max(condition.cause).unwrap_or_default()
}

/// The policy whose word it is.
pub(crate) fn policy_of(condition: &Condition) -> Option<Arc<str>> {
    match &condition.owner {
        Owner::Policy(id) => Some(id.name.clone()),
        Owner::Host | Owner::Provider(_) => None,
    }
}

fn clears_of(on: &[ClearOn]) -> Vec<Clear> {
    on.iter().map(|on| Clear::on(*on)).collect()
}
