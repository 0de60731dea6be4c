//! Answers a signal that it was not given.
//!
//! Must come of it: `invalid`, naming the number.

use device_policy_sdk::types::{Decision, Verdict};

use crate::{Call, Hostile, Me};

#[derive(Default)]
pub(crate) struct Guest;

impl Hostile for Guest {
    fn evaluate(&self, call: &mut Call<'_>) -> Result<Decision, String> {
        let mut decision = call.each(Me::problem);
        decision
            .verdicts
            .iter_mut()
            .for_each(|verdict: &mut Verdict| verdict.cause = u64::MAX);
        Ok(decision)
    }
}
