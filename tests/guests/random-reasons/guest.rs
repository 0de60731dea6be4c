//! Gives another reason each time, none of which it declared: each would be a metric label.
//!
//! Must come of it: `invalid`, naming the reason.

use device_policy_sdk::clear;
use device_policy_sdk::types::{Decision, Severity};
use device_policy_sdk::verdict::problem;

use crate::{Call, Hostile};

#[derive(Default)]
pub(crate) struct Guest;

impl Hostile for Guest {
    fn evaluate(&self, call: &mut Call<'_>) -> Result<Decision, String> {
        Ok(call.each(|me, signal| {
            let reason = format!("Because{}", signal.seq.wrapping_mul(0x9E37_79B9_7F4A_7C15));
            problem(&me.condition, Severity::Warning, &reason, signal).clears(&[clear::POLICY])
        }))
    }
}
