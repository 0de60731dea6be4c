//! Changes its mind at each signal, 64 times in one decision.
//!
//! Must come of it: its own condition, the last word of each decision.

use device_policy_sdk::Info;
use device_policy_sdk::types::Decision;

use crate::{Call, Hostile, Me};

#[derive(Default)]
pub(crate) struct Guest;

impl Hostile for Guest {
    fn configure(&self, me: &Me, _: &str) -> Result<Info, String> {
        Ok(me.eager())
    }

    fn evaluate(&self, call: &mut Call<'_>) -> Result<Decision, String> {
        let mut decision = Decision::default();
        for (at, signal) in call.signals.iter().cycle().take(64).enumerate() {
            let even = (at as u64 + signal.seq).is_multiple_of(2);
            let verdict = if even {
                call.me.problem(signal)
            } else {
                call.me.ok(signal)
            };
            decision
                .verdicts
                .push(verdict.message(format!("{at}")).into());
        }
        Ok(decision)
    }
}
