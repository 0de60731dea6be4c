//! What ends floors and assumptions (design N7, H8).

use device_api_core::floor::{self, Floor};
use device_api_core::ids::{IncidentId, SignalSeq};
use device_api_core::recovery;
use device_api_core::signal::{Signal, SignalKind};
use device_api_core::verdict::{Clear, ClearOn};

use super::{Assumed, Floors, is_alike};

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
        let is_over = |other: &Signal| other.drill || !signal.drill;
        if signal.kind == SignalKind::GpuFound {
            self.end(ClearOn::Policy, is_over);
        }
        if floor::asks_for_nothing(signal.kind, signal.code, &signal.attrs) {
            self.end(ClearOn::RecoveryNone, is_over);
        }
    }

    /// That it did not answer is over: it is not there.
    pub(crate) fn end_loss(&mut self) {
        self.end_those(|_, signal| signal.kind == SignalKind::GpuLost);
    }

    /// An event has ended what names it, of those that are over by it.
    pub(crate) fn end(&mut self, event: ClearOn, is_over: impl Fn(&Signal) -> bool) {
        self.end_those(|floor, signal| is_named(event, floor, signal) && is_over(signal));
    }

    /// Whether an event would end something.
    pub(crate) fn is_ended(&self, event: ClearOn, is_over: impl Fn(&Signal) -> bool) -> bool {
        let mut all = self.demanded().map(|(floor, signal)| (Some(floor), signal));
        let mut assumed = self.fallbacks.iter().map(|assumed| (None, &assumed.signal));
        let ends = |(floor, signal)| is_named(event, floor, signal) && is_over(signal);
        all.any(ends) || assumed.any(ends)
    }

    /// Instances are gone, with what is over by that. A floor is the GPU's, whichever instance a double-bit error
    /// that demands it was on.
    pub(crate) fn leave_instances(&mut self, is_over: impl Fn(&Signal) -> bool) {
        self.end_those(|floor, signal| floor.is_none() && is_over(signal));
    }

    /// The fault is over whose floor is shown, demanded by `cause`.
    pub(crate) fn end_floor(&mut self, cause: Option<SignalSeq>) {
        let shown = {
            let mut signals = self.demanded().map(|(_, signal)| signal);
            signals.find(|signal| Some(signal.seq) == cause).cloned()
        };
        let Some(shown) = shown else { return };
        self.end_those(|floor, signal| {
            floor.is_some() && is_alike(signal, &shown) && signal.incident == shown.incident
        });
    }

    /// Floors that stand or are lowered, each with its signal.
    fn demanded(&self) -> impl Iterator<Item = (&Floor, &Signal)> {
        let standing = self.standing.iter();
        let standing = standing.map(|standing| (&standing.floor, &standing.signal));
        let lowered = self.lowered.iter();
        standing.chain(lowered.map(|lowered| (&lowered.floor, &lowered.signal)))
    }

    /// Ends floors, and with no floor assumptions.
    fn end_those(&mut self, is_over: impl Fn(Option<&Floor>, &Signal) -> bool) {
        self.standing
            .retain(|standing| !is_over(Some(&standing.floor), &standing.signal));
        self.lowered
            .retain(|lowered| !is_over(Some(&lowered.floor), &lowered.signal));
        self.fallbacks
            .retain(|fallback| !is_over(None, &fallback.signal));
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

/// Whether an event ends this floor, or, with none, what is assumed of the signal.
fn is_named(event: ClearOn, floor: Option<&Floor>, signal: &Signal) -> bool {
    let ended = recovery::ended_by(event);
    match (floor, event) {
        (Some(floor), _) => floor.clears.iter().any(|on| ended.contains(on)),
        // It answers; the rest is for the policies to judge.
        (None, ClearOn::Policy) => signal.kind == SignalKind::GpuLost,
        (None, ClearOn::RecoveryNone) => floor::name(signal) == Some(floor::RECOVERY_ACTION),
        (None, _) => FALLBACK_CLEARS.iter().any(|on| ended.contains(on)),
    }
}
