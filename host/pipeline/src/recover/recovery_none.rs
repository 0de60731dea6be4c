//! The driver asks for no recovery action any more: that ends what names it, of policies too.

use std::sync::Arc;

use device_api_core::clock::WallTime;
use device_api_core::condition::{Condition, Owner};
use device_api_core::floor;
use device_api_core::recovery;
use device_api_core::signal::Signal;
use device_api_core::verdict::ClearOn;

use crate::recover::policy_of;
use crate::verdicts::cleared;

/// Clears what was raised before one of the signals that tell of it. A drill ends drills alone. Says whose word it was.
pub(crate) fn end(
    conditions: &mut [Condition],
    signals: &[Signal],
    now: WallTime,
) -> Vec<Arc<str>> {
    let mut owners = Vec::new();
    let told = signals
        .iter()
        .filter(|signal| floor::recovery_action(&signal.attrs) == Some(0));
    for signal in told {
        let ended = conditions.iter_mut().filter(|old| {
            old.is_problem()
                && matches!(old.owner, Owner::Policy(_))
                && recovery::ends(ClearOn::RecoveryNone, &old.clears)
                && old.cause < Some(signal.seq)
                && (old.drill || !signal.drill)
        });
        for old in ended {
            owners.extend(policy_of(old));
            let why = "Cleared: the driver asks for no recovery action any more.";
            *old = cleared(old, "RecoveryNone", why, now);
        }
    }
    owners
}
