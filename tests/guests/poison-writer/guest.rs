//! Leaves a state behind that the next version of it (`poison-heir`) can't read.
//!
//! Must come of it: its own condition; what it wrote is its own.

use device_policy_sdk::Info;
use device_policy_sdk::types::Decision;

use crate::{Call, Hostile, Me};

#[derive(Default)]
pub(crate) struct Guest;

impl Hostile for Guest {
    fn configure(&self, me: &Me, _: &str) -> Result<Info, String> {
        let name = "poison".to_owned();
        Ok(Me {
            name,
            condition: me.condition.clone(),
        }
        .eager())
    }

    fn evaluate(&self, call: &mut Call<'_>) -> Result<Decision, String> {
        call.host.put("how-much", b"\xff\xff not a number")?;
        Ok(call.each(Me::problem))
    }
}
