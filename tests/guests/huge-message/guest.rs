//! A message of a mebibyte less a bit, of four-byte characters, for each signal.
//!
//! Must come of it: its own condition, its message cut.

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
        let message = "\u{1f525}".repeat(200_000);
        let signal = call.signals.first().ok_or("no signal")?;
        let verdicts = vec![call.me.problem(signal).message(message).into()];
        Ok(Decision {
            verdicts,
            ..Decision::default()
        })
    }
}
