//! Asks for the time a million times: cheap calls, which no deadline interrupts while in the host.
//!
//! Must come of it: `trap`, at the 4,097th.

use std::hint::black_box;

use device_policy_sdk::types::Decision;

use crate::{Call, Hostile};

#[derive(Default)]
pub(crate) struct Guest;

impl Hostile for Guest {
    fn evaluate(&self, call: &mut Call<'_>) -> Result<Decision, String> {
        for _ in 0..1_000_000 {
            black_box(call.host.now_ms());
        }
        Ok(Decision::default())
    }
}
