//! Accepts every configuration, an unusable one too, and fails when it should judge.
//!
//! Must come of it: `refused`, with its own words.

use device_policy_sdk::types::Decision;

use crate::{Call, Hostile};

#[derive(Default)]
pub(crate) struct Guest;

impl Hostile for Guest {
    fn evaluate(&self, _: &mut Call<'_>) -> Result<Decision, String> {
        Err("threshold: expected a number, found \"banana\"".to_owned())
    }
}
