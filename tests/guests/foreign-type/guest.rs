//! Says that a condition which another policy owns is fine.
//!
//! Must come of it: `invalid`, naming the type; the other's condition stands.

use device_policy_sdk::types::Decision;
use device_policy_sdk::verdict::ok;

use crate::{Call, Hostile};

#[derive(Default)]
pub(crate) struct Guest;

impl Hostile for Guest {
    fn evaluate(&self, call: &mut Call<'_>) -> Result<Decision, String> {
        Ok(call.each(|_, signal| ok("XidCriticalError", "Recovered", signal)))
    }
}
