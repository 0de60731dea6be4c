//! Judges a MIG instance, and a GPU, that are not on this node, as if they were instances of the one at
//! hand; 64 others at each signal.
//!
//! Must come of it: its own condition on the GPU at hand at most, and no other GPU, known or new.

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
            let kind = if at % 2 == 0 { "GPU" } else { "MIG" };
            let uuid = format!("{kind}-{:08x}-0000-0000-0000-{:012x}", at, signal.seq);
            decision
                .verdicts
                .push(call.me.problem(signal).instance(Some(&uuid)).into());
        }
        Ok(decision)
    }
}
