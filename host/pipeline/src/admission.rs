//! Which of a policy's verdicts become conditions: not what has ended since its cause was seen, and no ok of a
//! condition that flaps (design N7).

use device_api_core::clock::{BootTime, WallTime};
use device_api_core::condition::Condition;
use device_api_core::ids::SignalSeq;
use device_api_core::limits;
use device_api_core::signal::Signal;
use device_api_core::verdict::{Judgement, Verdict};

use crate::alike::is_incident;
use crate::flaps::{self, Flaps, Heard};
use crate::incidents::Incidents;
use crate::recoveries::Recoveries;

/// What verdicts of one write are held against.
#[derive(Debug)]
pub(crate) struct Admission<'a> {
    pub(crate) recoveries: &'a Recoveries,
    pub(crate) incidents: &'a Incidents,
    pub(crate) flaps: &'a mut Flaps,
    pub(crate) signals: &'a [Signal],
    /// The signals were judged before.
    pub(crate) again: bool,
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
        verdict: &Verdict,
        new: Condition,
    ) -> Admitted {
        match new.state {
            Judgement::Problem if self.is_over(verdict, &new) => {
                tracing::info!(condition = %new.name(), drill = new.drill, "not raised: what ended it came after its cause was last seen");
                Admitted::Nothing
            }
            Judgement::Problem => {
                if !self.again {
                    self.flaps.problem(&new.name(), new.drill, self.now.0);
                }
                Admitted::AsSaid(new)
            }
            Judgement::Ok if !self.again => match old.filter(|old| old.is_problem()) {
                Some(old) => self.admit_ok(old, new),
                None => Admitted::AsSaid(new),
            },
            Judgement::Ok | Judgement::Unknown => Admitted::AsSaid(new),
        }
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

    fn is_over(&self, verdict: &Verdict, new: &Condition) -> bool {
        if self.recoveries.is_empty() {
            return false;
        }
        let cause = self
            .signals
            .iter()
            .find(|signal| signal.seq == verdict.cause);
        let last = cause.map_or(verdict.cause, |cause| last_seen(self.incidents, cause));
        self.recoveries.ended(&verdict.clears, last)
            || self.again && self.recoveries.cleared_by_hand(&new.name(), last)
    }
}

/// When what a signal tells of was last seen: repeats, and other sources, tell of the same.
pub(crate) fn last_seen(incidents: &Incidents, signal: &Signal) -> SignalSeq {
    let of_incident = incidents.last_seen(signal.incident);
    let of_incident = of_incident.filter(|_| is_incident(signal.kind));
    of_incident.unwrap_or_default().max(signal.seq)
}
