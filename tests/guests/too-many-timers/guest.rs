//! Sets 10,000 timers in one decision.
//!
//! Must come of it: `invalid`, naming the limit.

use device_policy_sdk::types::{Decision, Wake};

use crate::{Call, Hostile};

#[derive(Default)]
pub(crate) struct Guest;

impl Hostile for Guest {
    fn evaluate(&self, _: &mut Call<'_>) -> Result<Decision, String> {
        let wakes = (0..10_000)
            .map(|at| Wake {
                name: format!("{at}"),
                after_ms: 1,
            })
            .collect();
        Ok(Decision {
            wakes,
            ..Decision::default()
        })
    }
}
