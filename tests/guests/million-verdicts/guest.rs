//! Answers with a million verdicts, or as many as its memory holds.
//!
//! Must come of it: `trap`, naming the limit of linear memory.

use device_policy_sdk::types::Decision;

use crate::{Call, Hostile};

#[derive(Default)]
pub(crate) struct Guest;

impl Hostile for Guest {
    fn evaluate(&self, call: &mut Call<'_>) -> Result<Decision, String> {
        let mut decision = Decision::default();
        for signal in call.signals.iter().cycle().take(1_000_000) {
            decision.verdicts.push(call.me.problem(signal).into());
        }
        Ok(decision)
    }
}
