//! Declares each GPU dead that it hears of, be it for a degree of temperature.
//!
//! Must come of it: held (design H9). Where an operator accepts it, its own condition, on each GPU; the
//! others' conditions stand as they are.

use device_policy_sdk::types::{Decision, Severity};
use device_policy_sdk::verdict::problem;
use device_policy_sdk::{Info, action, clear, kind, subscribe};

use crate::{Call, Hostile, Me};

#[derive(Default)]
pub(crate) struct Guest;

impl Hostile for Guest {
    fn configure(&self, me: &Me, _: &str) -> Result<Info, String> {
        Ok(me.eager().subscribe(subscribe::all(kind::GPU_FOUND)))
    }

    fn evaluate(&self, call: &mut Call<'_>) -> Result<Decision, String> {
        Ok(call.each(|me, signal| {
            problem(&me.condition, Severity::Fatal, "Hostile", signal)
                .message("it is dead")
                .action(action::REPLACE_VM)
                .clears(&[clear::POLICY])
        }))
    }
}
