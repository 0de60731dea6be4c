//! Wakes that stand while something waits.

use device_policy_sdk::types::Wake;

/// Sets the wake once something waits, cancels it once nothing does. What comes while another waits does not put it off.
pub(crate) fn while_waiting(name: &str, window_ms: u64, before: bool, now: bool) -> Option<Wake> {
    let after_ms = match (before, now) {
        (false, true) => window_ms,
        (true, false) => 0,
        (true, true) | (false, false) => return None,
    };
    Some(Wake {
        name: name.to_owned(),
        after_ms,
    })
}
