//! Conditions whose policy has left, or does not own their type any more (design H6).
//!
//! A problem stays one until it is cleared, or an owner writes it, and is marked `OwnerGone` while it has
//! none. What was fine, or unknown, is Unknown, and does not count: that a policy left makes no GPU's
//! health unknown that others judge.

use device_api_core::clock::WallTime;
use device_api_core::condition::{Condition, Owner};
use device_api_core::message;
use device_api_core::policy::PolicyInfo;
use device_api_core::verdict::Judgement;

use crate::seats::Bench;

/// Reason of a condition whose policy is gone, or owns its type no more.
const OWNER_GONE: &str = "OwnerGone";

/// Marks what stands of policies that have no seat, or do not own its type.
pub(crate) fn mark(conditions: &mut [Condition], bench: &Bench, now: WallTime) {
    mark_of(conditions, bench, now, |_| true);
}

/// The same, of those policies that are meant.
pub(crate) fn mark_of(
    conditions: &mut [Condition],
    bench: &Bench,
    now: WallTime,
    is_meant: impl Fn(&str) -> bool,
) {
    for condition in conditions {
        let Owner::Policy(id) = &condition.owner else {
            continue;
        };
        if !is_meant(&id.name)
            || bench.owns(&id.name, &condition.type_)
            || condition.reason == OWNER_GONE
        {
            continue;
        }
        if condition.state == Judgement::Ok {
            condition.state = Judgement::Unknown;
            condition.transition = now;
        }
        if condition.state == Judgement::Unknown {
            condition.counted = false;
        }
        condition.message = message::last_said(condition);
        OWNER_GONE.clone_into(&mut condition.reason);
    }
}

/// A policy has its seat again: its problems say again what they said.
pub(crate) fn unmark(conditions: &mut [Condition], owner: &PolicyInfo) {
    let own = Owner::Policy(owner.id.clone());
    for condition in conditions {
        if condition.reason != OWNER_GONE
            || !condition.is_problem()
            || !condition.owner.same(&own)
            || owner.owned(&condition.type_).is_none()
        {
            continue;
        }
        if let Some((reason, said)) = message::said_before(&condition.message) {
            (condition.reason, condition.message) = (reason.to_owned(), said.to_owned());
        }
    }
}
