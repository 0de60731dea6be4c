//! A GPU that was replaced is in the machine again: it is what it was when it left.

use device_api_core::clock::{BootTime, WallTime};
use device_api_core::condition::{self, Condition, GONE, Owner, find};
use device_api_core::verdict::{ClearOn, Judgement};

/// Takes the mark away. Says which conditions a quiet time clears, from now on: while it was away nobody could
/// hear of it.
pub(crate) fn mark(
    conditions: &mut Vec<Condition>,
    (boot, now): (BootTime, WallTime),
) -> Vec<(String, BootTime)> {
    if find(conditions, GONE).is_none_or(|gone| gone.state == Judgement::Ok) {
        return Vec::new();
    }
    let here = Condition::of_host(GONE, Judgement::Ok, "Found", now);
    condition::upsert(conditions, here);
    let problems = conditions
        .iter()
        .filter(|old| old.is_problem() && matches!(old.owner, Owner::Policy(_)));
    let quiet = problems.filter_map(|old| {
        let mut clears = old.clears.iter();
        let quiet = clears.find(|clear| clear.on == ClearOn::Quiet)?;
        Some((old.name().to_string(), boot.after(quiet.after)))
    });
    quiet.collect()
}
