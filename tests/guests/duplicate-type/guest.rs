//! Declares a condition type its own that a bundled policy owns.
//!
//! Must come of it: refused at load, naming the type and both policies.

use device_policy_sdk::Info;

use crate::{Hostile, Me};

#[derive(Default)]
pub(crate) struct Guest;

impl Hostile for Guest {
    fn configure(&self, me: &Me, _: &str) -> Result<Info, String> {
        Ok(me.ordinary().owns("XidCriticalError", true, &["Recovered"]))
    }
}
