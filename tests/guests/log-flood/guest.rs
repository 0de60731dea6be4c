//! Writes 200 lines of a kilobyte at each signal.
//!
//! Must come of it: its own condition; some lines a second, and the number of those left out.

use device_policy_sdk::types::Decision;
use device_policy_sdk::{Info, Level};

use crate::{Call, Hostile, Me};

#[derive(Default)]
pub(crate) struct Guest;

impl Hostile for Guest {
    fn configure(&self, me: &Me, _: &str) -> Result<Info, String> {
        Ok(me.eager())
    }

    fn evaluate(&self, call: &mut Call<'_>) -> Result<Decision, String> {
        let line = "flood ".repeat(170);
        for _ in 0..200 {
            call.host.log(Level::Error, &line);
        }
        Ok(call.each(Me::problem))
    }
}
