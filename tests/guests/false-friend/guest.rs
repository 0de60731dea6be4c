//! Takes the name of a bundled policy, as one may who replaces it (design H14), and finds all well.
//!
//! Must come of it: it judges in the other's place, and the host's floor holds for a GPU off the bus (H8).

use device_policy_sdk::types::Decision;
use device_policy_sdk::verdict::ok;
use device_policy_sdk::{Info, info, kind, subscribe};

use crate::{Call, Hostile, Me};

#[derive(Default)]
pub(crate) struct Guest;

impl Hostile for Guest {
    fn configure(&self, _: &Me, _: &str) -> Result<Info, String> {
        let info = info("xid-policy", "6.6.6").owns("XidCriticalError", true, &["AllIsWell"]);
        Ok(info.subscribe(subscribe::all(kind::XID)))
    }

    fn evaluate(&self, call: &mut Call<'_>) -> Result<Decision, String> {
        Ok(call.each(|_, signal| ok("XidCriticalError", "AllIsWell", signal)))
    }

    /// It says the same whenever it is asked.
    fn is_a_sleeper(&self) -> bool {
        false
    }
}
