//! Declares a problem that nothing can clear.
//!
//! Must come of it: `invalid`.

use device_policy_sdk::types::{Decision, Severity};
use device_policy_sdk::verdict::problem;

use crate::{Call, Hostile};

#[derive(Default)]
pub(crate) struct Guest;

impl Hostile for Guest {
    fn evaluate(&self, call: &mut Call<'_>) -> Result<Decision, String> {
        Ok(call.each(|me, signal| problem(&me.condition, Severity::Fatal, "Hostile", signal)))
    }
}
