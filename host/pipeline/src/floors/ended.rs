//! What ends floors and assumptions (design N7, H8).

use device_api_core::floor;
use device_api_core::ids::{IncidentId, SignalSeq};
use device_api_core::recovery;
use device_api_core::signal::{Signal, SignalKind};
use device_api_core::verdict::{Clear, ClearOn};

use super::{Assumed, Floors};

/// What ends an assumption, a policy's judgement first.
pub(crate) const FALLBACK_CLEARS: [ClearOn; 4] = [
    ClearOn::Policy,
    ClearOn::GpuReset,
    ClearOn::NodeReboot,
    ClearOn::Operator,
];

impl Floors {
    /// What a signal itself takes away: the GPU answers, or the driver asks for nothing. A drill takes nothing
    /// real away.
    pub(crate) fn take_away(&mut self, signal: &Signal) {
        if signal.kind == SignalKind::GpuFound {
            self.clear(ClearOn::Policy, signal);
            self.fallbacks.retain(|fallback| {
                fallback.signal.kind != SignalKind::GpuLost || spares(signal, &fallback.signal)
            });
        }
        if floor::recovery_action(&signal.attrs) == Some(0) {
            self.clear(ClearOn::RecoveryNone, signal);
            self.fallbacks.retain(|fallback| {
                floor::recovery_action(&fallback.signal.attrs).is_none()
                    || spares(signal, &fallback.signal)
            });
        }
    }

    /// Something happened that clears: floors end that name it.
    fn clear(&mut self, event: ClearOn, by: &Signal) {
        self.standing.retain(|standing| {
            !standing.floor.clears.contains(&event) || spares(by, &standing.signal)
        });
        self.lowered.retain(|lowered| {
            !lowered.floor.clears.contains(&event) || spares(by, &lowered.signal)
        });
    }

    /// An event has ended what names it, of those that are from before it.
    pub(crate) fn end(&mut self, event: ClearOn, is_over: impl Fn(&Signal) -> bool) {
        let ends = |clears: &[ClearOn]| {
            let ended = recovery::ended_by(event);
            clears.iter().any(|on| ended.contains(on))
        };
        self.standing
            .retain(|standing| !(ends(standing.floor.clears) && is_over(&standing.signal)));
        self.lowered
            .retain(|lowered| !(ends(lowered.floor.clears) && is_over(&lowered.signal)));
        if ends(&FALLBACK_CLEARS) {
            self.fallbacks.retain(|fallback| !is_over(&fallback.signal));
        }
    }

    /// Instances are gone, with what is over by that.
    pub(crate) fn leave_instances(&mut self, is_over: impl Fn(&Signal) -> bool) {
        self.fallbacks.retain(|fallback| !is_over(&fallback.signal));
        // A floor is the GPU's, whichever instance a double-bit error that demands it was on.
    }

    /// The floor that is shown, demanded by `cause`, is over; `reason` where that is not known any more.
    pub(crate) fn end_floor(&mut self, cause: Option<SignalSeq>, reason: &str) {
        let standing = self.standing.iter().map(|standing| &standing.signal);
        let mut signals = standing.chain(self.lowered.iter().map(|lowered| &lowered.signal));
        let is_known = signals.any(|signal| Some(signal.seq) == cause);
        let is_it = |signal: &Signal, of: &str| {
            if is_known {
                Some(signal.seq) == cause
            } else {
                of == reason
            }
        };
        self.standing
            .retain(|standing| !is_it(&standing.signal, standing.floor.reason));
        self.lowered
            .retain(|lowered| !is_it(&lowered.signal, lowered.floor.reason));
    }

    /// What is assumed of `cause` is over; where that is not known any more, all that is assumed. Says what it
    /// was assumed of.
    pub(crate) fn end_assumed(&mut self, cause: Option<SignalSeq>) -> Vec<Signal> {
        let is_it = |fallback: &Assumed| Some(fallback.signal.seq) == cause;
        let is_known = self.fallbacks.iter().any(is_it);
        let ended = |fallback: &mut Assumed| !is_known || is_it(fallback);
        let ended = self.fallbacks.extract_if(.., ended);
        ended.map(|fallback| fallback.signal).collect()
    }

    /// The incidents that something stands for here.
    pub(crate) fn incidents(&self) -> Vec<IncidentId> {
        let standing = self.standing.iter().map(|standing| &standing.signal);
        let assumed = self.fallbacks.iter().map(|fallback| &fallback.signal);
        standing
            .chain(assumed)
            .map(|signal| signal.incident)
            .collect()
    }

    pub(super) fn fallback_clears() -> Vec<Clear> {
        FALLBACK_CLEARS.map(Clear::on).to_vec()
    }
}

/// Whether `by` leaves the other alone.
fn spares(by: &Signal, other: &Signal) -> bool {
    by.drill && !other.drill
}
