//! Behaves for three calls and panics at the fourth: each new instance looks fine.
//!
//! Must come of it: `trap`, now and then; its own condition in between.

use std::cell::Cell;

use device_policy_sdk::types::Decision;

use crate::{Call, Hostile, Me};

const GOOD_CALLS: u32 = 3;

#[derive(Default)]
pub(crate) struct Guest {
    calls: Cell<u32>,
}

impl Hostile for Guest {
    #[expect(clippy::panic, reason = "what it is for")]
    fn evaluate(&self, call: &mut Call<'_>) -> Result<Decision, String> {
        self.calls.set(self.calls.get() + 1);
        if self.calls.get() > GOOD_CALLS {
            panic!("enough is enough");
        }
        Ok(call.each(Me::problem))
    }
}
