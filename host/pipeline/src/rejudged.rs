//! What a new version says of the journal, and what of it counts (design H6).
//!
//! It was judged on an empty state, by a version that was told of incidents only as far as the journal
//! goes back. So what it says may make more of what stands, but not less where it was not told all:
//!
//! - a problem that began before the journal is complete, that was raised on what is not in it (a timer,
//!   a reading), or that was told of since, stays as it is, by silence and by word;
//! - where the state is handed on, it is the state that knows of readings, timers, and what was found:
//!   verdicts on those are dropped, and so are those on what the policy has judged otherwise since;
//! - a quiet time runs from when the cause was last seen: where it is over, so is the problem.

use device_api_core::action::Platform;
use device_api_core::clock::{BootTime, WallTime};
use device_api_core::condition::{self, Condition, Owner};
use device_api_core::ids::DeviceUuid;
use device_api_core::policy::PolicyInfo;
use device_api_core::seating::Rejudgement;
use device_api_core::verdict::{ClearOn, Decision, Judgement, Verdict};

use crate::alike::is_incident;
use crate::journal::{Journal, is_news};
use crate::verdicts::cleared;

/// Reason of a condition that a new version of its policy does not call a problem.
const REJUDGED: &str = "Rejudged";

/// A rejudgement beside what stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rejudged<'a> {
    pub(crate) info: &'a PolicyInfo,
    pub(crate) judged: &'a Rejudgement,
    pub(crate) conditions: &'a [Condition],
    pub(crate) journal: &'a Journal,
    /// The policy goes on from what it remembers of the journal, and not from an earlier state.
    pub(crate) takes_state: bool,
    pub(crate) platform: Platform,
    pub(crate) now: BootTime,
}

impl Rejudged<'_> {
    /// What is to be written.
    pub(crate) fn said(&self) -> Decision {
        let mut said = self.judged.decision.clone();
        said.verdicts.retain(|verdict| {
            !self.is_quiet(verdict) && !self.is_the_states(verdict) && !self.is_stale(verdict)
        });
        if !self.takes_state {
            // Timers are handed on with the state.
            said.wakes.clear();
        }
        said
    }

    /// The policy's own problems that are over, as it was told of them and does not speak of them.
    pub(crate) fn over(&self, now: WallTime) -> Vec<Condition> {
        let owner = Owner::Policy(self.info.id.clone());
        let is_spoken_of = |standing: &Condition| {
            let mut verdicts = self.judged.decision.verdicts.iter();
            verdicts.any(|verdict| {
                *verdict.condition == *standing.type_
                    && verdict.instance.as_deref()
                        == standing.instance.as_ref().map(DeviceUuid::as_str)
                    && !self.is_quiet(verdict)
            })
        };
        let is_over = |standing: &&Condition| {
            standing.is_problem()
                && standing.owner.same(&owner)
                && self.info.owned(&standing.type_).is_some()
                && !is_spoken_of(standing)
                && self.was_told_of(standing)
                && self.journal.tells_of(standing)
        };
        let why = "The policy's new version does not call it a problem.";
        let over = self.conditions.iter().filter(is_over);
        over.map(|old| Condition {
            owner: owner.clone(),
            ..cleared(old, REJUDGED, why, now)
        })
        .collect()
    }

    /// Whether the problem's quiet time is over.
    fn is_quiet(&self, verdict: &Verdict) -> bool {
        let mut clears = verdict.clears.iter();
        let quiet = clears.find(|clear| clear.on == ClearOn::Quiet);
        let quiet = quiet.filter(|_| verdict.state == Judgement::Problem);
        let cause = self.journal.signal(verdict.cause);
        quiet
            .zip(cause)
            .is_some_and(|(quiet, (_, seen))| seen.after(quiet.after) <= self.now)
    }

    /// Whether the state that was handed on knows better.
    fn is_the_states(&self, verdict: &Verdict) -> bool {
        if self.takes_state {
            return false;
        }
        let cause = self.journal.signal(verdict.cause);
        let is_of_incident = cause.is_some_and(|(signal, _)| is_incident(signal.kind));
        let is_judged_since = |standing: &Condition| {
            standing.cause > Some(verdict.cause) && !self.journal.tells_of(standing)
        };
        !is_of_incident || self.standing(verdict).is_some_and(is_judged_since)
    }

    /// Whether a verdict makes less of a problem of which the new version was not told all.
    fn is_stale(&self, verdict: &Verdict) -> bool {
        let knows = |standing: &Condition| {
            self.was_told_of(standing)
                && (self.journal.tells_of(standing)
                    || self.takes_state && Some(verdict.cause) >= standing.cause)
        };
        self.standing(verdict).is_some_and(|standing| {
            standing.is_problem()
                && !knows(standing)
                && makes_less(verdict, standing, self.platform)
        })
    }

    fn was_told_of(&self, standing: &Condition) -> bool {
        self.journal.saw_begin(standing) && !is_news(standing, self.judged.revision)
    }

    fn standing(&self, verdict: &Verdict) -> Option<&Condition> {
        condition::find_on(
            self.conditions,
            &verdict.condition,
            verdict.instance.as_deref(),
        )
    }
}

/// Whether a verdict would make less of a problem that stands.
pub(crate) fn makes_less(verdict: &Verdict, standing: &Condition, platform: Platform) -> bool {
    let mut clears = verdict.clears.iter();
    verdict.state != Judgement::Problem
        || verdict.severity < standing.severity
        || verdict.action.on(platform) < standing.action
        || clears.any(|clear| !standing.clears.contains(clear))
}
