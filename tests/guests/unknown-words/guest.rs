//! Says actions and clears that nobody knows, 64 others at each signal, each to be warned about.
//!
//! Must come of it: its own condition, read as `CONTACT_SUPPORT`; the warnings are limited a second.

use device_policy_sdk::Info;
use device_policy_sdk::types::{Clear, Decision, Verdict};

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
            let mut verdict: Verdict = call
                .me
                .problem(signal)
                .action(&format!("DANCE_{at}"))
                .into();
            let clear = |at| Clear {
                on: format!("new-moon-{at}"),
                after_ms: u64::MAX,
            };
            verdict.clears = (0..8).map(clear).collect();
            decision.verdicts.push(verdict);
        }
        Ok(decision)
    }
}
