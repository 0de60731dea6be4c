//! Which of a policy's verdicts become conditions: not what has ended since its cause was seen, and no ok of a
//! condition that flaps (design N7).

use device_api_core::clock::{BootTime, WallTime};
use device_api_core::condition::Condition;
use device_api_core::ids::{DeviceUuid, SignalSeq};
use device_api_core::limits;
use device_api_core::signal::{Signal, SignalKind, text_attr};
use device_api_core::verdict::{Decision, Judgement, Verdict};

use crate::alike::is_incident;
use crate::flaps::{self, Flaps, Heard};
use crate::incidents::{Incidents, Word};
use crate::recoveries::Recoveries;

/// Attribute of a decision (docs/clears.md): the reason of the verdicts in it that are provisional.
const PROVISIONAL: &str = "provisional";

/// What verdicts of one write are held against.
#[derive(Debug)]
pub(crate) struct Admission<'a> {
    pub(crate) recoveries: &'a Recoveries,
    pub(crate) incidents: &'a mut Incidents,
    pub(crate) flaps: &'a mut Flaps,
    pub(crate) signals: &'a [Signal],
    /// The signals were judged before.
    pub(crate) again: bool,
    /// The GPU is not in the machine any more.
    pub(crate) is_gone: bool,
    pub(crate) now: (BootTime, WallTime),
    /// Conditions that are held from now on, and until when.
    pub(crate) held: Vec<(String, BootTime)>,
}

/// What is to be written.
#[derive(Debug)]
pub(crate) enum Admitted {
    /// The verdict.
    AsSaid(Condition),
    /// Something else than it says.
    Instead(Condition),
    Nothing,
}

impl Admission<'_> {
    pub(crate) fn admit(
        &mut self,
        old: Option<&Condition>,
        (verdict, decision): (&Verdict, &Decision),
        new: Condition,
    ) -> Admitted {
        let held = old.filter(|old| self.again && self.is_held(old));
        if let Some(held) = held.filter(|held| !makes_more(&new, held)) {
            // A new version that looks back: that is no news, and does not end what waits to be ok for long enough.
            return Admitted::Instead(Condition {
                owner: new.owner,
                ..held.clone()
            });
        }
        match new.state {
            Judgement::Problem if self.is_over(verdict, &new) => {
                tracing::info!(condition = %new.name(), drill = new.drill, "not raised: what ended it came after its cause was last seen");
                Admitted::Nothing
            }
            Judgement::Problem => {
                let stood = old.is_some_and(Condition::is_problem);
                let (name, drill, now) = (new.name(), new.drill, self.now.0);
                match is_provisional(verdict, decision) {
                    _ if self.again => drop(self.flaps.release(&name)),
                    true => self.flaps.provisional(&name, drill, (now, stood)),
                    false => self.flaps.problem(&name, drill, now),
                }
                drop(name);
                Admitted::AsSaid(new)
            }
            Judgement::Ok if !self.again => match old.filter(|old| old.is_problem()) {
                Some(old) => self.admit_ok(old, new),
                None => Admitted::AsSaid(new),
            },
            Judgement::Ok | Judgement::Unknown => Admitted::AsSaid(new),
        }
    }

    fn is_held(&self, condition: &Condition) -> bool {
        condition.is_problem() && self.flaps.is_held(&condition.name(), condition.drill)
    }

    fn admit_ok(&mut self, old: &Condition, new: Condition) -> Admitted {
        match self.flaps.ok(&new.name(), old.drill, self.now.0) {
            Heard::Counts => Admitted::AsSaid(new),
            Heard::StillHeld => Admitted::Nothing,
            Heard::Held => {
                let until = self.now.0.after(limits::FLAP_HOLD);
                self.held.push((new.name().to_string(), until));
                Admitted::Instead(flaps::held(old, &new.message, self.now.1))
            }
        }
    }

    /// Names the incident that a problem is of, where it was raised on what is no fault by itself. What stands and
    /// was raised so is of the fault that is told of now.
    pub(crate) fn attribute(
        &mut self,
        device: &DeviceUuid,
        conditions: &mut [Condition],
        new: &mut Condition,
    ) {
        let mut signals = self.signals.iter();
        let cause = signals.find(|signal| Some(signal.seq) == new.cause);
        let Some(cause) = cause.filter(|_| new.is_problem()) else {
            return;
        };
        if is_incident(cause.kind) {
            let mut standing = conditions.iter_mut();
            let old = standing.find(|old| old.type_ == new.type_ && old.instance == new.instance);
            if let Some(old) = old.filter(|old| self.incidents.is_of_no_fault(old.incident)) {
                old.incident = new.incident;
            }
            return;
        }
        let name = new.name();
        let word = Word {
            name: &name,
            on: new.instance.as_ref().map(DeviceUuid::as_str),
            state: new.state,
            severity: new.severity,
        };
        let incident = self.incidents.told_of(device, word, cause);
        new.incident = incident;
    }

    fn is_over(&self, verdict: &Verdict, new: &Condition) -> bool {
        if self.recoveries.is_empty() && !self.is_gone {
            return false;
        }
        let cause = self
            .signals
            .iter()
            .find(|signal| signal.seq == verdict.cause);
        if self.is_gone && cause.is_some_and(|cause| cause.kind == SignalKind::GpuLost) {
            return true;
        }
        let last = cause.map_or(verdict.cause, |cause| last_seen(self.incidents, cause));
        self.recoveries.ended(&verdict.clears, last)
            || self.again && self.recoveries.cleared_by_hand(&new.name(), last)
    }
}

/// Whether the policy calls it a problem for as long as it waits to be told what it is.
fn is_provisional(verdict: &Verdict, decision: &Decision) -> bool {
    text_attr(&decision.attrs, PROVISIONAL) == Some(&*verdict.reason)
}

fn makes_more(new: &Condition, standing: &Condition) -> bool {
    new.is_problem() && (new.severity > standing.severity || new.action > standing.action)
}

/// When what a signal tells of was last seen: repeats, and other sources, tell of the same.
pub(crate) fn last_seen(incidents: &Incidents, signal: &Signal) -> SignalSeq {
    let of_incident = incidents.last_seen(signal.incident);
    let of_incident = of_incident.filter(|_| is_incident(signal.kind));
    of_incident.unwrap_or_default().max(signal.seq)
}
