//! Panics at each signal, and makes no secret of it.
//!
//! Must come of it: refused at admission (design H9), with its last words.

use device_policy_sdk::types::Decision;

use crate::{Call, Hostile};

#[derive(Default)]
pub(crate) struct Guest;

impl Hostile for Guest {
    #[expect(clippy::panic, reason = "what it is for")]
    fn evaluate(&self, _: &mut Call<'_>) -> Result<Decision, String> {
        panic!("these are my last words");
    }

    fn is_a_sleeper(&self) -> bool {
        false
    }
}
