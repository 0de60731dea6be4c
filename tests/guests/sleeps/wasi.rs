//! Sleeps for an hour, ten times, before it answers.
//!
//! Must come of it: its own condition, at once: a wait ends when it begins.

use std::time::Duration;

use device_policy_sdk::types::Decision;

use crate::{Call, Hostile, Me};

#[derive(Default)]
pub(crate) struct Guest;

impl Hostile for Guest {
    fn evaluate(&self, call: &mut Call<'_>) -> Result<Decision, String> {
        for _ in 0..10 {
            std::thread::sleep(Duration::from_hours(1));
        }
        Ok(call.each(Me::problem))
    }
}
