//! Waits for a microsecond, again and again, without an end.
//!
//! Must come of it: `trap`, at the 4,097th call of the host.

use std::time::Duration;

use device_policy_sdk::types::Decision;

use crate::{Call, Hostile};

#[derive(Default)]
pub(crate) struct Guest;

impl Hostile for Guest {
    fn evaluate(&self, _: &mut Call<'_>) -> Result<Decision, String> {
        loop {
            std::thread::sleep(Duration::from_micros(1));
        }
    }
}
