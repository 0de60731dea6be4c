//! Takes the state of `poison-writer` over, whose name and schema it has, and panics at what is in it.
//!
//! Must come of it: `trap`, where there is such a state; the bundled policies' states are their own.

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

    #[expect(clippy::expect_used, reason = "what it is for")]
    fn evaluate(&self, call: &mut Call<'_>) -> Result<Decision, String> {
        let Some(known) = call.host.get("how-much") else {
            return Ok(call.each(Me::ok));
        };
        let text = String::from_utf8(known).expect("a state is text");
        Ok(call.each(|me, signal| me.problem(signal).message(text.clone())))
    }
}
