//! What the log has of policies that give no decision: each cause at once, and then how often, once a minute.
//!
//! How often a policy fails is up to the policy and to the faults of its GPUs: a line for each would fill the
//! disk of a node in a storm. What is left out is counted, and that is said in the next line of the same cause,
//! or, where there is none, when the minute is over.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use device_api_core::clock::BootTime;
use device_api_core::ids::DeviceUuid;
use device_api_core::limits;
use device_api_core::policy::{FailureKind, PolicyFailure};

use crate::pipeline::{Shared, State};
use crate::seats::Seat;

/// Between two lines about one cause: what goes wrong for good is seen in the last page of a log, and is not
/// all of it.
const INTERVAL: Duration = Duration::from_mins(1);

/// Causes of one policy that are told apart: texts may be at random. Past it, those of a kind are one.
const CAUSES_MAX: usize = 8;

/// Why a policy fails: its words without the numbers in them. `None`: whichever, there are too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cause {
    kind: FailureKind,
    /// Of drills alone, which keep no line from what is real.
    drill: bool,
    words: Option<u64>,
}

impl Cause {
    fn of(failure: &PolicyFailure, drill: bool) -> Self {
        let mut hasher = DefaultHasher::new();
        for byte in failure.detail.bytes().filter(|byte| !byte.is_ascii_digit()) {
            byte.hash(&mut hasher);
        }
        Self {
            kind: failure.kind,
            drill,
            words: Some(hasher.finish()),
        }
    }
}

#[derive(Debug)]
struct Told {
    cause: Cause,
    policy: Arc<str>,
    since: BootTime,
    left_out: u64,
    /// The last that was left out.
    failure: String,
}

/// What was left out, to be told of by itself.
#[derive(Debug, PartialEq, Eq)]
struct LeftOut {
    policy: Arc<str>,
    drill: bool,
    failure: String,
    suppressed: u64,
}

impl LeftOut {
    fn tell(self) {
        let Self {
            policy,
            drill,
            failure,
            suppressed,
        } = self;
        tracing::warn!(%policy, failure, drill, suppressed, "policy gave no decision, so often without a line");
    }
}

/// What was told of each seat.
#[derive(Debug)]
pub(crate) struct Complaints {
    seats: [Vec<Told>; limits::POLICIES_MAX],
}

impl Default for Complaints {
    fn default() -> Self {
        Self {
            seats: std::array::from_fn(|_| Vec::new()),
        }
    }
}

impl Complaints {
    /// Whether there is a line for it; then how many were left out before.
    fn admit(
        &mut self,
        (at, policy): (usize, &Arc<str>),
        (failure, drill): (&PolicyFailure, bool),
        now: BootTime,
    ) -> Option<u64> {
        let told = self.seats.get_mut(at)?;
        let mut cause = Cause::of(failure, drill);
        let is_new = |told: &[Told], cause| !told.iter().any(|told| told.cause == cause);
        if is_new(told, cause) && told.len() >= CAUSES_MAX {
            cause.words = None;
        }
        let Some(known) = told.iter_mut().find(|told| told.cause == cause) else {
            told.push(Told {
                cause,
                policy: policy.clone(),
                since: now,
                left_out: 0,
                failure: String::new(),
            });
            return Some(0);
        };
        if now.since(known.since) < INTERVAL {
            known.left_out = known.left_out.saturating_add(1);
            known.failure = failure.to_string();
            return None;
        }
        known.since = now;
        Some(std::mem::take(&mut known.left_out))
    }

    /// What is to be told by itself, as its minute is over. What is quiet for one is forgotten.
    fn overdue(&mut self, now: BootTime) -> Vec<LeftOut> {
        let mut overdue = Vec::new();
        for told in &mut self.seats {
            told.retain_mut(|told| {
                if now.since(told.since) < INTERVAL {
                    return true;
                }
                let left_out = told.take_left_out();
                told.since = now;
                let is_quiet = left_out.is_none();
                overdue.extend(left_out);
                !is_quiet
            });
        }
        overdue
    }

    /// Another has that seat now: of it all is news.
    fn close(&mut self, at: usize) -> Vec<LeftOut> {
        let told = self.seats.get_mut(at).map(std::mem::take);
        let told = told.into_iter().flatten();
        told.filter_map(|mut told| told.take_left_out()).collect()
    }
}

impl Told {
    fn take_left_out(&mut self) -> Option<LeftOut> {
        (self.left_out > 0).then(|| LeftOut {
            policy: self.policy.clone(),
            drill: self.cause.drill,
            failure: std::mem::take(&mut self.failure),
            suppressed: std::mem::take(&mut self.left_out),
        })
    }
}

impl Shared {
    /// A policy gave no decision on something of this GPU.
    pub(crate) fn complain(
        &self,
        state: &mut State,
        uuid: &DeviceUuid,
        (at, seat): (usize, &Seat),
        (failure, drill): (&PolicyFailure, bool),
    ) {
        let (policy, now) = (seat.name(), self.clock.boot());
        if let Some(suppressed) = state.complaints.admit((at, policy), (failure, drill), now) {
            tracing::warn!(%policy, gpu = %uuid, %failure, drill, fallback = %seat.terms().fallback, suppressed, "policy gave no decision");
        }
    }

    /// Tells of what was left out, where it is time.
    pub(crate) fn complain_in_time(&self, state: &mut State) {
        for left_out in state.complaints.overdue(self.clock.boot()) {
            left_out.tell();
        }
    }

    /// A seat changes hands.
    pub(crate) fn end_complaints(&self, state: &mut State, at: usize) {
        for left_out in state.complaints.close(at) {
            left_out.tell();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(kind: FailureKind, detail: &str) -> PolicyFailure {
        PolicyFailure {
            kind,
            detail: detail.to_owned(),
        }
    }

    #[test]
    fn h2_a_cause_is_told_at_once_and_then_counted() {
        let (mut complaints, start) = (Complaints::default(), BootTime::default());
        let policy: Arc<str> = "p".into();
        let trap = |n: u32| failure(FailureKind::Trap, &format!("at {n}"));
        let lines =
            (0..10_000).filter_map(|n| complaints.admit((3, &policy), (&trap(n), false), start));
        assert_eq!(
            lines.collect::<Vec<_>>(),
            [0],
            "numbers make no other cause"
        );
        let other = failure(FailureKind::Deadline, "at 1");
        assert_eq!(
            complaints.admit((3, &policy), (&other, false), start),
            Some(0)
        );
        assert_eq!(
            complaints.admit((4, &policy), (&other, false), start),
            Some(0)
        );
        let drill = complaints.admit((3, &policy), (&trap(0), true), start);
        assert_eq!(drill, Some(0), "a drill is not what is real");
        assert_eq!(complaints.overdue(start), [], "it is not time");

        let later = start.after(INTERVAL);
        assert_eq!(
            complaints.admit((3, &policy), (&trap(0), false), later),
            Some(9_999)
        );
        assert_eq!(
            complaints.admit((3, &policy), (&trap(7), false), later),
            None
        );
        let later = later.after(INTERVAL);
        let left_out = LeftOut {
            policy: policy.clone(),
            drill: false,
            failure: trap(7).to_string(),
            suppressed: 1,
        };
        assert_eq!(complaints.overdue(later), [left_out]);
        assert_eq!(complaints.overdue(later.after(INTERVAL)), []);
        assert!(complaints.seats.iter().all(Vec::is_empty), "all is quiet");
    }

    #[test]
    fn h2_texts_at_random_are_one_cause_past_the_bound() {
        let (mut complaints, now) = (Complaints::default(), BootTime::default());
        let policy: Arc<str> = "p".into();
        let mut admit = |n: usize, kind| {
            let text = failure(kind, &"x".repeat(n));
            complaints.admit((0, &policy), (&text, false), now)
        };
        for kind in FailureKind::ALL {
            for n in 0..1000 {
                admit(n, kind);
            }
        }
        let told = &complaints.seats[0];
        assert_eq!(told.len(), CAUSES_MAX + FailureKind::ALL.len());
        let left_out: u64 = complaints.close(0).iter().map(|it| it.suppressed).sum();
        let all = 1000 * FailureKind::ALL.len() as u64;
        assert_eq!(left_out, all - (CAUSES_MAX + FailureKind::ALL.len()) as u64);
        assert_eq!(
            complaints.admit((0, &policy), (&failure(FailureKind::Trap, ""), false), now),
            Some(0)
        );
    }
}
