//! Answers with 1,000 verdicts: they fit into its memory and over the crossing.
//!
//! Must come of it: `invalid`, naming the limit of 64.

use device_policy_sdk::types::Decision;

use crate::{Call, Hostile};

#[derive(Default)]
pub(crate) struct Guest;

impl Hostile for Guest {
    fn evaluate(&self, call: &mut Call<'_>) -> Result<Decision, String> {
        let mut decision = Decision::default();
        for signal in call.signals.iter().cycle().take(1_000) {
            decision.verdicts.push(call.me.problem(signal).into());
        }
        Ok(decision)
    }
}
