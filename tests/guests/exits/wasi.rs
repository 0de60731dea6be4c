//! Ends the process, as it thinks.
//!
//! Must come of it: `trap`; it is in no process of its own.

use device_policy_sdk::types::Decision;

use crate::{Call, Hostile};

#[derive(Default)]
pub(crate) struct Guest;

impl Hostile for Guest {
    fn evaluate(&self, _: &mut Call<'_>) -> Result<Decision, String> {
        std::process::exit(0)
    }
}
